//! Archive of a long history: bounded transactions, between which the sums hold and others write.

use super::*;
use crate::ledger::sql::{ChargePath, SqlDatabase, archive::ROWS};

/// Number of rows of a history that takes three transactions.
const HISTORY: usize = 2 * ROWS + 10;

/// Writes a finished day of a tenant, and returns a time after it.
async fn history<S: ChargePath>(database: &SqlDatabase<S>, tenant: &str) -> u64 {
    let mut counter = count(HISTORY as u64, 0);
    counter.counter.ends = counter.counter.starts + 86_400_000_000_000;
    let mut now = 0;
    for jobs in (0..HISTORY).collect::<Vec<_>>().chunks(512) {
        let rows = jobs.iter().map(|job| charge(tenant, &job.to_string(), 1)).collect();
        // Every hundredth job has no end.
        let begun = jobs.iter().filter(|job| *job % 100 == 0);
        let begun = begun.map(|job| UnfinishedJob { key: key(tenant, &job.to_string()), attempt: 0, until: 1_000 });
        let (begun, counts) = (begun.collect(), vec![(tenant.into(), counter.clone())]);
        let writes = Writes { rows, counts, begun, ..Writes::default() };
        now = transact(database, &reads(&[tenant], &[]), &writes).await.unwrap().now;
    }
    now + 3_600_000_000_000
}

/// Returns the number of entries of a tenant, and their sum.
async fn entries<S: ChargePath>(database: &SqlDatabase<S>, tenant: &str) -> (usize, i64) {
    let rows = database.entries(tenant, 0, u64::MAX >> 1, 0, 2 * HISTORY).await.unwrap();
    (rows.len(), rows.iter().map(|(_, _, row)| row.amount).sum())
}

pub(in crate::ledger) async fn is_bounded<S: ChargePath>(database: &SqlDatabase<S>) {
    let before = history(database, "ann").await;
    let mut periods = database.finished("ann", before).await.unwrap();
    let (mut steps, mut replaced) = (0, 0);
    while !periods.is_empty() {
        let rows = database.archive("ann", &mut periods).await.unwrap();
        assert!(rows <= ROWS as u64, "{rows}");
        (steps, replaced) = (steps + 1, replaced + rows);
        assert_eq!(database.drifts(10).await.unwrap().1, [], "after step {steps}");
        assert_eq!(entries(database, "ann").await.1, HISTORY as i64, "after step {steps}");
        for job in (0..HISTORY).step_by(100) {
            let known = database.job("ann", &job.to_string()).await.unwrap();
            assert_eq!(known.unfinished.len(), known.rows.len(), "job {job} after step {steps}");
        }
        let writes = Writes { rows: vec![charge("bob", &steps.to_string(), 0)], ..Writes::default() };
        transact(database, &reads(&["bob"], &[]), &writes).await.unwrap();
        if steps == 1 {
            // As a process does that begins again where another one was stopped.
            periods = database.finished("ann", before).await.unwrap();
        }
    }
    assert!(steps >= 3, "{steps}");
    assert_eq!((replaced, entries(database, "ann").await.0), (HISTORY as u64, 1));
    assert!(database.finished("ann", before).await.unwrap().is_empty());
}

pub(in crate::ledger) async fn leaves_a_changed_period<S: ChargePath>(database: &SqlDatabase<S>) {
    let before = history(database, "cid").await;
    let mut periods = database.finished("cid", before).await.unwrap();
    database.archive("cid", &mut periods).await.unwrap();
    let left = entries(database, "cid").await;
    let mut counter = count(HISTORY as u64 + 5, 0);
    counter.counter.ends = counter.counter.starts + 86_400_000_000_000;
    let rows = vec![charge("cid", "late", 5)];
    let writes = Writes { rows, counts: vec![("cid".into(), counter)], ..Writes::default() };
    transact(database, &reads(&["cid"], &[]), &writes).await.unwrap();
    assert_eq!(database.archive("cid", &mut periods).await.unwrap(), 0);
    assert!(periods.is_empty());
    assert_eq!(entries(database, "cid").await, (left.0 + 1, left.1 + 5));
    assert_eq!(database.drifts(10).await.unwrap().1, []);
}
