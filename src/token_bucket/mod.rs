//! A token bucket for each client, and a global one, decided as one.
//!
//! By default each peer address has a bucket of its own:
//!
//! ```
//! use std::net::SocketAddr;
//! use http::{Request, Response, StatusCode};
//! use tollgate::{Rate, TokenBucketLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(TokenBucketLayer::new(Rate::per_second(5).burst(2)))
//!     .service(service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(String::from("hello"))) }));
//! let ask = || {
//!     let peer: SocketAddr = "192.0.2.7:4711".parse().unwrap();
//!     service.clone().oneshot(Request::get("/").extension(peer).body(String::new()).unwrap())
//! };
//! assert_eq!(ask().await.unwrap().headers()["ratelimit"], "\"default\";r=1;t=1");
//! assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
//! let refused = ask().await.unwrap();
//! assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(refused.headers()["retry-after"], "1");
//! # });
//! ```
//!
//! With other settings: identity, rate by tier, global rate and cost:
//!
//! ```
//! use std::collections::HashMap;
//! use tollgate::{Principal, ApiKey, Cost, Identify, PeerIp, Rate, TokenBucketLayer};
//!
//! let keys = HashMap::from([(String::from("s3cret"), Principal::named("acme").in_tier("pro"))]);
//! let layer = TokenBucketLayer::new(Rate::per_second(50).burst(100))
//!     .named("api")
//!     .identify_by(ApiKey::header("x-api-key", keys).or(PeerIp::new()))
//!     .rate_for("pro", Rate::per_second(500))
//!     .and_global(Rate::per_second(5_000))
//!     .cost(|request| if request.uri.path() == "/search" { Cost::new(10) } else { Cost::ONE });
//! let buckets = layer.handle(); // the same buckets, outside HTTP
//! ```
//!
//! # Behind a proxy
//! The peer is then the proxy, and all its clients share one bucket. Name the proxy's networks with
//! [`PeerIp::trust_forwarded`](crate::PeerIp::trust_forwarded), so that its forwarding fields are trusted.

mod decision;
mod gcra;
mod handle;
mod layer;
mod permit;
mod policy;
mod rate;
mod rate_text;
mod rates;
mod table;

pub use gcra::Level;
pub use handle::TokenBuckets;
pub use layer::{TokenBucketLayer, TokenBucketService};
pub use permit::TokenBucketPermit;
pub use policy::TokenBucketPolicy;
pub use rate::Rate;
#[cfg(feature = "serde")]
pub(crate) use rate_text::RateText;
