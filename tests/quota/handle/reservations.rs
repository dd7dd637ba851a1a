//! Reservations: set aside, then charged, given back or out of time; R2, R4, R5, R6, R7 and R8.

use tollgate::{Amounts, CloseOutcome, OnExpiry, ReservationError, ReservationId};

use super::*;

const TTL: Duration = Duration::from_secs(300);

async fn sums(scene: &Scene) -> (u64, u64, u64) {
    let hour = scene.limit(&alice(), "queries_per_hour").await;
    (hour.used, hour.reserved, hour.remaining)
}

#[tokio::test]
async fn what_is_set_aside_is_nobody_elses_and_what_was_not_used_goes_back() {
    let scene = Scene::new(queries(100));
    let held = scene.quotas.reserve(&alice(), ("queries", 80)).await.unwrap();
    assert_eq!(sums(&scene).await, (0, 80, 20));
    assert!(scene.quotas.charge(&alice(), ("queries", 21)).await.is_err());
    held.commit(("queries", 30));
    assert_eq!(sums(&scene).await, (30, 0, 70));
}

#[tokio::test]
async fn more_than_was_set_aside_is_charged_too_and_the_next_is_refused() {
    let scene = Scene::new(queries(100));
    scene.quotas.reserve(&alice(), ("queries", 80)).await.unwrap().commit(("queries", 130));
    assert_eq!(sums(&scene).await, (130, 0, 0));
    assert!(scene.quotas.check(&alice(), ("queries", 0)).await.is_err());
}

#[tokio::test]
async fn a_kind_that_is_not_named_at_the_end_is_charged_as_it_was_estimated() {
    let plan = queries(100).limit(Quota::units("rows", 100).per(Period::hour()));
    let scene = Scene::new(plan);
    let held = scene.quotas.reserve(&alice(), [("queries", 1), ("rows", 50)]).await.unwrap();
    held.commit(("rows", 7));
    let usage = scene.quotas.usage(&alice()).await.unwrap();
    assert_eq!((usage.limits[0].used, usage.limits[1].used), (1, 7));
}

#[tokio::test]
async fn r4_commit_and_roll_back_by_id_change_something_once() {
    let scene = Scene::new(queries(100));
    let quotas = &scene.quotas;
    let id = quotas.reserve(&alice(), ("queries", 10)).await.unwrap().detach();
    assert_eq!(quotas.commit(&id, ("queries", 4)).await, Ok(CloseOutcome::Closed));
    assert_eq!(quotas.commit(&id, ("queries", 4)).await, Ok(CloseOutcome::AlreadyClosed));
    assert_eq!(quotas.roll_back(&id).await, Err(ReservationError::Committed));
    assert_eq!(sums(&scene).await, (4, 0, 96));

    let id = quotas.reserve(&alice(), ("queries", 10)).await.unwrap().detach();
    assert_eq!(quotas.roll_back(&id).await, Ok(CloseOutcome::Closed));
    assert_eq!(quotas.roll_back(&id).await, Ok(CloseOutcome::AlreadyClosed));
    assert_eq!(quotas.commit(&id, Amounts::new()).await, Err(ReservationError::RolledBack));
    assert_eq!(sums(&scene).await, (4, 0, 96));
}

#[tokio::test]
async fn an_id_means_nothing_to_other_accounts_at_the_same_place() {
    let (scene, other) = (Scene::new(queries(100)), Scene::new(queries(100)));
    let id = scene.quotas.reserve(&alice(), ("queries", 10)).await.unwrap().detach();
    let same_place = other.quotas.reserve(&alice(), ("queries", 10)).await.unwrap().detach();
    assert_ne!(id, same_place);
    assert_eq!(other.quotas.commit(&id, ("queries", 4)).await, Err(ReservationError::Unknown));
    assert_eq!(other.quotas.roll_back(&"019a-text".parse().unwrap()).await, Err(ReservationError::Unknown));
    assert_eq!(sums(&other).await, (0, 10, 90));
    let read: ReservationId = id.to_string().parse().unwrap();
    assert_eq!(scene.quotas.commit(&read, ("queries", 4)).await, Ok(CloseOutcome::Closed));
}

