//! Refusals: the reason of a refused request, its wait, and its response.
//!
//! Over HTTP a refusal is a [problem document](problem) with `Retry-After`. Over gRPC, from the same layer, it is a
//! status with details. [`refuse_with`](crate::GateLayer::refuse_with) replaces the HTTP response:
//!
//! ```
//! # use std::sync::Arc;
//! # use http::{Request, Response};
//! # use tollgate::{Admit, Client, MaybeFuture, GateLayer, PolicyName, Reason, Refusal, RequestHead, refusal};
//! # use tower::{ServiceBuilder, ServiceExt, service_fn};
//! # struct Closed;
//! # impl Admit for Closed {
//! #     type Permit = ();
//! #     fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
//! #         MaybeFuture::Ready(Err(Refusal::new(Reason::Capacity, PolicyName::try_new("closed").unwrap())))
//! #     }
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(GateLayer::new(Closed).refuse_with(refusal::text))
//!     .service(service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(String::from("hello"))) }));
//! let answer = service.oneshot(Request::new(String::new())).await.unwrap();
//! assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
//! # });
//! ```
//!
//! # Uploads
//! A refusal never reads the request's body: a client that sent `Expect: 100-continue` is not asked for it. A client
//! that sends at once receives the response at once too, and over HTTP/1.1 the connection is closed after the response.
//! A client that reads only after it has written everything, as simple libraries do, may get a broken pipe instead if
//! the body is large.

mod buffer;
mod grpc;
mod problem;
mod rate_limit_headers;
mod reason;
#[allow(clippy::module_inception)]
mod refusal;
mod respond;
mod structured_field;
mod violation;
mod wire;
mod x_ratelimit;

pub use problem::{problem, status, text};
pub(crate) use rate_limit_headers::{AdvertisedLimit, NEAR_LIMITS, near_limits};
pub use rate_limit_headers::{Dialect, Fields, Reset};
pub use reason::Reason;
pub use refusal::Refusal;
pub use respond::EXPOSED_HEADERS;
pub(crate) use respond::Responder;
pub use violation::Violation;
pub use wire::Wire;
pub(crate) use wire::{has_grpc_trailers, is_grpc_status};
