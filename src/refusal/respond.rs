//! The response of a refused request.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{CACHE_CONTROL, RETRY_AFTER},
};

use super::{
    NEAR_LIMITS, Refusal, Wire,
    buffer::number,
    grpc::{self, GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS_BIN},
    problem,
    rate_limit_headers::{RATELIMIT, RATELIMIT_POLICY},
    x_ratelimit::{X_RATELIMIT_LIMIT, X_RATELIMIT_REMAINING, X_RATELIMIT_RESET},
};
use crate::head::RequestHead;

/// Response fields that a browser hides from scripts of another origin unless CORS exposes them.
///
/// Without them a script cannot read when to retry, and a gRPC-Web client cannot even read that it was refused. The
/// CORS layer must be outside the limiter, so that refusals have its fields too.
///
/// ```
/// use tollgate::refusal::EXPOSED_HEADERS;
/// let cors = tower_http::cors::CorsLayer::new().expose_headers(EXPOSED_HEADERS);
/// ```
pub const EXPOSED_HEADERS: [HeaderName; 10] = [
    RETRY_AFTER,
    RATELIMIT,
    RATELIMIT_POLICY,
    X_RATELIMIT_LIMIT,
    X_RATELIMIT_REMAINING,
    X_RATELIMIT_RESET,
    NEAR_LIMITS,
    GRPC_STATUS,
    GRPC_MESSAGE,
    GRPC_STATUS_DETAILS_BIN,
];

// A constant, because a value that is made at run time is checked byte by byte.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

type Custom = Arc<dyn Fn(&Refusal) -> Response<Bytes> + Send + Sync>;

/// Creates the responses of refusals: problem documents by default, Trailers-Only for gRPC.
#[derive(Clone, Default)]
pub(crate) struct Responder(Option<Custom>);

impl Responder {
    pub(crate) fn custom(response: impl Fn(&Refusal) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(response)))
    }

    /// Returns the response of a refused request. Every refusal of a gate passes through here, so that each has
    /// `Retry-After`, `Cache-Control: no-store`, its rate limit fields and the [`Refusal`] in its extensions.
    pub(crate) fn answer(
        &self,
        refusal: Refusal,
        request: &RequestHead<'_>,
        wall: impl FnOnce() -> Duration,
    ) -> Response<Bytes> {
        let mut response = match (Wire::of(request), &self.0) {
            (Wire::Grpc { content_type }, _) => grpc::trailers_only(&refusal, content_type),
            (Wire::Http, None) => problem::problem(&refusal),
            (Wire::Http, Some(custom)) => {
                let mut response = custom(&refusal);
                complete(&refusal, response.headers_mut());
                response
            }
        };
        if let Some(fields) = refusal.fields() {
            let wait = refusal.retry_after().unwrap_or_default();
            fields.write_and_raise(response.headers_mut(), refusal.remaining(), wait, wall, true);
        }
        response.extensions_mut().insert(refusal);
        response
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Responder(custom)" } else { "Responder(problem)" })
    }
}

/// Adds `Retry-After` and `Cache-Control: no-store` to a response of this crate, which has neither yet: to look for them
/// costs more than to insert them.
pub(super) fn add_fields(refusal: &Refusal, headers: &mut HeaderMap) {
    add_retry_after(refusal, headers);
    let _ = headers.try_insert(CACHE_CONTROL, NO_STORE);
}

fn add_retry_after(refusal: &Refusal, headers: &mut HeaderMap) {
    if let Some(seconds) = refusal.retry_after_field() {
        let _ = headers.try_insert(RETRY_AFTER, number(seconds));
    }
}

/// Adds `Retry-After` to a custom response, unless it has one, and `Cache-Control: no-store`, unless its own forbids
/// storing. Idempotent.
///
/// A `Cache-Control` that allows storing is replaced: a cache would serve one client's refusal to the others, or to the
/// same client after its limit has recovered. The fields that shared caches obey instead of it are removed (RFC 9213,
/// section 2.2; Edge Architecture Specification).
fn complete(refusal: &Refusal, headers: &mut HeaderMap) {
    headers.remove(CDN_CACHE_CONTROL);
    headers.remove(SURROGATE_CONTROL);
    if !headers.contains_key(RETRY_AFTER) {
        add_retry_after(refusal, headers);
    }
    if !forbids_storing(headers) {
        let _ = headers.try_insert(CACHE_CONTROL, NO_STORE);
    }
}

/// Returns whether `Cache-Control` forbids every cache to store the response.
///
/// It has the directive `no-store`, and not `must-understand`, with which caches that know the status ignore `no-store`
/// (RFC 9111, section 5.2.2.3). A quoted argument may contain anything, so a field with one is not relied on.
fn forbids_storing(headers: &HeaderMap) -> bool {
    let mut no_store = false;
    for line in headers.get_all(CACHE_CONTROL) {
        if line.as_bytes().contains(&b'"') {
            return false;
        }
        for directive in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default();
            if name.trim_ascii().eq_ignore_ascii_case(b"must-understand") {
                return false;
            }
            no_store |= directive.eq_ignore_ascii_case(b"no-store");
        }
    }
    no_store
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbids(lines: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        forbids_storing(&headers)
    }

    #[test]
    fn only_the_no_store_directive_forbids_storing() {
        for (line, forbidden) in [
            ("no-store", true),
            ("private, No-Store", true),
            ("max-age=0,no-store,private", true),
            ("", false),
            ("private", false),
            ("no-cache, max-age=60", false),
            ("x-no-store, no-stored", false),
            ("private=\"x, no-store, y\"", false),
        ] {
            assert_eq!(forbids(&[line]), forbidden, "{line}");
        }
    }

    #[test]
    fn must_understand_on_any_line_cancels_no_store() {
        for lines in [
            &["must-understand, no-store, max-age=60"][..],
            &["no-store,Must-Understand"],
            &["no-store", "must-understand"],
            &["no-store", "must-understand =1"],
            &["no-store", "private=\"x\", must-understand"],
        ] {
            assert!(!forbids(lines), "{lines:?}");
        }
        assert!(forbids(&["private", "no-store"]));
        assert!(!forbids(&[]));
    }
}
