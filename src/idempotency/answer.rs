//! Answers as they are stored: which are, with which fields.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{self, CONTENT_TYPE},
    response::Parts,
};

use super::config::Replay;
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

/// Returns the fate of a record by the head of the answer.
pub(super) fn fate(head: &Parts, replay: Replay) -> Fate {
    use StatusCode as Status;
    if head.extensions.get::<Refusal>().is_some() {
        return Fate::Free; // of a layer further in: the handler did not run
    }
    match head.status {
        Status::UNAUTHORIZED
        | Status::FORBIDDEN
        | Status::REQUEST_TIMEOUT
        | Status::PAYLOAD_TOO_LARGE
        | Status::TOO_MANY_REQUESTS => Fate::Free,
        status if status.is_server_error() && replay == Replay::Final => Fate::Free,
        status if status.is_informational() => Fate::NotRetained, // an upgrade
        _ if is_stream(&head.headers) => Fate::NotRetained,
        _ => Fate::Retained,
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [&b"text/event-stream"[..], b"multipart/x-mixed-replace"].iter().any(|stream| kind.eq_ignore_ascii_case(stream))
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
        headers.try_append(HeaderName::from_bytes(name).ok()?, value).ok()?;
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
