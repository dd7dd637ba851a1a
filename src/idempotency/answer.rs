//! Answers as they are stored: which are, with which fields.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{self, CONTENT_TYPE},
    response::Parts,
};

use super::config::{IdempotencyConfig, Replay};
use crate::{key_value::Answer, refusal::Refusal};

/// Version of the encoding of fields.
const ENCODING: u8 = 1;

/// The year 10,000, which no date of HTTP can name.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_800);

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const FIRST_DATE: HeaderName = HeaderName::from_static("idempotent-first-date");

/// Fate of a record after its handler has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The answer is stored.
    Retained,
    /// The handler ran, and its answer is not stored.
    NotRetained,
    /// The key is free.
    Free,
}

/// Returns the fate of a record by the head of the answer, and the fields that are stored.
pub(super) fn fate(head: &Parts, config: &IdempotencyConfig) -> (Fate, Bytes) {
    let fate = fate_of(head, config.replay);
    let fields = if fate == Fate::Retained { encode(&head.headers, &config.replayed_headers) } else { Bytes::new() };
    (if fields.len() > config.max_answer { Fate::NotRetained } else { fate }, fields)
}

fn fate_of(head: &Parts, replay: Replay) -> Fate {
    use StatusCode as Status;
    if Refusal::further_in(&head.extensions, false).is_some() {
        return Fate::Free; // of a layer further in: the handler did not run
    }
    match head.status {
        Status::UNAUTHORIZED
        | Status::FORBIDDEN
        | Status::REQUEST_TIMEOUT
        | Status::PAYLOAD_TOO_LARGE
        | Status::MISDIRECTED_REQUEST
        | Status::TOO_MANY_REQUESTS => Fate::Free,
        status if status.as_u16() == 425 => Fate::Free, // Too Early, which http has a name for since 1.2
        status if status.is_server_error() && replay == Replay::Final => Fate::Free,
        status if status.is_informational() => Fate::NotRetained, // an upgrade
        _ if is_stream(&head.headers) => Fate::NotRetained,
        _ => Fate::Retained,
    }
}

/// Media types of answers that are sent piece by piece, and perhaps never end.
const STREAMS: [&[u8]; 6] = [
    b"text/event-stream",
    b"multipart/x-mixed-replace",
    b"application/x-ndjson",
    b"application/ndjson",
    b"application/json-seq",
    b"application/stream+json",
];

fn is_stream(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    STREAMS.iter().any(|stream| kind.eq_ignore_ascii_case(stream))
}

/// Returns whether a field belongs to one exchange or one client, and is never replayed.
pub(super) fn is_of_one_exchange(name: &HeaderName) -> bool {
    let text = name.as_str();
    let prefixes = ["access-control-", "ratelimit", "x-ratelimit-", "proxy-", "idempotent-"];
    prefixes.iter().any(|prefix| text.starts_with(prefix))
        || [
            header::SET_COOKIE,
            header::DATE,
            header::AGE,
            header::RETRY_AFTER,
            header::CONNECTION,
            header::TE,
            header::TRAILER,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            header::WWW_AUTHENTICATE,
            header::CONTENT_LENGTH,
        ]
        .contains(name)
        || text == "keep-alive"
}

fn is_stored(name: &HeaderName, more: &[HeaderName]) -> bool {
    let usual =
        [header::LOCATION, header::ETAG, header::LAST_MODIFIED, header::LINK, header::CACHE_CONTROL, header::VARY];
    // The length is that of the body.
    (name.as_str().starts_with("content-") && *name != header::CONTENT_LENGTH)
        || usual.contains(name)
        || more.contains(name)
}

/// Encodes the fields that are replayed: a byte of the version, then each name and value after its length in four bytes.
pub(super) fn encode(headers: &HeaderMap, more: &[HeaderName]) -> Bytes {
    let mut encoded = BytesMut::new();
    for (name, value) in headers.iter().filter(|(name, _)| is_stored(name, more)) {
        if encoded.is_empty() {
            encoded.put_u8(ENCODING);
        }
        for text in [name.as_str().as_bytes(), value.as_bytes()] {
            encoded.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
            encoded.put_slice(text);
        }
    }
    encoded.freeze()
}

/// Decodes fields; `None` if they were not encoded so.
fn decode(fields: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let Some((version, mut rest)) = fields.split_first() else { return Some(headers) };
    if *version != ENCODING {
        return None;
    }
    let mut text = || {
        let (length, after) = rest.split_first_chunk()?;
        let (text, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after;
        Some(text)
    };
    while let Some(name) = text() {
        let value = HeaderValue::from_bytes(text()?).ok()?;
        let name = HeaderName::from_bytes(name).ok().filter(|name| !is_of_one_exchange(name))?;
        headers.try_append(name, value).ok()?;
    }
    rest.is_empty().then_some(headers)
}

/// Creates the response of a stored answer; `None` if it is damaged.
pub(super) fn replayed(answer: Answer, first_at: Duration) -> Option<Response<Bytes>> {
    let status = StatusCode::from_u16(answer.status).ok().filter(|status| !status.is_informational())?;
    let mut headers = decode(&answer.fields)?;
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if first_at < END_OF_DATES {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + first_at);
        headers.extend(HeaderValue::try_from(date).ok().map(|date| (FIRST_DATE, date)));
    }
    let mut response = Response::new(answer.body);
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn fields_are_decoded_as_they_were() {
        let sent =
            headers(&[("content-type", "text/plain"), ("link", "a"), ("link", "b"), ("etag", ""), ("x-own", "1")]);
        let own = [HeaderName::from_static("x-own")];
        assert_eq!(decode(&encode(&sent, &own)), Some(sent.clone()));
        let mut without = sent;
        without.remove("x-own");
        assert_eq!(decode(&encode(&without, &[])), Some(without));
        assert!(encode(&headers(&[("set-cookie", "a"), ("content-length", "1")]), &own).is_empty());
    }

    #[test]
    fn damaged_fields_are_not_decoded_and_do_not_panic() {
        let encoded = encode(&headers(&[("content-type", "text/plain"), ("etag", "1")]), &[]);
        for end in 1..encoded.len() {
            let cut = decode(&encoded[..end]);
            assert!(cut.is_none() || end == 1 || cut.is_some_and(|cut| cut.len() == 1), "cut after {end} bytes");
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut damaged = encoded.to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..damaged.len());
                damaged[at] = random.u8(..);
            }
            drop(decode(&damaged));
            let bytes: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
            drop(decode(&bytes));
        }
        assert_eq!(decode(&[2, 0, 0, 0, 0]), None);
        assert_eq!(decode(&[1, 255, 255, 255, 255, b'a']), None);
        assert_eq!(decode(&[1, 0, 0, 0, 1, b'a', 0, 0, 0, 1, b'\n']), None);
    }

    #[test]
    fn answers_that_no_response_can_have_are_not_replayed() {
        for status in [0, 99, 100, 101, 199, 1_000, 65_535] {
            assert!(replayed(Answer::new(status, "x"), Duration::ZERO).is_none(), "{status}");
        }
        let far = replayed(Answer::new(200, "x"), Duration::MAX).expect("an answer");
        assert!(!far.headers().contains_key("idempotent-first-date"));
    }
}
