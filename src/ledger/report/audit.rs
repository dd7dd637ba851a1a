//! Reports: rows, past usage, and the comparison of counters with their rows.

use std::{collections::VecDeque, fmt, time::SystemTime};

use super::LedgerEntry;
use crate::{
    ledger::{Database, Ledger, handle::on_database},
    quota::QuotaError,
    time::{Instant, since_1970},
};

/// Rows of a tenant between two times, read page by page.
///
/// ```no_run
/// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
/// use std::time::SystemTime;
/// let mut entries = ledger.entries("acme", SystemTime::UNIX_EPOCH, SystemTime::now());
/// while let Some(entry) = entries.next().await? {
///     println!("{entry}"); // a line of JSON
/// }
/// # Ok(())
/// # }
/// ```
pub struct Entries {
    ledger: Ledger,
    tenant: String,
    /// The time and the id of the last row that was read.
    from: u64,
    after: i64,
    until: u64,
    read: VecDeque<LedgerEntry>,
    ended: bool,
}

/// Number of rows that one query reads.
const AT_ONCE: usize = 1_000;

impl Entries {
    /// Returns the next row; `None` after the last.
    ///
    /// # Errors
    /// If the database does not answer; the call can be repeated.
    ///
    /// # Cancel safety
    /// A future that is dropped before it is ready loses no row.
    pub async fn next(&mut self) -> Result<Option<LedgerEntry>, QuotaError> {
        if self.read.is_empty() && !self.ended {
            let Self { tenant, from, until, after, .. } = self;
            let rows = on_database!(self.ledger, inner => {
                inner.read(inner.writer.database.entries(tenant, *from, *until, *after, AT_ONCE)).await
            })?;
            self.ended = rows.len() < AT_ONCE;
            if let Some((last, at, _)) = rows.last() {
                (self.from, self.after) = (*at, *last);
            }
            self.read.extend(rows.into_iter().map(|(id, at, row)| LedgerEntry::of(id, at, row)));
        }
        Ok(self.read.pop_front())
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Usage of a limit at a past time.
///
/// ```no_run
/// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
/// use std::time::{Duration, SystemTime};
/// for past in ledger.usage_at("acme", SystemTime::now() - Duration::from_secs(3_600)).await? {
///     println!("{}: {}", past.limit, past.used);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PastUsage {
    /// Name of the limit.
    pub limit: String,
    /// Kind that the limit counts.
    pub kind: String,
    /// Period in which the limit counts, such as `month`; empty if an earlier version wrote it.
    pub period: String,
    /// Start of the period that was open.
    pub window_start: SystemTime,
    /// Amount that was used or reserved by then.
    pub used: u64,
}

/// Comparison of the counters of a ledger with the sums of its rows.
///
/// ```no_run
/// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
/// let report = ledger.reconcile().await?;
/// if !report.drifts.is_empty() {
///     eprintln!("alert: {report}");
///     ledger.repair(&report).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReconcileReport {
    /// Number of counters that were compared.
    pub compared: u64,
    /// Counters that differ from the sum of their rows, at most 1,000.
    pub drifts: Vec<Drift>,
}

/// A counter that differs from the sum of its rows.
///
/// ```no_run
/// # fn example(drift: tollgate::Drift) {
/// println!("{}: counted {:?}, written {}", drift.tenant, drift.counted, drift.written);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drift {
    /// Tenant of the account.
    pub tenant: String,
    /// Name of the limit.
    pub limit: String,
    /// Kind that the limit counts.
    pub kind: String,
    /// Period in which the limit counts, such as `month`; empty if an earlier version wrote it.
    pub period: String,
    /// Start of the period.
    pub window_start: SystemTime,
    /// Used and reserved amount of the counter; `None` if there is no counter.
    pub counted: Option<i64>,
    /// Sum of the rows.
    pub written: i64,
}

/// Number of drifts that one report lists.
const MOST_DRIFTS: usize = 1_000;

impl Ledger {
    /// Returns the rows of a tenant written in `from..until`, ordered by time and id.
    #[must_use]
    pub fn entries(&self, tenant: &str, from: SystemTime, until: SystemTime) -> Entries {
        let (ledger, tenant, read) = (self.clone(), tenant.into(), VecDeque::new());
        Entries { ledger, tenant, from: since_1970(from), after: 0, until: since_1970(until), read, ended: false }
    }

