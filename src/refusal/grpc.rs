//! A refusal in gRPC: Trailers-Only, all of it in the head.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::{Reason, Refusal};
use super::{
    buffer::Buffer,
    detail::detail,
    names::{GRPC_MESSAGE, GRPC_RETRY_PUSHBACK_MS, GRPC_STATUS, GRPC_STATUS_DETAILS_BIN},
    number::number,
    protobuf::Message,
};

/// Who speaks in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tollgate";

/// From here on a client should not hold a call for a retry. A pushback is 32 bits of milliseconds at most.
const TOO_LONG: Duration = Duration::from_secs(3_600);

/// What `google.protobuf.Duration` may hold: 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// What must be written as `%XX` in `grpc-message`, besides what is not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// A Trailers-Only answer: status 200 and an empty body, or a client would take the call as committed.
pub(super) fn trailers_only(refusal: &Refusal, content_type: HeaderValue) -> Response<Bytes> {
    let mut said = Buffer::<192>::new();
    detail(refusal, &mut said);
    let code = code(refusal.reason());
    let details = details(refusal, code, std::str::from_utf8(said.as_bytes()).unwrap_or_default());

    let mut headers = HeaderMap::with_capacity(12); // these five, and those of every refusal without growing
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(GRPC_STATUS, number(code));
    if let Some(message) = message(said.as_bytes()) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if let Ok(details) = HeaderValue::from_maybe_shared(Bytes::from(STANDARD_NO_PAD.encode(details.as_bytes()))) {
        headers.insert(GRPC_STATUS_DETAILS_BIN, details);
    }
    headers.insert(GRPC_RETRY_PUSHBACK_MS, pushback(refusal.retry_after()));

    let mut response = Response::new(Bytes::new());
    *response.headers_mut() = headers;
    response
}

/// The status, by its number.
const fn code(reason: Reason) -> u64 {
    match reason {
        Reason::RateLimited | Reason::TooLarge => 8,
        Reason::Capacity | Reason::CircuitOpen | Reason::Unavailable | Reason::Indeterminate => 14,
        Reason::Rejected => 13,
        Reason::Unidentified => 7,
        Reason::JobRunning => 10,
        Reason::DuplicateJob => 6,
        Reason::JobConflict | Reason::InvalidJobId | Reason::StaleJobId => 3,
    }
}

/// `grpc-message`, percent-encoded.
fn message(text: &[u8]) -> Option<HeaderValue> {
    let mut encoded = Buffer::<192>::new();
    for part in percent_encode(text, ESCAPED) {
        encoded.push(part);
    }
    HeaderValue::from_maybe_shared(encoded.take()).ok()
}

/// Whole milliseconds, rounded up; -1, which means never, where a retry of this call is pointless.
fn pushback(wait: Option<Duration>) -> HeaderValue {
    match wait {
        Some(wait) if wait < TOO_LONG => {
            let millis = wait.as_nanos().div_ceil(1_000_000);
            number(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
        }
        _ => HeaderValue::from_static("-1"),
    }
}

/// A `google.rpc.Status` with its details.
fn details(refusal: &Refusal, code: u64, said: &str) -> Message {
    let policy = refusal.policy().as_str();
    let mut status = Message::with_capacity(512);
    status.integer(1, code).text(2, said);
    if let Some(wait) = refusal.retry_after() {
        any(&mut status, "type.googleapis.com/google.rpc.RetryInfo", |info| {
            info.nested(1, |delay| {
                delay.integer(1, wait.as_secs().min(MAX_SECONDS)).integer(2, u64::from(wait.subsec_nanos()));
            });
        });
    }
    any(&mut status, "type.googleapis.com/google.rpc.ErrorInfo", |info| {
        info.text(1, reason(refusal.reason())).text(2, DOMAIN).nested(3, |entry| {
            entry.text(1, "policy").text(2, policy);
        });
    });
    if matches!(refusal.reason(), Reason::RateLimited | Reason::TooLarge) {
        any(&mut status, "type.googleapis.com/google.rpc.QuotaFailure", |failure| {
            let names = refusal.violations().iter().map(|violation| violation.name.as_str());
            for name in names.chain(refusal.violations().is_empty().then_some(policy)) {
                failure.nested(1, |violation| {
                    violation.text(1, name).text(2, said);
                });
            }
        });
    }
    status
}

/// One of a status's details.
fn any(status: &mut Message, kind: &str, fill: impl FnOnce(&mut Message)) {
    status.nested(3, |detail| {
        detail.text(1, kind).nested(2, fill);
    });
}

/// The reason as `google.rpc.ErrorInfo` wants it written.
const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::RateLimited => "RATE_LIMITED",
        Reason::Capacity => "CAPACITY",
        Reason::CircuitOpen => "CIRCUIT_OPEN",
        Reason::Unavailable => "UNAVAILABLE",
        Reason::Indeterminate => "INDETERMINATE",
        Reason::Rejected => "REJECTED",
        Reason::TooLarge => "TOO_LARGE",
        Reason::JobRunning => "JOB_RUNNING",
        Reason::DuplicateJob => "DUPLICATE_JOB_ID",
        Reason::JobConflict => "JOB_CONFLICT",
        Reason::InvalidJobId => "INVALID_JOB_ID",
        Reason::StaleJobId => "STALE_JOB_ID",
        Reason::Unidentified => "UNIDENTIFIED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushback_is_rounded_up_and_never_zero() {
        for (wait, written) in [
            (Some(Duration::ZERO), "1"),
            (Some(Duration::from_nanos(1)), "1"),
            (Some(Duration::from_nanos(1_900_000_001)), "1901"),
            (Some(Duration::from_millis(3_599_999)), "3599999"),
            (Some(Duration::from_secs(3_600)), "-1"),
            (Some(Duration::from_secs(86_400)), "-1"),
            (Some(Duration::MAX), "-1"),
            (None, "-1"),
        ] {
            assert_eq!(pushback(wait), written, "{wait:?}");
        }
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(message("5 % of \u{fc}ber\r\n".as_bytes()).unwrap(), "5 %25 of %C3%BCber%0D%0A");
    }
}
