//! The archive of old rows, by choice: rows are kept by default.

use std::time::{Duration, SystemTime};

use super::{nanos, time};
use crate::{
    error::ConfigError,
    ledger::{Database, Ledger, handle::on_database, new_id},
    quota::QuotaError,
    time::Instant,
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
    /// Number of accounts that they belonged to.
    pub accounts: u64,
}

/// Shortest horizon.
const SHORTEST: Duration = Duration::from_secs(86_400);

/// Number of accounts that are looked up at once.
const AT_ONCE: usize = 1_000;

impl Ledger {
    /// Sets the time for which jobs are remembered; by default as long as their rows, which are kept. It holds for all
    /// clones of this ledger.
    ///
    /// From then on a named job needs an id that carries its time, a UUID of version 7 or a ULID: one that carries
    /// none, that lies more than five minutes ahead or longer ago than the horizon is refused with
    /// [`Reason::StaleJobId`](crate::Reason::StaleJobId), and nothing is charged. That is what makes it safe to
    /// [`archive`](Self::archive) rows: what is forgotten can not be charged again.
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
    pub fn with_horizon(self, horizon: Duration) -> Self {
        if horizon < SHORTEST {
            panic!("{}", ConfigError::new("horizon of a ledger", "be at least a day", format_args!("{horizon:?}")));
        }
        on_database!(self, inner => inner.set_horizon(horizon));
        self
    }

    /// Seals finished periods: all rows of each period that ended before `before` are replaced by their sum. Periods in
    /// which a reservation is open, or to which a row was written since, stay as they are for another time.
    ///
    /// Counts stay the sums of their rows. Grants stay as they were written. From then on, in every process, job ids of
    /// up to five minutes after `before` (clocks differ), those from more than five minutes ahead and those without a
    /// time are refused, and [`invoice`](Self::invoice), [`compare`](Self::compare) and [`usage_at`](Self::usage_at)
    /// answer only for times after it: write the invoices first, and export the rows with [`entries`](Self::entries).
    ///
    /// It goes account by account under the account's lock, may be stopped at any time and begun again, and changes
    /// nothing the second time.
    ///
    /// # Errors
    /// If there is no [horizon](Self::with_horizon), `before` is not at least the horizon ago, or the database does not
    /// answer; what was sealed stays so.
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
        let horizon = horizon.ok_or_else(|| ConfigError::new("a ledger to archive", "have a horizon", "none"))?;
        let (now, _) = on_database!(self, inner => inner.read(inner.writer.database.account("")).await)?;
        if nanos(before) > now.saturating_sub(horizon) {
            let must = format!("be at least {:?} ago, which is the horizon", Duration::from_nanos(horizon));
            return Err(ConfigError::new("end of an archive", &must, Instant(before)).into());
        }
        // First no writer accepts those ids any more, then their rows go.
        let sealed = on_database!(self, inner => inner.report(inner.writer.database.seal(nanos(before))).await);
        let (before, mut archived) = (sealed?, ArchiveReport::default());
        let mut after = None;
        loop {
            let after_it = after.as_deref();
            let tenants =
                on_database!(self, inner => inner.report(inner.writer.database.tenants(after_it, AT_ONCE)).await)?;
            for tenant in &tenants {
                let rows = on_database!(self, inner => inner.report(inner.writer.database.archive(tenant, before, new_id())).await)?;
                archived.rows += rows;
                archived.accounts += u64::from(rows > 0);
            }
            match tenants.last() {
                Some(last) if tenants.len() == AT_ONCE => after = Some(last.to_string()),
                _ => return Ok(archived),
            }
        }
    }

    /// Rejects a time whose rows may have been archived when they were read. Called after the read, since the seal is
    /// written before the first row goes.
    pub(in crate::ledger) async fn check_kept(&self, what: &str, at: u64) -> Result<(), QuotaError> {
        let sealed = on_database!(self, inner => inner.report(inner.writer.database.sealed()).await)?;
        if at < sealed {
            let must = format!("lie after what is archived, {}", Instant(time(sealed)));
            return Err(ConfigError::new(what, &must, Instant(time(at))).into());
        }
        Ok(())
    }
}
