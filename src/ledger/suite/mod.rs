//! The suite that every database must pass.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::writer::{
    Detail, EntryKind, Key, Loaded, Reads, ReservationRow, Row, Stored, StoredCounter, UnfinishedJob, Writes,
};
use super::{Database, DbError, Session};
use crate::quota::account::{Counter, GrantState};

mod accounts;
pub(super) mod archive;
pub(super) mod bills;
mod histories;
pub(super) mod speed;

/// Long enough for a step that is not blocked, short enough to wait for one that is.
const MOMENT: Duration = Duration::from_millis(300);

pub(super) fn key(tenant: &str, job: &str) -> Key {
    Key { tenant: tenant.into(), job: job.into() }
}

pub(super) fn charge(tenant: &str, job: &str, amount: i64) -> Row {
    Row {
        key: key(tenant, job),
        attempt: 0,
        part: 0,
        entry: EntryKind::Charge,
        kind: "requests".into(),
        limit: "daily".into(),
        period: "day".into(),
        window: 86_400_000_000_000,
        epoch: 0,
        amount,
        command: 7,
        fingerprint: Some(u128::MAX - 1),
        detail: None,
    }
}

/// Creates a counter of a day that ends in the year 2286.
pub(super) fn count(used: u64, reserved: u64) -> StoredCounter {
    StoredCounter {
        limit: "daily".into(),
        kind: "requests".into(),
        period: "day".into(),
        counter: Counter {
            starts: 86_400_000_000_000,
            ends: 9_999_999_999_000_000_000,
            epoch: 0,
            used,
            reserved,
            warned: true,
            warning_pending: false,
        },
    }
}

fn grant(id: u64) -> GrantState {
    GrantState {
        id,
        limit: "daily".into(),
        kind: "requests".into(),
        period: "day".into(),
        amount: 500,
        until: 9_999_999_999_000_000_000,
        approver: "M. O'Kafor".into(),
        reason: "launch; \"day\" \u{1F680}".into(),
        before: 3,
        current: 4,
        window: 86_400_000_000_000,
        epoch: 2,
        ended: false,
    }
}

fn hold(tenant: &str, job: &str, until: u64) -> ReservationRow {
    ReservationRow { key: key(tenant, job), attempt: 1, until, since: 1_000, charge: true }
}

pub(super) fn reads(tenants: &[&str], jobs: &[Key]) -> Reads {
    let mut tenants: Vec<Arc<str>> = tenants.iter().map(|tenant| (*tenant).into()).collect();
    tenants.sort_unstable();
    Reads { tenants, jobs: jobs.to_vec(), ..Reads::default() }
}

/// Runs one transaction and returns the rows that it read.
pub(super) async fn transact<D: Database>(database: &D, reads: &Reads, writes: &Writes) -> Result<Loaded, DbError> {
    let mut session = database.connect().await?;
    let loaded = session.begin(reads).await?;
    session.write(writes, loaded.now).await?;
    session.commit().await?;
    Ok(loaded)
}

async fn job<D: Database>(database: &D, tenant: &str, job: &str) -> Vec<Row> {
    database.job(tenant, job).await.unwrap().rows
}

/// Runs all tests, each on an empty database that `fresh` makes.
pub(super) async fn everything<D: Database, F: Future<Output = D>>(fresh: impl Fn() -> F) {
    let database = fresh().await;
    what_is_written_is_read_back(&database).await;
    text_is_kept_as_it_is(&database).await;
    a_row_that_is_there_already_fails_all(&database).await;
    what_is_rolled_back_was_never_there(&database).await;
    what_is_dropped_was_never_there(&database).await;
    numbers_that_do_not_fit_are_refused(&database).await;
    steps_out_of_order_are_refused(&database).await;
    accounts::wait_for_one_another(&database).await;
    accounts::are_created_once(&database).await;
    what_is_over_is_read_only_on_demand(&database).await;
    let database = fresh().await;
    holds_are_due_in_the_order_of_their_ends(&database).await;
    let database = fresh().await;
    accounts::are_told_page_by_page(&database).await;
    histories::come_back(&fresh).await;
}

