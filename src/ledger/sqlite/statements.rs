//! SQL statements of the charge path, each in a few sizes, so that each text is prepared once.

use std::sync::{Arc, LazyLock};

use crate::ledger::sql::ENTRY_COLUMNS;

/// Present time in microseconds. SQLite's clock has milliseconds; as a number of days they are exact to a fortieth of
/// one.
pub(super) const CLOCK: &str = "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)";

/// Numbers of rows for which statements are made: any number is a sum of few of these.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// One statement for each size.
pub(super) struct Statement([Arc<str>; SIZES.len()]);

impl Statement {
    fn new(of: impl Fn(usize) -> String) -> Self {
        Self(SIZES.map(|size| of(size).into()))
    }

    /// Returns the largest statement for at most `left` rows, and its number of rows.
    pub(super) fn within(&self, left: usize) -> (Arc<str>, usize) {
        let at = SIZES.iter().position(|size| *size <= left).unwrap_or(SIZES.len() - 1);
        (self.0[at].clone(), SIZES[at])
    }

    /// Returns the smallest statement for at least `left` rows, else the largest. Unbound parameters are NULL and match
    /// nothing.
    pub(super) fn around(&self, left: usize) -> (Arc<str>, usize) {
        let at = SIZES.iter().rposition(|size| *size >= left).unwrap_or(0);
        (self.0[at].clone(), SIZES[at])
    }
}

/// Returns every statement that reads or writes rows.
pub(super) fn all() -> [&'static Statement; 11] {
    [
        &ACCOUNTS,
        &COUNTS,
        &GRANTS,
        &ROWS,
        &INSERT_ROWS,
        &INSERT_DETAILED,
        &PUT_COUNTS,
        &PUT_GRANTS,
        &OPEN_HOLDS,
        &RENEW_HOLDS,
        &CLOSE_HOLDS,
    ]
}

/// Returns `(?, ?), (?, ?)`. Numbered parameters would be looked up by name, one by one.
fn values(rows: usize, columns: usize) -> String {
    vec![format!("({})", vec!["?"; columns].join(", ")); rows].join(", ")
}

pub(super) static CLOCK_AND_SEAL: LazyLock<Arc<str>> =
    LazyLock::new(|| format!("SELECT {CLOCK}, (SELECT sealed_until FROM quota_archive)").into());

pub(super) static BEGIN: LazyLock<Arc<str>> = LazyLock::new(|| format!("BEGIN IMMEDIATE; {}", *CLOCK_AND_SEAL).into());

/// The first value is the present.
pub(super) static ACCOUNTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_account (tenant_id, created_at) SELECT column1, ? FROM (VALUES {}) WHERE column1 IS NOT NULL
             ON CONFLICT DO NOTHING",
            values(size, 1)
        )
    })
});

/// The first value is the time at which the windows to read have not ended. `CROSS JOIN` keeps SQLite from reading the
/// table first.
pub(super) static COUNTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "SELECT c.tenant_id, c.limit_id, c.quota_type, c.period, c.window_start, c.window_end, c.epoch, c.used, c.reserved, c.warned,
                c.untold
             FROM (SELECT ? AS since) CROSS JOIN (VALUES {})
                CROSS JOIN quota_counter c INDEXED BY quota_counter_by_end ON c.tenant_id = column1 AND c.window_end > since",
            values(size, 1)
        )
    })
});

pub(super) static GRANTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "SELECT g.tenant_id, g.limit_id, g.quota_type, g.period, g.window_start, g.until, g.epoch, g.id, g.amount, g.ended, NULL,
                g.used_before, g.used_now, g.approver, g.reason
             FROM (VALUES {}) CROSS JOIN quota_grant g ON g.tenant_id = column1 AND (NOT g.ended OR g.used_now > 0)",
            values(size, 1)
        )
    })
});

pub(super) static ROWS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "SELECT {ENTRY_COLUMNS}
             FROM (VALUES {}) CROSS JOIN quota_consumption q INDEXED BY quota_consumption_once
                ON q.tenant_id = column1 AND q.job_id = column2",
            values(size, 2)
        )
    })
});

pub(super) static INSERT_ROWS: LazyLock<Statement> = LazyLock::new(|| Statement::new(|size| insert(size, 14, "")));

pub(super) static INSERT_DETAILED: LazyLock<Statement> =
    LazyLock::new(|| Statement::new(|size| insert(size, 18, ", granted, until, approver, reason")));

fn insert(size: usize, columns: usize, detail: &str) -> String {
    format!(
        "INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, entry, attempt, part,
            amount, consumed_at, order_id, fingerprint{detail})
         VALUES {}",
        values(size, columns)
    )
}

pub(super) static PUT_COUNTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_counter (tenant_id, limit_id, quota_type, period, window_start, epoch, window_end, used, reserved,
                warned, untold)
             VALUES {}
             ON CONFLICT (tenant_id, limit_id, quota_type, period, window_start, epoch) DO UPDATE SET window_end = excluded.window_end,
                used = excluded.used, reserved = excluded.reserved, warned = excluded.warned, untold = excluded.untold",
            values(size, 11)
        )
    })
});

pub(super) static PUT_GRANTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_grant (tenant_id, id, limit_id, quota_type, period, amount, until, approver, reason, used_before,
                used_now, window_start, epoch, ended)
             VALUES {}
             ON CONFLICT (tenant_id, id) DO UPDATE SET amount = excluded.amount, until = excluded.until,
                approver = excluded.approver, reason = excluded.reason, used_before = excluded.used_before,
                used_now = excluded.used_now, window_start = excluded.window_start, epoch = excluded.epoch,
                ended = excluded.ended",
            values(size, 14)
        )
    })
});

pub(super) static OPEN_HOLDS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_hold (tenant_id, job_id, attempt, until, since, charge) VALUES {}
             ON CONFLICT (tenant_id, job_id, attempt) DO UPDATE SET until = excluded.until, since = excluded.since,
                charge = excluded.charge",
            values(size, 6)
        )
    })
});

/// The first value is the new end.
pub(super) static RENEW_HOLDS: LazyLock<Statement> = LazyLock::new(|| {
    let one = "UPDATE quota_hold SET until = ? WHERE tenant_id = ? AND job_id = ? AND attempt = ?";
    Statement::new(|size| vec![one; size].join("; "))
});

/// Several statements in one, so that they reach the connection's thread together.
pub(super) static CLOSE_HOLDS: LazyLock<Statement> = LazyLock::new(|| {
    let one = "DELETE FROM quota_hold WHERE tenant_id = ? AND job_id = ? AND attempt = ?";
    Statement::new(|size| vec![one; size].join("; "))
});
