//! The response of a refused request.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;

use super::{
    Refusal, Wire,
    complete::{complete, remove_targeted_cache_control},
    grpc, problem,
};
use crate::head::RequestHead;

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
