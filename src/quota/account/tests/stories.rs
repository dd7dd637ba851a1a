//! Behaviour of an account, one rule at a time.

use super::*;
use crate::kind::Kind;

#[test]
fn exact_fit_is_admitted_and_one_more_is_refused() {
    let mut scene = Scene::new(hourly(105));
    scene.record(("requests", 95));
    let refused = scene.take(("requests", 11)).unwrap_err();
    assert_eq!((refused[0].current, refused[0].limit), (95, 105));
    scene.take(("requests", 10)).unwrap();
    assert_eq!(scene.first(), (105, 0));
    assert!(scene.take(("requests", 1)).is_err());
}

#[test]
fn zero_is_refused_exactly_when_nothing_remains() {
    let mut scene = Scene::new(hourly(2));
    scene.take(("requests", 0)).unwrap();
    scene.record(("requests", 1));
    scene.take(("requests", 0)).unwrap();
    scene.record(("requests", 1));
    assert!(scene.take(("requests", 0)).is_err());
    assert_eq!(scene.first(), (2, 0), "asking has taken nothing");
}

#[test]
fn amount_above_the_whole_limit_has_no_wait() {
    let mut scene = Scene::new(hourly(10));
    for asked in [11, 1 << 53, u64::MAX] {
        let refused = scene.take(("requests", asked)).unwrap_err();
        assert_eq!(refused[0].wait, None, "{asked}");
    }
    assert_eq!(scene.first(), (0, 10));
}

#[test]
fn wait_is_exact_to_the_tick() {
    let mut scene = Scene::new(hourly(10));
    scene.take(("requests", 10)).unwrap();
    let wait = scene.take(("requests", 1)).unwrap_err()[0].wait.unwrap();
    assert_eq!(wait, Duration::from_nanos(HOUR / 2));
    scene.wall += HOUR / 2 - 1;
    assert!(scene.take(("requests", 10)).is_err());
    scene.wall += 1;
    scene.take(("requests", 10)).unwrap();
}

#[test]
fn all_limits_are_charged_or_none() {
    let plan = Plan::new("both")
        .limit(Quota::requests(10).per(Period::hour()))
        .limit(Quota::units("tokens", 5).per(Period::day()));
    let mut scene = Scene::new(Arc::new(plan.limit(Quota::concurrent(1))));
    let refused = scene.take([("requests", 1), ("tokens", 6), ("concurrent_requests", 1)]).unwrap_err();
    assert_eq!(refused.len(), 1);
    assert_eq!(scene.first(), (0, 10));
    scene.take([("requests", 1), ("tokens", 5), ("concurrent_requests", 1)]).unwrap();
    let refused = scene.take([("requests", 10), ("tokens", 1), ("concurrent_requests", 1)]).unwrap_err();
    let names: Vec<_> = refused.iter().map(|violation| violation.name.as_str()).collect();
    assert_eq!(names, ["requests_per_hour", "tokens_per_day", "concurrent_requests"]);
    assert_eq!(scene.first(), (1, 9), "a refusal changes no counter");
}

#[test]
fn rolling_period_begins_with_a_charge_and_not_with_a_check() {
    let minute = Period::rolling(Duration::from_secs(60));
    let mut scene = Scene::new(Arc::new(Plan::new("rolling").limit(Quota::requests(2).per(minute))));
    scene.take(("requests", 0)).unwrap();
    scene.wall += 30_000_000_000;
    scene.take(("requests", 2)).unwrap();
    scene.wall += 59_000_000_000;
    assert_eq!(scene.take(("requests", 1)).unwrap_err()[0].wait, Some(Duration::from_secs(1)));
    scene.wall += 1_000_000_000;
    scene.take(("requests", 2)).unwrap();
}

#[test]
fn clock_steps_neither_reopen_nor_skip_a_charged_period() {
    for step in [HOUR, DAY] {
        let plan = Plan::new("daily")
            .limit(Quota::requests(10).per(Period::hour()))
            .limit(Quota::requests(10).per(Period::day()));
        let mut scene = Scene::new(Arc::new(plan));
        scene.take(("requests", 10)).unwrap();
        // Back: the previous window does not open again, ...
        scene.wall -= step;
        assert!(scene.take(("requests", 1)).is_err());
        // ... and forth again: this one stays charged.
        scene.wall += step;
        assert!(scene.take(("requests", 1)).is_err());
        // A step ahead opens another window, ...
        scene.wall += DAY;
        scene.take(("requests", 10)).unwrap();
        // ... which stays charged when the clock is back, and when its time has come.
        scene.wall -= step;
        assert!(scene.take(("requests", 1)).is_err());
        scene.wall += step;
        assert!(scene.take(("requests", 1)).is_err());
        scene.wall += DAY;
        scene.take(("requests", 10)).unwrap();
    }
}

