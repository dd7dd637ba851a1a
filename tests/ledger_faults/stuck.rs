//! Connections or accounts that another session holds.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sqlx::{Connection, Executor, PgConnection};
use tollgate::{JobRun, Reason};

use super::place::{BRIEF, HUNG, PATIENT, Place, answered, audit, is_trouble, job, job_at_last, quotas, until, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exhausted_pool_does_not_stop_the_writer_on_a_file() {
    let (place, _directory) = Place::file();
    place.open().await.shut_down(HUNG).await;
    let Place::File(path) = &place else { unreachable!() };
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
        .busy_timeout(HUNG);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let ledger = tollgate::Ledger::sqlite_pool(pool.clone()).open().await.unwrap().deadline(PATIENT);
    let quotas = quotas(&ledger, 100);
    // The writer has a connection of its own since the ledger was opened.
    let held = pool.acquire().await.unwrap();
    for id in ["one", "two"] {
        assert_eq!(answered(job(&quotas, "acme", id)).await.unwrap(), JobRun::Done(()));
    }
    drop(held);
    assert_eq!(audit(&place, &ledger, |_, _| 100).await.len(), 2);
}

/// Another program writes into the same file and does not commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_file_is_reported_in_time() {
    let (place, _directory) = Place::file();
    let ledger = place.open().await;
    let quotas = quotas(&ledger, 100);
    assert!(job(&quotas, "acme", "one").await.is_ok());
    let Place::File(path) = &place else { unreachable!() };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(HUNG);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    wait(&ledger, BRIEF);
    const HELD: usize = 25; // together longer than the writer waits for one step
    for number in 0..HELD {
        let answer = answered(job(&quotas, "acme", &format!("held {number}"))).await;
        assert!(is_trouble(&answer), "{answer:?}");
    }
    other.execute("ROLLBACK").await.unwrap();
    wait(&ledger, PATIENT);
    for number in 0..HELD {
        assert_eq!(job_at_last(&quotas, "acme", &format!("held {number}")).await.unwrap(), JobRun::Done(()));
    }
    until("all is written", async || ledger.backlog() == 0).await;
    audit(&place, &ledger, |_, _| 100).await;
}

/// An id that no reservation has comes from a caller and costs the writer no transaction, nor one with an admission time
/// of its own any counters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_reservation_id_takes_no_lock() {
    let (place, _directory) = Place::file();
    let ledger = place.open().await;
    let quotas = quotas(&ledger, 100);
    let acme = tollgate::Client::named("acme");
    let id = quotas.reserve(&acme, ("tokens", 1)).await.unwrap().detach().to_string();
    let Place::File(path) = &place else { unreachable!() };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(HUNG);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let [prefix, command, at, epoch, tenant, job] = id.split('.').collect::<Vec<_>>().try_into().unwrap();
    for made_up in
        [format!("{prefix}.2.0.{epoch}.{tenant}.{job}"), format!("{prefix}.{command}.{at}.{epoch}.{tenant}.AA")]
    {
        let closed = quotas.roll_back(&made_up.parse().unwrap()).await;
        assert_eq!(closed, Err(tollgate::ReservationError::Unknown), "{made_up}");
    }
    other.execute("ROLLBACK").await.unwrap();
    // A counter of 1970 that cannot be decoded fails every call that reads it.
    let unreadable =
        "INSERT INTO quota_counter VALUES ('acme', CAST(x'ff' AS TEXT), 'tokens', 'hour', 0, 0, 1, 0, 0, 0, 0)";
    other.execute(unreadable).await.unwrap();
    let early = format!("{prefix}.{command}.0.{epoch}.{tenant}.{job}").parse().unwrap();
    assert_eq!(quotas.roll_back(&early).await, Ok(tollgate::CloseOutcome::Closed));
    other.execute("DELETE FROM quota_counter WHERE window_end = 1").await.unwrap();
    audit(&place, &ledger, |_, _| 100).await;
}

mod on_a_server {
    use super::*;
    use crate::support::postgres::Postgres;

    struct Scene {
        place: Place,
        url: String,
        ledger: tollgate::Ledger,
        quotas: tollgate::Quotas,
    }

    async fn scene() -> Scene {
        scene_in(Postgres::shared().database()).await
    }

