//! Processes that die at named points of an operation with a shared transaction: payments and records agree each time.

use std::{process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tollgate::{
    idempotency::{IdempotencyLayer, IdempotentBody, IdempotentExecution},
    key_value::{
        AfterLease, Answer, Begun, Claim, Committed, Completion, KeyValue, OpenTransaction, Owner, Ownership,
        PostgresStore, RecordKey, RecordStore, RecordTransactions, SqliteStore, StoreFuture, UnknownPage,
    },
};
use tower::Layer;

use super::place::{Handler, Service, answer, payment, send, who};
use crate::support::{directory::Directory, postgres::Postgres};

/// Points at which a process dies.
const POINTS: [&str; 6] =
    ["before begin", "after begin", "before the transaction", "after the insert", "before commit", "after commit"];
const KILLS: usize = 17;

/// A store that ends its process at a point.
struct AbortingStore {
    store: Arc<dyn RecordStore>,
    point: String,
}

fn die_at(point: &str, here: &str) {
    if point == here {
        std::process::abort();
    }
}

impl RecordStore for AbortingStore {
    fn begin<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Begun> {
        Box::pin(async move {
            die_at(&self.point, "before begin");
            let begun = self.store.begin(claim).await;
            die_at(&self.point, "after begin");
            begun
        })
    }

    fn find<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, Option<Answer>> {
        self.store.find(key)
    }

    fn renew<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner, lease: Duration) -> StoreFuture<'a, Ownership> {
        self.store.renew(key, owner, lease)
    }

    fn complete<'a>(
        &'a self,
        key: &'a RecordKey,
        owner: &'a Owner,
        completion: &'a Completion,
        life: Duration,
    ) -> StoreFuture<'a, Ownership> {
        self.store.complete(key, owner, completion, life)
    }

    fn abandon<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner) -> StoreFuture<'a, Ownership> {
        self.store.abandon(key, owner)
    }

    fn unknown<'a>(&'a self, after: Option<&'a RecordKey>, limit: usize) -> StoreFuture<'a, UnknownPage> {
        self.store.unknown(after, limit)
    }

    fn settle<'a>(&'a self, key: &'a RecordKey, completion: &'a Completion, life: Duration) -> StoreFuture<'a, bool> {
        self.store.settle(key, completion, life)
    }

    fn release<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, bool> {
        self.store.release(key)
    }

    fn max_answer(&self) -> usize {
        self.store.max_answer()
    }

    fn transactions(&self) -> Option<&dyn RecordTransactions> {
        Some(self)
    }
}

impl RecordTransactions for AbortingStore {
    fn begin_transaction(&self) -> StoreFuture<'_, OpenTransaction> {
        die_at(&self.point, "before the transaction");
        self.store.transactions().unwrap().begin_transaction()
    }

    fn commit_transaction<'a>(
        &'a self,
        transaction: OpenTransaction,
        undo: bool,
        key: &'a RecordKey,
        owner: &'a Owner,
        completion: &'a Completion,
        life: Duration,
    ) -> StoreFuture<'a, Committed> {
        Box::pin(async move {
            die_at(&self.point, "before commit");
            let transactions = self.store.transactions().unwrap();
            let committed = transactions.commit_transaction(transaction, undo, key, owner, completion, life).await;
            die_at(&self.point, "after commit");
            committed
        })
    }

    fn roll_back_transaction(&self, transaction: OpenTransaction) -> StoreFuture<'_, ()> {
        self.store.transactions().unwrap().roll_back_transaction(transaction)
    }

    fn max_transaction(&self) -> Duration {
        Duration::from_secs(3_600)
    }
}

