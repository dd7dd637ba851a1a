//! A refusal in plain HTTP: a problem document, or a line of text.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use super::{buffer::Buffer, complete::complete, detail::detail};
use crate::refusal::{Reason, Refusal};

// Constants, because a value that is made at run time is checked byte by byte.
const JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A problem document (RFC 9457): how layers answer by default.
///
/// The members are `type`, `title`, `status`, `detail`, `violated-policies`, and `retry_after_seconds` where waiting
/// helps. A quota's has the name of the limit that keeps the client longest as `kind`, with its `current` and `limit`; a
/// job's that was done before has the `code` `duplicate_job_id`. More may come.
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
    let mut answer = document(refusal);
    complete(refusal, answer.headers_mut());
    answer
}

/// Makes a problem document without the fields of [`complete`].
pub(super) fn document(refusal: &Refusal) -> Response<Bytes> {
    let mut body = Buffer::<512>::new();
    body.push(opening(refusal.reason()));
    detail(refusal, &mut body);
    body.push("\",\"violated-policies\":[\"");
    match refusal.violations() {
        [] => body.json(refusal.policy().as_str()),
        [first, more @ ..] => {
            more.iter().fold(body.json(first.name.as_str()), |body, next| body.push("\",\"").json(next.name.as_str()))
        }
    };
    body.push("\"]");
    if let Some(worst) = refusal.worst() {
        body.push(",\"kind\":\"").json(worst.name.as_str()).push("\",\"current\":").number(worst.current);
        body.push(",\"limit\":").number(worst.limit);
    }
    if let Some(seconds) = refusal.retry_after_seconds() {
        body.push(",\"retry_after_seconds\":").number(seconds);
    }
    body.push("}");
    answer(refusal, JSON, body.take())
}

/// A line of plain text, for `.refuse_with(refusal::text)`.
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
    detail(refusal, &mut body);
    body.push("\n");
    let mut answer = answer(refusal, TEXT, body.take());
    complete(refusal, answer.headers_mut());
    answer
}

/// The HTTP status of a refusal, for answers of your own.
///
/// ```
/// use tollgate::{PolicyName, Reason, Refusal, refusal};
/// let refusal = Refusal::new(Reason::CircuitOpen, PolicyName::try_new("upstream").unwrap());
/// assert_eq!(refusal::status(&refusal), 503);
/// ```
#[must_use]
pub fn status(refusal: &Refusal) -> StatusCode {
    match refusal.reason() {
        Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Reason::Capacity | Reason::CircuitOpen | Reason::Unavailable | Reason::Indeterminate => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::Rejected => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::JobRunning | Reason::DuplicateJob => StatusCode::CONFLICT,
        Reason::JobConflict => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::InvalidJobId | Reason::StaleJobId => StatusCode::BAD_REQUEST,
        Reason::Unidentified => StatusCode::FORBIDDEN,
    }
}

fn answer(refusal: &Refusal, kind: HeaderValue, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status(refusal);
    let headers = response.headers_mut();
    headers.reserve(6); // this one, and those of every refusal without growing
    headers.insert(CONTENT_TYPE, kind);
    response
}

/// A problem document up to its detail. Types are IANA's; where there is none, the title is the status's own.
const fn opening(reason: Reason) -> &'static str {
    match reason {
        Reason::RateLimited => {
            "{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\
             \"title\":\"Quota Exceeded\",\"status\":429,\"detail\":\""
        }
        Reason::Capacity | Reason::CircuitOpen | Reason::Unavailable | Reason::Indeterminate => {
            "{\"type\":\"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity\",\
             \"title\":\"Temporary Reduced Capacity\",\"status\":503,\"detail\":\""
        }
        Reason::Rejected => {
            "{\"type\":\"about:blank\",\"title\":\"Internal Server Error\",\"status\":500,\"detail\":\""
        }
        Reason::TooLarge => "{\"type\":\"about:blank\",\"title\":\"Content Too Large\",\"status\":413,\"detail\":\"",
        Reason::JobRunning => "{\"type\":\"about:blank\",\"title\":\"Conflict\",\"status\":409,\"detail\":\"",
        Reason::DuplicateJob => {
            "{\"type\":\"about:blank\",\"title\":\"Conflict\",\"status\":409,\"code\":\"duplicate_job_id\",\"detail\":\""
        }
        Reason::JobConflict => {
            "{\"type\":\"about:blank\",\"title\":\"Unprocessable Content\",\"status\":422,\"detail\":\""
        }
        Reason::InvalidJobId | Reason::StaleJobId => {
            "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,\"detail\":\""
        }
        Reason::Unidentified => "{\"type\":\"about:blank\",\"title\":\"Forbidden\",\"status\":403,\"detail\":\"",
    }
}
