//! Effects of time.

use std::time::Duration;

use super::{HOUR, Scene, comes_to, queries, wall};
use crate::{
    quota::{Amounts, CloseOutcome, Grant, JobRun, OnExpiry, Plan, Quota, QuotaLayer, Quotas, ReservationError},
    time::{FakeClock, Period},
};

const TTL: Duration = Duration::from_secs(300);

/// Coarsest resolution of time that a store may have.
const TICK: Duration = Duration::from_secs(1);

async fn under(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas, layer: QuotaLayer) -> (Scene, FakeClock) {
    let clock = FakeClock::new();
    let make = async |layer| make(layer, clock.clone()).await;
    (Scene::of(make, layer.clock(clock.clone())).await, clock)
}

/// A limit counts from zero once its own period ends, and a refusal reports the time until then.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::a_period_begins_again(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn a_period_begins_again(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let plan = Plan::new("periods")
        .limit(Quota::units("queries", 10).per(Period::hour()))
        .limit(Quota::units("queries", 15).per(Period::day()));
    let (scene, clock) = under(make, QuotaLayer::new(plan)).await; // at midnight
    let Scene { quotas, alice, .. } = &scene;
    quotas.charge(alice, ("queries", 10)).await.unwrap();
    clock.advance(HOUR - TICK);
    let wait = quotas.charge(alice, ("queries", 1)).await.unwrap_err().retry_after().unwrap();
    assert!(wait > Duration::ZERO && wait <= TICK, "{wait:?}");
    clock.advance(TICK);
    assert_eq!(scene.counts(alice).await, [(0, 0), (10, 0)]);
    quotas.charge(alice, ("queries", 5)).await.unwrap();
    let refusal = quotas.charge(alice, ("queries", 1)).await.unwrap_err();
    let wait = refusal.retry_after().unwrap();
    assert!(wait > HOUR * 23 - TICK && wait <= HOUR * 23, "{wait:?}");
    clock.advance(HOUR * 23);
    quotas.charge(alice, ("queries", 10)).await.unwrap();
    assert_eq!(scene.counts(alice).await, [(10, 0), (10, 0)]);
}

/// A grant ends at its time. Usage that it has covered stays used.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::a_grant_ends_in_time(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn a_grant_ends_in_time(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let (scene, clock) = under(make, QuotaLayer::new(queries(10))).await;
    let Scene { quotas, alice, .. } = &scene;
    let until = wall(&clock.clone().into()) + HOUR;
    quotas.grant(alice, Grant::new("queries", 5, until)).await.unwrap();
    quotas.charge(alice, ("queries", 13)).await.unwrap();
    clock.advance(HOUR - TICK);
    quotas.check(alice, ("queries", 2)).await.unwrap();
    clock.advance(TICK);
    assert!(quotas.check(alice, ("queries", 0)).await.is_err());
    assert!(quotas.grants(alice).await.unwrap().is_empty());
    assert_eq!(scene.counts(alice).await, [(13, 0)]);
}

/// A reservation that is not closed in time is rolled back, once. A late commit by its id charges the used amount; a
/// late rollback changes nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::a_lost_reservation_comes_back(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn a_lost_reservation_comes_back(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let layer = QuotaLayer::new(queries(100)).reservations_last(TTL).on_expiry(OnExpiry::Return);
    let (scene, clock) = under(make, layer).await;
    let Scene { quotas, alice, .. } = &scene;
    let rolled_back = quotas.reserve(alice, ("queries", 60)).await.unwrap().detach();
    let committed = quotas.reserve(alice, ("queries", 40)).await.unwrap().detach();
    clock.advance(TTL - TICK);
    assert_eq!(scene.counts(alice).await, [(0, 100)]);
    clock.advance(TICK);
    scene.comes_to(alice, &[(0, 0)]).await;
    quotas.charge(alice, ("queries", 100)).await.unwrap();
    assert_eq!(quotas.roll_back(&rolled_back).await, Ok(CloseOutcome::Expired));
    assert_eq!(scene.counts(alice).await, [(100, 0)]);
    assert_eq!(quotas.commit(&committed, ("queries", 25)).await, Ok(CloseOutcome::Expired));
    let charged = ("queries", 25).into();
    assert_eq!(quotas.commit(&committed, ("queries", 8)).await, Ok(CloseOutcome::AlreadyClosed { charged }));
    assert_eq!(scene.counts(alice).await, [(125, 0)]);
}