#[test]
fn correcting_a_clock_years_ahead_locks_no_client_out() {
    let mut scene = Scene::new(hourly(10));
    let right = scene.wall;
    scene.wall += 3_650 * DAY;
    scene.take(("requests", 10)).unwrap();
    scene.wall = right;
    let wait = scene.take(("requests", 1)).unwrap_err()[0].wait.unwrap();
    assert_eq!(wait, Duration::from_nanos(HOUR / 2), "what was charged counts in the hour that it is");
    scene.wall += HOUR;
    scene.take(("requests", 10)).unwrap();
}

#[test]
fn warning_comes_once_a_period_at_or_beyond_90_percent() {
    for (steps, warned) in [(vec![89, 1, 5], [0, 1, 0]), (vec![95, 1, 4], [1, 0, 0]), (vec![100, 1, 1], [1, 0, 0])] {
        let mut scene = Scene::new(hourly(100));
        let said: Vec<_> = steps.iter().map(|amount| scene.record(("requests", *amount))).collect();
        assert_eq!(said, warned, "{steps:?}");
        // A response reports it once.
        let told: Vec<_> = (0..2).map(|_| scene.take(("requests", 0)).map_or(0, |taken| taken.marks.pending)).collect();
        if scene.first().1 > 0 {
            assert_eq!(told, [1, 0], "{steps:?}");
        }
        scene.wall += HOUR;
        assert_eq!(scene.record(("requests", 90)), 1, "in the next period again");
    }
}

#[test]
fn warning_of_an_admission_is_in_its_response() {
    let mut scene = Scene::new(hourly(10));
    assert_eq!(scene.take(("requests", 8)).unwrap().marks.pending, 0);
    let taken = scene.take(("requests", 1)).unwrap();
    assert_eq!((taken.marks.warned, taken.marks.pending), (1, 1));
    let taken = scene.take(("requests", 1)).unwrap();
    assert_eq!((taken.marks.warned, taken.marks.pending), (0, 0));
}

#[test]
fn new_plan_keeps_used_amounts_unless_it_starts_fresh() {
    let mut scene = Scene::new(hourly(10));
    scene.take(("requests", 8)).unwrap();
    scene.plan = hourly(20);
    assert_eq!(scene.first(), (8, 12));
    scene.plan = hourly(5);
    assert_eq!(scene.first(), (8, 0));
    assert!(scene.take(("requests", 1)).is_err());
    scene.plan = Arc::new(Plan::clone(&hourly(5)).starting_fresh());
    assert_eq!(scene.first(), (0, 5));
}

#[test]
fn limits_of_one_name_count_apart_in_each_period() {
    let plan = |limit, period| Plan::new("tokens").limit(Quota::units("tokens", limit).per(period).named("tokens"));
    let (free, pro) = (Arc::new(plan(100, Period::hour())), Arc::new(plan(1_000, Period::month())));
    let mut scene = Scene::new(Arc::clone(&pro));
    scene.take(("tokens", 1_000)).unwrap();
    let mut admitted = 0;
    for hour in 0..11 {
        scene.plan = Arc::clone(&free);
        assert_eq!(scene.first(), (0, 100), "in hour {hour}");
        scene.take(("tokens", 100)).unwrap();
        scene.wall += HOUR;
        scene.plan = Arc::clone(&pro);
        admitted += scene.take(("tokens", 1)).map_or(0, |_| 1);
    }
    assert_eq!((admitted, scene.first()), (0, (1_000, 0)), "the month goes on");
}

fn tokens(limit: u64) -> Arc<Plan> {
    Arc::new(Plan::new("tokens").limit(Quota::units("tokens", limit).per(Period::hour())))
}

#[test]
fn plan_change_and_back_restores_the_used_amounts() {
    let mut scene = Scene::new(hourly(10));
    scene.take(("requests", 8)).unwrap();
    scene.plan = tokens(10);
    assert_eq!(scene.first(), (0, 10));
    scene.take([("tokens", 3), ("requests", 1)]).unwrap();
    scene.plan = hourly(10);
    assert_eq!(scene.first(), (8, 2), "no new hour for a change of plans");
    scene.plan = tokens(10);
    assert_eq!(scene.first(), (3, 7));
    scene.wall += HOUR;
    scene.plan = hourly(10);
    assert_eq!(scene.first(), (0, 10), "the hour was over meanwhile");
}

