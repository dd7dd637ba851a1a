//! Transactions that handlers share with their records, in a file and on a server.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tollgate::{
    idempotency::{IdempotencyLayer, IdempotentBody, IdempotentExecution, SharedTransaction},
    key_value::{AfterLease, Begun, Claim, KeyValueErrorKind, Owner, PostgresStore, RecordStore, SqliteStore},
};
use tower::Layer;

use super::place::{AnswerBody, Handler, Service, answer, payment, send, try_send, who};
use crate::support::{directory::Directory, postgres::Postgres};

/// Behaviour of a handler after it has written its payment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Answers(u16),
    Fails,
    Panics,
    Cuts,
    Streams,
    /// It keeps the transaction beyond its answer.
    Keeps,
    Commits,
    /// It waits until the test says so.
    Waits,
    /// Its last statement has failed, and it does not care.
    Errs,
}

/// Declares the tests of one database.
macro_rules! in_database {
    ($module:ident, $database:ty, $pool:ty, $store:ident, $open:expr) => {
        mod $module {
            use super::*;

            /// A shop in a database, whose handler does as the test says.
            struct Shop {
                pool: $pool,
                store: Arc<dyn RecordStore>,
                handler: Handler,
                then: Arc<Mutex<Then>>,
                go_on: Arc<tokio::sync::Semaphore>,
                kept: Arc<Mutex<Vec<SharedTransaction<$database>>>>,
                _place: Box<dyn std::any::Any + Send>,
            }

            impl Shop {
                async fn new() -> Self {
                    Self::with(|store| store).await
                }

                async fn with(change: impl FnOnce($store) -> $store) -> Self {
                    let (pool, place): ($pool, Box<dyn std::any::Any + Send>) = $open.await;
                    sqlx::raw_sql("CREATE TABLE payments (payment text NOT NULL)").execute(&pool).await.unwrap();
                    Self {
                        store: Arc::new(change($store::new(pool.clone()))),
                        pool,
                        handler: Handler::default(),
                        then: Arc::new(Mutex::new(Then::Answers(201))),
                        go_on: Arc::new(tokio::sync::Semaphore::new(0)),
                        kept: Arc::default(),
                        _place: place,
                    }
                }

                fn layer(&self) -> IdempotencyLayer {
                    let secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap();
                    IdempotencyLayer::new(who(), self.store.clone(), &secret).after_lease(AfterLease::Rerun)
                }

                fn service(&self, layer: &IdempotencyLayer) -> Service {
                    let (then, kept, go_on) = (self.then.clone(), self.kept.clone(), self.go_on.clone());
                    layer.layer(self.handler.service(move |number, request: Request<IdempotentBody<Full<Bytes>>>| {
                        let (then, kept, go_on) = (*then.lock().unwrap(), kept.clone(), go_on.clone());
                        async move {
                            let execution = request.extensions().get::<IdempotentExecution>().unwrap().clone();
                            pay(execution, then, kept, go_on, number).await
                        }
                    }))
                }

                fn then(&self, then: Then) {
                    *self.then.lock().unwrap() = then;
                }

                async fn payments(&self) -> i64 {
                    sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(&self.pool).await.unwrap()
                }
            }

            async fn pay(
                execution: IdempotentExecution,
                then: Then,
                kept: Arc<Mutex<Vec<SharedTransaction<$database>>>>,
                go_on: Arc<tokio::sync::Semaphore>,
                number: usize,
            ) -> Result<Response<AnswerBody>, &'static str> {
                let mut transaction = execution.transaction::<$database>().await.map_err(|error| {
                    eprintln!("{error}");
                    "no transaction"
                })?;
                let insert = sqlx::query("INSERT INTO payments (payment) VALUES ($1)").bind(number.to_string());
                insert.execute(&mut *transaction).await.map_err(|_| "no insert")?;
                let status = match then {
                    Then::Answers(status) => status,
                    Then::Fails => return Err("no connection to the bank"),
                    Then::Panics => panic!("a fault of the handler"),
                    Then::Cuts | Then::Streams => {
                        let cut = (then == Then::Cuts).then(|| Err(std::io::Error::other("cut")));
                        let frames = stream::iter(vec![Ok(Frame::data(Bytes::from_static(b"half")))]);
                        drop(transaction);
                        let body = StreamBody::new(futures_util::StreamExt::chain(frames, stream::iter(cut)));
                        let mut response = Response::new(body.boxed_unsync());
                        if then == Then::Streams {
                            let kind = "text/event-stream".parse().unwrap();
                            response.headers_mut().insert("content-type", kind);
                        }
                        return Ok(response);
                    }
                    Then::Keeps => {
                        kept.lock().unwrap().push(transaction);
                        return Ok(answer(201, "kept"));
                    }
                    Then::Commits => {
                        sqlx::raw_sql("COMMIT").execute(&mut *transaction).await.map_err(|_| "no commit")?;
                        201
                    }
                    Then::Waits => {
                        let _ = go_on.acquire().await;
                        201
                    }
                    Then::Errs => {
                        let wrong = sqlx::raw_sql("INSERT INTO nothing VALUES (1)").execute(&mut *transaction).await;
                        assert!(wrong.is_err());
                        201
                    }
                };
                drop(transaction);
                // The same transaction again.
                let mut again = execution.transaction::<$database>().await.map_err(|_| "no transaction")?;
                if matches!(then, Then::Answers(_)) {
                    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM payments WHERE payment = $1")
                        .bind(number.to_string())
                        .fetch_one(&mut *again)
                        .await
                        .map_err(|_| "no count")?;
                    assert_eq!(seen, 1);
                }
                Ok(answer(status, format!("payment {number}")))
            }

            #[tokio::test]
            async fn writes_and_answer_are_committed_together() {
                let shop = Shop::new().await;
                let service = shop.service(&shop.layer());
                let first = send(&service, payment("k")).await;
                assert_eq!((first.status, first.text(), shop.payments().await), (StatusCode::CREATED, "payment 1", 1));
                let again = send(&service, payment("k")).await;
                assert_eq!((again.text(), again.is_replayed(), shop.payments().await), ("payment 1", true, 1));
            }

            #[tokio::test]
            async fn answer_of_a_client_error_undoes_the_writes_and_is_replayed() {
                let shop = Shop::new().await;
                let service = shop.service(&shop.layer());
                shop.then(Then::Answers(409));
                for replayed in [false, true] {
                    let reply = send(&service, payment("k")).await;
                    assert_eq!((reply.status, reply.is_replayed()), (StatusCode::CONFLICT, replayed));
                    assert_eq!(shop.payments().await, 0);
                }
            }

            #[tokio::test]
            async fn failures_roll_back_and_free_the_key() {
                let shop = Shop::new().await;
                let layer = shop.layer();
                let service = shop.service(&layer);
                for then in [Then::Answers(500), Then::Answers(403), Then::Fails, Then::Panics, Then::Cuts, Then::Keeps]
                {
                    shop.then(then);
                    let failed = AssertUnwindSafe(try_send(&service, payment("k"))).catch_unwind().await;
                    match failed {
                        Ok(Ok(reply)) => {
                            assert!(!reply.is_replayed() && reply.status != StatusCode::CREATED, "{then:?}")
                        }
                        Ok(Err(_)) | Err(_) => {}
                    }
                    shop.kept.lock().unwrap().clear();
                    assert_eq!(shop.payments().await, 0, "{then:?}");
                }
                shop.then(Then::Answers(201));
                let reply = loop {
                    let reply = send(&service, payment("k")).await;
                    if reply.status != StatusCode::CONFLICT {
                        break reply; // a key is freed in the background after a panic
                    }
                };
                assert_eq!((reply.status, shop.payments().await), (StatusCode::CREATED, 1));
            }

            #[tokio::test]
            async fn statement_that_failed_unseen_makes_no_half_payment() {
                let shop = Shop::new().await;
                let service = shop.service(&shop.layer());
                shop.then(Then::Errs);
                let reply = try_send(&service, payment("k")).await;
                // SQLite goes on after a statement that failed; PostgreSQL does not, and nothing is stored.
                let paid = shop.payments().await;
                match &reply {
                    Ok(reply) if reply.status == StatusCode::CREATED => assert_eq!(paid, 1),
                    _ => assert_eq!(paid, 0, "{reply:?}"),
                }
            }

            #[tokio::test]
            async fn stream_is_committed_before_it_is_sent() {
                let shop = Shop::new().await;
                let service = shop.service(&shop.layer());
                shop.then(Then::Streams);
                assert_eq!(send(&service, payment("k")).await.text(), "half");
                assert_eq!(shop.payments().await, 1);
                assert!(send(&service, payment("k")).await.text().contains("answer_not_retained"));
            }

            #[tokio::test]
            async fn kept_transaction_is_refused_and_rolled_back() {
                let shop = Shop::new().await;
                let service = shop.service(&shop.layer());
                shop.then(Then::Keeps);
                let reply = send(&service, payment("k")).await;
                assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
                assert!(reply.text().contains("did not finish its transaction"), "{}", reply.text());
                shop.kept.lock().unwrap().clear();
                assert_eq!(shop.payments().await, 0);
            }

            #[tokio::test]
            async fn transaction_that_the_handler_ended_is_completed_afterwards() {
                let shop = Shop::new().await;
                let service = shop.service(&shop.layer());
                shop.then(Then::Commits);
                assert_eq!(send(&service, payment("k")).await.status, StatusCode::CREATED);
                assert!(send(&service, payment("k")).await.is_replayed());
                assert_eq!((shop.payments().await, shop.handler.calls()), (1, 1));
            }

            #[tokio::test]
            async fn owner_that_lost_its_record_rolls_back() {
                let clock = tollgate::FakeClock::new();
                let shop = Shop::with(|store| store.clock(clock.clone())).await;
                let layer = shop.layer();
                let service = shop.service(&layer);
                shop.then(Then::Waits);
                let mut call = Box::pin(send(&service, payment("k")));
                while shop.handler.calls() == 0 {
                    assert!(futures_util::poll!(&mut call).is_pending());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // Its lease ends, and another process takes the operation over. In SQLite it waits for the transaction.
                clock.advance(Duration::from_secs(31));
                let taken = async {
                    let mut connection = shop.pool.acquire().await.unwrap();
                    let key: Vec<u8> = sqlx::query_scalar("SELECT key FROM tollgate_record")
                        .fetch_one(&mut *connection)
                        .await
                        .unwrap();
                    drop(connection);
                    let key = tollgate::key_value::RecordKey(key.try_into().unwrap());
                    let claim = Claim { after_lease: AfterLease::Rerun, ..Claim::new(key, Owner::random()) };
                    (shop.store.begin(&claim).await.unwrap(), claim)
                };
                let finishes = async {
                    if stringify!($module) == "on_a_server" {
                        let (begun, _) = taken.await;
                        assert_eq!(begun, Begun::Started { attempt: 2 });
                        shop.go_on.add_permits(1);
                    } else {
                        shop.go_on.add_permits(1); // its write waits for the open transaction
                    }
                };
                let (reply, ()) = tokio::join!(call, finishes);
                if stringify!($module) == "on_a_server" {
                    assert_eq!(reply.status, StatusCode::CONFLICT);
                    assert_eq!((shop.payments().await, layer.handle().counts().lost), (0, 1));
                } else {
                    assert_eq!((reply.status, shop.payments().await), (StatusCode::CREATED, 1));
                }
            }

            #[tokio::test]
            async fn overdue_transaction_is_rolled_back() {
                let shop = Shop::with(|store| store.max_transaction(Duration::from_millis(50))).await;
                let service = shop.service(&shop.layer());
                shop.then(Then::Waits);
                let reply = send(&service, payment("k")).await;
                assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
                assert_eq!(shop.payments().await, 0);
                shop.go_on.add_permits(1);
                let reply = send(&service, payment("k")).await;
                assert!([StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE].contains(&reply.status));
            }

            #[tokio::test]
            async fn more_payments_than_connections_are_all_made() {
                let shop = Shop::with(|store| store.max_transaction(Duration::from_secs(300))).await;
                let service = shop.service(&shop.layer());
                let keys: Vec<_> = (0..20).map(|number| format!("k-{number}")).collect();
                let replies = join_all(keys.iter().map(|key| send(&service, payment(key)))).await;
                assert!(replies.iter().all(|reply| reply.status == StatusCode::CREATED), "{replies:?}");
                assert_eq!(shop.payments().await, 20);
            }

            #[tokio::test]
            async fn call_dropped_at_any_poll_agrees_with_its_record() {
                let shop = Shop::new().await;
                let layer = shop.layer();
                let service = shop.service(&layer);
                for polls in 0..16 {
                    let key = format!("k-{polls}");
                    let before = shop.payments().await;
                    {
                        let mut call = Box::pin(send(&service, payment(&key)));
                        for _ in 0..polls {
                            if futures_util::poll!(&mut call).is_ready() {
                                break;
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    assert!(layer.handle().drain(Duration::from_secs(300)).await);
                    let reply = loop {
                        let reply = send(&service, payment(&key)).await;
                        if reply.status != StatusCode::CONFLICT {
                            break reply;
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    };
                    assert_eq!(reply.status, StatusCode::CREATED, "{polls} polls");
                    assert_eq!(shop.payments().await, before + 1, "{polls} polls");
                }
            }

            #[tokio::test]
            async fn transaction_of_another_database_is_an_error() {
                let shop = Shop::new().await;
                let handler = Handler::default();
                let inner = handler.service(|_, request: Request<IdempotentBody<Full<Bytes>>>| async move {
                    let execution = request.extensions().get::<IdempotentExecution>().unwrap();
                    let _first = execution.transaction::<$database>().await.unwrap();
                    let second = execution.transaction::<$database>().await.unwrap_err();
                    assert_eq!(second.kind(), KeyValueErrorKind::Invalid);
                    assert!(second.to_string().contains("the handler has it already"), "{second}");
                    drop(_first);
                    let other = match stringify!($module) {
                        "on_a_server" => execution.transaction::<sqlx::Sqlite>().await.map(drop).unwrap_err(),
                        _ => execution.transaction::<sqlx::Postgres>().await.map(drop).unwrap_err(),
                    };
                    assert!(other.to_string().starts_with("the record store is in "), "{other}");
                    Ok(answer(201, execution.key().to_owned()))
                });
                assert_eq!(send(&shop.layer().layer(inner), payment("k")).await.text(), "k");
            }
        }
    };
}

in_database!(in_a_file, sqlx::Sqlite, sqlx::SqlitePool, SqliteStore, async {
    let folder = Directory::new();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.0.join("shop.db")).create_if_missing(true);
    let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal).busy_timeout(Duration::from_secs(300));
    let options = options.synchronous(sqlx::sqlite::SqliteSynchronous::Full);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    (pool, Box::new(folder) as _)
});

in_database!(on_a_server, sqlx::Postgres, sqlx::PgPool, PostgresStore, async {
    let url = Postgres::shared().database();
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
    (pool, Box::new(()) as _)
});
