//! Refusals in gRPC: Trailers-Only responses, which are a head only.

use std::{borrow::Cow, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response,
    header::{CONTENT_TYPE, InvalidHeaderValue},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{
    Reason, Refusal,
    buffer::{Buffer, number},
    respond::{add_fields, detail},
};

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(super) const GRPC_STATUS_DETAILS_BIN: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Domain in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tollgate";

/// Wait from which on a client should not hold a call for a retry. A pushback has at most 32 bits of milliseconds.
const TOO_LONG: Duration = Duration::from_secs(3_600);

/// Greatest value of `google.protobuf.Duration`: 10,000 years, in seconds.
const MAX_SECONDS: u64 = 315_576_000_000;

/// ASCII characters that are written as `%XX` in `grpc-message`, as all other characters are.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Creates a Trailers-Only response. It has status 200 and an empty body; otherwise a client would take the call for
/// committed and would not retry it.
pub(super) fn trailers_only(refusal: &Refusal, content_type: HeaderValue) -> Response<Bytes> {
    let mut text = Buffer::<192>::new();
    detail(refusal, &mut text, false);
    let text = std::str::from_utf8(text.as_bytes()).unwrap_or_default();
    let code = refusal.reason().forms().grpc_status;

    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.reserve(12); // these five, and those of every refusal without growing
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(GRPC_STATUS, number(code));
    if let Ok(message) = message(text) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if let Ok(details) = HeaderValue::try_from(STANDARD_NO_PAD.encode(details(refusal, code, text).0)) {
        headers.insert(GRPC_STATUS_DETAILS_BIN, details);
    }
    headers.insert(GRPC_RETRY_PUSHBACK_MS, pushback(refusal.advised_wait()));
    add_fields(refusal, headers);
    response
}

/// Percent-encodes `grpc-message`.
fn message(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_str(&Cow::from(utf8_percent_encode(text, ESCAPED)))
}

/// Formats a wait in whole milliseconds, rounded up; -1, which means never, if a retry of this call is pointless.
fn pushback(wait: Option<Duration>) -> HeaderValue {
    match wait {
        Some(wait) if wait < TOO_LONG => {
            let millis = wait.as_nanos().div_ceil(1_000_000);
            number(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
        }
        _ => HeaderValue::from_static("-1"),
    }
}

/// Encodes a `google.rpc.Status` with its details.
fn details(refusal: &Refusal, code: u64, text: &str) -> Message {
    let policy = refusal.policy().as_str();
    let mut status = Message(Vec::with_capacity(512));
    status.integer(1, code).text(2, text);
    if let Some(wait) = refusal.advised_wait() {
        any(&mut status, "type.googleapis.com/google.rpc.RetryInfo", |info| {
            info.nested(1, |delay| {
                delay.integer(1, wait.as_secs().min(MAX_SECONDS)).integer(2, u64::from(wait.subsec_nanos()));
            });
        });
    }
    any(&mut status, "type.googleapis.com/google.rpc.ErrorInfo", |info| {
        info.text(1, refusal.reason().forms().grpc_reason).text(2, DOMAIN).nested(3, |entry| {
            entry.text(1, "policy").text(2, policy);
        });
    });
    if matches!(refusal.reason(), Reason::RateLimited | Reason::TooLarge) {
        any(&mut status, "type.googleapis.com/google.rpc.QuotaFailure", |failure| {
            let names = refusal.violations().iter().map(|violation| violation.name.as_str());
            let policy = refusal.violated_policy().as_str();
            for name in names.chain(refusal.violations().is_empty().then_some(policy)) {
                failure.nested(1, |violation| {
                    violation.text(1, name).text(2, text);
                });
            }
        });
    }
    status
}

/// Adds one detail to a status.
fn any(status: &mut Message, kind: &str, fill: impl FnOnce(&mut Message)) {
    status.nested(3, |detail| {
        detail.text(1, kind).nested(2, fill);
    });
}

/// Protocol buffer message under construction. Fields with their default value are omitted, as proto3 demands.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Adds an integer that is never negative.
    fn integer(&mut self, field: u8, value: u64) -> &mut Self {
        if value > 0 {
            self.0.push(field << 3);
            self.varint(value);
        }
        self
    }

    /// Adds a text.
    fn text(&mut self, field: u8, text: &str) -> &mut Self {
        if text.is_empty() { self } else { self.nested(field, |message| message.0.extend_from_slice(text.as_bytes())) }
    }

    /// Adds a nested message, even if it is empty.
    fn nested(&mut self, field: u8, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.0.push(field << 3 | 2);
        let start = self.0.len();
        fill(self);
        let end = self.0.len();
        self.varint((end - start) as u64);
        // The length precedes the message, but is known only after it.
        let written = self.0.len() - end;
        self.0[start..].rotate_right(written);
        self
    }

    /// Adds an integer with seven bits in each byte, the least significant first.
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushback_is_rounded_up_and_never_zero() {
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
    fn message_is_percent_encoded() {
        assert_eq!(message("5 % of \u{fc}ber\r\n").unwrap(), "5 %25 of %C3%BCber%0D%0A");
    }

    #[test]
    fn encoding_is_that_of_the_protobuf_guide() {
        let mut message = Message::default();
        message.integer(1, 150).text(2, "testing").integer(4, 0).text(5, "").nested(3, |inner| {
            inner.integer(1, 150);
        });
        assert_eq!(message.0, b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01");
    }

    #[test]
    fn length_of_two_bytes_moves_its_message() {
        let mut message = Message::default();
        message.nested(1, |inner| {
            inner.text(1, &"x".repeat(200));
        });
        assert_eq!(message.0[..6], *b"\x0a\xcb\x01\x0a\xc8\x01");
        assert_eq!(message.0.len(), 206);
    }

    #[test]
    fn largest_integer_takes_ten_bytes() {
        let mut message = Message::default();
        message.integer(1, u64::MAX);
        assert_eq!(message.0, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }
}