#[test]
fn refund_and_settlement_reach_their_own_counter_after_a_change() {
    let mut scene = Scene::new(hourly(10));
    let (charged, settings) = (scene.take(("requests", 3)).unwrap(), scene.settings.clone());
    let (now, four) = (at(scene.wall), Amounts::from(("requests", 4)));
    let reserved = scene.account().admit(&ChargeRequest { reserve: true, ..ask(&four) }, now, &settings).unwrap();
    scene.plan = tokens(10);
    scene.refund(("requests", 3), &charged, &hourly(10));
    let _ = scene.account().close(
        reserved.reservation.unwrap(),
        Some(&Amounts::from(("requests", 6))),
        ClosedBy::Holder,
        now,
        &settings,
    );
    scene.plan = hourly(10);
    assert_eq!(scene.first(), (4, 6), "what exceeds the estimate arrives under the other plan");
}

#[test]
fn version_starts_an_account_fresh_once() {
    let fresh = |version| Arc::new(Plan::clone(&hourly(10)).numbered(version).starting_fresh());
    let mut scene = Scene::new(hourly(10));
    scene.take(("requests", 8)).unwrap();
    scene.plan = fresh(1);
    scene.take(("requests", 7)).unwrap();
    // A request that was decided just before the change has the previous plan.
    scene.plan = hourly(10);
    assert_eq!(scene.first(), (7, 3));
    scene.plan = fresh(1);
    assert_eq!(scene.first(), (7, 3), "once is enough");
    scene.plan = fresh(2);
    assert_eq!(scene.first(), (0, 10));
}

#[test]
fn account_that_begins_under_a_fresh_plan_has_started() {
    let pro = Arc::new(Plan::clone(&hourly(10)).starting_fresh());
    let mut scene = Scene::new(Arc::clone(&pro));
    scene.take(("requests", 10)).unwrap();
    for _ in 0..2 {
        scene.plan = tokens(10);
        scene.take(("tokens", 1)).unwrap();
        scene.plan = Arc::clone(&pro);
        assert!(scene.take(("requests", 1)).is_err());
        assert_eq!(scene.first(), (10, 0));
    }
}

#[test]
fn changes_of_plans_raise_no_epoch() {
    let mut scene = Scene::new(hourly(10));
    let plans = [hourly(10), tokens(10)];
    for round in 0..1_000 {
        scene.plan = Arc::clone(&plans[round % 2]);
        scene.account();
    }
    assert_eq!((scene.account.epoch, scene.account.traces()), (0, (0, 0)), "no trace either");
}

#[test]
fn raised_limit_warns_again_at_its_threshold() {
    let mut scene = Scene::new(hourly(10));
    assert_eq!(scene.record(("requests", 9)), 1);
    scene.plan = hourly(100);
    assert_eq!(scene.record(("requests", 80)), 0);
    assert_eq!(scene.record(("requests", 1)), 1);
    scene.plan = hourly(91);
    assert_eq!(scene.record(("requests", 1)), 0, "it has been told");
}

#[test]
fn check_counts_an_overdue_slot_as_free() {
    let mut scene = Scene::new(Arc::new(Plan::new("slots").limit(Quota::concurrent(1))));
    let lease = scene.take(("concurrent_requests", 1)).unwrap().lease.unwrap();
    let (one, now) = (Amounts::from(("concurrent_requests", 1)), at(scene.wall));
    scene.account().slots.as_mut().unwrap().watch(lease, now.moment);
    let violations = |account: &Account, now| account.violations(&one, &account.grants, now);
    assert!(!violations(scene.account(), now).is_empty());
    scene.wall += 11_000_000_000;
    let now = at(scene.wall);
    assert!(violations(scene.account(), now).is_empty());
    assert!(scene.take(("concurrent_requests", 1)).unwrap().reclaimed);
}

#[test]
fn refund_of_a_charge_before_a_reset_is_ignored() {
    let mut scene = Scene::new(hourly(10));
    let before = scene.take(("requests", 3)).unwrap();
    scene.account().reset(Some("requests_per_hour")).unwrap();
    let after = scene.take(("requests", 1)).unwrap();
    scene.refund(("requests", 3), &before, &hourly(10));
    assert_eq!(scene.first(), (1, 9));
    scene.refund(("requests", 1), &after, &hourly(10));
    assert_eq!(scene.first(), (0, 10));
}

