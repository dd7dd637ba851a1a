//! SQL statements of the charge path, each in a few sizes, so that each text is prepared once.

use std::sync::{Arc, LazyLock};

use crate::ledger::sql::{COUNT, ENTRY_COLUMNS, WRITES};

/// Present time in microseconds. SQLite's clock has milliseconds; as a number of days they are exact to a fortieth of
/// one.
pub(super) const CLOCK: &str = "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)";

/// Numbers of rows for which statements are made: any number is a sum of few of these.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// One text for each size.
pub(super) struct Statement {
    texts: [Arc<str>; SIZES.len()],
    /// Number of values of a row.
    pub(super) width: usize,
    /// Whether a text may have more rows than values: unbound parameters are NULL and match nothing.
    reads: bool,
}

impl Statement {
    /// Creates a statement whose texts `of` makes of the rows. Parameters have no number, because numbered ones would be
    /// looked up by name, one by one.
    fn new(width: usize, reads: bool, of: impl Fn(&str) -> String) -> Self {
        let row = format!("({})", vec!["?"; width].join(", "));
        let texts = SIZES.map(|size| of(&format!("VALUES {}", vec![&*row; size].join(", "))).into());
        Self { texts, width, reads }
    }

    /// Returns a text for the next of `left` rows, and its number of rows: the smallest with enough rows if it may have
    /// more, otherwise the largest without too many.
    pub(super) fn next(&self, left: usize) -> (Arc<str>, usize) {
        let at = if self.reads {
            SIZES.iter().rposition(|size| *size >= left).unwrap_or(0)
        } else {
            SIZES.iter().position(|size| *size <= left).unwrap_or(SIZES.len() - 1)
        };
        (self.texts[at].clone(), SIZES[at])
    }
}

/// Returns every statement that reads or writes rows, for one row.
pub(super) fn all() -> impl Iterator<Item = Arc<str>> {
    [&ACCOUNTS, &KNOWN, &COUNTS, &GRANTS, &ENTRIES, &UNFINISHED]
        .into_iter()
        .map(|statement| &**statement)
        .chain(&*TEXTS)
        .map(|statement| statement.next(1).0)
}

/// Texts of [`WRITES`].
pub(super) static TEXTS: LazyLock<[Statement; COUNT]> =
    LazyLock::new(|| WRITES.each_ref().map(|write| Statement::new(write.columns.len(), false, |rows| write.sql(rows))));

pub(super) static CLOCK_AND_SEAL: LazyLock<Arc<str>> =
    LazyLock::new(|| format!("SELECT {CLOCK}, (SELECT sealed_until FROM quota_archive)").into());

pub(super) static BEGIN: LazyLock<Arc<str>> = LazyLock::new(|| format!("BEGIN IMMEDIATE; {}", *CLOCK_AND_SEAL).into());

/// The first value is the present.
pub(super) static ACCOUNTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(1, true, |rows| {
        format!(
            "INSERT INTO quota_account (tenant_id, created_at) SELECT column1, ? FROM ({rows}) WHERE column1 IS NOT NULL
             ON CONFLICT DO NOTHING RETURNING tenant_id"
        )
    })
});

pub(super) static KNOWN: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(1, true, |rows| {
        format!(
            "SELECT a.tenant_id, a.tier, NULL, NULL, a.closed_until
             FROM ({rows}) CROSS JOIN quota_account a ON a.tenant_id = column1 AND (a.tier IS NOT NULL OR a.closed_until > 0)"
        )
    })
});

/// The second value of a row is the time at which the windows to read have not ended. `CROSS JOIN` keeps SQLite from
/// reading the table first.
pub(super) static COUNTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(2, true, |rows| {
        format!(
            "SELECT c.tenant_id, c.limit_id, c.quota_type, c.period, c.window_start, c.window_end, c.epoch, c.used, c.reserved, c.warned,
                c.untold
             FROM ({rows}) CROSS JOIN quota_counter c INDEXED BY quota_counter_by_end
                ON c.tenant_id = column1 AND c.window_end > column2"
        )
    })
});

pub(super) static GRANTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(1, true, |rows| {
        format!(
            "SELECT g.tenant_id, g.limit_id, g.quota_type, g.period, g.window_start, g.until, g.epoch, g.id, g.amount, g.ended, NULL,
                g.used_before, g.used_now, g.approver, g.reason
             FROM ({rows}) CROSS JOIN quota_grant g ON g.tenant_id = column1 AND (NOT g.ended OR g.used_now > 0)"
        )
    })
});

pub(super) static ENTRIES: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(2, true, |rows| {
        format!(
            "SELECT {ENTRY_COLUMNS} FROM ({rows}) CROSS JOIN quota_consumption q INDEXED BY quota_consumption_once
                ON q.tenant_id = column1 AND q.job_id = column2"
        )
    })
});

pub(super) static UNFINISHED: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(2, true, |rows| {
        format!(
            "SELECT u.tenant_id, u.job_id, NULL, NULL, NULL, u.until, NULL, u.attempt
             FROM ({rows}) CROSS JOIN quota_unfinished_job u ON u.tenant_id = column1 AND u.job_id = column2"
        )
    })
});
