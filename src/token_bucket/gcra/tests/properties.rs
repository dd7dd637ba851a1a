use std::{num::NonZeroU32, time::Duration};

use super::{Bucket, SECOND, at, units};
use crate::{
    cost::Cost,
    time::Moment,
    token_bucket::{
        gcra::{self, Decision},
        rate::Rate,
    },
};
use governor::clock::{Clock as _, FakeRelativeClock};
use proptest::prelude::*;

fn rates() -> impl Strategy<Value = Rate> {
    (1_u64..1_000, 1_u64..2_000, 1_u64..20, 0_u64..=100).prop_map(|(count, nanos, burst, initial)| {
        let rate = Rate::per(count.min(nanos), Duration::from_nanos(nanos)).burst(burst);
        rate.initial_tokens(burst * initial / 100)
    })
}

/// Any rate that can be built.
fn all_rates() -> impl Strategy<Value = Rate> {
    (0_u32..62, 0_u32..53, any::<u64>()).prop_filter_map("above 2^62 ns", |(interval, burst, noise)| {
        let fuzz = |bits: u32| (1_u64 << bits) + noise % (1 << bits);
        let rate = Rate::try_per(1, Duration::from_nanos(fuzz(interval))).ok()?;
        rate.try_burst(fuzz(burst).min(Cost::MAX.get())).ok()
    })
}

