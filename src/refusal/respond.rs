//! The response of a refused request.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::{
    NEAR_LIMITS, OwnText, Reason, Refusal, Wire,
    buffer::{Buffer, number},
    grpc::{self, GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS_BIN},
    rate_limit_headers::{RATELIMIT, RATELIMIT_POLICY},
    whole_seconds,
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

// Constants, because a value that is made at run time is checked byte by byte.
const JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
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
    ) -> Response<OwnText> {
        let mut response = Response::new(OwnText::default()); // filled where it is, because each move of it would cost
        let body = match (Wire::of(request), &self.0) {
            (Wire::Http, None) => {
                fill_head(&refusal, JSON, &mut response);
                problem_text(&refusal)
            }
            (Wire::Grpc { content_type }, _) => copy_head(grpc::trailers_only(&refusal, content_type), &mut response),
            (Wire::Http, Some(custom)) => {
                let body = copy_head(custom(&refusal), &mut response);
                complete(&refusal, response.headers_mut());
                body
            }
        };
        write_fields(&refusal, response.headers_mut(), wall);
        response.extensions_mut().insert(refusal);
        *response.body_mut() = OwnText::new(body);
        response
    }
}

/// Moves the head of one response to another; returns the body.
fn copy_head<B>(from: Response<Bytes>, to: &mut Response<B>) -> Bytes {
    let (head, body) = from.into_parts();
    *to.status_mut() = head.status;
    *to.version_mut() = head.version;
    *to.headers_mut() = head.headers;
    *to.extensions_mut() = head.extensions;
    body
}

/// Returns the response of a refusal that a handler returns: that of a gate over plain HTTP.
#[allow(dead_code, reason = "only a feature makes responses without a gate")]
pub(crate) fn respond(refusal: Refusal, wall: impl FnOnce() -> Duration) -> Response<Bytes> {
    let mut response = problem(&refusal);
    write_fields(&refusal, response.headers_mut(), wall);
    response.extensions_mut().insert(refusal);
    response
}

/// Adds the rate limit fields of a refusal to its response.
#[inline]
fn write_fields(refusal: &Refusal, headers: &mut HeaderMap, wall: impl FnOnce() -> Duration) {
    if let Some(fields) = refusal.fields() {
        let wait = refusal.retry_after().unwrap_or_default();
        fields.write_and_raise(headers, refusal.remaining(), wait, wall, true);
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Responder(custom)" } else { "Responder(problem)" })
    }
}

/// Adds `Retry-After`, `Cache-Control: no-store` and `WWW-Authenticate` to a response. The first two are not looked for
/// first: to look for them costs more than to insert them.
pub(super) fn add_fields(refusal: &Refusal, headers: &mut HeaderMap) {
    if let Some(seconds) = refusal.retry_after_seconds() {
        let _ = headers.try_insert(RETRY_AFTER, number(seconds));
    }
    let _ = headers.try_insert(CACHE_CONTROL, NO_STORE);
    if let Some(challenge) = refusal.challenge()
        && !headers.contains_key(WWW_AUTHENTICATE)
    {
        let _ = headers.try_insert(WWW_AUTHENTICATE, challenge.clone());
    }
}

/// Completes a custom response. Its own `Retry-After` remains; its `Cache-Control` does not.
///
/// A cache that stores a refusal would serve it to other clients, or to the same client after its limit has recovered.
/// The fields that shared caches obey instead of `Cache-Control` are removed (RFC 9213, section 2.2; Edge Architecture
/// Specification).
fn complete(refusal: &Refusal, headers: &mut HeaderMap) {
    headers.remove(CDN_CACHE_CONTROL);
    headers.remove(SURROGATE_CONTROL);
    let own = headers.get(RETRY_AFTER).cloned();
    add_fields(refusal, headers);
    if let Some(own) = own {
        let _ = headers.try_insert(RETRY_AFTER, own);
    }
}

/// Creates a problem document (RFC 9457), the default response of layers.
///
/// The members are `type`, `title`, `status`, `detail`, `violated-policies` (of the draft, which has a hyphen), and, if
/// waiting helps, `retry_after_seconds`, the value of `Retry-After`. A refusal by a quota describes the limit with the
/// longest wait: its `limit_name`, `kind`, `current` amount and `limit`, and the time `resets_at` in seconds since 1970.
/// A refused duplicate of a job has the `code` `duplicate_job_id`. Later versions may add members.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{PolicyName, Reason, Refusal, refusal};
///
/// let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap())
///     .with_limit(100, 100)
///     .with_retry_after(Duration::from_millis(4_200));
/// let answer = refusal::problem(&refusal);
/// assert_eq!(answer.status(), 429);
/// assert_eq!(answer.headers()["content-type"], "application/problem+json");
/// assert_eq!(answer.headers()["retry-after"], "5");
/// assert!(answer.body().ends_with(
///     br#""detail":"The limit of 100 is used up. Retry in 5 seconds.","violated-policies":["default"],"retry_after_seconds":5}"#
/// ));
/// ```
#[must_use]
pub fn problem(refusal: &Refusal) -> Response<Bytes> {
    let mut response = Response::new(problem_text(refusal));
    fill_head(refusal, JSON, &mut response);
    response
}

