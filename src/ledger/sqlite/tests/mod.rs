//! The suite over a file, and tests of files alone.

mod opening;

use std::path::PathBuf;

use super::*;
use crate::ledger::{
    Database, Session,
    sql::archive::finished,
    suite::{self, charge, count, key, reads, transact},
    writer::{ReservationRow, Stored, StoredCounter, Writes, tests::against},
};

/// After this time a test counts as hung.
const HUNG: Duration = Duration::from_secs(300);

/// A directory that is removed with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tollgate-{:032x}", uuid::Uuid::now_v7().as_u128()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(format!("{:032x}.db", uuid::Uuid::now_v7().as_u128()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_file_does_what_every_database_does() {
    let directory = Directory::new();
    suite::everything(|| async { SqliteDatabase::in_file(&directory.file(), OpenOptions::default()).await.unwrap() })
        .await;
}

#[tokio::test]
async fn a_ledger_in_memory_does_it_too() {
    suite::everything(|| async { SqliteDatabase::in_memory().await.unwrap() }).await;
}

#[tokio::test]
async fn invoices_are_the_sums_of_the_book() {
    suite::bills::are_sums_of_the_book(&SqliteDatabase::in_memory().await.unwrap()).await;
}

#[tokio::test]
async fn archive_of_a_long_history_leaves_room() {
    let ledger = SqliteDatabase::in_memory().await.unwrap();
    suite::archive::is_bounded(&ledger).await;
    suite::archive::leaves_a_changed_period(&ledger).await;
}

#[tokio::test]
async fn behaves_as_the_model_of_the_writer_search() {
    let ledger = SqliteDatabase::in_memory().await.unwrap();
    against::agrees(&ledger, 100).await;
}

#[tokio::test]
#[ignore = "a minute: many histories"]
async fn it_does_what_its_model_does_in_many_histories() {
    let ledger = SqliteDatabase::in_memory().await.unwrap();
    against::agrees(&ledger, 10_000).await;
}