    /// Returns at most `most` tenants that have an account, in the order of their names, from the first one behind
    /// `after` on. For work on all of them, such as the invoices at a month's end.
    ///
    /// # Errors
    /// If the database does not answer.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Ledger, OnFailure, Plan, QuotaLayer};
    /// let ledger = Ledger::sqlite_in_memory().open().await.unwrap();
    /// let quotas = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailClosed).handle();
    /// for name in ["zed", "acme"] {
    ///     quotas.charge(&Client::named(name), ("queries", 1)).await.unwrap();
    /// }
    /// let first = ledger.tenants(None, 1).await.unwrap();
    /// assert_eq!(first, ["acme"]);
    /// assert_eq!(ledger.tenants(Some(&first[0]), 100).await.unwrap(), ["zed"]);
    /// # });
    /// ```
    pub async fn tenants(&self, after: Option<&str>, most: usize) -> Result<Vec<String>, QuotaError> {
        let tenants = on_database!(self, inner => inner.report(inner.writer.database.tenants(after, most)).await)?;
        Ok(tenants.iter().map(ToString::to_string).collect())
    }

    /// Returns the usage of a tenant at a past time, for each period that was open then.
    ///
    /// # Errors
    /// If the database does not answer, or rows at `at` were [archived](Self::archive).
    pub async fn usage_at(&self, tenant: &str, at: SystemTime) -> Result<Vec<PastUsage>, QuotaError> {
        let past = on_database!(self, inner => inner.report(inner.writer.database.past(tenant, since_1970(at))).await)?;
        self.check_kept("time of the usage", since_1970(at)).await?;
        Ok(past)
    }

    /// Compares every counter with the sum of its rows, in one snapshot. Changes nothing.
    ///
    /// The ledger's [observers](crate::LedgerBuilder::observe) receive the numbers as
    /// [`Event::Reconciled`](crate::Event::Reconciled). It reads all rows that are not archived: run it each night, not in a
    /// scrape.
    ///
    /// # Errors
    /// If the database does not answer.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Ledger, OnFailure, Plan, QuotaLayer};
    /// let ledger = Ledger::sqlite_in_memory().open().await.unwrap();
    /// let quotas = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailClosed).handle();
    /// quotas.charge(&Client::named("acme"), ("queries", 5)).await.unwrap();
    /// let report = ledger.reconcile().await.unwrap();
    /// assert_eq!((report.compared, report.drifts), (2, vec![])); // the counters of the hour and of the day
    /// # });
    /// ```
    pub async fn reconcile(&self) -> Result<ReconcileReport, QuotaError> {
        let drifts = on_database!(self, inner => inner.report(inner.writer.database.drifts(MOST_DRIFTS)).await);
        let (compared, drifts) = drifts?;
        let report = ReconcileReport { compared, drifts };
        on_database!(self, inner => inner.reconciled(&report));
        Ok(report)
    }

    /// Sets the counters of the tenants of a report to the sums of their rows; returns the number of changed counters.
    ///
    /// It compares again under each account's lock, so that counters that were repaired or charged meanwhile stay
    /// right. A missing counter stays missing until its period is charged again, because its end is written nowhere
    /// else. Then it drifts, and can be repaired.
    ///
    /// # Errors
    /// If the database does not answer. Counters that were repaired stay so.
    ///
    /// ```no_run
    /// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
    /// let changed = ledger.repair(&ledger.reconcile().await?).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn repair(&self, report: &ReconcileReport) -> Result<u64, QuotaError> {
        let mut tenants: Vec<_> = report.drifts.iter().map(|drift| drift.tenant.as_str()).collect();
        tenants.dedup();
        let mut changed = 0;
        for tenant in tenants {
            changed += on_database!(self, inner => inner.report(inner.writer.database.repair(tenant)).await)?;
        }
        Ok(changed)
    }
}

impl ReconcileReport {
    /// Returns the fraction of the compared counters that drift; alert above 0.001.
    ///
    /// ```no_run
    /// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
    /// let report = ledger.reconcile().await?;
    /// if report.drift() > 0.001 {
    ///     eprintln!("alert: {report}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a fraction is for people")]
    pub fn drift(&self) -> f64 {
        self.drifts.len() as f64 / self.compared.max(1) as f64
    }
}

impl fmt::Display for ReconcileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} counts compared, {} not the sum of their rows", self.compared, self.drifts.len())?;
        for drift in &self.drifts {
            let Drift { tenant, limit, window_start, counted, written, .. } = drift;
            let counted = counted.map_or_else(|| "nothing".into(), |counted| counted.to_string());
            write!(f, "\n{tenant}: {limit} from {}: counted {counted}, written {written}", Instant(*window_start))?;
        }
        Ok(())
    }
}
