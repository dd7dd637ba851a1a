//! Refusals in plain HTTP: a problem document or a line of text.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use super::{Reason, Refusal, buffer::Buffer, respond::add_fields};

// Constants, because a value that is made at run time is checked byte by byte.
const JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Creates a problem document (RFC 9457), the default response of layers.
///
/// The members are `type`, `title`, `status`, `detail`, `violated-policies`, and `retry_after_seconds` if waiting
/// helps. A refusal by a quota has the name of the limit with the longest wait as `kind`, with its `current` and
/// `limit`. A refused duplicate of a job has the `code` `duplicate_job_id`. Later versions may add members.
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
    let mut body = Buffer::<512>::new();
    body.push(refusal.reason().forms().problem);
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
    detail(refusal, &mut body);
    body.push("\n");
    answer(refusal, TEXT, body.take())
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

fn answer(refusal: &Refusal, kind: HeaderValue, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status(refusal);
    let headers = response.headers_mut();
    headers.reserve(6); // this one, and those of every refusal without growing
    headers.insert(CONTENT_TYPE, kind);
    add_fields(refusal, headers);
    response
}

/// Writes one or two sentences of plain ASCII, the same over HTTP and gRPC. The size of a shared capacity is not
/// disclosed.
pub(super) fn detail<const N: usize>(refusal: &Refusal, out: &mut Buffer<N>) {
    match (refusal.reason(), refusal.limit()) {
        (Reason::RateLimited, limit @ 1..) if refusal.remaining() > 0 => {
            out.push("Too little is left of the limit of ").number(limit).push(".")
        }
        (Reason::RateLimited, limit @ 1..) => out.push("The limit of ").number(limit).push(" is used up."),
        (Reason::TooLarge, limit @ 1..) => {
            out.push("The request takes more than the limit of ").number(limit).push(" and can never pass.")
        }
        (reason, _) => out.push(reason.forms().detail),
    };
    match refusal.retry_after_seconds() {
        Some(1) => out.push(" Retry in 1 second."),
        Some(seconds) => out.push(" Retry in ").number(seconds).push(" seconds."),
        None => out,
    };
}
