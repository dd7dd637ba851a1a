//! A full disk, and a database that is read-only.

use std::time::Duration;

use sqlx::{Executor, SqlitePool, sqlite::SqliteConnectOptions};
use tokio::task::JoinSet;
use tollgate::{Client, JobRun, Ledger, Reason};

use super::place::{HUNG, PATIENT, Place, answered, audit, is_trouble, job, job_at_last, quotas, until};
use crate::support::directory::Directory;

/// Charges until the disk is full, settles the open reservations, and frees space.
async fn full_disk_is_written_once_space_returns(
    place: &Place,
    ledger: &Ledger,
    fill: impl AsyncFn(),
    make_room: impl AsyncFn(),
) {
    let (quotas, acme) = (quotas(ledger, 1_000_000), Client::named("acme"));
    let mut reserved = Vec::new();
    for _ in 0..300 {
        reserved.push(quotas.reserve(&acme, ("tokens", 10)).await.unwrap());
    }
    fill().await;
    // Space in existing pages is soon used up.
    let mut asked = 0;
    let troubled = loop {
        let mut asking = JoinSet::new();
        for number in asked..asked + 50 {
            let quotas = quotas.clone();
            asking.spawn(async move {
                let id = format!("job {number}");
                (answered(job(&quotas, "acme", &id)).await, id)
            });
        }
        asked += 50;
        let answers = asking.join_all().await;
        let troubled: Vec<_> = answers.into_iter().filter(|(answer, _)| is_trouble(answer)).collect();
        if troubled.len() > 40 {
            break troubled;
        }
        assert!(asked < 20_000, "the disk is not full");
    };
    for (answer, _) in &troubled {
        assert_eq!(
            answer.as_ref().unwrap_err().reason(),
            Reason::Unavailable,
            "nothing was charged, and that is known"
        );
    }
    for (number, reserved) in reserved.into_iter().enumerate() {
        if number % 3 == 0 { drop(reserved) } else { reserved.commit(("tokens", 7)) }
    }
    // Callers are still answered in time while all settlements wait to be written.
    for number in 0..5 {
        let _ = answered(job(&quotas, "acme", &format!("more {number}"))).await;
    }
    let kept = ledger.backlog();
    println!("{asked} asked before it was full, and {kept} kept");
    assert!(kept > 50, "what settles is kept: {kept}");
    make_room().await;
    until("what was kept is written", async || ledger.backlog() == 0).await;
    for (_, id) in &troubled {
        job_at_last(&quotas, "acme", id).await.unwrap();
    }
    let charged = audit(place, ledger, |_, _| 1_000_000).await;
    let (jobs, reservations): (Vec<_>, Vec<_>) = charged.iter().partition(|((_, id), _)| id.contains(' '));
    assert!(jobs.iter().all(|(_, tokens)| [0, 1].contains(*tokens)));
    for (_, id) in &troubled {
        assert_eq!(charged.get(&("acme".into(), id.clone())), Some(&1), "{id}");
    }
    let mut ends: Vec<_> = reservations.into_iter().map(|(_, tokens)| *tokens).collect();
    ends.sort_unstable();
    assert_eq!(ends, [[0; 100].as_slice(), &[7; 200]].concat());
}

fn options(place: &Place) -> SqliteConnectOptions {
    let Place::File(path) = place else { unreachable!() };
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
}

async fn pool(most: u32, options: SqliteConnectOptions) -> SqlitePool {
    sqlx::sqlite::SqlitePoolOptions::new().max_connections(most).connect_with(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_file_is_written_once_space_returns() {
    let (place, _directory) = Place::file();
    let pool = pool(2, options(&place).pragma("max_page_count", "300")).await;
    let ledger = tollgate::Ledger::sqlite_pool(pool.clone()).open().await.unwrap().deadline(PATIENT);
    let fill = async || {
        pool.execute("CREATE TABLE ballast (filler BLOB)").await.unwrap();
        for size in [100_000, 4_000, 100] {
            let ballast = format!("INSERT INTO ballast VALUES (zeroblob({size}))");
            while pool.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(ballast.clone()))).await.is_ok() {}
        }
    };
    let make_room = async || assert!(pool.execute("DROP TABLE ballast").await.is_ok());
    full_disk_is_written_once_space_returns(&place, &ledger, fill, make_room).await;
}

