//! Reservations in bursts: a bounded number of steps for each call, and decisions as if all had expired in time.

use std::num::NonZeroU64;

use super::*;
use crate::quota::account::{
    ChargeScope, CloseResult, Stage,
    due_map::STEPS,
    reservations::{MOST_REMEMBERED, Reservations},
};

const ONE: Duration = Duration::from_nanos(1);

fn id(number: usize) -> NonZeroU64 {
    NonZeroU64::new(number as u64 + 1).unwrap()
}

fn after(time: Duration) -> Moment {
    Moment::from_nanos(HOUR) + time
}

/// Opens this many reservations of 1 that are due 1 ns apart, and detaches them.
fn opened(count: usize) -> Reservations {
    let (mut all, plan) = (Reservations::default(), hourly(1));
    for number in 0..count {
        let due = after(TTL) + Duration::from_nanos(number as u64);
        let scope = ChargeScope { epoch: 0, plan: Arc::clone(&plan) };
        all.open(id(number), scope, Amounts::from(("requests", 1)), Some(due));
        all.detach(id(number), TTL);
    }
    all
}

/// Returns the number of reservations that each call expires, until none is left.
fn calls(all: &mut Reservations, now: Moment) -> Vec<usize> {
    let mut calls = Vec::new();
    loop {
        let mut expired = 0;
        let done = all.expire(now, TTL, |_| expired += 1);
        calls.push(expired);
        if done {
            return calls;
        }
    }
}

#[test]
fn call_expires_those_that_are_due_and_a_bounded_number() {
    let mut all = opened(10 * STEPS);
    assert_eq!(calls(&mut all, after(TTL - ONE)), [0]);
    assert_eq!(calls(&mut all, after(TTL)), [1], "the others are not due");
    assert_eq!(calls(&mut all, after(TTL)), [0], "once");
    assert_eq!(calls(&mut all, after(TTL + 2 * ONE)), [2]);
    let rest = calls(&mut all, after(2 * TTL));
    assert_eq!(rest, [vec![STEPS; 9], vec![STEPS - 3]].concat());
    assert_eq!(all.expiring(), 0);
}

#[test]
fn forgetting_is_bounded_and_never_keeps_a_decision_waiting() {
    let mut all = opened(10 * STEPS);
    calls(&mut all, after(2 * TTL));
    let mut rounds = 0;
    while !all.is_empty() {
        assert_eq!(calls(&mut all, after(4 * TTL)), [0], "one call is enough for a decision");
        rounds += 1;
        if rounds == 1 {
            // One that is not forgotten yet, but whose time has come.
            all.expire_one(id(10 * STEPS - 1), after(4 * TTL), TTL, |_| panic!("it has expired"));
            let closed = all.close(id(10 * STEPS - 1), Stage::Committed, false, TTL);
            assert_eq!(closed.0, CloseResult::Unknown);
        }
    }
    assert_eq!(rounds, 10);
}

#[test]
fn closed_reservations_are_remembered_in_bounded_number() {
    let mut all = opened(MOST_REMEMBERED + 10);
    for number in 0..MOST_REMEMBERED + 10 {
        assert_eq!(all.close(id(number), Stage::Committed, false, TTL).0, CloseResult::Closed);
    }
    assert_eq!(all.expiring(), 0);
    for (number, known) in [(0, false), (9, false), (10, true), (MOST_REMEMBERED + 9, true)] {
        let before = CloseResult::AlreadyClosed(Stage::Committed, Amounts::new());
        let expected = if known { before } else { CloseResult::Unknown };
        assert_eq!(all.close(id(number), Stage::Committed, false, TTL).0, expected, "{number}");
    }
}

/// An account with reservations of 1 request each, opened 1 ns apart and detached.
fn scene(plan: Arc<Plan>, reserved: u64) -> Scene {
    let mut scene = Scene::new(plan);
    for _ in 0..reserved {
        reserve(&mut scene, 1).unwrap();
        scene.wall += 1;
    }
    scene
}

fn reserve(scene: &mut Scene, amount: u64) -> Result<NonZeroU64, Denial> {
    let (now, settings, amounts) = (at(scene.wall), scene.settings.clone(), Amounts::from(("requests", amount)));
    let request = ChargeRequest { reserve: true, ..ask(&amounts) };
    let id = scene.account().admit(&request, now, &settings)?.reservation.unwrap();
    scene.account.detach(id, &settings);
    Ok(id)
}

fn nanos(time: Duration) -> u64 {
    crate::time::nanos(time)
}

