//! The state of a job in a ledger.

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
///     None => println!("never charged, or refused"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerJob {
    /// Amounts charged or reserved for the job; of each kind as much as one of its limits counts.
    pub amounts: Amounts,
    /// State of the job.
    pub standing: JobStanding,
    /// Number of earlier attempts that were voided.
    pub attempt: u32,
    /// Whether the job is charged and its work has no recorded end: it is under way, or its outcome is unknown.
    /// [`Quotas::settle_job`](crate::Quotas::settle_job) settles the latter.
    pub unfinished: bool,
}

/// State of a job in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStanding {
    /// The job is charged.
    Charged,
    /// An amount is reserved for the job and not settled.
    Reserved,
    /// The job was voided; its id is free.
    Voided,
    /// The reservation of the job expired.
    Expired,
}

impl Ledger {
    /// Returns the state of a tenant's job, by the id as it was sent; `None` if the job was never charged.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn job(&self, tenant: &str, job: &str) -> Result<Option<LedgerJob>, QuotaError> {
        let known = on_database!(self, inner => inner.read(inner.writer.database.job(tenant, job)).await)?;
        let job_rows = JobRows(&known.rows);
        let Some(attempt) = job_rows.latest() else { return Ok(None) };
        let standing = match job_rows.status(attempt) {
            JobStatus::Open => JobStanding::Reserved,
            JobStatus::Voided => JobStanding::Voided,
            JobStatus::Expired => JobStanding::Expired,
            JobStatus::Charged | JobStatus::Committed | JobStatus::Late => JobStanding::Charged,
            JobStatus::Unknown => return Ok(None),
        };
        let unfinished = known.unfinished.iter().any(|job| job.attempt == attempt);
        Ok(Some(LedgerJob { amounts: job_rows.amounts(attempt), standing, attempt, unfinished }))
    }
}
