//! The rates in force, replaced as a whole while requests read them.

use std::{sync::Arc, time::Duration};

use super::{
    gcra::{self, Level},
    layer::TokenBucketConfig,
    rate::Rate,
    table::{Bucket, GlobalCell},
};
use crate::{
    gate::{PolicyContext, Tiered},
    refusal::{Dialect, Fields},
    time::{Clock, Moment},
};

/// A rate and the header fields that report it.
#[derive(Debug)]
pub(super) struct RateLimit {
    pub(super) rate: Rate,
    pub(super) fields: Arc<Fields>,
    pub(super) clock: Clock,
}

/// The bucket of all clients together. A new rate has a new cell. Otherwise a decision under the old rate would write
/// its times into a bucket that others read by the new one.
#[derive(Debug)]
pub(super) struct GlobalLimit {
    pub(super) rate: Rate,
    pub(super) cell: GlobalCell,
}

/// All rates of a layer.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) by_tier: Tiered<Arc<RateLimit>>,
    pub(super) global: Option<Arc<GlobalLimit>>,
    overflow: Option<Rate>,
}

impl RateLimit {
    pub(super) fn new(rate: Rate, context: &PolicyContext, dialect: Dialect) -> Arc<Self> {
        let window = Duration::from_nanos(rate.window_ns());
        let fields = Arc::new(Fields::new(dialect, &context.name, rate.capacity(), window, None));
        Arc::new(Self { rate, fields, clock: context.clock.clone() })
    }

    /// Returns the time for which the remaining tokens suffice at the full rate; without any, the time until the next one.
    pub(super) fn reset(&self, level: &Level) -> Duration {
        match level.remaining {
            0 => (level.full_in + self.rate.interval()).saturating_sub(self.rate.span()),
            _ => self.rate.span().saturating_sub(level.full_in),
        }
    }
}

/// Returns the time at which a stored bucket is full under `rate`, whatever rate it was stored under.
#[inline]
pub(super) fn full_at(bucket: Bucket, rate: &Rate, now: Moment) -> u64 {
    if bucket.span == rate.span_ns() {
        return bucket.full_at;
    }
    let span = bucket.span & !KEPT;
    let full_at = if span == bucket.span { bucket.full_at } else { bucket.full_at.saturating_sub(kept_for(span)) };
    if span == rate.span_ns() { full_at } else { gcra::rescale(full_at, span, rate, now) }
}

/// Returns the stored form of a bucket.
///
/// If newcomers begin with less than a full bucket, it stays for a while after it is full. A client that waited as long
/// as it was asked to must not be a newcomer again.
#[inline]
pub(super) fn bucket(full_at: u64, rate: &Rate) -> Bucket {
    let span = rate.span_ns();
    if rate.newcomer_tokens() < rate.capacity() {
        Bucket { full_at: full_at.saturating_add(kept_for(span)), span: span | KEPT }
    } else {
        Bucket { full_at, span }
    }
}

/// Marks the span of a bucket that is kept after it is full; no span is that long.
const KEPT: u64 = 1 << 63;

/// Returns the time in which the bucket filled, and at least a minute, in nanoseconds: `Retry-After` is rounded up, and
/// clients are late.
fn kept_for(span: u64) -> u64 {
    span.max(60_000_000_000)
}

impl Limits {
    pub(super) fn new(config: &TokenBucketConfig, context: &PolicyContext) -> Self {
        Self {
            by_tier: config.rates.map(|rate| RateLimit::new(*rate, context, config.clients.dialect)),
            global: config.global.map(|rate| Arc::new(GlobalLimit { rate, cell: GlobalCell::new() })),
            overflow: config.overflow,
        }
    }

    /// Returns the rate that all newcomers share while the table is full.
    pub(super) fn overflow(&self) -> &Rate {
        self.overflow.as_ref().unwrap_or(&self.by_tier.of(None).rate)
    }

    /// Returns the same rates with another global one, whose bucket keeps the fraction that is missing.
    pub(super) fn with_global(&self, rate: Option<Rate>, now: Moment) -> Self {
        let cell = |rate: &Rate| {
            self.global.as_ref().map_or_else(GlobalCell::new, |old| old.cell.rescaled(&old.rate, rate, now))
        };
        Self { global: rate.map(|rate| Arc::new(GlobalLimit { rate, cell: cell(&rate) })), ..self.clone() }
    }
}
