//! Exponential backoff with a cap and jitter.

use std::time::Duration;

/// A time that doubles with each attempt up to a cap. Jitter only lengthens it, so that a fleet does not return at one
/// moment.
#[derive(Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// Returns the time of an attempt, counted from 0, without jitter.
    fn plain(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest.max(self.first))
    }

    /// Returns the time of an attempt, counted from 0, with jitter.
    pub(crate) fn with_jitter(&self, attempt: u32, random: &mut fastrand::Rng) -> Duration {
        add_jitter(self.plain(attempt), random)
    }
}

/// Returns `time` with jitter of at most a fifth.
pub(crate) fn add_jitter(time: Duration, random: &mut fastrand::Rng) -> Duration {
    let fifth = crate::time::nanos(time) / 5;
    time.saturating_add(Duration::from_nanos(random.u64(0..=fifth)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_doubles_up_to_the_cap_without_overflow() {
        let backoff = Backoff { first: SECOND, longest: 10 * SECOND };
        let times: Vec<u64> = (0..6).map(|attempt| backoff.plain(attempt).as_secs()).collect();
        assert_eq!(times, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.plain(u32::MAX), 10 * SECOND);
        assert_eq!(Backoff { first: Duration::MAX, longest: SECOND }.plain(u32::MAX), Duration::MAX);
    }

    #[test]
    fn jitter_adds_at_most_a_fifth() {
        let backoff = Backoff { first: SECOND, longest: SECOND };
        let mut random = fastrand::Rng::with_seed(7);
        let times: Vec<Duration> = (0..1_000).map(|_| backoff.with_jitter(3, &mut random)).collect();
        assert!(times.iter().all(|time| (SECOND..=SECOND * 6 / 5).contains(time)));
        assert!(times.iter().max() > times.iter().min());
        assert_eq!(add_jitter(Duration::MAX, &mut random), Duration::MAX);
    }
}