/// 2^60 ns: the time that a clock may run with each wait before its last moment.
const CENTURIES: u64 = 1 << 60;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_interval_admits_more_than_burst_and_refill(
        rate in rates(),
        asks in prop::collection::vec((0_u64..500, 1_u64..25), 1..120),
    ) {
        let (mut bucket, mut now, mut admitted) = (Bucket::default(), SECOND, Vec::new());
        for (pause, cost) in asks {
            now += pause;
            if bucket.admits(&rate, cost, now) {
                admitted.push((now, cost));
            }
        }
        for (from, &(start, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for &(end, cost) in &admitted[from..] {
                sum += u128::from(cost);
                let (sum, span) = (sum * rate.interval().as_nanos(), rate.span().as_nanos());
                prop_assert!(sum <= span + u128::from(end - start), "{sum} ns of tokens from {start} to {end}");
            }
        }
    }

    /// The wait is exact to the nanosecond for each rate, cost and time, so that a client is admitted after a wait that
    /// was rounded up.
    #[test]
    fn wait_is_exact(rate in all_rates(), seed in any::<u64>(), debt in any::<u64>(), now in 0..CENTURIES) {
        let cost = units(1 + seed % rate.capacity());
        let full_at = now + debt % (rate.span().as_nanos() as u64 + CENTURIES); // more than a span: a clock was set back
        if let Decision::Refused { wait } = gcra::decide(&rate, Some(full_at), cost, at(now)) {
            let passes = |then: Moment| matches!(gcra::decide(&rate, Some(full_at), cost, then), Decision::Admitted { .. });
            prop_assert!(wait > Duration::ZERO);
            prop_assert!(passes(at(now) + wait));
            prop_assert!(!passes(at(now) + (wait - Duration::from_nanos(1))));
            let retry_after = Duration::from_secs(wait.as_nanos().div_ceil(u128::from(SECOND)) as u64);
            prop_assert!(retry_after >= Duration::from_secs(1));
            prop_assert!(passes(at(now) + retry_after));
        }
    }

    #[test]
    fn n_at_once_pass_exactly_when_n_ones_pass(rate in rates(), debt in 0_u64..40_000, n in 1_u64..25) {
        let start = Bucket(Some(SECOND + debt));
        let (mut whole, mut ones) = (start, start);
        let all = whole.admits(&rate, n, SECOND);
        let passed = (0..n).filter(|_| ones.admits(&rate, 1, SECOND)).count() as u64;
        prop_assert_eq!(all, passed == n);
        if all {
            prop_assert_eq!(whole.0, ones.0);
        }
    }

    #[test]
    fn clock_that_steps_back_admits_nothing_extra(rate in rates(), debt in 0_u64..40_000, back in 0_u64..5_000, cost in 0_u64..25) {
        let bucket = Bucket(Some(SECOND + debt));
        let (mut before, mut after) = (bucket, bucket);
        if after.admits(&rate, cost, SECOND - back) {
            prop_assert!(before.admits(&rate, cost, SECOND));
        }
        prop_assert!(
            gcra::level(&rate, bucket.0, at(SECOND - back)).remaining <= gcra::level(&rate, bucket.0, at(SECOND)).remaining
        );
    }

    #[test]
    fn forgotten_bucket_never_has_more_than_it_would_have_had(rate in rates(), late in 0_u64..1_000, cost in 1_u64..25) {
        let (mut kept, mut forgotten) = (Bucket(Some(SECOND)), Bucket(None));
        let (kept, forgotten) = (kept.admits(&rate, cost, SECOND + late), forgotten.admits(&rate, cost, SECOND + late));
        prop_assert!(kept || !forgotten);
        if rate.newcomer_tokens() == rate.capacity() {
            prop_assert_eq!(kept, forgotten);
        }
    }

    #[test]
    fn preflight_passes_exactly_with_a_token_and_takes_none(rate in rates(), debt in 0_u64..40_000) {
        let mut bucket = Bucket(Some(SECOND + debt));
        let level = gcra::level(&rate, bucket.0, at(SECOND));
        let before = bucket.0;
        prop_assert_eq!(bucket.admits(&rate, 0, SECOND), level.remaining > 0);
        prop_assert_eq!(bucket.0, before);
        prop_assert_eq!(bucket.admits(&rate, 1, SECOND), level.remaining > 0);
    }

    #[test]
    fn level_predicts_what_passes(rate in rates(), debt in 0_u64..40_000, cost in 1_u64..25) {
        let mut bucket = Bucket(Some(SECOND + debt));
        let level = gcra::level(&rate, bucket.0, at(SECOND));
        prop_assert_eq!(bucket.admits(&rate, cost, SECOND), cost <= level.remaining);
        prop_assert_eq!(gcra::level(&rate, Bucket(Some(SECOND + debt)).0, at(SECOND) + level.full_in).remaining, rate.capacity());
    }

    #[test]
    fn refund_restores_tokens_up_to_the_burst(rate in rates(), debt in 0_u64..40_000, cost in 1_u64..25) {
        let mut bucket = Bucket(Some(SECOND + debt));
        let before = gcra::level(&rate, bucket.0, at(SECOND));
        if bucket.admits(&rate, cost, SECOND) {
            let back = gcra::give_back(&rate, bucket.0.unwrap(), units(cost), at(SECOND));
            prop_assert_eq!(gcra::level(&rate, Some(back), at(SECOND)), before);
            let twice = gcra::give_back(&rate, back, Cost::MAX, at(SECOND));
            prop_assert_eq!(twice, SECOND.min(back));
        }
    }

    #[test]
    fn change_of_rate_keeps_missing_tokens_to_a_nanosecond(from in rates(), to in rates(), debt in 0_u64..40_000) {
        let moved = gcra::change_rate(SECOND + debt, &from, &to, 1 << 20, at(SECOND)) - SECOND;
        let (old, new) = (from.interval().as_nanos(), to.interval().as_nanos());
        let exact = u128::from(debt) * new;
        prop_assert!(u128::from(moved) * old >= exact, "no client gains by it");
        prop_assert!(u128::from(moved) * old < exact + old, "nor loses a nanosecond");
        let there_and_back = gcra::change_rate(SECOND + moved, &to, &from, 1 << 20, at(SECOND));
        prop_assert!(there_and_back >= SECOND + debt, "to and fro is no way to tokens");
    }

    /// No rate, cost, state or time makes a number overflow: debug builds panic where release builds would wrap.
    #[test]
    fn nothing_overflows(rate in all_rates(), other in all_rates(), full_at in any::<u64>(), cost in 0..=Cost::MAX.get(), now in any::<u64>()) {
        let (cost, now) = (units(cost), at(now));
        for state in [None, Some(full_at), Some(now.as_nanos()), Some(u64::MAX), Some(0)] {
            match gcra::decide(&rate, state, cost, now) {
                Decision::Admitted { full_at: after } => {
                    prop_assert!(cost.get() <= rate.capacity());
                    let debt = u128::from(after.saturating_sub(now.as_nanos()));
                    prop_assert!(debt <= rate.span().as_nanos());
                    prop_assert!(debt >= u128::from(cost.get()) * rate.interval().as_nanos());
                }
                Decision::Refused { wait } => prop_assert!(!wait.is_zero()),
                Decision::TooLarge => prop_assert!(cost.get() > rate.capacity()),
            }
            let _ = gcra::level(&rate, state, now);
        }
        let _ = gcra::change_rate(full_at, &rate, &other, cost.get(), now);
        let _ = gcra::give_back(&rate, full_at, cost, now);
    }

    /// Verdict and wait equal governor's wherever governor defines them.
    #[test]
    fn governor_agrees(
        nanos in 1_u64..5_000,
        burst in 1_u32..20,
        asks in prop::collection::vec((0_u64..20_000, 1_u32..25), 1..60),
    ) {
        let quota = governor::Quota::with_period(Duration::from_nanos(nanos)).unwrap();
        let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap());
        let clock = FakeRelativeClock::default();
        let oracle = governor::RateLimiter::direct_with_clock(quota, clock.clone());
        let (rate, mut bucket, mut now) = (Rate::from(quota), Bucket::default(), SECOND);
        for (pause, cost) in asks {
            now += pause;
            clock.advance(Duration::from_nanos(pause));
            let theirs = oracle.check_n(NonZeroU32::new(cost).unwrap());
            match (bucket.ask(&rate, Cost::new(cost.into()), now), theirs) {
                (Decision::Admitted { .. }, Ok(Ok(()))) | (Decision::TooLarge, Err(_)) => {}
                (Decision::Refused { wait }, Ok(Err(not_until))) => {
                    prop_assert_eq!(wait, not_until.wait_time_from(clock.now()));
                }
                (ours, theirs) => prop_assert!(false, "{ours:?} but {theirs:?}"),
            }
        }
    }
}