fn problem_text(refusal: &Refusal) -> Bytes {
    let mut body = Buffer::<512>::new();
    body.push(refusal.reason().forms().problem);
    detail(refusal, &mut body, true);
    body.push("\",\"violated-policies\":[\"");
    match refusal.violations() {
        [] => body.escaped(refusal.violated_policy().as_str()),
        [first, more @ ..] => more
            .iter()
            .fold(body.escaped(first.name.as_str()), |body, next| body.push("\",\"").escaped(next.name.as_str())),
    };
    body.push("\"]");
    if let Some(worst) = refusal.worst() {
        body.push(",\"limit_name\":\"").escaped(worst.name.as_str());
        body.push("\",\"kind\":\"").escaped(worst.kind.as_str());
        body.push("\",\"current\":").number(worst.current).push(",\"limit\":").number(worst.limit);
    }
    if let Some(seconds) = refusal.retry_after_seconds() {
        body.push(",\"retry_after_seconds\":").number(seconds);
    }
    if let Some(resets_at) = refusal.resets_at() {
        body.push(",\"resets_at\":").number(whole_seconds(resets_at));
    }
    body.push("}");
    Bytes::copy_from_slice(body.as_bytes())
}

/// Creates a response with a line of plain text, for `.refuse_with(refusal::text)`.
///
/// ```
/// use tollgate::{PolicyName, Reason, Refusal, refusal};
///
/// let refusal = Refusal::new(Reason::TooLarge, PolicyName::try_new("default").unwrap()).with_limit(100, 0);
/// let answer = refusal::text(&refusal);
/// assert_eq!(answer.status(), 413);
/// assert_eq!(answer.body(), "The request takes more than the limit of 100 and can never pass.\n");
/// ```
#[must_use]
pub fn text(refusal: &Refusal) -> Response<Bytes> {
    let mut body = Buffer::<192>::new();
    detail(refusal, &mut body, false);
    body.push("\n");
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    fill_head(refusal, TEXT, &mut response);
    response
}

/// Returns the HTTP status of a refusal, for responses of your own.
///
/// ```
/// use tollgate::{PolicyName, Reason, Refusal, refusal};
/// let refusal = Refusal::new(Reason::CircuitOpen, PolicyName::try_new("upstream").unwrap());
/// assert_eq!(refusal::status(&refusal), 503);
/// ```
#[must_use]
pub fn status(refusal: &Refusal) -> StatusCode {
    refusal.reason().forms().status
}

/// Sets the status and the fields of a response of this content type.
fn fill_head<B>(refusal: &Refusal, kind: HeaderValue, response: &mut Response<B>) {
    *response.status_mut() = status(refusal);
    let headers = response.headers_mut();
    headers.reserve(6); // this one, and those of every refusal without growing
    headers.insert(CONTENT_TYPE, kind);
    add_fields(refusal, headers);
}

/// Writes some sentences of plain ASCII, the same over HTTP and gRPC, with the wait rounded up for people. The size of a shared capacity is not
/// disclosed. Under `json` names are escaped.
pub(super) fn detail<const N: usize>(refusal: &Refusal, out: &mut Buffer<N>, json: bool) {
    match (refusal.reason(), refusal.limit()) {
        (reason @ (Reason::NoPeerAddress | Reason::NoPrincipal | Reason::LocalIdentity), _) => {
            let (out, policy) = (out.push("Policy "), refusal.policy());
            if json { out.escaped(policy.as_str()) } else { out.push(policy.as_str()) }.push(reason.forms().detail)
        }
        (Reason::RateLimited, limit @ 1..) if refusal.remaining() > 0 => {
            out.push("Too little is left of the limit of ").number(limit).push(".")
        }
        (Reason::RateLimited, limit @ 1..) => out.push("The limit of ").number(limit).push(" is used up."),
        (Reason::TooLarge, limit @ 1..) => {
            out.push("The request takes more than the limit of ").number(limit).push(" and can never pass.")
        }
        // "It is not run again" beside a retry time would contradict itself.
        (Reason::JobOutcomeUnknown, _) if refusal.retry_after().is_some() => out.push(
            "The same job was charged before, and its outcome is unknown. It may be under way, and is not begun again.",
        ),
        (reason, _) => out.push(reason.forms().detail),
    };
    let Some(seconds) = refusal.retry_after_seconds() else { return };
    let (amount, unit) = match seconds {
        0..=119 => (seconds, " second"),
        120..=7_199 => (seconds.div_ceil(60), " minute"),
        7_200..=172_799 => (seconds.div_ceil(3_600), " hour"),
        _ => (seconds.div_ceil(86_400), " day"),
    };
    out.push(" Retry in ").number(amount).push(unit).push(if amount == 1 { "." } else { "s." });
}
