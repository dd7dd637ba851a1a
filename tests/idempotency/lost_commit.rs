//! Commits of shared transactions whose replies are lost between the program and the server.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use sqlx::{Executor, PgPool, Postgres as Database};
use tollgate::{
    idempotency::{IdempotencyLayer, IdempotentBody, IdempotentExecution},
    key_value::{AfterLease, KeyValue, PostgresStore},
};
use tower::Layer;

use super::{
    line::{Fault, Line},
    place::{Handler, Service, answer, payment, send, who},
};
use crate::support::postgres::Postgres;

/// A shop behind a line that fails. A commit of a payment waits for the advisory lock 7.
struct Shop {
    line: Line,
    service: Service,
    handler: Handler,
    /// Not through the line.
    direct: PgPool,
}

impl Shop {
    async fn new() -> Self {
        let server = Postgres::shared();
        let url = server.database();
        let direct = PgPool::connect(&url).await.unwrap();
        let tables = "CREATE TABLE payments (payment text NOT NULL);
            CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON payments
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()";
        direct.execute(sqlx::raw_sql(tables)).await.unwrap();
        let line = Line::to(server.port()).await;
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(4).connect(&line.url(&url)).await.unwrap();
        let store = Arc::new(PostgresStore::new(pool).max_transaction(Duration::from_secs(3_600)));
        store.connect().await.unwrap(); // which commits the tables of the store
        let layer = IdempotencyLayer::new(who(), store, &"5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap())
            .lease(Duration::from_secs(3_600))
            .after_lease(AfterLease::Rerun);
        let handler = Handler::default();
        let service =
            layer.layer(handler.service(|number, request: Request<IdempotentBody<Full<Bytes>>>| async move {
                let execution = request.extensions().get::<IdempotentExecution>().unwrap().clone();
                let mut transaction = execution.transaction::<Database>().await.map_err(|_| "no transaction")?;
                let insert = sqlx::query("INSERT INTO payments VALUES ($1)").bind(number.to_string());
                insert.execute(&mut *transaction).await.map_err(|_| "no insert")?;
                Ok(answer(201, format!("payment {number}")))
            }));
        Self { line, service, handler, direct }
    }

    async fn payments(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(&self.direct).await.unwrap()
    }

    /// Waits until a number of sessions of this database wait for a lock.
    async fn waiting(&self, sessions: i64) {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        while sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.direct).await.unwrap() < sessions {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn commit_under_way_is_waited_for() {
    let shop = Shop::new().await;
    let mut holder = shop.direct.begin().await.unwrap();
    holder.execute("SELECT pg_advisory_xact_lock(7)").await.unwrap();
    shop.line.fails_next(Fault::CutBehind);
    let released = async {
        shop.waiting(2).await; // the commit, whose reply nothing will receive, and the question for its end
        assert!(shop.line.has_failed() && shop.payments().await == 0);
        holder.rollback().await.unwrap();
    };
    let (reply, ()) = tokio::join!(send(&shop.service, payment("k")), released);
    assert_eq!((reply.status, reply.text(), shop.payments().await), (StatusCode::CREATED, "payment 1", 1));
    let again = send(&shop.service, payment("k")).await;
    assert_eq!((again.text(), again.is_replayed(), shop.handler.calls()), ("payment 1", true, 1));
}

#[tokio::test]
async fn commit_that_never_arrived_is_rolled_back() {
    let shop = Shop::new().await;
    shop.line.fails_next(Fault::CutBefore);
    let reply = send(&shop.service, payment("k")).await;
    assert_eq!((reply.status, shop.payments().await), (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert!(reply.text().contains("nothing was carried out"), "{}", reply.text());
    let again = send(&shop.service, payment("k")).await;
    assert_eq!((again.text(), again.is_replayed(), shop.payments().await), ("payment 2", false, 1));
}
