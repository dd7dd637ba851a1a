//! Quotas: limits by hour, day or month and of requests in flight, decided together and charged once.
//!
//! By default each peer address has the plan, and a request costs one request:
//!
//! ```
//! use std::net::SocketAddr;
//! use http::{Request, Response, StatusCode};
//! use tollgate::{Period, Plan, Quota, QuotaLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(QuotaLayer::new(Plan::new("free").limit(Quota::requests(1).per(Period::hour())).limit(Quota::concurrent(5))))
//!     .service(service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(String::from("hello"))) }));
//! let ask = || {
//!     let peer: SocketAddr = "192.0.2.7:4711".parse().unwrap();
//!     service.clone().oneshot(Request::get("/").extension(peer).body(String::new()).unwrap())
//! };
//! assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
//! let refused = ask().await.unwrap();
//! assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert!(refused.headers()["ratelimit"].to_str().unwrap().starts_with("\"requests_per_hour\";r=0;t="));
//! # });
//! ```
//!
//! With a plan for each tier, an amount that is known beforehand, one that the handler records, and jobs that are
//! charged once however often they are sent:
//!
//! ```
//! use std::collections::HashMap;
//! use tollgate::{Principal, ApiKey, JobIdSource, Period, Plan, Quota, QuotaLayer};
//!
//! let keys = HashMap::from([(String::from("s3cret"), Principal::named("acme").in_tier("pro"))]);
//! let layer = QuotaLayer::new(Plan::standard())
//!     .tier_plan("pro", Plan::new("pro").limit(Quota::units("tokens", 1_000_000).per(Period::month())))
//!     .identify_by(ApiKey::header("x-api-key", keys))
//!     .cost("queries", |request| (request.uri.path() == "/query").then_some(1))
//!     .share_with_handler() // handlers record what they used through a `Charge`
//!     .job_ids(JobIdSource::header("idempotency-key"));
//! let quotas = layer.handle(); // the same accounts, outside http
//! ```
//!
//! # The life of a charge
//! Amounts that are known beforehand are charged at admission, all of them or none. A request that never reaches the
//! service is refunded in full. Once the service was called the request stays charged, also when the client hangs up,
//! and so do the bytes that passed. [`charge_when`](crate::QuotaLayer::charge_when) changes that.
//!
//! A body without a `Content-Length` counts nothing, unless a [`RequestBytesLayer`] outside of
//! this one counts it.
//!
//! # Behind a proxy
//! The peer is then the proxy, and all its clients share one account. Name the trusted networks with
//! [`PeerIp::trust_forwarded`](crate::PeerIp::trust_forwarded).

mod active_plan;
mod admin;
mod builder;
mod bytes;
mod charge;
mod error;
mod handle;
mod jobs;
mod permit;
mod policy;
mod pool;
mod refuse;
mod reservation;
mod settings;
#[cfg(test)]
mod tests;
mod usage;

pub use builder::QuotaLayer;
pub use bytes::{CountedBody, RequestBytes, RequestBytesLayer};
pub use charge::{Charge, QuotaStatus};
pub use error::QuotaError;
pub use handle::Quotas;
pub use jobs::{Duplicates, JobIdSource, JobRun};
pub use permit::QuotaPermit;
pub use policy::QuotaPolicy;
pub use reservation::{CloseOutcome, Reservation, ReservationError, ReservationId};
pub use settings::{OnExpiry, OnFailure, ServedRequest};
pub use usage::{Cursor, Explanation, LimitExplanation, UsagePage};
