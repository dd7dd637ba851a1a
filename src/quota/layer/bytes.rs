//! The bytes of one request and its response, as far as they were not known beforehand.

use super::{active_plan::ActivePlan, request_bytes::Read};
use crate::{
    head::RequestHead,
    kind::{Direction, Kind},
    quota::Amounts,
};

/// Bytes that have passed, and those of which the account knows.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    fresh: u64,
    known: u64,
    upload: Option<Box<Upload>>,
}

/// The body of a request that does not say how long it is.
#[derive(Debug)]
struct Upload {
    read: Read,
    known: u64,
}

/// After so many bytes the account hears of them, so that a long download is not news only at its end.
const NEWS: u64 = 1 << 20;

impl Bytes {
    #[inline]
    pub(super) fn new(active: &ActivePlan, request: &RequestHead<'_>) -> Self {
        let read = if active.request_bytes { request.extensions.get::<Read>() } else { None };
        let upload = read.map(|read| Box::new(Upload { read: read.clone(), known: 0 }));
        Self { upload, ..Self::default() }
    }

    /// Whether a request's body is being counted.
    pub(super) const fn counts_request(&self) -> bool {
        self.upload.is_some()
    }

    /// So many bytes of the response were handed to the transport.
    #[inline]
    pub(super) const fn answered(&mut self, bytes: usize) {
        self.fresh = self.fresh.saturating_add(bytes as u64);
    }

    /// Whether so many have passed that the account must hear of them.
    pub(super) const fn are_news(&self) -> bool {
        self.fresh >= NEWS
    }

    /// Whether nothing has passed of which the account does not know.
    pub(super) fn are_all_told(&self) -> bool {
        self.fresh == 0 && self.upload.as_ref().is_none_or(|upload| upload.read.bytes() <= upload.known)
    }

    /// What has passed since this was last asked.
    pub(super) fn tell(&mut self) -> Amounts {
        let answered = std::mem::take(&mut self.fresh);
        self.known = self.known.saturating_add(answered);
        amounts(self.upload.as_mut().map_or(0, |upload| upload.tell()), answered)
    }

    /// What had passed when this was last [told](Self::tell).
    pub(super) fn told(&self) -> Amounts {
        amounts(self.upload.as_ref().map_or(0, |upload| upload.known), self.known)
    }
}

impl Upload {
    fn tell(&mut self) -> u64 {
        let read = self.read.bytes();
        let news = read.saturating_sub(self.known);
        self.known = read;
        news
    }
}

#[inline]
fn amounts(request: u64, response: u64) -> Amounts {
    let mut amounts = Amounts::new();
    if request == 0 && response == 0 {
        return amounts;
    }
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
