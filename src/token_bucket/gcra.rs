//! The token bucket, kept as one number: the time at which it will be full again.
//!
//! This is the generic cell rate algorithm of ITU-T I.371 seen from the other side: `full_at` is its theoretical arrival
//! time. The *debt* of a bucket is the time it still needs to be full; a request of cost n adds n intervals to it and
//! is admitted when the debt then fits into the span of the whole bucket. A bucket without debt is like no bucket at
//! all, so it can be forgotten.
//!
//! ```
//! use std::time::Duration;
//! use tollgate::{Cost, Moment, Rate, rule::gcra::{self, Verdict}};
//!
//! let rate = Rate::per_second(1).burst(5);
//! let now = Moment::from_nanos(1_000_000_000);
//! let Verdict::Admitted { full_at } = gcra::decide(&rate, None, Cost::new(5), now) else { panic!() };
//!
//! let refused = gcra::decide(&rate, Some(full_at), Cost::new(2), now);
//! assert_eq!(refused, Verdict::Refused { wait: Duration::from_secs(2) });
//! assert!(matches!(
//!     gcra::decide(&rate, Some(full_at), Cost::new(2), now + Duration::from_secs(2)),
//!     Verdict::Admitted { .. },
//! ));
//! ```

use std::time::Duration;

use super::rate::Rate;
use crate::{cost::Cost, time::Moment};

/// What a bucket says to one request.
///
/// ```
/// use tollgate::{Cost, Moment, Rate, rule::gcra::{Verdict, decide}};
/// let rate = Rate::per_second(1).burst(5);
/// assert_eq!(decide(&rate, None, Cost::new(6), Moment::default()), Verdict::TooLarge);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It may pass, and the bucket is to be written down with this time.
    Admitted {
        /// When the bucket is full again, in nanoseconds of the clock.
        full_at: u64,
    },
    /// It may not pass now; the bucket stays as it was.
    Refused {
        /// After exactly this time, and not a nanosecond sooner, the same request passes if nobody else takes.
        wait: Duration,
    },
    /// It costs more than a full bucket holds and will never pass.
    TooLarge,
}

/// How full a bucket is.
///
/// ```
/// use tollgate::{Moment, Rate, rule::gcra};
/// let level = gcra::level(&Rate::per_second(5), None, Moment::default());
/// assert_eq!((level.limit, level.remaining, level.full_in.as_secs()), (5, 5, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// How many tokens a full bucket holds.
    pub limit: u64,
    /// How many whole tokens are there now.
    pub remaining: u64,
    /// How long it takes until the bucket is full.
    pub full_in: Duration,
}

/// Decides on a request of `cost` against a bucket that is full at `full_at`, or a newcomer's.
///
/// [`Cost::PREFLIGHT`] takes nothing, and is admitted exactly when a whole token is there.
///
/// A refusal changes nothing. But a newcomer who finds fewer than `cost` [initial tokens](Rate::initial_tokens) has to be
/// written down with [`newcomer`]: it waits for tokens that come only if its bucket begins to fill.
///
/// ```
/// use tollgate::{Cost, Moment, Rate, rule::gcra::{Verdict, decide}};
/// let rate = Rate::per_second(1).burst(5);
/// let now = Moment::from_nanos(7);
/// assert_eq!(decide(&rate, None, Cost::ONE, now), Verdict::Admitted { full_at: 1_000_000_007 });
/// ```
#[inline]
pub fn decide(rate: &Rate, full_at: Option<u64>, cost: Cost, now: Moment) -> Verdict {
    if cost.get() > rate.capacity() {
        return Verdict::TooLarge;
    }
    let full_at = full_at.unwrap_or_else(|| newcomer(rate, now));
    let debt = debt(full_at, now);
    let need = rate.interval_ns() * cost.get().max(1); // at most the span, for the cost is at most the burst
    let wait = debt.saturating_add(need).saturating_sub(rate.span_ns());
    if wait > 0 {
        Verdict::Refused { wait: Duration::from_nanos(wait) }
    } else if cost == Cost::PREFLIGHT {
        Verdict::Admitted { full_at }
    } else {
        Verdict::Admitted { full_at: now.as_nanos() + debt + need } // at most 2^63 + 2^62
    }
}

