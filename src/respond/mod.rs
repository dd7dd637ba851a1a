//! What a refusal looks like on the wire, and how a client learns of its limits before.
//!
//! Over HTTP a refusal is a [problem document](problem) with `Retry-After`; over gRPC, on the same layer, it is a
//! status with its details. [`refuse_with`](crate::GateLayer::refuse_with) replaces the former:
//!
//! ```
//! # use std::sync::Arc;
//! # use http::{Request, Response};
//! # use tollgate::{Admit, Answer, GateLayer, Open, PolicyName, Reason, Refusal, RequestHead, respond};
//! # use tower::{ServiceBuilder, ServiceExt, service_fn};
//! # struct Closed;
//! # impl Admit for Closed {
//! #     type Permit = Open;
//! #     fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> Answer<Result<Open, Refusal>> {
//! #         Answer::Now(Err(Refusal::new(Reason::Capacity, PolicyName::try_new("closed").unwrap())))
//! #     }
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(GateLayer::of(Closed).refuse_with(respond::text))
//!     .service(service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(String::from("hello"))) }));
//! let answer = service.oneshot(Request::new(String::new())).await.unwrap();
//! assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
//! # });
//! ```
//!
//! # Uploads
//! A refusal never reads the request's body: a client that sent `Expect: 100-continue` is not asked for it. One that
//! sends at once is answered at once too, and over HTTP/1.1 the connection closes behind the answer: a client that does
//! not read before it has written all, as simple libraries do, may find a broken pipe instead when the body is large.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;

use self::complete::{complete, remove_targeted_cache_control};
use crate::{Refusal, RequestHead};

mod buffer;
mod complete;
mod detail;
mod fields;
mod grpc;
mod item;
mod list;
mod names;
mod near;
mod number;
mod problem;
mod protobuf;
mod triple;
mod wire;

pub(crate) use fields::Told;
pub use fields::{Dialect, Fields, Reset};
pub use names::EXPOSED_HEADERS;
pub(crate) use names::NEAR_LIMITS;
pub(crate) use near::near_limits;
pub use problem::{problem, status, text};
pub use wire::Wire;
pub(crate) use wire::{has_grpc_trailers, is_grpc_status};

type Custom = Arc<dyn Fn(&Refusal) -> Response<Bytes> + Send + Sync>;

/// Makes the response of a refusal: a problem document by default, Trailers-Only for gRPC.
#[derive(Clone, Default)]
pub(crate) struct Responder(Option<Custom>);

impl Responder {
    pub(crate) fn custom(answer: impl Fn(&Refusal) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(answer)))
    }

    /// Returns the response of a refused request. Every refusal of a gate leaves through here, so that each has
    /// `Retry-After`, `Cache-Control: no-store`, its rate limit fields and the [`Refusal`] in its extensions.
    pub(crate) fn answer(
        &self,
        refusal: Refusal,
        request: &RequestHead<'_>,
        wall: impl FnOnce() -> Duration,
    ) -> Response<Bytes> {
        let mut answer = match (Wire::of(request), &self.0) {
            (Wire::Grpc { content_type }, _) => grpc::trailers_only(&refusal, content_type),
            (Wire::Http, None) => problem::document(&refusal),
            (Wire::Http, Some(custom)) => {
                let mut answer = custom(&refusal);
                remove_targeted_cache_control(answer.headers_mut());
                answer
            }
        };
        complete(&refusal, answer.headers_mut());
        if let Some(fields) = refusal.fields() {
            let wait = refusal.retry_after().unwrap_or_default();
            fields.write_refused(answer.headers_mut(), refusal.remaining(), wait, wall);
        }
        answer.extensions_mut().insert(refusal);
        answer
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Responder(custom)" } else { "Responder(problem)" })
    }
}
