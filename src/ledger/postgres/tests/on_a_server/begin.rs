//! The function that locks and reads, and the tables of earlier versions.

use super::*;
use crate::ledger::suite::count;

fn counts(writes: Writes, used: u64) -> Writes {
    Writes { counts: vec![("ann".into(), count(used, 0))], ..writes }
}

/// Waits until one session of a database waits for a lock.
async fn until_one_waits(ledger: &PostgresDatabase) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&ledger.pool).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
}

/// One statement that locked and read would see the rows as they were before it waited.
#[tokio::test]
async fn read_under_a_lock_sees_what_its_holder_committed() {
    let ledger = fresh().await;
    transact(&ledger, &reads(&["ann"], &[]), &counts(one("ann", "0"), 0)).await.unwrap();
    let (mut first, mut second) = (ledger.connect().await.unwrap(), ledger.connect().await.unwrap());
    let mut used = 0;
    while used < 3 {
        let loaded = first.begin(&reads(&["ann"], &[])).await.unwrap();
        let job = format!("job {used}");
        first.write(&counts(one("ann", &job), used + 1), loaded.now).await.unwrap();
        used += 1;
        let waiting = async {
            until_one_waits(&ledger).await;
            first.commit().await.unwrap();
        };
        let asked = reads(&["ann"], &[key("ann", &job)]);
        // On a slow machine the lock's own time-out may come first.
        match tokio::join!(second.begin(&asked), waiting).0 {
            Err(DbError::Again(_)) => {}
            loaded => {
                let loaded = loaded.unwrap();
                assert_eq!(loaded.accounts["ann"].counts, [count(used, 0)]);
                assert_eq!(loaded.rows.len(), 1);
                second.commit().await.unwrap();
            }
        }
    }
}

/// Two sessions that skip held accounts count up one counter. None reads a value that the other has replaced.
#[tokio::test]
async fn sessions_that_skip_lose_no_update_of_each_other() {
    let ledger = fresh().await;
    transact(&ledger, &reads(&["ann"], &[]), &counts(one("ann", "0"), 0)).await.unwrap();
    let counting = |number: usize| {
        let ledger = &ledger;
        async move {
            let mut session = ledger.connect().await.unwrap();
            let mut counted = 0;
            while counted < 200 {
                let asked = Reads { skips_held: true, ..reads(&["ann"], &[]) };
                let loaded = session.begin(&asked).await.unwrap();
                if loaded.held.is_empty() {
                    let used = loaded.accounts["ann"].counts[0].counter.used;
                    let writes = counts(one("ann", &format!("{number} {counted}")), used + 1);
                    session.write(&writes, loaded.now).await.unwrap();
                    counted += 1;
                }
                session.commit().await.unwrap();
            }
        }
    };
    futures_util::future::join_all((0..3).map(counting)).await;
    assert_eq!(ledger.account("ann").await.unwrap().1.counts, [count(600, 0)]);
}

#[tokio::test]
async fn names_of_any_text_are_locked_and_read() {
    let ledger = fresh().await;
    let names = ["a\"b", "c\\d", "{e,f}", "g'h", "i\0\u{1}j", "NULL", "\u{1F680}", " ", "k\n"];
    let jobs: Vec<_> = names.iter().map(|name| key(name, name)).collect();
    for (round, skips_held) in [(0, true), (1, false), (2, true)] {
        let mut session = ledger.connect().await.unwrap();
        let asked = Reads { skips_held, jobs: jobs.clone(), ..reads(&names, &[]) };
        let mut loaded = session.begin(&asked).await.unwrap();
        loaded.created.sort_unstable();
        let mut all: Vec<_> = names.iter().map(|name| Arc::from(*name)).collect();
        all.sort_unstable();
        assert_eq!(loaded.created, if round == 0 { all.clone() } else { Vec::new() });
        let mut read: Vec<_> = loaded.accounts.into_keys().collect();
        read.sort_unstable();
        assert_eq!(read, all);
        assert_eq!(loaded.rows.len(), if round == 0 { 0 } else { names.len() });
        if round == 0 {
            let rows = names.iter().map(|name| charge(name, name, 1)).collect();
            let counts = names.iter().map(|name| (Arc::from(*name), count(1, 0))).collect();
            session.write(&Writes { rows, counts, ..Writes::default() }, loaded.now).await.unwrap();
        }
        session.commit().await.unwrap();
    }
}