#[test]
fn usage_counts_in_the_window_in_which_it_arrives() {
    let plan = Plan::new("daily").limit(Quota::units("tokens", 100).per(Period::day()));
    let mut scene = Scene::new(Arc::new(plan));
    scene.take(("tokens", 0)).unwrap(); // a download that begins before midnight
    scene.wall += DAY;
    let now = at(scene.wall);
    let _ = scene.account.record(&Amounts::from(("tokens", 60)), now);
    assert_eq!(scene.first(), (60, 40));
    scene.wall += DAY;
    let now = at(scene.wall);
    let _ = scene.account.record(&Amounts::from(("tokens", 70)), now);
    assert_eq!(scene.first(), (70, 30));
}

#[test]
fn commit_counts_up_to_its_estimate_in_its_own_window() {
    let mut scene = Scene::new(hourly(100));
    let (settings, estimate) = (scene.settings.clone(), Amounts::from(("requests", 60)));
    for (actual, counted) in [(20, 0), (60, 0), (90, 30)] {
        let request = ChargeRequest { reserve: true, lasting: true, ..ask(&estimate) };
        let now = at(scene.wall);
        let id = scene.account().admit(&request, now, &settings).unwrap().reservation.unwrap();
        scene.wall += HOUR;
        let now = at(scene.wall);
        let _ = scene.account().close(id, Some(&Amounts::from(("requests", actual))), ClosedBy::Holder, now, &settings);
        assert_eq!(scene.first(), (counted, 100 - counted), "{actual} of 60");
        scene.wall += HOUR;
    }
}

#[test]
fn smaller_plan_admits_only_after_excess_slots_return() {
    let slots = |limit| Arc::new(Plan::new("slots").limit(Quota::concurrent(limit)));
    let mut scene = Scene::new(slots(3));
    let held: Vec<_> = (0..3).map(|_| scene.take(("concurrent_requests", 1)).unwrap().lease.unwrap()).collect();
    scene.plan = slots(1);
    scene.account().slots.as_mut().unwrap().release(held[0]);
    assert!(scene.take(("concurrent_requests", 1)).is_err());
    scene.account().slots.as_mut().unwrap().release(held[1]);
    assert!(scene.take(("concurrent_requests", 1)).is_err());
    scene.account().slots.as_mut().unwrap().release(held[2]);
    scene.take(("concurrent_requests", 1)).unwrap();
    assert!(scene.take(("concurrent_requests", 1)).is_err());
    assert!(scene.take(("concurrent_requests", 0)).is_err());
    scene.wall += 11_000_000_000; // the holder has made no progress, and need not
    assert!(scene.take(("concurrent_requests", 1)).is_err());
}

#[test]
fn stalled_reader_loses_its_slot_but_a_slow_one_does_not() {
    let mut scene = Scene::new(Arc::new(Plan::new("slots").limit(Quota::concurrent(1))));
    let lease = scene.take(("concurrent_requests", 1)).unwrap().lease.unwrap();
    scene.wall += 20_000_000_000;
    let now = at(scene.wall);
    scene.account().slots.as_mut().unwrap().watch(lease, now.moment);
    scene.wall += 9_000_000_000;
    let now = at(scene.wall);
    scene.account().slots.as_mut().unwrap().touch(lease, now.moment);
    scene.wall += 9_000_000_000;
    assert!(scene.take(("concurrent_requests", 1)).is_err());
    scene.wall += 2_000_000_000;
    assert!(scene.take(("concurrent_requests", 1)).unwrap().reclaimed);
    scene.account().slots.as_mut().unwrap().release(lease); // too late
    assert!(scene.take(("concurrent_requests", 1)).is_err());
}

#[test]
fn overdue_holder_loses_its_slot() {
    let mut scene = Scene::new(Arc::new(Plan::new("slots").limit(Quota::concurrent(1))));
    scene.take(("concurrent_requests", 1)).unwrap();
    scene.wall += 60_000_000_000;
    assert!(scene.take(("concurrent_requests", 1)).is_err());
    scene.wall += 1;
    assert!(scene.take(("concurrent_requests", 1)).unwrap().reclaimed);
}

#[test]
fn charge_of_two_slots_at_once_is_refused() {
    let mut scene = Scene::new(Arc::new(Plan::new("slots").limit(Quota::concurrent(5))));
    assert_eq!(scene.take(("concurrent_requests", 2)).unwrap_err()[0].wait, None);
    let usage = scene.account().usage(START);
    assert_eq!((usage.limits[0].kind.clone(), usage.limits[0].used), (Kind::Concurrent, 0));
}

#[test]
fn counters_saturate_at_the_maximum_of_all_stores() {
    let mut scene = Scene::new(hourly(10));
    for amount in [u64::MAX, 1 << 53, (1 << 53) - 1] {
        scene.record(("requests", amount));
        assert_eq!(scene.first(), ((1 << 53) - 1, 0));
    }
}
