//! How long to stay away: doubling, capped, spread out.

use std::time::Duration;

/// A time that doubles with each attempt up to a cap, and is spread upward so that a fleet does not come back as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// The time of the `attempt`th try, counted from 0, without spread.
    pub(crate) fn plain(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest.max(self.first))
    }

    /// The same with up to a fifth more, as `random` says.
    pub(crate) fn spread(&self, attempt: u32, random: &mut fastrand::Rng) -> Duration {
        lengthen(self.plain(attempt), random)
    }
}

/// Up to a fifth more than `time`.
pub(crate) fn lengthen(time: Duration, random: &mut fastrand::Rng) -> Duration {
    let fifth = crate::time::nanos(time) / 5;
    time.saturating_add(Duration::from_nanos(random.u64(0..=fifth)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_doubles_up_to_the_cap_and_never_overflows() {
        let backoff = Backoff { first: SECOND, longest: 10 * SECOND };
        let times: Vec<u64> = (0..6).map(|attempt| backoff.plain(attempt).as_secs()).collect();
        assert_eq!(times, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.plain(u32::MAX), 10 * SECOND);
        assert_eq!(Backoff { first: Duration::MAX, longest: SECOND }.plain(u32::MAX), Duration::MAX);
    }

    #[test]
    fn it_is_spread_upward_by_a_fifth_at_most() {
        let backoff = Backoff { first: SECOND, longest: SECOND };
        let mut random = fastrand::Rng::with_seed(7);
        let times: Vec<Duration> = (0..1_000).map(|_| backoff.spread(3, &mut random)).collect();
        assert!(times.iter().all(|time| (SECOND..=SECOND * 6 / 5).contains(time)));
        assert!(times.iter().max() > times.iter().min());
        assert_eq!(lengthen(Duration::MAX, &mut random), Duration::MAX);
    }
}