/// The settings of a role or of a pooler's server change no text of a time.
#[tokio::test]
async fn settings_of_the_server_change_no_time() {
    let url = Server::shared().database();
    let options = "-c%20datestyle%3DSQL,DMY%20-c%20timezone%3DAsia/Kolkata%20-c%20standard_conforming_strings%3Doff%20-c%20bytea_output%3Descape";
    let ledger = PostgresDatabase::at_url(&format!("{url}?options={options}"), OpenOptions::default()).await.unwrap();
    transact(
        &ledger,
        &reads(&["a\\b"], &[]),
        &Writes { counts: vec![("a\\b".into(), count(3, 0))], ..one("a\\b", "job") },
    )
    .await
    .unwrap();
    let asked = Reads { since: [(Arc::from("a\\b"), 86_400_000_000_000)].into(), ..reads(&["a\\b"], &[]) };
    let mut session = ledger.connect().await.unwrap();
    let loaded = session.begin(&asked).await.unwrap();
    session.roll_back().await.unwrap();
    let (now, stored) = ledger.account("a\\b").await.unwrap();
    assert_eq!((&loaded.accounts["a\\b"], &stored.counts[..]), (&stored, &[count(3, 0)][..]));
    assert!(loaded.now <= now && now - loaded.now < 3_600_000_000_000, "{} and {now}", loaded.now);
}

#[tokio::test]
async fn tables_of_earlier_versions_are_migrated_with_their_rows() {
    for version in [1, 2, 3] {
        let url = Server::shared().database();
        let mut other = PgConnection::connect(&url).await.unwrap();
        let run = [Postgres::PREPARE_SCHEMA].into_iter().chain(Postgres::VERSIONS[..version].iter().copied());
        let rows = "INSERT INTO quota_account (tenant_id) VALUES ('ann');
            INSERT INTO quota_counter (tenant_id, limit_id, quota_type, window_start, epoch, window_end, used, reserved, warned, untold)
                VALUES ('ann', 'daily', 'requests', 'epoch'::timestamptz + interval '1 day', 0, '2286-11-20 17:46:39Z', 3, 0, true, false);
            INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, window_start, epoch, entry, attempt, part, amount,
                consumed_at, order_id) VALUES ('ann', 'job', 'requests', 'daily', 'epoch'::timestamptz + interval '1 day', 0, 'charge',
                0, 0, 3, now(), gen_random_uuid())";
        for sql in run.chain([rows]) {
            other.execute(sqlx::raw_sql(sql)).await.unwrap();
        }
        for at in 1..=version {
            other.execute(sqlx::raw_sql(safe(format!("INSERT INTO quota_schema VALUES ({at})")))).await.unwrap();
        }
        let ledger = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap();
        let loaded = transact(&ledger, &reads(&["ann"], &[key("ann", "job")]), &one("ann", "other")).await.unwrap();
        let counter = &loaded.accounts["ann"].counts[0];
        assert_eq!((counter.counter.used, &*counter.period), (3, ""), "version {version}");
        assert_eq!((loaded.rows.len(), loaded.rows[0].amount), (1, 3), "version {version}");
        let twice = transact(&ledger, &reads(&["ann"], &[]), &one("ann", "job")).await;
        assert!(matches!(twice, Err(DbError::Rejected(_))), "version {version}: {twice:?}");
        assert_eq!(ledger.drifts(10).await.unwrap().1.len(), 1, "the row that was written without a counter");
    }
}

#[tokio::test]
async fn migration_has_no_time_limit_and_leaves_the_session_its_own() {
    let mut connection = PgConnection::connect(&Server::shared().database()).await.unwrap();
    connection.execute("SET statement_timeout = '7s'").await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    Postgres::run(&mut transaction, sqlx::AssertSqlSafe(Postgres::limit_lock_wait(5)).into_sql_str()).await.unwrap();
    let shown = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')";
    let within: (String, String) = sqlx::query_as(shown).fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(within, ("0".into(), "5ms".into()));
    transaction.commit().await.unwrap();
    let after: (String, String) = sqlx::query_as(shown).fetch_one(&mut connection).await.unwrap();
    assert_eq!(after, ("7s".into(), "0".into()));
}