    async fn scene_in(url: String) -> Scene {
        let place = Place::Server(url.clone());
        let ledger = place.open().await;
        let quotas = quotas(&ledger, 1_000);
        for tenant in ["ann", "bob", "cid"] {
            assert!(job(&quotas, tenant, "the first").await.is_ok());
        }
        Scene { place, url, ledger, quotas }
    }

    impl Scene {
        /// Opens a session that locks an account.
        async fn holding(&self, tenant: &str) -> PgConnection {
            let mut other = PgConnection::connect(&self.url).await.unwrap();
            other.execute("BEGIN").await.unwrap();
            let lock = "SELECT 1 FROM quota_account WHERE tenant_id = $1 FOR UPDATE";
            sqlx::query(lock).bind(tenant).execute(&mut other).await.unwrap();
            other
        }

        async fn has_charged(&self, jobs: i64) {
            until("all is written", async || self.ledger.backlog() == 0).await;
            let charged = audit(&self.place, &self.ledger, |_, _| 1_000).await;
            assert!(charged.values().all(|tokens| [0, 1].contains(tokens)), "{charged:?}");
            assert_eq!(charged.values().sum::<i64>(), jobs, "{charged:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn exhausted_pool_does_not_stop_the_writer() {
        let url = Postgres::shared().database();
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
        let ledger = tollgate::Ledger::postgres_pool(pool.clone()).open().await.unwrap().deadline(PATIENT);
        let quotas = quotas(&ledger, 100);
        let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        for id in ["one", "two"] {
            assert_eq!(answered(job(&quotas, "acme", id)).await.unwrap(), JobRun::Done(()));
        }
        drop(held);
        assert_eq!(audit(&Place::Server(url), &ledger, |_, _| 100).await.len(), 2);
    }

    /// Another session locks one account, whose callers keep coming. They are refused, and all others are served.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn locked_account_does_not_block_others() {
        const FREE: i64 = 60;
        let scene = scene().await;
        let mut other = scene.holding("bob").await;
        let (quotas, enough) = (scene.quotas.clone(), Arc::<AtomicBool>::default());
        let ends = Arc::clone(&enough);
        let bob = tokio::spawn(async move {
            let mut number = 0;
            while number == 0 || !ends.load(Ordering::Relaxed) {
                let answer = answered(job(&quotas, "bob", &format!("held {number}"))).await;
                assert!(is_trouble(&answer), "{answer:?}");
                number += 1;
            }
            number
        });
        for number in 0..FREE {
            let tenant = ["ann", "cid"][usize::from(number % 2 == 0)];
            let answer = answered(job(&scene.quotas, tenant, &format!("free {number}"))).await;
            assert!(answer.is_ok(), "{answer:?}");
        }
        enough.store(true, Ordering::Relaxed);
        let held = bob.await.unwrap();
        other.execute("ROLLBACK").await.unwrap();
        for number in 0..held {
            assert!(job_at_last(&scene.quotas, "bob", &format!("held {number}")).await.is_ok());
        }
        scene.has_charged(3 + FREE + held).await;
    }

    /// The server refuses the connection of the second lane, and another session lets go of the account.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn released_account_is_served_without_a_second_connection() {
        let url = Postgres::shared().database();
        let name = url.rsplit('/').next().unwrap();
        let sql = |sql: String| Postgres::shared().sql("postgres", &sql);
        sql(format!("CREATE ROLE owner_of_{name} LOGIN"));
        sql(format!("ALTER DATABASE {name} OWNER TO owner_of_{name}"));
        let scene = scene_in(url.replace("postgres@", &format!("owner_of_{name}@"))).await;
        let mut other = scene.holding("bob").await;
        sql(format!("ALTER ROLE owner_of_{name} CONNECTION LIMIT 0")); // for further connections
        for number in 0..3 {
            let held = answered(job(&scene.quotas, "bob", &format!("held {number}"))).await;
            assert!(is_trouble(&held), "{held:?}");
            assert!(answered(job(&scene.quotas, "ann", &format!("free {number}"))).await.is_ok());
        }
        other.execute("ROLLBACK").await.unwrap();
        for number in 0..3 {
            let served = answered(job(&scene.quotas, "bob", &format!("held {number}"))).await;
            assert!(served.is_ok(), "{served:?}");
        }
        sql(format!("ALTER ROLE owner_of_{name} CONNECTION LIMIT -1"));
        scene.has_charged(9).await;
    }

