//! What an admitted request holds: its charge, until the last byte of the answer has gone.

use std::{fmt, sync::Arc, time::Duration};

use http::{Extensions, HeaderValue, StatusCode, response};

use super::{
    charge::{Charge, QuotaStatus},
    offer::Offer,
    settings::Served,
    tracker::Tracker,
};
use crate::{
    Direction, Kind, Moment, Outcome, Permit,
    quota::Amounts,
    quota_store::{Admission, End, News, Receipt},
    respond::{NEAR_LIMITS, near_limits},
    rule::quota::{Nearest, Now},
};

/// A charge under way; nothing where nobody is charged.
pub struct Held(Option<Open>);

struct Open {
    tracker: Arc<Tracker>,
    offer: Arc<Offer>,
    receipt: Receipt,
    /// What was charged or set aside, where it depends on the request.
    own: Option<Box<Amounts>>,
    told: Option<Nearest>,
    extra: Option<Box<Extra>>,
    bytes: Passed,
    /// When the account last heard of it.
    heard: Moment,
    status: Option<StatusCode>,
    reached: bool,
}

/// What few requests have.
#[derive(Default)]
struct Extra {
    charge: Option<Charge>,
    status: Option<QuotaStatus>,
    near: Option<HeaderValue>,
}

impl Extra {
    fn new(news: News, share: bool) -> Self {
        let News { untold, usage, .. } = news;
        Self {
            near: near_limits(untold.iter().map(|near| (&near.name, near.used, near.limit)))
                .filter(|_| !untold.is_empty()),
            charge: share.then(Charge::new),
            status: usage.map(|usage| QuotaStatus::new(usage, untold.into_iter().map(|near| near.name).collect())),
        }
    }
}

/// Body bytes that have passed.
#[derive(Clone, Copy, Default)]
struct Passed {
    /// Since the account last heard of them, and before.
    fresh: u64,
    known: u64,
}

/// After so many bytes the account hears of them, so that a long download is not news only at its end.
const NEWS: u64 = 1 << 20;

impl Held {
    /// Nobody is charged.
    pub(super) const fn nothing() -> Self {
        Self(None)
    }

    pub(super) fn new(
        tracker: &Arc<Tracker>,
        offer: &Arc<Offer>,
        amounts: &Amounts,
        admission: Admission,
        now: Now,
    ) -> Self {
        let Admission { receipt, nearest, news } = admission;
        let extra = match news {
            None if !tracker.settings.share => None,
            news => Some(Box::new(Extra::new(news.map(|news| *news).unwrap_or_default(), tracker.settings.share))),
        };
        Self(Some(Open {
            told: nearest,
            own: offer.depends().then(|| Box::new(amounts.clone())),
            tracker: Arc::clone(tracker),
            offer: Arc::clone(offer),
            receipt,
            extra,
            bytes: Passed::default(),
            heard: now.moment,
            status: None,
            reached: false,
        }))
    }
}

impl Permit for Held {
    fn on_request(&mut self, extensions: &mut Extensions) {
        let Some(open) = &mut self.0 else { return };
        open.reached = true;
        if let Some(extra) = &mut open.extra {
            if let Some(charge) = &extra.charge {
                extensions.insert(charge.clone());
            }
            if let Some(status) = extra.status.take() {
                extensions.insert(status);
            }
        }
    }

    fn on_response(&mut self, head: &mut response::Parts) {
        let Some(open) = &mut self.0 else { return };
        open.status = Some(head.status);
        if open.receipt.lease.is_some() {
            let now = open.tracker.now();
            open.tracker.store.watch(&open.receipt, now);
            open.heard = now.moment;
        }
        if let Some(nearest) = &open.told
            && let Some(fields) = open.offer.fields.get(nearest.index)
        {
            match nearest.reset {
                Some(reset) => {
                    fields.write(&mut head.headers, nearest.remaining, reset, || open.tracker.terms.clock.wall())
                }
                None => fields.write_without_reset(&mut head.headers, nearest.remaining),
            }
        }
        if let Some(near) = open.extra.as_mut().and_then(|extra| extra.near.take()) {
            let _ = head.headers.try_append(NEAR_LIMITS, near);
        }
    }

    fn on_data(&mut self, bytes: usize) {
        let Some(open) = &mut self.0 else { return };
        if open.offer.response_bytes {
            open.bytes.fresh = open.bytes.fresh.saturating_add(bytes as u64);
        }
        open.tell_progress();
    }

    fn settle(self, outcome: Outcome<'_>) {
        if let Some(open) = self.0 {
            open.settle(&outcome);
        }
    }
}

impl Open {
    /// Tells the account that the request is alive, and what has passed: not at each frame, for that costs a lock.
    fn tell_progress(&mut self) {
        let much = self.bytes.fresh >= NEWS;
        if !much && self.receipt.lease.is_none() {
            return;
        }
        let now = self.tracker.now();
        if much || now.moment.since(self.heard) >= self.tracker.news_every() {
            let near = self.tracker.store.go_on(&self.receipt, &bytes(self.bytes.fresh), now);
            self.tracker.warn(&near);
            self.bytes = Passed { fresh: 0, known: self.bytes.known.saturating_add(self.bytes.fresh) };
            self.heard = now.moment;
        }
    }

    fn settle(self, outcome: &Outcome<'_>) {
        let charged = match outcome {
            Outcome::Refused(_) => false,
            _ if !self.reached => false,
            outcome => self.is_charged(matches!(outcome, Outcome::Complete { .. })),
        };
        if charged && !self.receipt.open && self.bytes.fresh == 0 {
            return; // all was charged when it was admitted
        }
        let (store, now) = (&self.tracker.store, self.tracker.now());
        let near = if charged {
            store.settle(&self.receipt, &End::Served { used: &bytes(self.bytes.fresh), actual: &self.said() }, now)
        } else {
            store.settle(&self.receipt, &End::Void(&self.all_charged()), now)
        };
        self.tracker.warn(&near);
    }

    fn is_charged(&self, complete: bool) -> bool {
        match &self.tracker.settings.charge_when {
            Some(charge_when) => charge_when(&Served::new(self.status, complete)),
            None => true,
        }
    }

    /// What was charged or set aside at admission.
    fn asked(&self) -> &Amounts {
        self.own.as_deref().unwrap_or(&self.offer.fixed)
    }

    /// What the handler says that was used.
    fn said(&self) -> Amounts {
        let charge = self.extra.as_ref().and_then(|extra| extra.charge.as_ref());
        charge.map(Charge::settle).unwrap_or_default()
    }

    /// What there is to give back, besides what was set aside.
    fn all_charged(&self) -> Amounts {
        let mut all = if self.receipt.hold.is_some() { Amounts::none() } else { self.asked().clone() };
        for (kind, amount) in bytes(self.bytes.known).iter() {
            all.add(kind, amount);
        }
        all
    }
}

/// Bytes of a response's body.
fn bytes(passed: u64) -> Amounts {
    match passed {
        0 => Amounts::none(),
        _ => Amounts::from([Direction::Both, Direction::Response].map(|direction| (Kind::Bytes(direction), passed))),
    }
}

impl Tracker {
    /// How often an account hears of what it has admitted: so often that no slot is taken back from who makes progress.
    pub(super) fn news_every(&self) -> Duration {
        self.settings.max_stall / 4
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.as_ref().map(|open| &open.receipt)).finish()
    }
}
