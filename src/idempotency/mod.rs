//! Replay of answers to requests with an idempotency key: the handler runs once, and duplicates get its answer.
//!
//! [`IdempotencyLayer`] follows the draft `draft-ietf-httpapi-idempotency-key-header-07`. It reads the whole body of a
//! request with a key, begins a record in a [`RecordStore`], calls the handler, stores the answer and sends it. A duplicate
//! gets the stored answer, with `Idempotent-Replayed: true`.
//!
//! ```
//! use http::{Request, Response};
//! use tollgate::idempotency::{IdempotencyLayer, IdempotentBody};
//! use tollgate::{ApiKey, Principal};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let mut payments = 0;
//! let pay = service_fn(move |_: Request<IdempotentBody<String>>| {
//!     payments += 1;
//!     let paid = Response::builder().status(201).body(format!("payment {payments}"));
//!     async { Ok::<_, http::Error>(paid?) }
//! });
//! let who = ApiKey::header("x-api-key", |key: &str| (key == "k-7f3a").then(|| Principal::named("alice")));
//! let mut service = IdempotencyLayer::in_memory(who).layer(pay);
//! for replayed in [false, true] {
//!     let request = Request::post("/payments").header("x-api-key", "k-7f3a").header("idempotency-key", "\"8e03978e\"");
//!     let answer = service.ready().await?.call(request.body(String::from("amount=5"))?).await?;
//!     assert_eq!(answer.status(), 201);
//!     assert_eq!(answer.headers().contains_key("idempotent-replayed"), replayed);
//! }
//! # Ok::<(), http::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Order of layers
//! From the outside in: circuit breaker, rate limit, idempotency, quota, handler. A duplicate costs rate, because it costs
//! work, and no quota, because the handler does not run. CORS and compression go outside: the answer is stored once for
//! all origins and encodings, so the handler does not see `Accept-Encoding`.
//!
//! # Outcomes
//! | end of the handler | record |
//! |---|---|
//! | answer below 500, but for those of the next rows | stored, and replayed for 24 h |
//! | 401, 403, 408, 413, 421, 425, 429; a [`Refusal`](crate::Refusal) of a layer further in | the key is free |
//! | answer from 500, error of the service, error of the body, panic | the key is free; see [`Replay`] |
//! | stream, trailers, body over the [cap](IdempotencyLayer::max_answer) or [too slow](IdempotencyLayer::answer_timeout), upgrade, no room in the store | carried out, answer not retained: a duplicate is refused with 409 |
//! | the client hangs up | the handler runs on in a task, and its answer is stored |
//! | the process ends | outcome unknown: a duplicate is refused with 409; see [`IdempotencyLayer::after_lease`] |
//!
//! Streams are known by their content type: `text/event-stream`, `multipart/x-mixed-replace`, `application/x-ndjson`,
//! `application/ndjson`, `application/json-seq` and `application/stream+json`.
//!
//! # The store
//! A call of the store is given up after the lease, but not before 5 s and at the latest after 30 s. While no record can be
//! begun, [`OnStoreFailure`] decides. An answer that cannot be stored is given all the same, and stored in the background for
//! as long as the store may come back soon.
//!
//! # Transactions
//! Over a store in SQL a handler may write in a transaction that is committed together with the record: see
//! [`IdempotentExecution`].
//!
//! [`RecordStore`]: crate::key_value::RecordStore

mod answer;
mod body;
mod config;
mod execution;
mod future;
mod guarded_call;
mod handle;
mod key;
mod layer;
mod operation_end;
mod read_body;
mod service;
mod state;

pub use body::{IdempotentAnswerBody, IdempotentBody};
pub use config::{OnRunning, OnStoreFailure, Replay};
pub use execution::IdempotentExecution;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use execution::SharedTransaction;
pub use future::IdempotencyFuture;
pub use handle::{IdempotencyCounts, IdempotencyHandle};
pub use layer::IdempotencyLayer;
pub use service::IdempotencyService;