    /// Another session has inserted the row of a new account and does not commit.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn account_that_is_being_created_blocks_no_other() {
        let scene = scene().await;
        let mut other = PgConnection::connect(&scene.url).await.unwrap();
        other.execute("BEGIN; INSERT INTO quota_account (tenant_id) VALUES ('eve')").await.unwrap();
        for number in 0..3 {
            let asked = ["eve", "ann"].map(|tenant| {
                let (quotas, id) = (scene.quotas.clone(), format!("{tenant} {number}"));
                async move { answered(job(&quotas, tenant, &id)).await }
            });
            let [eve, ann] = futures_util::future::join_all(asked).await.try_into().unwrap();
            assert!(is_trouble(&eve) && ann.is_ok(), "{eve:?} {ann:?}");
        }
        other.execute("ROLLBACK").await.unwrap();
        assert!(job_at_last(&scene.quotas, "eve", "eve 0").await.is_ok());
        scene.has_charged(7).await;
    }

    /// The second lane locks ann and waits for cid; another session locks cid and waits for ann. The server aborts the
    /// ledger's transaction.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn deadlock_with_another_transaction_is_resolved() {
        // The order within a batch is random, and so is whether the server looks for a deadlock before the ledger's
        // lock times out.
        for _ in 0..100 {
            if provoke_deadlock().await {
                return;
            }
        }
        panic!("there was no deadlock to resolve");
    }

    async fn provoke_deadlock() -> bool {
        let url = Postgres::shared().database();
        let name = url.rsplit('/').next().unwrap();
        Postgres::shared().sql("postgres", &format!("ALTER DATABASE {name} SET deadlock_timeout = '400ms'"));
        let scene = scene_in(url.clone()).await;
        let mut other = scene.holding("cid").await;
        other.execute("SET LOCAL deadlock_timeout = '30s'").await.unwrap();
        // The first keeps the second lane busy until the two are in one batch of it.
        let mut first = scene.holding("bob").await;
        first.execute("SELECT 1 FROM quota_account WHERE tenant_id = 'ann' FOR UPDATE").await.unwrap();
        let asked = ["bob", "ann", "cid"].map(|tenant| {
            let quotas = scene.quotas.clone();
            let asked = tokio::spawn(async move { answered(job(&quotas, tenant, "both")).await });
            (tenant, asked)
        });
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("the ledger waits", async || scene.place.number(waits).await > 0).await;
        first.execute("COMMIT").await.unwrap();
        // It has locked ann by now, unless it reached cid first.
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut other).await.unwrap();
        let blocked = format!("SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))");
        until("the ledger waits for cid", async || {
            let mut connection = PgConnection::connect(&scene.url).await.unwrap();
            let blocked = sqlx::query_scalar(sqlx::AssertSqlSafe(blocked.clone()));
            blocked.fetch_one(&mut connection).await.unwrap_or(0_i64) > 0
        })
        .await;
        let lock = "SELECT 1 FROM quota_account WHERE tenant_id = 'ann' FOR UPDATE";
        let others = tokio::spawn(async move {
            sqlx::query(lock).execute(&mut other).await.unwrap();
            other.execute("COMMIT").await.unwrap();
        });
        for (tenant, asked) in asked {
            let answer = asked.await.unwrap();
            assert!(answer.is_ok() || is_trouble(&answer), "{answer:?}");
            assert!(job_at_last(&scene.quotas, tenant, "both").await.is_ok());
        }
        others.await.unwrap();
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        scene.has_charged(6).await;
        // A backend publishes its statistics when its connection ends, at the latest.
        scene.ledger.shut_down(HUNG).await;
        scene.place.number(deadlocks).await > 0
    }

    /// The request of a held account passes without the ledger; those of others do not, and keep to their limits.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn held_account_passes_and_others_keep_to_their_limits() {
        let directory = crate::support::directory::Directory::new();
        let url = Postgres::shared().database();
        let ledger = tollgate::Ledger::postgres(&url).spool_in(directory.0.join("spool")).open().await.unwrap();
        let ledger = ledger.deadline(PATIENT);
        let told = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let tells = std::sync::Arc::clone(&told);
        let layer =
            tollgate::QuotaLayer::new(super::super::place::plan(10)).observe(move |event: &tollgate::Event<'_>| {
                if let tollgate::Event::AccountHeld { client, .. } = event {
                    tells.lock().unwrap().extend(client.name().map(ToString::to_string));
                }
            });
        let quotas = layer.store_in(&ledger, tollgate::OnFailure::FailOpen).handle();
        let scene = Scene { place: Place::Server(url.clone()), url, ledger, quotas };
        for number in 0..10 {
            assert!(job(&scene.quotas, "ann", &format!("within {number}")).await.is_ok());
        }
        assert!(job(&scene.quotas, "bob", "the first").await.is_ok());
        let mut other = scene.holding("bob").await;
        for number in 0..20 {
            assert_eq!(answered(job(&scene.quotas, "bob", &format!("held {number}"))).await.unwrap(), JobRun::Done(()));
            let beyond = answered(job(&scene.quotas, "ann", &format!("beyond {number}"))).await.unwrap_err();
            assert_eq!(beyond.reason(), Reason::RateLimited, "the ledger decides about others");
        }
        assert!(scene.ledger.spool().unwrap().pending() >= 20);
        assert_eq!(*told.lock().unwrap(), ["bob"], "once until the account is free");
        other.execute("ROLLBACK").await.unwrap();
        until("the spool is merged", async || scene.ledger.spool().unwrap().pending() == 0).await;
        let mut more = 0;
        while answered(job(&scene.quotas, "bob", &format!("more {more}"))).await.is_ok() {
            more += 1; // until the ledger decides about the account again
        }
        until("all is written", async || scene.ledger.backlog() == 0).await;
        let most = |tenant: &str, _: &str| if tenant == "ann" { 10 } else { 1_000 };
        let charged = audit(&scene.place, &scene.ledger, most).await;
        assert_eq!(charged.values().sum::<i64>(), 10 + 21 + more, "{charged:?}");
    }

    /// More reservations of a held account than one round expires are due before the one of another client.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn overdue_reservations_of_a_held_account_delay_no_others() {
        let scene = scene().await;
        let reserve = async |tenant: &str| {
            let reserved = scene.quotas.reserve(&tollgate::Client::named(tenant), ("tokens", 1)).await;
            let _ = reserved.unwrap().detach();
        };
        futures_util::future::join_all((0..300).map(|_| reserve("bob"))).await;
        reserve("ann").await;
        let mut other = scene.holding("bob").await;
        let mut connection = PgConnection::connect(&scene.url).await.unwrap();
        let past = "UPDATE quota_hold SET until = '1970-01-02' WHERE tenant_id = 'bob';
            UPDATE quota_hold SET until = '1970-01-03' WHERE tenant_id = 'ann'";
        connection.execute(sqlx::raw_sql(past)).await.unwrap();
        let of_ann = "SELECT count(*) FROM quota_hold WHERE tenant_id = 'ann'";
        until("the other client's reservation has ended", async || scene.place.number(of_ann).await == 0).await;
        assert_eq!(scene.place.number("SELECT count(*) FROM quota_hold").await, 300);
        other.execute("ROLLBACK").await.unwrap();
        until("all reservations have ended", async || scene.place.number("SELECT count(*) FROM quota_hold").await == 0)
            .await;
        until("all is written", async || scene.ledger.backlog() == 0).await;
        audit(&scene.place, &scene.ledger, |_, _| 1_000).await;
    }

    /// The first two writes and the first two commits fail with a serialization error.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn serialization_failure_is_retried() {
        for timing in
            ["BEFORE INSERT ON quota_consumption", "AFTER INSERT ON quota_consumption DEFERRABLE INITIALLY DEFERRED"]
        {
            let scene = scene().await;
            let constraint = if timing.starts_with("AFTER") { "CONSTRAINT" } else { "" };
            let mut other = PgConnection::connect(&scene.url).await.unwrap();
            let fails = format!(
                "CREATE SEQUENCE failures;
                CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF nextval('failures') <= 2 THEN RAISE EXCEPTION 'come again' USING ERRCODE = '40001'; END IF;
                    RETURN NEW;
                END $$;
                CREATE {constraint} TRIGGER fail {timing} FOR EACH ROW EXECUTE FUNCTION fail()"
            );
            other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(fails))).await.unwrap();
            assert_eq!(answered(job(&scene.quotas, "ann", "again")).await.unwrap(), JobRun::Done(()));
            assert!(scene.place.number("SELECT last_value FROM failures").await > 2);
            scene.has_charged(4).await;
        }
    }
}