/// A read-only database may be the wrong file or the wrong server: the ledger reconnects as soon as it can write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_file_is_reported_at_once_and_retried() {
    let (place, _directory) = Place::file();
    place.open().await.shut_down(HUNG).await;
    let pool = pool(1, options(&place)).await;
    // Lazy, because the writer of another one has its connection from the start.
    let ledger = tollgate::Ledger::sqlite_pool(pool.clone()).lazy().open().await.unwrap().deadline(PATIENT);
    let quotas = quotas(&ledger, 100);
    pool.set_connect_options(options(&place).create_if_missing(false).read_only(true));
    pool.acquire().await.unwrap().detach(); // the connection from before
    for number in 0..10 {
        let answer = answered(job(&quotas, "acme", &format!("job {number}"))).await;
        assert_eq!(answer.unwrap_err().reason(), Reason::Unavailable);
    }
    pool.set_connect_options(options(&place));
    for number in 0..10 {
        let answer = job_at_last(&quotas, "acme", &format!("job {number}")).await;
        assert_eq!(answer.unwrap(), JobRun::Done(()));
    }
    assert_eq!(audit(&place, &ledger, |_, _| 100).await.len(), 10);
}

mod on_a_server {
    use std::process::Command;

    use sqlx::{Connection, PgConnection};

    use super::*;
    use crate::support::postgres::Postgres;

    /// A disk of a few megabytes; `None` if this process may not mount one.
    struct SmallDisk(Directory);

    impl SmallDisk {
        fn mount() -> Option<Self> {
            let path = std::env::temp_dir().join(format!("tollgate-disk-{}", fastrand::u64(..)));
            std::fs::create_dir(&path).unwrap();
            let disk = Directory(path);
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0777", "none"]).arg(&disk.0);
            mount.output().is_ok_and(|told| told.status.success()).then(|| Self(disk))
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn full_disk_is_written_once_space_returns() {
        let Some(disk) = SmallDisk::mount() else {
            eprintln!(
                "\nLEFT OUT: a full disk under PostgreSQL, because a small one cannot be mounted here (root may)\n"
            );
            return;
        };
        let server = Postgres::start("");
        let url = server.database();
        let name = url.rsplit('/').next().unwrap();
        let inside = disk.0.0.join("tablespace");
        std::fs::create_dir(&inside).unwrap();
        Command::new("chown").arg("postgres").arg(&inside).status().unwrap();
        server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", inside.display()));
        server.sql("postgres", &format!("ALTER DATABASE {name} SET default_tablespace = small"));
        let place = Place::Server(url.clone());
        let ledger = place.open().await;
        let fill = async || {
            let mut other = PgConnection::connect(&url).await.unwrap();
            other
                .execute("CREATE TABLE ballast (filler text); ALTER TABLE ballast ALTER filler SET STORAGE PLAIN")
                .await
                .unwrap();
            for rows in [20, 1] {
                let ballast = format!("INSERT INTO ballast SELECT repeat('x', 7000) FROM generate_series(1, {rows})");
                while other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(ballast.clone()))).await.is_ok() {}
            }
        };
        let make_room = async || {
            let mut other = PgConnection::connect(&url).await.unwrap();
            other.execute("DROP TABLE ballast").await.unwrap();
            other.execute("CHECKPOINT").await.unwrap();
        };
        super::full_disk_is_written_once_space_returns(&place, &ledger, fill, make_room).await;
        drop(server);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn read_only_server_is_reported_in_time_and_retried() {
        let server = Postgres::shared();
        let url = server.database();
        let name = url.rsplit('/').next().unwrap();
        let place = Place::Server(url.clone());
        let ledger = place.open().await;
        let quotas = quotas(&ledger, 100);
        assert!(job(&quotas, "acme", "the first").await.is_ok());
        server.sql("postgres", &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
        server.sql(
            "postgres",
            &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
        );
        for number in 0..10 {
            let answer = answered(job(&quotas, "acme", &format!("job {number}"))).await;
            assert_eq!(answer.unwrap_err().reason(), Reason::Unavailable);
        }
        server.sql("postgres", &format!("ALTER DATABASE {name} RESET default_transaction_read_only"));
        for number in 0..10 {
            let answer = job_at_last(&quotas, "acme", &format!("job {number}")).await;
            assert_eq!(answer.unwrap(), JobRun::Done(()));
        }
        assert_eq!(audit(&place, &ledger, |_, _| 100).await.len(), 11);
    }
}