async fn what_is_written_is_read_back<D: Database>(database: &D) {
    let detail = Detail { granted: 9, until: 1_000_000, approver: "a".into(), reason: "b".into() };
    let granted = Row {
        entry: EntryKind::Grant,
        amount: 0,
        part: 4,
        fingerprint: None,
        detail: Some(detail.into()),
        ..charge("ann", "one", 0)
    };
    let endless = Row { part: 5, detail: Some(Box::default()), ..granted.clone() };
    let free = Row { kind: "".into(), limit: "".into(), period: "".into(), window: 0, ..charge("ann", "one", 0) };
    let rows = vec![charge("ann", "one", -5), granted, endless, free];
    let writes = Writes {
        rows: rows.clone(),
        counts: vec![("ann".into(), count(5, 2))],
        grants: vec![("ann".into(), grant(1))],
        ..Writes::default()
    };
    let asked = reads(&["ann", "bob"], &[key("ann", "one"), key("bob", "one")]);
    let loaded = transact(database, &asked, &writes).await.unwrap();
    assert!(loaded.rows.is_empty());
    assert_eq!(loaded.accounts["ann"], Stored::default());
    assert!(loaded.now > 1_700_000_000_000_000_000 && loaded.now.is_multiple_of(1_000), "{}", loaded.now);

    let mut pending = count(0, 9);
    (pending.counter.warned, pending.counter.warning_pending) = (false, true);
    let changed = Writes {
        counts: vec![("ann".into(), pending.clone())],
        grants: vec![("ann".into(), GrantState { ended: true, current: 7, ..grant(1) }), ("bob".into(), grant(1))],
        ..Writes::default()
    };
    let loaded = transact(database, &asked, &changed).await.unwrap();
    assert_eq!(loaded.rows, rows);
    assert_eq!(
        loaded.accounts["ann"],
        Stored { counts: vec![count(5, 2)], grants: vec![grant(1)], ..Stored::default() }
    );
    let (now, stored) = database.account("ann").await.unwrap();
    assert!(now >= loaded.now);
    assert_eq!(stored.counts, [pending]);
    assert_eq!(stored.grants, [GrantState { ended: true, current: 7, ..grant(1) }]);
    assert_eq!(database.account("bob").await.unwrap().1.grants, [grant(1)]);
    assert_eq!(database.account("unknown").await.unwrap().1, Stored::default());
    assert_eq!(job(database, "ann", "one").await, rows);

    let paid = Writes {
        grants: vec![("bob".into(), GrantState { ended: true, current: 0, ..grant(1) })],
        ..Writes::default()
    };
    transact(database, &asked, &paid).await.unwrap();
    assert_eq!(database.account("bob").await.unwrap().1.grants, [], "it has ended and pays for nothing");
}

async fn text_is_kept_as_it_is<D: Database>(database: &D) {
    let long = "\u{e4}".repeat(255);
    let jobs = ["'; DROP TABLE quota_hold; --", "\"", "a\0b", "\u{1}", "\u{1F980}\n\\0", &long, "$1 ?1 :a"];
    let tenants = ["o'hara", "n\0ul"];
    let rows: Vec<_> = tenants.iter().flat_map(|tenant| jobs.map(|job| charge(tenant, job, 1))).collect();
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    let asked = reads(&tenants, &keys);
    transact(database, &asked, &Writes { rows: rows.clone(), ..Writes::default() }).await.unwrap();
    assert_eq!(transact(database, &asked, &Writes::default()).await.unwrap().rows, rows);
    for row in &rows {
        assert_eq!(job(database, &row.key.tenant, &row.key.job).await, std::slice::from_ref(row));
    }
}

async fn a_row_that_is_there_already_fails_all<D: Database>(database: &D) {
    let asked = reads(&["twice"], &[]);
    let first = Writes { rows: vec![charge("twice", "job", 1)], ..Writes::default() };
    transact(database, &asked, &first).await.unwrap();
    let again = Writes {
        rows: vec![charge("twice", "other", 1), charge("twice", "job", 2)],
        counts: vec![("twice".into(), count(3, 0))],
        ..Writes::default()
    };
    let mut session = database.connect().await.unwrap();
    let loaded = session.begin(&asked).await.unwrap();
    assert!(matches!(session.write(&again, loaded.now).await, Err(DbError::Rejected(_))));
    session.roll_back().await.expect("the failed step has rolled it back");
    assert!(matches!(session.commit().await, Err(DbError::Refused(_))), "nothing is left to commit");
    let loaded = session.begin(&asked).await.expect("it was rolled back, and the connection goes on");
    assert_eq!(loaded.accounts["twice"], Stored::default());
    session.roll_back().await.unwrap();
    assert_eq!(job(database, "twice", "other").await, []);
    assert_eq!(job(database, "twice", "job").await, [charge("twice", "job", 1)]);
}

async fn what_is_rolled_back_was_never_there<D: Database>(database: &D) {
    let mut session = database.connect().await.unwrap();
    let loaded = session.begin(&reads(&["back"], &[])).await.unwrap();
    let writes = Writes {
        rows: vec![charge("back", "job", 1)],
        counts: vec![("back".into(), count(1, 0))],
        ..Writes::default()
    };
    session.write(&writes, loaded.now).await.unwrap();
    session.roll_back().await.unwrap();
    let loaded = session.begin(&reads(&["back"], &[key("back", "job")])).await.unwrap();
    assert_eq!((loaded.rows.len(), &loaded.accounts["back"]), (0, &Stored::default()));
    session.commit().await.unwrap();
}

