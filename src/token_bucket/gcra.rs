//! The rule of the token bucket, which is stored as one number: the time at which it will be full again.
//!
//! This is the generic cell rate algorithm of ITU-T I.371, expressed in tokens: `full_at` is its theoretical arrival
//! time. The *debt* of a bucket is the time until it is full. A request of cost n adds n intervals to the debt, and is
//! admitted if the debt then fits into the span of the whole bucket. A bucket without debt equals no bucket, so that it
//! can be evicted.

use std::time::Duration;

use super::rate::Rate;
use crate::{cost::Cost, time::Moment};

/// Decision of a bucket on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Decision {
    /// The request passes. The caller stores the time at which the bucket is full again, in nanoseconds of the clock.
    Admitted { full_at: u64 },
    /// The request does not pass now, and the bucket is unchanged. After exactly `wait`, and not a nanosecond sooner, the
    /// same request passes if no other takes tokens meanwhile.
    Refused { wait: Duration },
    /// The request costs more than a full bucket holds and never passes.
    TooLarge,
}

/// Fill level of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Level {
    /// Tokens that a full bucket holds.
    pub limit: u64,
    /// Whole tokens in the bucket now.
    pub remaining: u64,
    /// Time until the bucket is full.
    pub full_in: Duration,
}

/// Decides on a request of `cost` for a bucket that is full at `full_at`, or for a newcomer's.
///
/// [`Cost::PREFLIGHT`] takes nothing, and is admitted exactly if there is a whole token.
///
/// A refusal changes nothing. But a newcomer that finds fewer than `cost` [initial tokens](Rate::initial_tokens) must
/// be stored as [`newcomer`] returns it. The tokens that it waits for arrive only in a stored bucket.
#[inline]
pub(crate) fn decide(rate: &Rate, full_at: Option<u64>, cost: Cost, now: Moment) -> Decision {
    if cost.get() > rate.capacity() {
        return Decision::TooLarge;
    }
    let full_at = full_at.unwrap_or_else(|| newcomer(rate, now));
    let debt = debt(full_at, now);
    let need = rate.interval_ns() * cost.get().max(1); // at most the span, because the cost is at most the burst
    let wait = debt.saturating_add(need).saturating_sub(rate.span_ns());
    if wait > 0 {
        Decision::Refused { wait: Duration::from_nanos(wait) }
    } else if cost == Cost::PREFLIGHT {
        Decision::Admitted { full_at }
    } else {
        Decision::Admitted { full_at: now.as_nanos() + debt + need } // at most 2^63 + 2^62
    }
}

/// Returns the bucket of a newcomer, with its initial tokens.
#[inline]
pub(crate) fn newcomer(rate: &Rate, now: Moment) -> u64 {
    now.as_nanos() + rate.interval_ns() * (rate.capacity() - rate.newcomer_tokens())
}

/// Returns the level of a bucket that is full at `full_at`, or of a newcomer's.
#[inline]
pub(crate) fn level(rate: &Rate, full_at: Option<u64>, now: Moment) -> Level {
    let debt = debt(full_at.unwrap_or_else(|| newcomer(rate, now)), now);
    Level {
        limit: rate.capacity(),
        remaining: rate.span_ns().saturating_sub(debt) / rate.interval_ns(),
        full_in: Duration::from_nanos(debt),
    }
}

/// Returns the bucket after its rate has changed at `now`. The missing tokens stay missing, rounded up to a nanosecond of
/// the new rate, even if they exceed its burst.
///
/// At most `burst` tokens can be missing. A longer debt comes from a clock that was set back, and stays a time to wait.
pub(crate) fn change_rate(full_at: u64, from: &Rate, to: &Rate, burst: u64, now: Moment) -> u64 {
    let debt = debt(full_at, now);
    let tokens = debt.min(from.interval_ns().saturating_mul(burst));
    if tokens == 0 {
        return full_at;
    }
    let missing = (u128::from(tokens) * u128::from(to.interval_ns())).div_ceil(u128::from(from.interval_ns()));
    now.as_nanos().saturating_add(debt - tokens).saturating_add(u64::try_from(missing).unwrap_or(u64::MAX))
}

/// Returns the bucket after `cost` was given back to it, at most full.
pub(crate) fn give_back(rate: &Rate, full_at: u64, cost: Cost, now: Moment) -> u64 {
    let given = rate.interval_ns().saturating_mul(cost.get());
    full_at.saturating_sub(given).max(now.as_nanos().min(full_at))
}

#[inline]
fn debt(full_at: u64, now: Moment) -> u64 {
    full_at.saturating_sub(now.as_nanos())
}

#[cfg(test)]
mod tests;