/// If the layer is set so, a reservation that is not closed in time is charged as estimated. A late close corrects the
/// charge.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::a_lost_estimate_is_charged(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn a_lost_estimate_is_charged(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let layer = QuotaLayer::new(queries(100)).reservations_last(TTL).on_expiry(OnExpiry::ChargeEstimate);
    let (scene, clock) = under(make, layer).await;
    let Scene { quotas, alice, .. } = &scene;
    let id = quotas.reserve(alice, ("queries", 60)).await.unwrap().detach();
    clock.advance(TTL);
    scene.comes_to(alice, &[(60, 0)]).await;
    assert_eq!(quotas.commit(&id, ("queries", 45)).await, Ok(CloseOutcome::Expired));
    assert_eq!(scene.counts(alice).await, [(45, 0)]);
}

/// A reservation of an ended window is charged in that window up to its estimate. What exceeds the estimate is charged
/// in the window in which it arrives.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::a_late_charge_belongs_to_its_own_period(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn a_late_charge_belongs_to_its_own_period(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let plan = Plan::new("hourly").limit(Quota::units("queries", 100).per(Period::hour()));
    let (scene, clock) = under(make, QuotaLayer::new(plan)).await;
    let Scene { quotas, alice, .. } = &scene;
    clock.advance(HOUR - TICK);
    let id = quotas.reserve(alice, ("queries", 60)).await.unwrap().detach();
    clock.advance(TICK);
    assert_eq!(scene.counts(alice).await, [(0, 0)]);
    assert_eq!(quotas.commit(&id, ("queries", 90)).await, Ok(CloseOutcome::Closed));
    assert_eq!(scene.counts(alice).await, [(30, 0)]);
    assert_eq!(quotas.roll_back(&id).await, Err(ReservationError::Committed));
    quotas.reserve(alice, ("queries", 70)).await.unwrap().commit(Amounts::new());
    scene.comes_to(alice, &[(100, 0)]).await;
}

/// A job is replayed until it is forgotten, and then runs again. Ledgers do not pass this rule: they remember a job until
/// its rows are archived.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::a_job_is_forgotten_in_time(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn a_job_is_forgotten_in_time(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let (scene, clock) = under(make, QuotaLayer::new(queries(10)).job_retention(HOUR)).await;
    let Scene { quotas, alice, .. } = &scene;
    let run = async || quotas.run_job(alice, "7", ("queries", 1), async {}).await.map_err(|refusal| refusal.reason());
    assert_eq!(run().await, Ok(JobRun::Done(())));
    comes_to(run, Ok(JobRun::Replayed)).await;
    clock.advance(HOUR - TICK);
    assert_eq!(run().await, Ok(JobRun::Replayed));
    clock.advance(TICK);
    assert_eq!(run().await, Ok(JobRun::Done(())));
    assert_eq!(scene.counts(alice).await, [(2, 0)]);
}

/// A credit lowers the used amount of the window that is open, and none of those before it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::credit_lowers_the_open_window(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn credit_lowers_the_open_window(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let plan = Plan::new("hourly").limit(Quota::units("queries", 100).per(Period::hour()));
    let (scene, clock) = under(make, QuotaLayer::new(plan)).await;
    let Scene { quotas, alice, .. } = &scene;
    let credit = async |id: &str| quotas.credit(alice, id, "queries", 50, "").await.map(|credited| credited.amount);
    quotas.charge(alice, ("queries", 60)).await.unwrap();
    clock.advance(HOUR);
    assert_eq!(credit("early").await, Ok(0));
    quotas.charge(alice, ("queries", 20)).await.unwrap();
    assert_eq!(credit("late").await, Ok(20));
    assert_eq!(scene.counts(alice).await, [(0, 0)]);
}