#[test]
fn decision_after_a_burst_of_expiries_is_exact() {
    for charge_expired in [false, true] {
        let mut scene = scene(hourly(200), 200);
        scene.settings.charge_expired = charge_expired;
        assert!(scene.take(("requests", 1)).is_err());
        let one = nanos(ONE);
        scene.wall += nanos(TTL) - 100 * one - one;
        // A hundred are overdue, more than one call expires.
        let (used, left) = scene.first();
        assert_eq!((used, left), if charge_expired { (100, 0) } else { (0, 100) });
        assert_eq!(scene.take(("requests", 100)).is_ok(), !charge_expired);
        assert!(scene.take(("requests", 1)).is_err());
    }
}

#[test]
fn close_of_an_overdue_reservation_finds_it_expired() {
    let mut scene = scene(hourly(200), 200);
    scene.wall += nanos(TTL);
    let (last, now, settings) = (id(199), at(scene.wall), scene.settings.clone());
    // Without a call that brings the account up to now.
    let (result, _) =
        scene.account.close(last, Some(&Amounts::from(("requests", 5))), ClosedBy::Holder, now, &settings);
    assert_eq!(result, CloseResult::Expired);
    assert_eq!(scene.first(), (5, 195));
}

#[test]
fn held_reservation_is_not_forgotten_after_its_expiry() {
    let mut scene = Scene::new(hourly(100));
    let (now, settings, amounts) = (at(scene.wall), scene.settings.clone(), Amounts::from(("requests", 40)));
    let request = ChargeRequest { reserve: true, ..ask(&amounts) };
    let held = |scene: &mut Scene| scene.account().admit(&request, now, &settings).unwrap().reservation.unwrap();
    let (committed, detached) = (held(&mut scene), held(&mut scene));
    scene.wall += 4 * nanos(TTL);
    assert_eq!(scene.first(), (0, 100));
    scene.account.detach(detached, &settings);
    scene.account();
    let now = at(scene.wall);
    let actual = Amounts::from(("requests", 30));
    assert_eq!(scene.account.close(detached, Some(&actual), ClosedBy::Id, now, &settings).0, CloseResult::Unknown);
    assert_eq!(scene.account.close(committed, Some(&actual), ClosedBy::Holder, now, &settings).0, CloseResult::Expired);
    assert_eq!(scene.first(), (30, 70), "its usage counts");
}

/// Returns the wait that a refused reservation names.
fn wait(scene: &mut Scene, amount: u64) -> u64 {
    match reserve(scene, amount) {
        Err(Denial::Reservations(wait)) => nanos(wait),
        other => panic!("{other:?}"),
    }
}

#[test]
fn client_with_too_many_reservations_waits_for_the_first() {
    let mut scene = scene(hourly(1_000), 200);
    let told = wait(&mut scene, 1);
    assert_eq!(told, nanos(TTL) - 200);
    scene.take(("requests", 1)).unwrap(); // a charge needs no place
    scene.wall += told - 1;
    assert_eq!(wait(&mut scene, 1), 1);
    scene.wall += 1;
    reserve(&mut scene, 1).unwrap();
    assert_eq!(wait(&mut scene, 1), 1, "there was one place");
}

#[test]
fn wait_for_a_place_is_as_long_as_that_of_the_limits() {
    let mut scene = scene(hourly(201), 200);
    let told = wait(&mut scene, 2);
    assert_eq!(told, HOUR / 2 - 200, "the hour ends after the first reservation");
    scene.wall += told - 1;
    scene.record(("requests", 200));
    assert!(reserve(&mut scene, 2).is_err());
    scene.wall += 1;
    reserve(&mut scene, 2).unwrap();
}

#[test]
fn wait_for_a_place_counts_no_grant_that_ends_before() {
    let mut scene = scene(hourly(201), 200);
    let grant = crate::quota::Grant::new("requests_per_hour", 5, crate::time::from_1970(scene.wall + nanos(TTL) / 2));
    let now = at(scene.wall);
    scene.account().grant(crate::quota::GrantId(1), &grant, now).unwrap();
    let told = wait(&mut scene, 2);
    assert_eq!(told, HOUR / 2 - 200, "there is a place before, and the limit has room while it is raised");
    scene.wall += told;
    reserve(&mut scene, 2).unwrap();
}

#[test]
fn amount_above_the_limit_has_no_wait_for_a_place() {
    let mut scene = scene(hourly(1_000), 200);
    match reserve(&mut scene, 1_001) {
        Err(Denial::Limits(violations)) => assert_eq!(violations[0].wait, None),
        other => panic!("{other:?}"),
    }
}
