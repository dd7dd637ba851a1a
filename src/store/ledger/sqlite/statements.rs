//! The statements: each for some numbers of rows, so that they are prepared once.

use std::{
    fmt::Write,
    sync::{Arc, LazyLock},
};

/// Now, in microseconds. SQLite knows milliseconds only; as a number of days they stay exact to a fortieth of one.
pub(super) const CLOCK: &str = "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)";

pub(super) const NOW: &str = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000";

/// For how many rows a statement is made: any number is a sum of few of these.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// One statement for each size.
pub(super) struct Statement([Arc<str>; SIZES.len()]);

impl Statement {
    fn new(of: impl Fn(usize) -> String) -> Self {
        Self(SIZES.map(|size| of(size).into()))
    }

    /// The largest that takes no more than `left` rows, and how many it takes.
    pub(super) fn within(&self, left: usize) -> (Arc<str>, usize) {
        let at = SIZES.iter().position(|size| *size <= left).unwrap_or(SIZES.len() - 1);
        (self.0[at].clone(), SIZES[at])
    }

    /// The smallest that takes `left` rows, or else the largest; what is not bound is NULL, and matches nothing.
    pub(super) fn around(&self, left: usize) -> (Arc<str>, usize) {
        let at = SIZES.iter().rposition(|size| *size >= left).unwrap_or(0);
        (self.0[at].clone(), SIZES[at])
    }
}

/// `(?1, ?2), (?3, ?4)`.
fn values(rows: usize, columns: usize, first: usize) -> String {
    let mut text = String::new();
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns {
            let comma = if column == 0 { "" } else { ", " };
            write!(text, "{comma}?{}", first + row * columns + column).expect("a string takes everything");
        }
        text.push(')');
    }
    text
}

pub(super) static BEGIN: LazyLock<Arc<str>> = LazyLock::new(|| format!("BEGIN IMMEDIATE; SELECT {CLOCK}").into());

pub(super) static ACCOUNTS: LazyLock<Statement> = LazyLock::new(|| {
    // ?1 is now.
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_account (tenant_id, created_at) SELECT column1, ?1 FROM (VALUES {}) WHERE column1 IS NOT NULL
             ON CONFLICT DO NOTHING",
            values(size, 1, 2)
        )
    })
});

pub(super) static COUNTS: LazyLock<Statement> = LazyLock::new(|| {
    // ?1 is when those that are read have not ended. CROSS JOIN keeps SQLite from reading the tables first.
    Statement::new(|size| {
        format!(
            "SELECT c.tenant_id, c.limit_id, c.quota_type, c.window_start, c.epoch, c.window_end, c.used, c.reserved, c.warned,
                c.untold
             FROM (VALUES {asked}) CROSS JOIN quota_counter c INDEXED BY quota_counter_by_end ON c.tenant_id = column1
             WHERE c.window_end > ?1;
             SELECT g.tenant_id, g.id, g.limit_id, g.quota_type, g.amount, g.until, g.approver, g.reason, g.used_before,
                g.used_now, g.window_start, g.epoch, g.ended
             FROM (VALUES {asked}) CROSS JOIN quota_grant g ON g.tenant_id = column1
             WHERE NOT g.ended OR g.used_now > 0",
            asked = values(size, 1, 2)
        )
    })
});

pub(super) static ROWS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "SELECT q.id, q.tenant_id, q.job_id, q.quota_type, q.limit_id, q.window_start, q.epoch, q.entry, q.attempt,
                q.part, q.amount, q.order_id, q.fingerprint, q.granted, q.until, q.approver, q.reason
             FROM (VALUES {}) CROSS JOIN quota_consumption q INDEXED BY quota_consumption_once
                ON q.tenant_id = column1 AND q.job_id = column2",
            values(size, 2, 1)
        )
    })
});

pub(super) static INSERT_ROWS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, window_start, epoch, entry, attempt, part,
                amount, consumed_at, order_id, fingerprint, granted, until, approver, reason)
             VALUES {}",
            values(size, 17, 1)
        )
    })
});

pub(super) static PUT_COUNTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_counter (tenant_id, limit_id, quota_type, window_start, epoch, window_end, used, reserved,
                warned, untold)
             VALUES {}
             ON CONFLICT (tenant_id, limit_id, quota_type, window_start, epoch) DO UPDATE SET window_end = excluded.window_end,
                used = excluded.used, reserved = excluded.reserved, warned = excluded.warned, untold = excluded.untold",
            values(size, 10, 1)
        )
    })
});

pub(super) static PUT_GRANTS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_grant (tenant_id, id, limit_id, quota_type, amount, until, approver, reason, used_before,
                used_now, window_start, epoch, ended)
             VALUES {}
             ON CONFLICT (tenant_id, id) DO UPDATE SET amount = excluded.amount, until = excluded.until,
                approver = excluded.approver, reason = excluded.reason, used_before = excluded.used_before,
                used_now = excluded.used_now, window_start = excluded.window_start, epoch = excluded.epoch,
                ended = excluded.ended",
            values(size, 13, 1)
        )
    })
});

pub(super) static OPEN_HOLDS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        format!(
            "INSERT INTO quota_hold (tenant_id, job_id, attempt, until, since, charge) VALUES {}
             ON CONFLICT (tenant_id, job_id, attempt) DO UPDATE SET until = excluded.until, since = excluded.since,
                charge = excluded.charge",
            values(size, 6, 1)
        )
    })
});

pub(super) static RENEW_HOLDS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        repeated(size, 4, |at| {
            format!(
                "UPDATE quota_hold SET until = ?{} WHERE tenant_id = ?{at} AND job_id = ?{} AND attempt = ?{}",
                at + 3,
                at + 1,
                at + 2
            )
        })
    })
});

pub(super) static CLOSE_HOLDS: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(|size| {
        repeated(size, 3, |at| {
            format!("DELETE FROM quota_hold WHERE tenant_id = ?{at} AND job_id = ?{} AND attempt = ?{}", at + 1, at + 2)
        })
    })
});

/// Some statements in one, so that they cross over to the connection's thread together.
fn repeated(size: usize, columns: usize, one: impl Fn(usize) -> String) -> String {
    (0..size).map(|row| one(1 + row * columns)).collect::<Vec<_>>().join("; ")
}
