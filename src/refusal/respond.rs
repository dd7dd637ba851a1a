//! The answer of a refusal on the wire.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::Response;

use super::Refusal;

use super::{Wire, grpc, problem, problem::problem as document};

type Custom = Arc<dyn Fn(&Refusal) -> Response<Bytes> + Send + Sync>;

/// Makes the answer of a refusal: a problem document unless told otherwise, and a status where gRPC is spoken.
#[derive(Clone, Default)]
pub(crate) struct Responder(Option<Custom>);

impl Responder {
    pub(crate) fn custom(answer: impl Fn(&Refusal) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(answer)))
    }

    pub(crate) fn answer(&self, refusal: &Refusal, wire: &Wire) -> Response<Bytes> {
        match (wire, &self.0) {
            (Wire::Grpc { content_type }, _) => grpc::trailers_only(refusal, content_type.clone()),
            (Wire::Http, None) => document(refusal),
            (Wire::Http, Some(custom)) => {
                let mut answer = custom(refusal);
                problem::complete(refusal, answer.headers_mut());
                answer
            }
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Responder(custom)" } else { "Responder(problem)" })
    }
}
