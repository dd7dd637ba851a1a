//! The suite over a server, and tests of servers alone. `bash tests/run` skips tests of this name if there is no
//! server.

mod begin;
mod plans;

use sqlx::Connection as _;

use super::super::*;
use crate::ledger::{
    Database, Session,
    sql::ChargePath,
    suite::{self, charge, key, reads, transact},
    writer::{Reads, Stored, Writes, tests::against},
};

#[path = "../../../../tests/support/postgres.rs"]
mod servers;
use servers::Postgres as Server;

async fn fresh() -> PostgresDatabase {
    PostgresDatabase::at_url(&Server::shared().database(), OpenOptions::default()).await.unwrap()
}

#[tokio::test]
async fn a_server_does_what_every_database_does() {
    suite::everything(fresh).await;
}

#[tokio::test]
async fn invoices_are_the_sums_of_the_book() {
    suite::bills::are_sums_of_the_book(&fresh().await).await;
}

#[tokio::test]
async fn archive_of_a_long_history_leaves_room() {
    let ledger = fresh().await;
    suite::archive::is_bounded(&ledger).await;
    suite::archive::leaves_a_changed_period(&ledger).await;
}

#[tokio::test]
async fn behaves_as_the_model_of_the_writer_search() {
    against::agrees(&fresh().await, 50).await;
}

#[tokio::test]
#[ignore = "minutes: many histories"]
async fn it_does_what_its_model_does_in_many_histories() {
    against::agrees(&fresh().await, 10_000).await;
}