/// Returns the service of a process that dies at a point, or at none.
fn service(store: Arc<dyn RecordStore>, point: &str, in_file: bool) -> Service {
    let store = Arc::new(AbortingStore { store, point: point.into() });
    let layer = IdempotencyLayer::new(who(), store, &"5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap())
        .lease(Duration::from_millis(50))
        .after_lease(AfterLease::Rerun);
    let point = point.to_owned();
    layer.layer(Handler::default().service(move |_, request: Request<IdempotentBody<Full<Bytes>>>| {
        let (point, execution) = (point.clone(), request.extensions().get::<IdempotentExecution>().unwrap().clone());
        async move {
            let sql = "INSERT INTO payments (payment) VALUES ($1)";
            if in_file {
                let mut transaction = execution.transaction::<sqlx::Sqlite>().await.map_err(|_| "no transaction")?;
                let insert = sqlx::query(sql).bind(execution.key()).execute(&mut *transaction);
                insert.await.map_err(|_| "no insert")?;
            } else {
                let mut transaction = execution.transaction::<sqlx::Postgres>().await.map_err(|_| "no transaction")?;
                let insert = sqlx::query(sql).bind(execution.key()).execute(&mut *transaction);
                insert.await.map_err(|_| "no insert")?;
            }
            die_at(&point, "after the insert");
            Ok(answer(201, format!("attempt {}", execution.attempt())))
        }
    }))
}

fn open(url: &str) -> (Arc<dyn RecordStore>, bool) {
    match url.strip_prefix("sqlite:") {
        Some(path) => (Arc::new(SqliteStore::open(path)), true),
        None => (Arc::new(PostgresStore::open(url).unwrap()), false),
    }
}

/// The process that dies, started by the tests below.
#[tokio::test]
#[ignore = "a process of the tests of this file"]
async fn child() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (url, point, key) = (variable("ABORTS_URL"), variable("ABORTS_POINT"), variable("ABORTS_KEY"));
    if !url.is_empty() {
        let (store, in_file) = open(&url);
        send(&service(store, &point, in_file), payment(&key)).await;
    }
}

async fn agree(url: &str, payments: impl AsyncFn(&str) -> i64) {
    let (store, in_file) = open(url);
    let survivor = service(store, "", in_file);
    for kill in 0..KILLS {
        for point in POINTS {
            let key = format!("{kill}-{}", point.replace(' ', "-"));
            let program = std::env::current_exe().unwrap();
            let mut child = Command::new(program);
            child.args(["--ignored", "--exact", "aborts::child"]);
            child.env("ABORTS_URL", url).env("ABORTS_POINT", point).env("ABORTS_KEY", &key);
            let ended = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
            assert!(!ended.status.success(), "{key} lived: {}", String::from_utf8_lossy(&ended.stdout));

            let is_paid = payments(&key).await;
            assert_eq!(is_paid, i64::from(point == "after commit"), "{key}");
            let reply = loop {
                let reply = send(&survivor, payment(&key)).await;
                if reply.status != StatusCode::CONFLICT {
                    break reply; // its lease is over
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            let attempt = if ["before begin", "after commit"].contains(&point) { 1 } else { 2 };
            assert_eq!((reply.status, reply.text()), (StatusCode::CREATED, &*format!("attempt {attempt}")), "{key}");
            assert_eq!((reply.is_replayed(), payments(&key).await), (point == "after commit", 1), "{key}");
        }
    }
}

#[tokio::test]
async fn payments_and_records_agree_in_a_file() {
    let folder = Directory::new();
    let path = folder.0.join("shop.db").display().to_string();
    SqliteStore::open(&path).connect().await.unwrap();
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{path}")).await.unwrap();
    sqlx::raw_sql("CREATE TABLE payments (payment text NOT NULL)").execute(&pool).await.unwrap();
    let count = async |key: &str| {
        let sql = "SELECT count(*) FROM payments WHERE payment = $1";
        sqlx::query_scalar(sql).bind(key.to_owned()).fetch_one(&pool).await.unwrap()
    };
    agree(&format!("sqlite:{path}"), count).await;
}

#[tokio::test]
async fn payments_and_records_agree_on_a_server() {
    let url = Postgres::shared().database();
    PostgresStore::open(&url).unwrap().connect().await.unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE payments (payment text NOT NULL)").execute(&pool).await.unwrap();
    let count = async |key: &str| {
        let sql = "SELECT count(*) FROM payments WHERE payment = $1";
        sqlx::query_scalar(sql).bind(key.to_owned()).fetch_one(&pool).await.unwrap()
    };
    agree(&url, count).await;
}
