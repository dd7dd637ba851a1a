//! Grants: the one that ends first is used first, and covered usage stays covered.

use std::time::SystemTime;

use super::*;
use crate::quota::{Grant, GrantId};

fn grant(scene: &mut Scene, amount: u64, until: u64) -> GrantId {
    let until = SystemTime::UNIX_EPOCH + Duration::from_nanos(until);
    let now = at(scene.wall);
    let id = GrantId(until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    scene.account().grant(id, &Grant::new("requests_per_hour", amount, until), now).unwrap();
    id
}

fn used(scene: &mut Scene) -> Vec<u64> {
    let now = at(scene.wall);
    scene.account().grants.active(now.wall).iter().map(|granted| granted.used).collect()
}

#[test]
fn grant_with_the_earliest_end_is_used_first() {
    let mut scene = Scene::new(hourly(10));
    grant(&mut scene, 5, START + 3 * HOUR);
    grant(&mut scene, 3, START + 2 * HOUR);
    scene.take(("requests", 10)).unwrap();
    assert_eq!(used(&mut scene), [0, 0], "the plan goes first");
    scene.take(("requests", 4)).unwrap();
    assert_eq!(used(&mut scene), [3, 1]);
    assert_eq!(scene.first(), (14, 4));
}

#[test]
fn refund_returns_to_the_grant_used_last() {
    let mut scene = Scene::new(hourly(10));
    grant(&mut scene, 3, START + 2 * HOUR);
    grant(&mut scene, 5, START + 3 * HOUR);
    let taken = scene.take(("requests", 14)).unwrap();
    assert_eq!(used(&mut scene), [3, 1]);
    scene.refund(("requests", 2), &taken, &hourly(10));
    assert_eq!(used(&mut scene), [2, 0]);
}

#[test]
fn ended_grant_keeps_its_charge_and_spares_other_grants() {
    let mut scene = Scene::new(hourly(10));
    grant(&mut scene, 5, START + HOUR / 4);
    scene.take(("requests", 13)).unwrap();
    scene.wall += HOUR / 4;
    assert_eq!(scene.first(), (13, 0));
    assert!(scene.take(("requests", 1)).is_err());
    grant(&mut scene, 2, START + HOUR);
    assert_eq!(scene.first(), (13, 2), "the three that the first one paid for stay paid");
    scene.take(("requests", 2)).unwrap();
    assert!(scene.take(("requests", 1)).is_err());
}

#[test]
fn refund_to_an_ended_grant_is_not_available_again() {
    let mut scene = Scene::new(hourly(10));
    grant(&mut scene, 5, START + HOUR / 4);
    let taken = scene.take(("requests", 13)).unwrap();
    scene.wall += HOUR / 4;
    scene.refund(("requests", 3), &taken, &hourly(10));
    assert_eq!(scene.first(), (10, 0));
}

#[test]
fn used_part_of_a_grant_is_gone_in_the_next_period() {
    let mut scene = Scene::new(hourly(10));
    grant(&mut scene, 5, START + 10 * HOUR);
    scene.take(("requests", 13)).unwrap();
    scene.wall += HOUR;
    assert_eq!(scene.first(), (0, 12));
    scene.take(("requests", 12)).unwrap();
    assert!(scene.take(("requests", 1)).is_err());
    scene.wall += HOUR;
    assert_eq!(scene.first(), (0, 10));
    assert_eq!(used(&mut scene), [5], "it is listed to its end");
    scene.wall += 8 * HOUR;
    assert!(used(&mut scene).is_empty());
}

#[test]
fn revoked_grant_raises_no_limit() {
    let mut scene = Scene::new(hourly(10));
    let id = grant(&mut scene, 5, START + 10 * HOUR);
    scene.take(("requests", 12)).unwrap();
    let now = at(scene.wall);
    assert!(scene.account().grants.revoke(id, now.wall).is_some());
    assert!(scene.account().grants.revoke(id, now.wall).is_none());
    assert_eq!(scene.first(), (12, 0));
    scene.wall += HOUR;
    assert_eq!(scene.first(), (0, 10));
}

#[test]
fn grant_covers_earlier_usage_above_the_limit() {
    let mut scene = Scene::new(hourly(10));
    scene.record(("requests", 13));
    grant(&mut scene, 5, START + 10 * HOUR);
    assert_eq!(scene.first(), (13, 2));
    assert_eq!(used(&mut scene), [3]);
}

#[test]
fn grant_of_an_unknown_limit_or_a_past_end_is_rejected() {
    let mut scene = Scene::new(hourly(10));
    let now = at(scene.wall);
    let later = SystemTime::UNIX_EPOCH + Duration::from_nanos(START + HOUR);
    let error = scene.account().grant(GrantId(1), &Grant::new("requests_per_dya", 5, later), now).unwrap_err();
    assert_eq!(error.to_string(), "limit must be one of the plan's (requests_per_hour), got \"requests_per_dya\"");
    let past = SystemTime::UNIX_EPOCH + Duration::from_nanos(START);
    assert!(scene.account().grant(GrantId(1), &Grant::new("requests_per_hour", 5, past), now).is_err());
}

#[test]
fn grant_survives_a_plan_without_its_limit() {
    let mut scene = Scene::new(hourly(10));
    grant(&mut scene, 5, START + 10 * HOUR);
    scene.plan = Arc::new(Plan::new("other").limit(Quota::units("tokens", 1).per(Period::hour())));
    assert_eq!(scene.first(), (0, 1));
    scene.plan = hourly(10);
    assert_eq!(scene.first(), (0, 15));
}

#[test]
fn usage_covered_under_another_plan_stays_covered() {
    let mut scene = Scene::new(hourly(10));
    grant(&mut scene, 5, START + 10 * HOUR);
    scene.take(("requests", 13)).unwrap();
    scene.plan = Arc::new(Plan::new("other").limit(Quota::units("tokens", 1).per(Period::hour())));
    assert_eq!(used(&mut scene), [3]);
    scene.wall += HOUR;
    assert_eq!(used(&mut scene), [3]);
    scene.plan = hourly(10);
    assert_eq!(scene.first(), (0, 12));
}

#[test]
fn grant_that_a_larger_plan_makes_needless_is_unused() {
    let mut scene = Scene::new(hourly(10));
    let id = grant(&mut scene, 5, START + 10 * HOUR);
    scene.take(("requests", 13)).unwrap();
    assert_eq!(used(&mut scene), [3]);
    scene.plan = hourly(20);
    assert_eq!((used(&mut scene), scene.first()), (vec![0], (13, 12)));
    scene.plan = hourly(10);
    assert_eq!((used(&mut scene), scene.first()), (vec![3], (13, 2)));
    scene.take(("requests", 2)).unwrap();
    scene.account().reset(None).unwrap();
    assert_eq!((used(&mut scene), scene.first()), (vec![5], (0, 10)), "a reset gives back no grant");
    let now = at(scene.wall);
    assert!(scene.account().grants.revoke(id, now.wall).is_some());
    assert!(used(&mut scene).is_empty());
}

#[test]
fn wait_counts_no_grant_that_is_used_or_ends_before() {
    let mut scene = Scene::new(hourly(10));
    grant(&mut scene, 5, START + HOUR / 4);
    grant(&mut scene, 2, START + 10 * HOUR);
    scene.take(("requests", 10)).unwrap();
    for (asked, waits) in [(12, true), (13, false)] {
        assert_eq!(scene.take(("requests", asked)).unwrap_err()[0].wait.is_some(), waits, "{asked}");
    }
    scene.take(("requests", 7)).unwrap();
    assert_eq!(scene.take(("requests", 11)).unwrap_err()[0].wait, None);
    scene.take(("requests", 10)).unwrap_err()[0].wait.unwrap();
}

/// A limit of requests that a grant raises for a quarter of an hour, and one of rows that is used up for an hour.
fn raised_for_a_while(requests: Period) -> Scene {
    let requests = Quota::requests(10).per(requests).named("requests_per_hour");
    let plan = Plan::new("two").limit(requests).limit(Quota::units("rows", 5).per(Period::hour()));
    let mut scene = Scene::new(Arc::new(plan));
    grant(&mut scene, 5, START + HOUR / 4);
    scene.take([("rows", 5), ("requests", 4)]).unwrap();
    scene
}

/// Returns the waits in minutes.
fn waits(violations: &[Violation]) -> Vec<Option<u64>> {
    violations.iter().map(|one| one.wait.map(|wait| wait.as_secs() / 60)).collect()
}

#[test]
fn no_wait_leads_past_the_end_of_a_needed_grant() {
    let mut scene = raised_for_a_while(Period::hour());
    let violations = scene.take([("rows", 1), ("requests", 11)]).unwrap_err();
    assert_eq!(waits(&violations), [None, Some(30)]);
    assert_eq!(violations[0].limit, 10, "the limit that will hold");
}

#[test]
fn wait_lasts_until_all_limits_have_room_at_once() {
    let mut scene = raised_for_a_while(Period::day());
    let asked = [("rows", 1), ("requests", 8)];
    assert_eq!(waits(&scene.take(asked).unwrap_err()), [Some(13 * 60 + 30), Some(30)]);
    scene.wall += HOUR / 2;
    assert_eq!(waits(&scene.take(asked).unwrap_err()), [Some(13 * 60)]);
    scene.wall += 13 * HOUR;
    scene.take(asked).unwrap();
}

/// The place is free in a second at the earliest, and the grant ends before.
#[test]
fn wait_for_a_slot_counts_no_grant_that_ends_before() {
    let plan = Plan::new("slots").limit(Quota::requests(10).per(Period::hour())).limit(Quota::concurrent(1));
    let mut scene = Scene::new(Arc::new(plan));
    scene.take([("requests", 8), ("concurrent_requests", 1)]).unwrap();
    let asked = [("requests", 4), ("concurrent_requests", 1)];
    for (ends, told) in [(HOUR / 7_200, [Some(30 * 60), Some(1)].as_slice()), (HOUR / 1_800, &[Some(1)])] {
        let until = scene.wall + ends;
        let id = grant(&mut scene, 5, until);
        let waits: Vec<_> =
            scene.take(asked).unwrap_err().iter().map(|one| one.wait.map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, told, "the grant ends after {ends} ns");
        scene.account().grants.revoke(id, until - ends);
    }
}