#[tokio::test]
async fn r5_what_a_crashed_owner_had_set_aside_comes_back_once_its_time_is_over() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).reservations_last(TTL));
    let _lost = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap().detach();
    scene.clock.advance(TTL - Duration::from_nanos(1));
    assert_eq!(sums(&scene).await, (0, 60, 40));
    scene.clock.advance(Duration::from_nanos(1));
    assert_eq!(sums(&scene).await, (0, 0, 100));
    scene.clock.advance(TTL);
    assert_eq!(sums(&scene).await, (0, 0, 100), "once");
}

#[tokio::test]
async fn r6_rolling_back_what_is_out_of_time_changes_nothing() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).reservations_last(TTL));
    let id = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap().detach();
    scene.clock.advance(TTL);
    scene.quotas.charge(&alice(), ("queries", 100)).await.unwrap();
    assert_eq!(scene.quotas.roll_back(&id).await, Ok(CloseOutcome::Expired));
    assert_eq!(sums(&scene).await, (100, 0, 0));
}

#[tokio::test]
async fn r7_a_commit_out_of_time_is_a_record() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).reservations_last(TTL));
    let id = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap().detach();
    scene.clock.advance(TTL);
    scene.quotas.charge(&alice(), ("queries", 100)).await.unwrap();
    assert_eq!(scene.quotas.commit(&id, ("queries", 25)).await, Ok(CloseOutcome::Expired));
    assert_eq!(sums(&scene).await, (125, 0, 0), "the work was done");
    assert_eq!(scene.quotas.commit(&id, ("queries", 25)).await, Ok(CloseOutcome::AlreadyClosed));
}

#[tokio::test]
async fn r7_what_ends_after_midnight_belongs_to_the_day_before() {
    let plan = Plan::new("daily").limit(Quota::units("queries", 100).per(Period::day()));
    let scene = Scene::of(QuotaLayer::new(plan).reservations_last(TTL));
    scene.clock.advance(DAY - Duration::from_secs(10));
    let (early, late) = (
        scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap(),
        scene.quotas.reserve(&alice(), ("queries", 40)).await.unwrap().detach(),
    );
    scene.clock.advance(Duration::from_secs(10));
    let today = scene.limit(&alice(), "queries_per_day").await;
    assert_eq!((today.used, today.reserved), (0, 0));
    early.commit(("queries", 90));
    scene.clock.advance(TTL);
    assert_eq!(scene.quotas.commit(&late, ("queries", 50)).await, Ok(CloseOutcome::Expired));
    assert_eq!(scene.limit(&alice(), "queries_per_day").await.used, 0);
}

#[tokio::test]
async fn r8_a_lost_estimate_is_charged_where_served_work_must_not_be_lost() {
    let layer = QuotaLayer::new(queries(100)).reservations_last(TTL).on_expiry(OnExpiry::ChargeEstimate);
    let scene = Scene::of(layer);
    let id = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap().detach();
    scene.clock.advance(TTL);
    assert_eq!(sums(&scene).await, (60, 0, 40));
    assert_eq!(scene.quotas.commit(&id, ("queries", 45)).await, Ok(CloseOutcome::Expired));
    assert_eq!(sums(&scene).await, (45, 0, 55), "its owner was only late");
}

#[tokio::test]
async fn a_reservation_that_ended_long_ago_is_unknown() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).reservations_last(TTL));
    let id = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap().detach();
    scene.clock.advance(TTL * 10);
    assert_eq!(scene.quotas.commit(&id, ("queries", 60)).await, Err(ReservationError::Unknown));
    assert_eq!(sums(&scene).await, (0, 0, 100));
}

#[tokio::test]
async fn what_was_set_aside_before_a_reset_is_no_part_of_what_is_counted_after_it() {
    let scene = Scene::new(queries(100));
    let held = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap();
    scene.quotas.reset_all(&alice()).await.unwrap();
    assert_eq!(sums(&scene).await, (0, 0, 100));
    held.commit(("queries", 60));
    assert_eq!(sums(&scene).await, (0, 0, 100));
}
