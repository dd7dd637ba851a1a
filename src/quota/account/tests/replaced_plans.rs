//! Plans that are replaced without end: an account keeps no trace of those that can no longer matter.

use super::*;

const MINUTE: u64 = HOUR / 60;

/// Returns a plan with a limit that all have and one of its own.
fn numbered(number: usize, fresh: bool) -> Arc<Plan> {
    let plan = Plan::new(&format!("plan {number}"))
        .numbered(1)
        .limit(Quota::requests(1_000).per(Period::hour()))
        .limit(Quota::units("tokens", 1_000).per(Period::hour()).named(&format!("limit {number}")));
    Arc::new(if fresh { plan.starting_fresh() } else { plan })
}

#[test]
fn replaced_plans_take_bounded_memory() {
    let mut scene = Scene::new(numbered(0, false));
    let mut used = 0;
    for number in 1..=100_000 {
        let fresh = number % 3 == 0;
        scene.plan = numbered(number, fresh);
        let over = scene.wall / HOUR != (scene.wall + MINUTE) / HOUR;
        scene.wall += MINUTE;
        used = if fresh || over { 0 } else { used };
        assert_eq!(scene.first().0, used, "at {number}");
        scene.take([("requests", 1), ("tokens", 1)]).unwrap();
        used += 1;
        assert_eq!(scene.first().0, used, "it starts fresh once, at {number}");
        let (counters, starts) = scene.account.traces();
        assert!(counters <= 61 && starts <= 61, "{counters} counters, {starts} starts at {number}");
    }
}

#[test]
fn plan_in_force_elsewhere_starts_fresh_once() {
    let (mut scene, pro) = (Scene::new(numbered(0, false)), numbered(1, true));
    scene.take(("requests", 5)).unwrap();
    let free = Arc::clone(&scene.plan);
    scene.plan = Arc::clone(&pro); // as the plan of a tier, which other clients have
    assert_eq!(scene.first().0, 0);
    for _ in 0..3 {
        scene.plan = Arc::clone(&free);
        scene.wall += 40 * HOUR;
        scene.take(("requests", 2)).unwrap();
        scene.plan = Arc::clone(&pro);
        assert_eq!(scene.first().0, 2, "everything from before is over, but the plan is in force");
    }
}

#[test]
fn version_that_returns_in_time_does_not_start_fresh() {
    let mut scene = Scene::new(numbered(0, false));
    scene.plan = numbered(1, true);
    scene.take(("requests", 5)).unwrap();
    scene.plan = numbered(2, false); // the other is in force nowhere, and its usage still counts
    scene.take(("requests", 1)).unwrap();
    scene.plan = numbered(3, false);
    scene.take(("requests", 1)).unwrap();
    scene.plan = numbered(1, true);
    assert_eq!(scene.first().0, 7);
}

#[test]
fn reservation_knows_its_plan_after_many_others() {
    let mut scene = Scene::new(numbered(0, false));
    let (now, settings) = (at(scene.wall), scene.settings.clone());
    let ask_for = Amounts::from([("requests", 3), ("tokens", 4)]);
    let reserved = scene.account().admit(&ChargeRequest { reserve: true, ..ask(&ask_for) }, now, &settings).unwrap();
    let charged = scene.take(("tokens", 5)).unwrap();
    for number in 1..1_000 {
        scene.plan = numbered(number, false);
        scene.account();
    }
    let _ = scene.account().close(reserved.reservation.unwrap(), None, ClosedBy::Holder, now, &settings);
    scene.refund(("tokens", 5), &charged, &numbered(0, false));
    scene.plan = numbered(0, false);
    let usage = scene.account().usage(now.wall);
    let counts: Vec<_> = usage.limits.iter().map(|limit| (limit.used, limit.reserved)).collect();
    assert_eq!(counts, [(0, 0), (0, 0)]);
}