fn one(tenant: &str, job: &str) -> Writes {
    Writes { rows: vec![charge(tenant, job, 1)], ..Writes::default() }
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn held_accounts_are_skipped_and_missing_ones_created() {
    let ledger = fresh().await;
    let skipping = |tenants: &[&str]| Reads { skips_held: true, ..reads(tenants, &[]) };
    let mut first = ledger.connect().await.unwrap();
    first.begin(&reads(&["ann", "bob"], &[])).await.unwrap();
    first.commit().await.unwrap();
    first.begin(&reads(&["ann", "bob"], &[])).await.unwrap();
    let mut second = ledger.connect().await.unwrap();
    let loaded = second.begin(&skipping(&["ann", "bob", "cid", "dan\0"])).await.unwrap();
    assert_eq!(loaded.held, ["ann", "bob"].map(Arc::from));
    let mut read: Vec<_> = loaded.accounts.keys().map(|tenant| &**tenant).collect();
    read.sort_unstable();
    assert_eq!(read, ["cid", "dan\0"], "only locked accounts are read");
    second.commit().await.unwrap();
    second.begin(&skipping(&["cid", "dan\0"])).await.unwrap();
    first.commit().await.unwrap();
    let loaded = first.begin(&skipping(&["ann", "cid", "dan\0", "eve"])).await.unwrap();
    assert_eq!(loaded.held, ["cid", "dan\0"].map(Arc::from), "the accounts that were created are locked");
}

/// The other session ends after all assertions: nothing here has waited for it.
#[tokio::test]
async fn account_that_is_being_created_is_not_waited_for() {
    let ledger = fresh().await;
    let skipping = |tenants: &[&str]| Reads { skips_held: true, ..reads(tenants, &[]) };
    let mut session = ledger.connect().await.unwrap();
    session.begin(&skipping(&["ann"])).await.unwrap();
    session.commit().await.unwrap();
    let mut other = ledger.pool.acquire().await.unwrap();
    other.execute("BEGIN; INSERT INTO quota_account (tenant_id) VALUES ('eve')").await.unwrap();
    let loaded = session.begin(&skipping(&["ann", "eve", "fay"])).await.unwrap();
    assert_eq!(loaded.held, ["eve", "fay"].map(Arc::from), "missing accounts are left to the second lane");
    assert!(loaded.accounts.contains_key("ann"));
    session.write(&one("ann", "job"), loaded.now).await.unwrap();
    session.commit().await.unwrap();
    session.begin(&reads(&["fay"], &[])).await.expect("only one account is being created");
    session.commit().await.unwrap();
    other.execute("COMMIT").await.unwrap();
    let loaded = session.begin(&skipping(&["ann", "eve", "fay"])).await.unwrap();
    assert_eq!(loaded.held, []);
}

#[tokio::test]
async fn short_lock_timeout_covers_new_accounts_only() {
    let ledger = fresh().await;
    let (mut connection, mut other) = (ledger.pool.acquire().await.unwrap(), ledger.pool.acquire().await.unwrap());
    let insists = "CREATE FUNCTION insist() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF current_setting('lock_timeout') <> '1ms' THEN RAISE EXCEPTION 'it would wait longer'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER insist BEFORE INSERT ON quota_account FOR EACH ROW EXECUTE FUNCTION insist()";
    other.execute(sqlx::raw_sql(insists)).await.unwrap();
    other
        .execute("BEGIN; SET LOCAL lock_timeout = '1ms'; INSERT INTO quota_account (tenant_id) VALUES ('eve')")
        .await
        .unwrap();
    for tenants in [["ann"], ["ann"], ["eve"]] {
        let asked = Reads { skips_held: true, ..reads(&tenants, &[]) };
        let loaded = Postgres::begin(&mut connection, &asked, None).await.unwrap();
        assert_eq!(loaded.held.len(), usize::from(tenants == ["eve"]));
        let timeout: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&mut *connection).await.unwrap();
        assert_eq!(timeout, "500ms", "{tenants:?}");
        Postgres::commit(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn other_accounts_do_not_wait() {
    let ledger = fresh().await;
    let (mut first, mut second) = (ledger.connect().await.unwrap(), ledger.connect().await.unwrap());
    for _ in 0..2 {
        first.begin(&reads(&["ann", "cid"], &[])).await.unwrap();
        // It would be refused if a lock did not come.
        second.begin(&reads(&["bob", "dan"], &[])).await.expect("bob is not locked");
        second.commit().await.unwrap();
        first.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_that_does_not_come_is_tried_again() {
    let ledger = fresh().await;
    let (mut first, mut second) = (ledger.connect().await.unwrap(), ledger.connect().await.unwrap());
    first.begin(&reads(&["ann"], &[])).await.unwrap();
    let told = second.begin(&reads(&["ann"], &[])).await;
    assert!(matches!(&told, Err(DbError::Again(words)) if words.contains("55P03")), "{told:?}");
    first.commit().await.unwrap();
    second.begin(&reads(&["ann"], &[])).await.expect("it goes on");
}

#[tokio::test]
async fn whoever_is_dropped_while_it_waits_holds_nothing() {
    let ledger = fresh().await;
    let mut first = ledger.connect().await.unwrap();
    first.begin(&reads(&["bob"], &[])).await.unwrap();
    let asked = reads(&["ann", "bob"], &[]);
    let mut second = loop {
        let mut second = ledger.connect().await.unwrap();
        match tokio::time::timeout(Duration::from_millis(200), second.begin(&asked)).await {
            Err(_) => break second,
            // On a slow machine the lock's own time-out may come first.
            Ok(began) => assert!(matches!(began, Err(DbError::Again(_))), "{began:?}"),
        }
    };
    assert!(matches!(second.commit().await, Err(DbError::Lost(_))));
    drop(second);
    first.commit().await.unwrap();
    transact(&ledger, &asked, &one("ann", "job")).await.expect("its locks are gone");
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_lost() {
    let url = Server::shared().database();
    let ledger = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap();
    let mut session = ledger.connect().await.unwrap();
    let loaded = session.begin(&reads(&["ann"], &[])).await.unwrap();
    session.write(&one("ann", "job"), loaded.now).await.unwrap();
    let others = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", name(&url));
    Server::shared().sql("postgres", &others);
    assert!(matches!(session.commit().await, Err(DbError::Lost(_))));
    let loaded = transact(&ledger, &reads(&["ann"], &[key("ann", "job")]), &Writes::default()).await.unwrap();
    assert_eq!(loaded.rows, []);
}

#[tokio::test]
async fn what_was_committed_survives_a_killed_server() {
    let server = Server::start("");
    let url = server.database();
    let ledger = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap();
    let mut session = ledger.connect().await.unwrap();
    for (job, commits) in [("told", true), ("untold", false)] {
        let loaded = session.begin(&reads(&["ann"], &[])).await.unwrap();
        session.write(&one("ann", job), loaded.now).await.unwrap();
        if commits {
            session.commit().await.unwrap();
        }
    }
    server.kill();
    assert!(matches!(session.commit().await, Err(DbError::Lost(_))));
    assert!(matches!(ledger.connect().await, Err(DbError::Lost(_))));
    server.again("");
    let asked = reads(&["ann"], &[key("ann", "told"), key("ann", "untold")]);
    let loaded =
        transact(&PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap(), &asked, &Writes::default())
            .await
            .unwrap();
    assert_eq!(loaded.rows, [charge("ann", "told", 1)]);
}

#[tokio::test]
async fn what_would_lose_acknowledged_rows_is_refused_in_words() {
    let url = Server::shared().database();
    let told = |url: String| async move {
        PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap_err().to_string()
    };
    let off = told(format!("{url}?options=-c%20synchronous_commit%3Doff")).await;
    assert!(off.contains("got off: rows that were acknowledged could be lost"), "{off}");
    let read = told(format!("{url}?options=-c%20default_transaction_read_only%3Don")).await;
    assert!(read.contains("read-only") || read.contains("read_only"), "{read}");
    PostgresDatabase::at_url(&format!("{url}?options=-c%20synchronous_commit%3Dlocal"), OpenOptions::default())
        .await
        .unwrap();

    let ledger = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap();
    Server::shared().sql("postgres", &format!("ALTER DATABASE {} SET synchronous_commit = off", name(&url)));
    ledger.connect().await.expect("the one that was opened with the ledger");
    assert!(
        matches!(ledger.connect().await, Err(DbError::Refused(_))),
        "each connection is asked, not the first alone"
    );

    let latin = format!("{}_latin", name(&url));
    let made = format!("CREATE DATABASE {latin} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    Server::shared().sql("postgres", &made);
    let lost = told(Server::shared().url(&latin)).await;
    assert!(lost.contains("encoding of the database must be UTF8, got LATIN1"), "{lost}");

    let server = Server::start("-c fsync=off");
    let off = told(server.url("postgres")).await;
    assert!(off.contains("fsync must be on, got off") && off.contains(".storage_is_durable()"), "{off}");
    let durable = OpenOptions { durable_storage: true, ..OpenOptions::default() };
    PostgresDatabase::at_url(&server.url("postgres"), durable).await.unwrap();
}

#[tokio::test]
async fn role_without_a_right_is_refused_with_the_grant() {
    let url = Server::shared().database();
    PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap();
    let role = format!("reader_{}", name(&url));
    let sql = format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}");
    Server::shared().sql(name(&url), &sql);
    let url = url.replace("postgres@", &format!("{role}@"));
    let error = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Forbidden, "{error}");
    assert!(error.reason().contains("GRANT ") && error.reason().contains(&role), "{error}");
    Server::shared().sql(name(&url), &format!("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM {role}"));
    let error = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Forbidden, "{error}");
    assert!(error.reason().contains("GRANT the role"), "{error}");
}

#[tokio::test]
async fn demand_for_tls_names_the_missing_feature() {
    let url = format!("{}?sslmode=require", Server::shared().database());
    let error = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Address, "{error}");
    assert!(error.reason().contains("tls-rustls"), "{error}");
}

#[tokio::test]
async fn locks_of_others_are_busy_after_the_open_timeout() {
    let mut brief = OpenOptions { timeout: Duration::from_millis(500), ..OpenOptions::default() };
    for (made, lock) in [
        (false, "SELECT pg_advisory_xact_lock(8389754629021267045)"),
        (true, "LOCK TABLE quota_schema IN ACCESS EXCLUSIVE MODE"),
        (true, "LOCK TABLE quota_counter IN ACCESS EXCLUSIVE MODE"),
    ] {
        let url = Server::shared().database();
        if made {
            PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap();
        }
        let mut other = PgConnection::connect(&url).await.unwrap();
        let mut transaction = other.begin().await.unwrap();
        sqlx::raw_sql(lock).execute(&mut *transaction).await.unwrap();
        let error = loop {
            let opening = tokio::time::timeout(Duration::from_secs(300), PostgresDatabase::at_url(&url, brief));
            let error = opening.await.expect("it does not hang").unwrap_err();
            if error.kind() != LedgerErrorKind::Unreachable {
                break error;
            }
            brief.timeout *= 2; // on a slow machine connecting takes longer
        };
        assert_eq!(error.kind(), LedgerErrorKind::Busy, "{error}");
        assert!(error.reason().contains(".open_timeout()"), "{error}");
        transaction.rollback().await.unwrap();
        PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn errors_say_where_and_why_and_never_the_password() {
    let shared = Server::shared();
    for (url, words) in [
        (format!("postgres://ann:canary@127.0.0.1:{}/nowhere", shared.port()), "ann"),
        (format!("postgres://postgres:canary@127.0.0.1:{}/nowhere", shared.port()), "nowhere"),
        ("postgres://ann:canary@127.0.0.1:1/nowhere".to_owned(), "127.0.0.1:1"),
        ("postgres://ann:canary@127.0.0.1:no/nowhere".to_owned(), "invalid ledger URL"),
    ] {
        let told = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap_err();
        assert!(told.reason().contains(words) && !format!("{told} {told:?}").contains("canary"), "{told}");
    }
    let url = shared.database().replace("postgres@", "postgres:canary@");
    let shown = format!("{:?}", PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn many_programs_make_the_tables_once() {
    let url = Server::shared().database();
    let all =
        futures_util::future::join_all((0..8).map(|_| PostgresDatabase::at_url(&url, OpenOptions::default()))).await;
    for (at, ledger) in all.into_iter().enumerate() {
        transact(&ledger.unwrap(), &reads(&["ann"], &[]), &one("ann", &at.to_string())).await.unwrap();
    }
}

#[tokio::test]
async fn tables_that_are_newer_or_altered_are_refused_in_words() {
    for (altered, words) in [
        (
            "INSERT INTO quota_schema VALUES (7)",
            "must be at most 4, got 7: a newer version has migrated them; update this program",
        ),
        (
            "ALTER TABLE quota_consumption DROP CONSTRAINT quota_consumption_once",
            "lost its unique index quota_consumption_once",
        ),
        ("ALTER TABLE quota_counter DROP COLUMN untold", "untold"),
        ("DROP TABLE quota_hold", "quota_hold"),
        ("DROP FUNCTION quota_begin", "function quota_begin"),
        ("ALTER TABLE quota_consumption SET UNLOGGED", "quota_consumption must be logged"),
        ("ALTER TABLE quota_archive SET UNLOGGED", "quota_archive must be logged"),
        (
            "ALTER TABLE quota_consumption DISABLE TRIGGER ALL",
            "lost its trigger quota_consumption_stays, or it is disabled",
        ),
    ] {
        let url = Server::shared().database();
        let ledger = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap();
        Server::shared().sql(name(&url), altered);
        let told = PostgresDatabase::at_url(&url, OpenOptions::default()).await.unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
        drop(ledger.connect().await); // the one that was opened with the ledger has prepared its statements
        assert!(matches!(ledger.connect().await, Err(DbError::Refused(_))), "an open ledger reports it too");
    }
}

#[tokio::test]
async fn rows_are_never_changed() {
    let ledger = fresh().await;
    transact(&ledger, &reads(&["ann"], &[]), &one("ann", "job")).await.unwrap();
    for change in
        ["UPDATE quota_consumption SET amount = 0", "DELETE FROM quota_consumption", "TRUNCATE quota_consumption"]
    {
        let told = sqlx::raw_sql(change).execute(&ledger.pool).await.unwrap_err().to_string();
        assert!(told.contains("write a row that corrects"), "{told}");
    }
    let negative = "INSERT INTO quota_counter VALUES ('a', 'b', 'c', 'epoch', 0, 'epoch', -1, 0, false, false)";
    let told = sqlx::raw_sql(negative).execute(&ledger.pool).await.unwrap_err().to_string();
    assert!(told.contains("check constraint"), "{told}");
}

#[tokio::test]
async fn a_pool_of_one_still_has_its_one() {
    let pool = PgPoolOptions::new().max_connections(1).connect(&Server::shared().database()).await.unwrap();
    let ledger = PostgresDatabase::from_pool(pool, OpenOptions::default()).await.unwrap();
    let mut session = ledger.connect().await.unwrap();
    session.begin(&reads(&["ann"], &[])).await.unwrap();
    assert_eq!(ledger.account("ann").await.unwrap().1, Stored::default());
}

#[tokio::test]
#[ignore = "measures"]
async fn charges_a_second() {
    for tenants in [16, 2_000] {
        suite::speed::of("PostgreSQL", &fresh().await, tenants).await;
    }
}