/// Returns the steps of the plan of a query.
async fn plan(sql: &str, values: &[SqlValue<'_>]) -> Vec<String> {
    let ledger = SqliteDatabase::in_memory().await.unwrap();
    let sql = safe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = Sqlite::fetch(&mut *ledger.pool.acquire().await.unwrap(), sql, values).await.unwrap();
    rows.iter().map(|row| Sqlite::text(row, 3).unwrap().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn archive_reads_the_rows_of_a_tenant_once() {
    let plan = plan(&finished::<Sqlite>(), &[SqlValue::Text("acme"), SqlValue::Time(1)]).await;
    let at = |step: &str| plan.iter().position(|found| found.starts_with(step)).unwrap_or_else(|| panic!("{plan:?}"));
    assert!(at("SEARCH q ") < at("SEARCH c USING PRIMARY KEY"), "{plan:?}");
}

#[tokio::test]
async fn audit_looks_each_counters_sum_up() {
    let plan = plan(&SqliteDatabase::differing(), &[SqlValue::Number(1)]).await;
    assert!(plan.iter().any(|step| step.starts_with("SEARCH s USING AUTOMATIC")), "{plan:?}");
    assert!(!plan.iter().any(|step| step.starts_with("SCAN s LEFT-JOIN")), "{plan:?}");
}

/// Options of a pool that a program has, over a file that can hold a ledger.
fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
}

async fn of(options: SqliteConnectOptions) -> Result<SqliteDatabase, LedgerError> {
    SqliteDatabase::from_pool(
        SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options),
        OpenOptions::default(),
    )
    .await
}

async fn run(file: &Path, statements: impl Into<Arc<str>>) -> Result<(), String> {
    let mut connection = options(file).connect().await.unwrap();
    sqlx::raw_sql(safe(statements)).execute(&mut connection).await.map(|_| ()).map_err(|error| error.to_string())
}

fn one(job: &str) -> Writes {
    Writes { rows: vec![charge("ann", job, 1)], ..Writes::default() }
}

#[tokio::test]
async fn what_would_lose_acknowledged_rows_is_refused_in_words() {
    let directory = Directory::new();
    let mut told = Vec::new();
    for mode in [SqliteSynchronous::Off, SqliteSynchronous::Normal] {
        told.push(of(options(&directory.file()).synchronous(mode)).await.unwrap_err().to_string());
    }
    for mode in [SqliteJournalMode::Off, SqliteJournalMode::Memory] {
        told.push(of(options(&directory.file()).journal_mode(mode)).await.unwrap_err().to_string());
    }
    told.push(of(SqliteConnectOptions::new().in_memory(true)).await.unwrap_err().to_string());
    told.push(of(SqliteConnectOptions::new().filename("/shared").vfs("memdb")).await.unwrap_err().to_string());
    let lost = "rows that were acknowledged could be lost";
    let crash = "a crash could destroy the file";
    let journal = "journal_mode must be wal, delete, truncate or persist, got";
    assert_eq!(
        told,
        [
            format!("synchronous must be full or extra, got off: {lost}"),
            format!("synchronous must be full or extra, got normal: {lost}"),
            format!("{journal} off: {crash}"),
            format!("{journal} memory: {crash}"),
            "a ledger must be kept in a file, got a database in memory".to_owned(),
            "a ledger must be kept in a file, got a database in memory".to_owned(),
        ]
    );
    for mode in [SqliteJournalMode::Wal, SqliteJournalMode::Delete, SqliteJournalMode::Truncate] {
        let ledger = of(options(&directory.file()).journal_mode(mode).synchronous(SqliteSynchronous::Extra)).await;
        transact(&ledger.unwrap(), &reads(&["ann"], &[]), &one("job")).await.unwrap();
    }
}

#[tokio::test]
async fn many_programs_make_the_tables_once() {
    let directory = Directory::new();
    let file = directory.file();
    let all =
        futures_util::future::join_all((0..8).map(|_| SqliteDatabase::in_file(&file, OpenOptions::default()))).await;
    for (at, ledger) in all.into_iter().enumerate() {
        transact(&ledger.unwrap(), &reads(&["ann"], &[]), &one(&at.to_string())).await.unwrap();
    }
    SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
}

#[tokio::test]
async fn tables_of_earlier_versions_are_migrated_with_their_rows() {
    let directory = Directory::new();
    for version in [2, 1] {
        let file = directory.file();
        let tables = [Sqlite::PREPARE_SCHEMA].into_iter().chain(Sqlite::VERSIONS[..version].iter().copied());
        let rows = "INSERT INTO quota_account (tenant_id, created_at) VALUES ('ann', 0);
            INSERT INTO quota_counter (tenant_id, limit_id, quota_type, window_start, epoch, window_end, used, reserved, warned, untold)
                VALUES ('ann', 'daily', 'requests', 86400000000, 0, 9999999999000000, 3, 0, 1, 0);
            INSERT INTO quota_consumption VALUES
                (1, 'ann', 'job', 'requests', 'daily', 86400000000, 0, 'charge', 0, 0, 3, 0, zeroblob(16), NULL, NULL, NULL, NULL, NULL";
        let rows = match version {
            1 => format!("{rows})"),
            _ => format!("{rows}, '')")
                .replace("window_start, epoch, window_end", "window_start, epoch, period, window_end")
                .replace("86400000000, 0, 9999999999000000", "86400000000, 0, '', 9999999999000000"),
        };
        let applied = (1..=version).map(|at| format!("INSERT INTO quota_schema VALUES ({at}, 0)"));
        for sql in tables.map(str::to_owned).chain(applied).chain([rows]) {
            run(&file, sql).await.unwrap();
        }
        let ledger = SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
        let loaded = transact(&ledger, &reads(&["ann"], &[key("ann", "job")]), &one("other")).await.unwrap();
        let counter = StoredCounter { period: "".into(), ..count(3, 0) };
        assert_eq!(loaded.accounts["ann"].counts, [counter]);
        assert_eq!((loaded.rows[0].amount, &*loaded.rows[0].period), (3, ""));
        let twice = transact(&ledger, &reads(&["ann"], &[]), &one("job")).await;
        assert!(matches!(twice, Err(DbError::Rejected(_))), "version {version}: {twice:?}");
    }
}

#[tokio::test]
async fn id_of_a_ledger_stays_and_no_other_one_has_it() {
    let directory = Directory::new();
    let file = directory.file();
    let again = || SqliteDatabase::in_file(&file, OpenOptions::default());
    let id = again().await.unwrap().ledger_id();
    assert!(id.is_some());
    assert_eq!(again().await.unwrap().ledger_id(), id);
    assert_ne!(SqliteDatabase::in_memory().await.unwrap().ledger_id(), id);
}

#[tokio::test]
async fn tables_that_are_newer_or_altered_are_refused_in_words() {
    let directory = Directory::new();
    for (altered, words) in [
        (
            "INSERT INTO quota_schema VALUES (7, 0)",
            "must be at most 3, got 7: a newer version has migrated them; update this program",
        ),
        ("DROP INDEX quota_consumption_once", "lost its unique index quota_consumption_once"),
        ("DROP TRIGGER quota_consumption_kept", "lost its trigger quota_consumption_kept"),
        ("ALTER TABLE quota_counter DROP COLUMN untold", "untold"),
        ("DROP TABLE quota_hold", "no such table: quota_hold"),
        ("DELETE FROM quota_schema", "table quota_account already exists"),
    ] {
        let file = directory.file();
        let ledger = SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
        run(&file, altered).await.unwrap();
        let told = SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
        let hold = ReservationRow { key: key("ann", "job"), attempt: 0, until: 0, since: 0, charge: false };
        let writes = Writes { counts: vec![("ann".into(), count(1, 0))], opened: vec![hold], ..one("job") };
        let told = transact(&ledger, &reads(&["ann"], &[]), &writes).await;
        assert!(matches!(told, Err(DbError::Refused(_))), "an open ledger reports it too: {told:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_none_or_only_read_is_refused_in_words() {
    let directory = Directory::new();
    let file = directory.file();
    SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
    let told = of(SqliteConnectOptions::new().filename(&file).read_only(true)).await.unwrap_err().to_string();
    assert!(told.contains("attempt to write a readonly database"), "{told}");

    std::fs::write(directory.0.join("text"), "no database at all, whatever its name says").unwrap();
    let told =
        SqliteDatabase::in_file(&directory.0.join("text"), OpenOptions::default()).await.unwrap_err().to_string();
    assert!(told.contains("file is not a database") && told.contains("text"), "{told}");
    let told =
        SqliteDatabase::in_file(&directory.0.join("no/such.db"), OpenOptions::default()).await.unwrap_err().to_string();
    assert!(told.contains("the folder of a ledger must exist, got") && told.contains("/no; create it"), "{told}");
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_was_there() {
    let directory = Directory::new();
    let file = directory.file();
    SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
    let ledger = of(options(&file).pragma("max_page_count", "60")).await.unwrap();
    let mut session = ledger.connect().await.unwrap();
    let (asked, mut kept) = (reads(&["ann"], &[]), 0);
    loop {
        let loaded = session.begin(&asked).await.unwrap();
        let rows = (0..50).map(|at| charge("ann", &format!("{kept}-{at}"), 1)).collect();
        match session.write(&Writes { rows, ..Writes::default() }, loaded.now).await {
            Ok(()) => session.commit().await.unwrap(),
            Err(failure) => {
                assert!(matches!(&failure, DbError::Refused(words) if words.contains("full")), "{failure:?}");
                break;
            }
        }
        kept += 1;
    }
    assert!(kept > 0);
    let jobs: Vec<_> = (0..=kept).map(|batch| key("ann", &format!("{batch}-0"))).collect();
    let loaded = session.begin(&reads(&["ann"], &jobs)).await.expect("it was rolled back");
    assert_eq!(loaded.rows.len(), kept);
}

#[tokio::test]
async fn whoever_holds_the_file_too_long_makes_others_try_again() {
    let directory = Directory::new();
    let file = directory.file();
    let ledger = of(options(&file).busy_timeout(Duration::from_millis(50))).await.unwrap();
    let (mut first, mut second) = (ledger.connect().await.unwrap(), ledger.connect().await.unwrap());
    first.begin(&reads(&["ann"], &[])).await.unwrap();
    assert!(matches!(second.begin(&reads(&["bob"], &[])).await, Err(DbError::Again(_))));
    first.commit().await.unwrap();
    second.begin(&reads(&["bob"], &[])).await.expect("it goes on");
    second.commit().await.unwrap();
}

#[tokio::test]
async fn a_commit_that_finds_the_file_busy_has_not_happened() {
    let directory = Directory::new();
    let file = directory.file();
    let options = options(&file).journal_mode(SqliteJournalMode::Delete).busy_timeout(Duration::from_millis(50));
    let ledger = of(options).await.unwrap();
    let mut session = ledger.connect().await.unwrap();
    let loaded = session.begin(&reads(&["ann"], &[])).await.unwrap();
    session.write(&one("job"), loaded.now).await.unwrap();
    let mut reader = ledger.pool.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM quota_consumption").fetch_all(&mut *reader).await.unwrap();
    assert!(matches!(session.commit().await, Err(DbError::Again(_))));
    drop(reader);
    let loaded = session.begin(&reads(&["ann"], &[key("ann", "job")])).await.unwrap();
    assert_eq!(loaded.rows, []);
}

#[tokio::test]
async fn rows_are_never_changed_and_people_can_read_them() {
    let directory = Directory::new();
    let file = directory.file();
    let ledger = SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
    let writes = Writes { counts: vec![("ann".into(), count(1, 0))], ..one("job") };
    transact(&ledger, &reads(&["ann"], &[]), &writes).await.unwrap();
    for change in ["UPDATE quota_consumption SET amount = 0", "DELETE FROM quota_consumption"] {
        let told = run(&file, change).await.unwrap_err();
        assert!(told.contains("write a row that corrects"), "{told}");
    }
    let negative = run(&file, "UPDATE quota_counter SET used = -1").await.unwrap_err();
    assert!(negative.contains("CHECK constraint failed"), "{negative}");
    let asked = "SELECT window_start, fingerprint, until, consumed_at FROM quota_ledger";
    let row = sqlx::query(asked).fetch_one(&ledger.pool).await.unwrap();
    assert_eq!(row.get::<&str, _>(0), "1970-01-02T00:00:00.000000Z");
    assert_eq!(row.get::<&str, _>(1), "fffffffffffffffffffffffffffffffe");
    assert_eq!(row.get::<Option<&str>, _>(2), None);
    assert!(row.get::<&str, _>(3).ends_with("000Z"), "milliseconds are all that SQLite's clock has");
}

#[tokio::test]
async fn a_pool_of_one_still_has_its_one() {
    let directory = Directory::new();
    let ledger = of(options(&directory.file())).await.unwrap();
    let mut session = ledger.connect().await.unwrap();
    session.begin(&reads(&["ann"], &[])).await.unwrap();
    assert_eq!(ledger.account("ann").await.unwrap().1, Stored::default());
    drop(session);
    for _ in 0..3 {
        transact(&ledger, &reads(&["ann"], &[]), &Writes::default()).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "measures"]
async fn charges_a_second() {
    let directory = Directory::new();
    for tenants in [16, 2_000] {
        suite::speed::of(
            "SQLite",
            &SqliteDatabase::in_file(&directory.file(), OpenOptions::default()).await.unwrap(),
            tenants,
        )
        .await;
    }
}
