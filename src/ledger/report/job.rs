//! What a ledger knows of a job.

use crate::{
    ledger::{
        Database, Ledger,
        handle::on_database,
        writer::{JobRows, JobStatus},
    },
    quota::{Amounts, QuotaError},
};

/// A job in a [`Ledger`](crate::Ledger).
///
/// ```no_run
/// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
/// use tollgate::JobStanding;
/// match ledger.job("acme", "order 17").await? {
///     Some(job) if job.standing == JobStanding::Charged => println!("charged: {:?}", job.amounts),
///     Some(job) => println!("{:?}", job.standing),
///     None => println!("nobody has asked for it, or it was refused"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerJob {
    /// What is charged or set aside for it: of each kind as much as one of its limits counts.
    pub amounts: Amounts,
    /// How far it has come.
    pub standing: JobStanding,
    /// How often it was given back before.
    pub attempt: u32,
}

/// How far a job in a ledger has come.
///
/// ```
/// assert_ne!(tollgate::JobStanding::Charged, tollgate::JobStanding::Reserved);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStanding {
    /// It is charged.
    Charged,
    /// Something is set aside for it, and not settled.
    Reserved,
    /// Everything went back: its id is free.
    GivenBack,
    /// What was set aside was not settled in time.
    Expired,
}

impl Ledger {
    /// What is known of a tenant's job, by its id as it was sent; `None` where it was never charged.
    ///
    /// # Errors
    /// When the database does not answer.
    ///
    /// ```no_run
    /// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
    /// assert!(ledger.job("acme", "order 18").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn job(&self, tenant: &str, job: &str) -> Result<Option<LedgerJob>, QuotaError> {
        let rows = on_database!(self, inner => inner.read(inner.writer.database.job(tenant, job)).await)?;
        let dossier = JobRows(&rows);
        let Some(attempt) = dossier.latest() else { return Ok(None) };
        let standing = match dossier.standing(attempt) {
            JobStatus::Open => JobStanding::Reserved,
            JobStatus::Voided => JobStanding::GivenBack,
            JobStatus::Expired => JobStanding::Expired,
            JobStatus::Charged | JobStatus::Committed | JobStatus::Late => JobStanding::Charged,
            JobStatus::Unknown => return Ok(None),
        };
        Ok(Some(LedgerJob { amounts: dossier.amounts(attempt), standing, attempt }))
    }
}