/// The state of a bucket with a newcomer's tokens in it.
///
/// ```
/// use tollgate::{Moment, Rate, rule::gcra};
/// let rate = Rate::per_second(1).burst(5).initial_tokens(2);
/// assert_eq!(gcra::newcomer(&rate, Moment::default()), 3_000_000_000);
/// ```
#[must_use]
#[inline]
pub fn newcomer(rate: &Rate, now: Moment) -> u64 {
    now.as_nanos() + rate.interval_ns() * (rate.capacity() - rate.newcomer_tokens())
}

/// How full a bucket is that will be full at `full_at`, or a newcomer's.
///
/// ```
/// use tollgate::{Moment, Rate, rule::gcra};
/// let level = gcra::level(&Rate::per_second(5), Some(300_000_000), Moment::default());
/// assert_eq!((level.remaining, level.full_in.as_millis()), (3, 300));
/// ```
#[must_use]
#[inline]
pub fn level(rate: &Rate, full_at: Option<u64>, now: Moment) -> Level {
    let debt = debt(full_at.unwrap_or_else(|| newcomer(rate, now)), now);
    Level {
        limit: rate.capacity(),
        remaining: rate.span_ns().saturating_sub(debt) / rate.interval_ns(),
        full_in: Duration::from_nanos(debt),
    }
}

/// The same bucket under another rate: it keeps the fraction that is missing, rounded up.
///
/// So a change of tier gives nobody a fresh bucket and leaves nobody punished by the old rate. `from_span` is how long the
/// old bucket took to fill, in nanoseconds; zero stands for a bucket that nobody has seen, which is a newcomer's but not
/// full before `full_at`.
///
/// ```
/// use tollgate::{Moment, Rate, rule::gcra};
/// let (free, pro) = (Rate::per_second(1).burst(10), Rate::per_second(10).burst(1_000));
/// let half_empty = 5_000_000_000;
/// let same = gcra::rescale(half_empty, free.span().as_nanos() as u64, &pro, Moment::default());
/// assert_eq!(gcra::level(&pro, Some(same), Moment::default()).remaining, 500);
/// ```
#[must_use]
pub fn rescale(full_at: u64, from_span: u64, rate: &Rate, now: Moment) -> u64 {
    if from_span == 0 {
        return full_at.max(newcomer(rate, now));
    }
    let debt = debt(full_at, now);
    if debt == 0 {
        return full_at;
    }
    // A debt above the span comes from a clock that was set back: that part is time to make up, not tokens.
    let tokens = debt.min(from_span);
    let ahead = debt - tokens;
    let scaled = (u128::from(tokens) * u128::from(rate.span_ns())).div_ceil(u128::from(from_span));
    let scaled = u64::try_from(scaled).unwrap_or(u64::MAX); // never above the span, for tokens <= from_span
    now.as_nanos().saturating_add(ahead).saturating_add(scaled)
}

/// The bucket after `cost` was given back to it; never fuller than full.
///
/// ```
/// use tollgate::{Cost, Moment, Rate, rule::gcra};
/// let rate = Rate::per_second(5);
/// assert_eq!(gcra::give_back(&rate, 600_000_000, Cost::ONE, Moment::default()), 400_000_000);
/// assert_eq!(gcra::give_back(&rate, 600_000_000, Cost::MAX, Moment::from_nanos(9)), 9);
/// ```
#[must_use]
pub fn give_back(rate: &Rate, full_at: u64, cost: Cost, now: Moment) -> u64 {
    let given = rate.interval_ns().saturating_mul(cost.get());
    full_at.saturating_sub(given).max(now.as_nanos().min(full_at))
}

#[inline]
fn debt(full_at: u64, now: Moment) -> u64 {
    full_at.saturating_sub(now.as_nanos())
}
