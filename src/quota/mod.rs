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
//! With a plan by tier, an amount from the request's head, one that the handler records, and jobs that are charged
//! once:
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
//! service is refunded in full. Once the service is called the request stays charged, even if the client hangs up, and
//! so do the bytes that passed. [`charge_when`](QuotaLayer::charge_when) changes that.
//!
//! A request body is charged by its `Content-Length`, whether it comes or not; without one it counts nothing. A
//! [`RequestBytesLayer`] outside of this layer counts the bytes that are read instead.
//!
//! # Behind a proxy
//! The peer is then the proxy, and all its clients share one account. Name the proxy's networks with
//! [`PeerIp::trust_forwarded`](crate::PeerIp::trust_forwarded), so that its forwarding fields are trusted.

pub(crate) mod account;
mod amounts;
mod credit;
mod grant;
mod job;
mod layer;
mod limit;
pub(crate) mod memory;
mod plan;
pub(crate) mod store;
mod usage;

pub use amounts::Amounts;
pub(crate) use credit::CreditRequest;
pub use credit::Credited;
pub use grant::{ActiveGrant, Grant, GrantId};
pub use job::{JobOutcome, JobState};
pub use layer::{
    Charge, CloseOutcome, CountedBody, Cursor, Duplicates, Explanation, JobError, JobIdSource, JobRun, KeptSlot,
    LimitExplanation, OnExpiry, OnFailure, QuotaError, QuotaLayer, QuotaPermit, QuotaPolicy, QuotaService, QuotaStatus,
    Quotas, RequestBytes, RequestBytesLayer, Reservation, ReservationError, ReservationId, ServedRequest, UsagePage,
};
pub use limit::{Quota, QuotaBuilder};
pub(crate) use plan::Limit;
pub use plan::Plan;
pub use store::QuotaStore;
pub use usage::{LimitUsage, Usage};

/// Greatest amount that is counted: 2^53 - 1, which memory, Lua and SQL all hold exactly.
pub(crate) const MOST: u64 = crate::cost::Cost::MAX.get();
