//! Archive of old rows. By default no row is archived.

use std::time::{Duration, SystemTime};

use crate::{
    error::ConfigError,
    ledger::{Database, Ledger, handle::on_database},
    quota::QuotaError,
    time::{Instant, from_1970, since_1970},
};

/// Result of an archive.
///
/// ```no_run
/// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
/// use std::time::{Duration, SystemTime};
/// let archived = ledger.archive(SystemTime::now() - Duration::from_secs(400 * 86_400)).await?;
/// println!("{} rows of {} accounts", archived.rows, archived.accounts);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveReport {
    /// Number of rows that were replaced by one for each limit and period.
    pub rows: u64,
    /// Number of accounts to which they belonged.
    pub accounts: u64,
}

/// Shortest horizon.
const SHORTEST: Duration = Duration::from_secs(86_400);

/// Number of accounts that one query reads.
const AT_ONCE: usize = 1_000;

impl Ledger {
    /// Sets the time for which jobs are remembered; default: as long as their rows, which are not deleted. It applies
    /// to all clones of this ledger.
    ///
    /// With a horizon a job id must carry its time: a UUID of version 7 or a ULID. An id without a time is refused with
    /// [`Reason::StaleJobId`](crate::Reason::StaleJobId), and so is one more than five minutes ahead or older than the
    /// horizon; nothing is charged. Therefore rows can be [archived](Self::archive): a job whose rows are gone cannot
    /// be charged again.
    ///
    /// # Panics
    /// If the horizon is shorter than a day.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// use std::time::Duration;
    /// let ledger = tollgate::Ledger::sqlite("quota.db").open().await?.with_horizon(Duration::from_secs(400 * 86_400));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[track_caller]
    pub fn with_horizon(self, horizon: Duration) -> Self {
        if horizon < SHORTEST {
            panic!("{}", ConfigError::new("horizon of a ledger", "be at least a day", format_args!("{horizon:?}")));
        }
        on_database!(self, inner => inner.set_horizon(horizon));
        self
    }

    /// Replaces all rows of each period that ended before `before` by their sum. A period with an open reservation, or
    /// to which a row was written since, is left for a later archive.
    ///
    /// Counters stay the sums of their rows, and grants are not changed. From then on all processes refuse job ids with
    /// a time before `before` plus five minutes, because clocks differ. They also refuse ids more than five minutes
    /// ahead, and ids without a time. [`invoice`](Self::invoice), [`compare`](Self::compare) and
    /// [`usage_at`](Self::usage_at) answer only for times after `before`. Write the invoices first, and export the rows
    /// with [`entries`](Self::entries).
    ///
    /// It works in transactions of about 5,000 rows of one account each, and callers are served in between. After each
    /// of them the sums are right. It may be stopped at any time and started again; a second run changes nothing.
    ///
    /// # Errors
    /// If there is no [horizon](Self::with_horizon), `before` is later than the horizon ago, or the database does not
    /// answer. Accounts that were archived stay so.
    ///
    /// ```no_run
    /// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
    /// use std::time::{Duration, SystemTime};
    /// let before = SystemTime::now() - Duration::from_secs(400 * 86_400);
    /// let mut entries = ledger.entries("acme", SystemTime::UNIX_EPOCH, before);
    /// while let Some(entry) = entries.next().await? {
    ///     println!("{entry}"); // into a file that is kept
    /// }
    /// ledger.archive(before).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn archive(&self, before: SystemTime) -> Result<ArchiveReport, QuotaError> {
        let horizon = on_database!(self, inner => inner.horizon());
        let horizon = horizon
            .ok_or_else(|| ConfigError::new("a ledger to archive", "have a horizon (call .with_horizon())", "none"))?;
        let (now, _) = on_database!(self, inner => inner.read(inner.writer.database.account("")).await)?;
        if since_1970(before) > now.saturating_sub(horizon) {
            let must = format!("be at least {:?} ago, which is the horizon", Duration::from_nanos(horizon));
            return Err(ConfigError::new("end of an archive", &must, Instant(before)).into());
        }
        // First all writers refuse those ids, then the rows are deleted.
        let sealed = on_database!(self, inner => inner.report(inner.writer.database.seal(since_1970(before))).await);
        let (before, mut archived) = (sealed?, ArchiveReport::default());
        let mut after = None;
        loop {
            let after_it = after.as_deref();
            let tenants =
                on_database!(self, inner => inner.report(inner.writer.database.tenants(after_it, AT_ONCE)).await)?;
            for tenant in &tenants {
                let rows = self.archive_tenant(tenant, before).await?;
                archived.rows += rows;
                archived.accounts += u64::from(rows > 0);
            }
            match tenants.last() {
                Some(last) if tenants.len() == AT_ONCE => after = Some(last.to_string()),
                _ => return Ok(archived),
            }
        }
    }

    /// Archives a tenant; returns the number of rows that were replaced.
    async fn archive_tenant(&self, tenant: &str, before: u64) -> Result<u64, QuotaError> {
        on_database!(self, inner => {
            let (database, mut rows) = (&inner.writer.database, 0);
            let mut periods = inner.report(database.finished(tenant, before)).await?;
            while !periods.is_empty() {
                let began = tokio::time::Instant::now();
                rows += inner.report(database.archive(tenant, &mut periods)).await?;
                // As long as callers may have waited, so that at least every other transaction is theirs.
                tokio::time::sleep(began.elapsed()).await;
            }
            Ok(rows)
        })
    }

    /// Rejects a time whose rows may have been archived before they were read. Called after the read, because the seal
    /// is written before the first row is deleted.
    pub(in crate::ledger) async fn check_kept(&self, what: &str, at: u64) -> Result<(), QuotaError> {
        let sealed = on_database!(self, inner => inner.report(inner.writer.database.sealed()).await)?;
        if at < sealed {
            let must = format!("not be before {}, the end of the archived rows", Instant(from_1970(sealed)));
            return Err(ConfigError::new(what, &must, Instant(from_1970(at))).into());
        }
        Ok(())
    }
}
