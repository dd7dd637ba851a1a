//! What a refusal looks like on the wire.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::Refusal;

/// The protocol that a request speaks, which decides how a refusal is said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wire {
    /// Plain HTTP.
    Http,
    /// gRPC.
    Grpc,
}

impl Wire {
    /// The protocol that a request with these fields speaks.
    #[must_use]
    pub fn of(_: &HeaderMap) -> Self {
        Self::Http
    }
}

type Custom = Arc<dyn Fn(&Refusal) -> Response<Bytes> + Send + Sync>;

/// Makes the answer of a refusal.
#[derive(Clone, Default)]
pub(crate) struct Responder(Option<Custom>);

impl Responder {
    pub(crate) fn custom(answer: impl Fn(&Refusal) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(answer)))
    }

    pub(crate) fn answer(&self, refusal: &Refusal, _wire: &Wire) -> Response<Bytes> {
        match &self.0 {
            Some(custom) => custom(refusal),
            None => Response::new(Bytes::new()),
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder(..)")
    }
}
