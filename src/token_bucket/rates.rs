//! The rates that are in force, replaced as a whole while requests read them.

use std::{sync::Arc, time::Duration};

use super::{
    gcra::{self, Level},
    rate::Rate,
    table::{Entry, GlobalCell},
};
use crate::{
    gate::PolicyContext,
    identity::Tier,
    refusal::{Dialect, Fields},
    time::{Clock, Moment},
};

/// A rate and the fields that tell clients of it.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) rate: Rate,
    pub(super) fields: Arc<Fields>,
    pub(super) clock: Clock,
}

/// The bucket of all clients together. A new rate comes with a new cell: who is just being decided by the old rate must
/// not write its times down in a bucket that others read by the new one.
#[derive(Debug)]
pub(super) struct Global {
    pub(super) rate: Rate,
    pub(super) cell: GlobalCell,
}

/// Every rate of a layer.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    usual: Arc<Limit>,
    tiers: Vec<(Tier, Arc<Limit>)>,
    pub(super) global: Option<Arc<Global>>,
    overflow: Option<Rate>,
}

impl Limit {
    fn new(rate: Rate, context: &PolicyContext, dialect: Dialect) -> Arc<Self> {
        let window = Duration::from_nanos(rate.window_ns());
        let fields = Arc::new(Fields::new(dialect, &context.name, rate.capacity(), window, None));
        Arc::new(Self { rate, fields, clock: context.clock.clone() })
    }

    /// For how long the tokens that are left suffice at the full rate; with none left, how long the next one takes.
    pub(super) fn reset(&self, level: &Level) -> Duration {
        let span = Duration::from_nanos(self.rate.span_ns());
        match level.remaining {
            0 => (level.full_in + self.rate.interval()).saturating_sub(span),
            _ => span.saturating_sub(level.full_in),
        }
    }
}

/// When an entry's bucket would be full again under `rate`, whatever rate it was written under.
#[inline]
pub(super) fn full_at(entry: Entry, rate: &Rate, now: Moment) -> u64 {
    if entry.span == rate.span_ns() {
        return entry.full_at;
    }
    let span = entry.span & !KEPT;
    let full_at = if span == entry.span { entry.full_at } else { entry.full_at.saturating_sub(kept_for(span)) };
    if span == rate.span_ns() { full_at } else { gcra::rescale(full_at, span, rate, now) }
}

/// What is written down of a bucket.
///
/// Where newcomers begin with less than a full bucket, it is kept for a while after it is full: who waited for its tokens
/// as long as it was told must not be a newcomer again.
#[inline]
pub(super) fn entry(full_at: u64, rate: &Rate) -> Entry {
    let span = rate.span_ns();
    if rate.newcomer_tokens() < rate.capacity() {
        Entry { full_at: full_at.saturating_add(kept_for(span)), span: span | KEPT }
    } else {
        Entry { full_at, span }
    }
}

/// Marks the span of an entry that is kept after its bucket is full; no span is so long.
const KEPT: u64 = 1 << 63;

/// As long as the bucket took to fill, and for at least a minute: `Retry-After` is rounded up, and nobody comes to the
/// nanosecond.
fn kept_for(span: u64) -> u64 {
    span.max(60_000_000_000)
}

impl Rates {
    pub(super) fn new(
        context: &PolicyContext,
        dialect: Dialect,
        usual: Rate,
        tiers: &[(Tier, Rate)],
        global: Option<Rate>,
        overflow: Option<Rate>,
    ) -> Self {
        let tiers = tiers.iter().map(|(tier, rate)| (tier.clone(), Limit::new(*rate, context, dialect))).collect();
        let global = global.map(|rate| Arc::new(Global { rate, cell: GlobalCell::new() }));
        Self { usual: Limit::new(usual, context, dialect), tiers, global, overflow }
    }

    /// What all newcomers share while the table is full.
    pub(super) fn overflow(&self) -> &Rate {
        self.overflow.as_ref().unwrap_or(&self.usual.rate)
    }

    /// The limit of a client of `tier`; the usual one where the tier has none of its own.
    #[inline]
    pub(super) fn of(&self, tier: Option<&Tier>) -> &Arc<Limit> {
        let named = |tier: &Tier| self.tiers.iter().find(|(name, _)| name == tier).map(|(_, limit)| limit);
        tier.and_then(named).unwrap_or(&self.usual)
    }

    /// The same rates but for one: the usual one, or that of a tier, which may be new.
    pub(super) fn with(&self, tier: Option<Tier>, rate: Rate, context: &PolicyContext, dialect: Dialect) -> Self {
        let limit = Limit::new(rate, context, dialect);
        let mut rates = self.clone();
        match tier {
            None => rates.usual = limit,
            Some(tier) => match rates.tiers.iter_mut().find(|(name, _)| *name == tier) {
                Some((_, old)) => *old = limit,
                None => rates.tiers.push((tier, limit)),
            },
        }
        rates
    }

    /// The same rates but for that of all clients together; its bucket keeps the fraction that is missing.
    pub(super) fn with_global(&self, rate: Option<Rate>, now: Moment) -> Self {
        let cell = |rate: &Rate| {
            self.global.as_ref().map_or_else(GlobalCell::new, |old| old.cell.rescaled(&old.rate, rate, now))
        };
        Self { global: rate.map(|rate| Arc::new(Global { rate, cell: cell(&rate) })), ..self.clone() }
    }
}
