//! Steps of the wall clock: no charged period is opened again, and none is skipped.

use proptest::prelude::*;

use super::*;
use crate::support::gate::now;

/// A step between two charges.
#[derive(Clone, Copy, Debug)]
enum Step {
    Minutes(u64),
    Back(Duration),
    Forth(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let jump = || prop_oneof![Just(HOUR), Just(DAY)];
    prop_oneof![
        4 => (0..50_u64).prop_map(Step::Minutes),
        1 => jump().prop_map(Step::Back),
        1 => jump().prop_map(Step::Forth),
    ]
}

fn day_of(scene: &Scene) -> u64 {
    scene.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A client that charges all it can gets at most 10 for each day that the wall clock has shown or is about to show;
    /// clock steps give no more.
    #[test]
    fn clock_steps_open_no_day_twice(steps in prop::collection::vec(step(), 1..40)) {
        let plan = Plan::new("daily").limit(Quota::units("queries", 10).per(Period::day()));
        let scene = Scene::new(plan);
        scene.clock.advance(10 * DAY);
        let mut got = std::collections::BTreeMap::<u64, u64>::new();
        let (mut latest, mut furthest) = (0, scene.wall());
        for step in steps {
            match step {
                Step::Minutes(minutes) => scene.clock.advance(Duration::from_secs(60 * minutes)),
                // A clock more than two days behind was wrong before and has been corrected.
                Step::Back(by) if furthest.duration_since(scene.wall()).unwrap() + by <= DAY + HOUR => scene.clock.set_back(by),
                Step::Back(_) => {}
                Step::Forth(by) => scene.clock.advance(by),
            }
            furthest = furthest.max(scene.wall());
            let today = day_of(&scene);
            let mut taken = 0;
            while now(scene.quotas.charge(&alice(), ("queries", 5))).is_ok() {
                taken += 5;
            }
            *got.entry(today).or_default() += taken;
            prop_assert!(taken == 0 || today > latest, "day {today} was charged, or is before one that was");
            // No new day is skipped.
            prop_assert!(taken == 10 || today <= latest, "day {today} is new and gave {taken}");
            latest = latest.max(today);
        }
        prop_assert!(got.values().all(|taken| *taken <= 10), "{got:?}");
    }
}

#[test]
fn correcting_a_clock_a_year_ahead_locks_no_client_out() {
    let scene = Scene::new(queries(10));
    scene.clock.advance(365 * DAY);
    now(scene.quotas.charge(&alice(), ("queries", 10))).unwrap();
    scene.clock.set_back(365 * DAY);
    let refusal = now(scene.quotas.charge(&alice(), ("queries", 1))).unwrap_err();
    assert!(refusal.violations()[0].wait.unwrap() <= HOUR);
    scene.clock.advance(HOUR);
    now(scene.quotas.charge(&alice(), ("queries", 10))).unwrap();
}