async fn what_is_dropped_was_never_there<D: Database>(database: &D) {
    for written in [false, true] {
        let mut session = database.connect().await.unwrap();
        let loaded = session.begin(&reads(&["dropped"], &[])).await.unwrap();
        let writes = Writes { rows: vec![charge("dropped", "job", 1)], ..Writes::default() };
        if written {
            session.write(&writes, loaded.now).await.unwrap();
        } else {
            // One poll, and then never again.
            let mut write = Box::pin(session.write(&writes, loaded.now));
            let early = futures_util::poll!(write.as_mut()).is_ready();
            drop(write);
            assert!(
                early || matches!(session.commit().await, Err(DbError::Lost(_))),
                "a step that was dropped ends it"
            );
        }
        drop(session);
        let asked = reads(&["dropped"], &[key("dropped", "job")]);
        let loaded = transact(database, &asked, &Writes::default()).await.expect("its locks are gone");
        assert_eq!(loaded.rows, []);
    }
}

async fn numbers_that_do_not_fit_are_refused<D: Database>(database: &D) {
    let asked = reads(&["most"], &[]);
    let refused = |writes: Writes| {
        let asked = asked.clone();
        async move {
            let found = transact(database, &asked, &writes).await;
            assert!(matches!(found, Err(DbError::Rejected(_))), "{found:?}");
        }
    };
    refused(Writes { counts: vec![("most".into(), count(1 << 63, 0))], ..Writes::default() }).await;
    refused(Writes { counts: vec![("most".into(), count(0, u64::MAX))], ..Writes::default() }).await;
    let mut between = count(0, 0);
    between.counter.starts = 86_400_000_000_001;
    refused(Writes { counts: vec![("most".into(), between)], ..Writes::default() }).await;

    let mut most = count(i64::MAX as u64, i64::MAX as u64);
    most.counter.ends = u64::MAX;
    let row = Row {
        attempt: u32::MAX,
        part: u32::MAX,
        epoch: i64::MAX.cast_unsigned(),
        command: u128::MAX,
        ..charge("most", "job", i64::MIN)
    };
    let writes = Writes { rows: vec![row.clone()], counts: vec![("most".into(), most.clone())], ..Writes::default() };
    transact(database, &asked, &writes).await.unwrap();
    assert_eq!(database.account("most").await.unwrap().1.counts, [most]);
    assert_eq!(job(database, "most", "job").await, [row]);
}

async fn steps_out_of_order_are_refused<D: Database>(database: &D) {
    let mut session = database.connect().await.unwrap();
    assert!(matches!(session.commit().await, Err(DbError::Refused(_))));
    assert!(matches!(session.write(&Writes::default(), 0).await, Err(DbError::Refused(_))));
    session.begin(&reads(&["a"], &[])).await.unwrap();
    assert!(matches!(session.begin(&reads(&["a"], &[])).await, Err(DbError::Lost(_))));
}

async fn what_is_over_is_read_only_on_demand<D: Database>(database: &D) {
    let mut over = count(1, 0);
    (over.counter.starts, over.counter.ends) = (0, 86_400_000_000_000);
    let writes =
        Writes { counts: vec![("past".into(), over.clone()), ("past".into(), count(2, 0))], ..Writes::default() };
    transact(database, &reads(&["past"], &[]), &writes).await.unwrap();
    assert_eq!(database.account("past").await.unwrap().1.counts, [count(2, 0)]);
    let counts = |since| async move {
        let since = Option::<u64>::into_iter(since).map(|since| ("past".into(), since));
        let asked = Reads { since: since.collect(), ..reads(&["past"], &[]) };
        let loaded = transact(database, &asked, &Writes::default()).await.unwrap();
        loaded.accounts["past"].counts.clone()
    };
    assert_eq!(counts(None).await, [count(2, 0)]);
    assert_eq!(counts(Some(u64::MAX)).await, [count(2, 0)], "what is under way is always read");
    assert_eq!(counts(Some(86_400_000_000_000)).await, [count(2, 0)]);
    assert_eq!(counts(Some(86_399_000_000_000)).await, [over, count(2, 0)]);
}

async fn holds_are_due_in_the_order_of_their_ends<D: Database>(database: &D) {
    let never = 9_999_999_999_000_000_000;
    let all = [hold("b", "3", 3_000), hold("a", "2", 2_000), hold("a", "1", 1_000), hold("a", "0", never)];
    let writes = Writes { opened: all.to_vec(), ..Writes::default() };
    transact(database, &reads(&["a", "b"], &[]), &writes).await.unwrap();
    assert_eq!(database.due(10, 0).await.unwrap(), [all[2].clone(), all[1].clone(), all[0].clone()]);
    assert_eq!(database.due(1, 0).await.unwrap(), [all[2].clone()]);
    assert_eq!(database.due(1, 1).await.unwrap(), [all[1].clone()]);
    assert_eq!(database.due(10, 3).await.unwrap(), []);

    let writes = Writes {
        renewed: vec![hold("a", "1", never), hold("a", "unknown", 1_000), hold("a", "2", 4_000)],
        closed: vec![(key("b", "3"), 1), (key("a", "2"), 0), (key("b", "unknown"), 1)],
        ..Writes::default()
    };
    transact(database, &reads(&["a", "b"], &[]), &writes).await.unwrap();
    assert_eq!(database.due(10, 0).await.unwrap(), [hold("a", "2", 4_000)]);
}
