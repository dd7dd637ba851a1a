//! The bytes of one request and its response, as far as they were not known beforehand.

use super::{offer::Offer, request_bytes::Read};
use crate::{Direction, Kind, RequestHead, quota::Amounts};

/// Bytes that have passed, and those of which the account knows.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    counts_response: bool,
    response: Passed,
    read: Option<Read>,
    request: Passed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    all: u64,
    known: u64,
}

/// After so many bytes the account hears of them, so that a long download is not news only at its end.
const NEWS: u64 = 1 << 20;

impl Bytes {
    #[inline]
    pub(super) fn new(offer: &Offer, request: &RequestHead<'_>) -> Self {
        let read = if offer.request_bytes { request.extensions.get().cloned() } else { None };
        Self { counts_response: offer.response_bytes, read, ..Self::default() }
    }

    /// Whether a request's body is being counted.
    pub(super) const fn counts_request(&self) -> bool {
        self.read.is_some()
    }

    /// So many bytes of the response were handed to the transport.
    #[inline]
    pub(super) fn answered(&mut self, bytes: usize) {
        if self.counts_response {
            self.response.all = self.response.all.saturating_add(bytes as u64);
        }
    }

    /// Whether so many have passed that the account must hear of them.
    pub(super) const fn are_news(&self) -> bool {
        self.response.all - self.response.known >= NEWS
    }

    /// What has passed since this was last asked.
    pub(super) fn tell(&mut self) -> Amounts {
        if let Some(read) = &self.read {
            self.request.all = read.bytes();
        }
        amounts(self.request.news(), self.response.news())
    }

    /// What had passed when this was last [told](Self::tell).
    pub(super) fn told(&self) -> Amounts {
        amounts(self.request.known, self.response.known)
    }
}

impl Passed {
    fn news(&mut self) -> u64 {
        let news = self.all.saturating_sub(self.known);
        self.known = self.all;
        news
    }
}

fn amounts(request: u64, response: u64) -> Amounts {
    let mut amounts = Amounts::none();
    for (direction, bytes) in [
        (Direction::Both, request.saturating_add(response)),
        (Direction::Request, request),
        (Direction::Response, response),
    ] {
        if bytes > 0 {
            amounts.add(&Kind::Bytes(direction), bytes);
        }
    }
    amounts
}
