//! Reservations and their end.

use super::{Scene, at_once, queries, two_limits};
use crate::quota::{Amounts, CloseOutcome, QuotaLayer, Quotas, ReservationError, ReservationId};

/// A reserved amount is available to no other charge until it is closed: with less or more than the estimate, or with
/// nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_reservation_is_charged_as_what_was_used(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_reservation_is_charged_as_what_was_used(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(100, 100)).await;
    let Scene { quotas, alice, .. } = &scene;
    let held = quotas.reserve(alice, [("queries", 80), ("rows", 5)]).await.unwrap();
    assert_eq!(scene.counts(alice).await, [(0, 80), (0, 5)]);
    assert!(quotas.charge(alice, ("queries", 21)).await.is_err());
    held.commit(("queries", 30));
    scene.comes_to(alice, &[(30, 0), (5, 0)]).await; // a kind that is not named is charged as reserved
    quotas.reserve(alice, ("queries", 70)).await.unwrap().roll_back();
    scene.comes_to(alice, &[(30, 0), (5, 0)]).await;
    drop(quotas.reserve(alice, ("queries", 70)).await.unwrap());
    scene.comes_to(alice, &[(30, 0), (5, 0)]).await;
    quotas.reserve(alice, ("queries", 70)).await.unwrap().commit(("queries", 130));
    scene.comes_to(alice, &[(160, 0), (5, 0)]).await;
    assert!(quotas.check(alice, ("queries", 0)).await.is_err());
}

/// A reservation is closed once by its id: the same close again changes nothing and returns the amounts that stand, and
/// the opposite one is refused.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_reservation_ends_once(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_reservation_ends_once(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(100, 100)).await;
    let Scene { quotas, alice, .. } = &scene;
    for (actual, counts) in [(4, [(4, 0), (5, 0)]), (17, [(21, 0), (10, 0)])] {
        let id = quotas.reserve(alice, [("queries", 10), ("rows", 5)]).await.unwrap().detach();
        assert_eq!(quotas.commit(&id, ("queries", actual)).await, Ok(CloseOutcome::Closed));
        for other in [("queries", actual), ("queries", 3), ("rows", 7), ("tiles", 1)] {
            let charged = [("queries", actual), ("rows", 5)].into();
            assert_eq!(quotas.commit(&id, other).await, Ok(CloseOutcome::AlreadyClosed { charged }));
            assert_eq!(quotas.roll_back(&id).await, Err(ReservationError::Committed));
        }
        assert_eq!(scene.counts(alice).await, counts);
    }
    let id = quotas.reserve(alice, [("queries", 10), ("rows", 5)]).await.unwrap().detach();
    assert_eq!(quotas.commit(&id, [("queries", 0), ("rows", 0)]).await, Ok(CloseOutcome::Closed));
    assert_eq!(quotas.commit(&id, ("rows", 1)).await, Ok(CloseOutcome::AlreadyClosed { charged: Amounts::new() }));
    let before = scene.counts(alice).await;
    let id = quotas.reserve(alice, [("queries", 10), ("rows", 5)]).await.unwrap().detach();
    assert_eq!(quotas.roll_back(&id).await, Ok(CloseOutcome::Closed));
    for _ in 0..2 {
        assert_eq!(quotas.roll_back(&id).await, Ok(CloseOutcome::AlreadyClosed { charged: Amounts::new() }));
        assert_eq!(quotas.commit(&id, Amounts::new()).await, Err(ReservationError::RolledBack));
    }
    assert_eq!(scene.counts(alice).await, before);
}

/// An id that was converted to text and parsed again closes its reservation. An id that was never issued closes
/// nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::an_id_can_be_written_down(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn an_id_can_be_written_down(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(100)).await;
    let Scene { quotas, alice, .. } = &scene;
    let id = quotas.reserve(alice, ("queries", 10)).await.unwrap().detach();
    let read: ReservationId = id.to_string().parse().unwrap();
    assert_eq!(read, id);
    for unknown in ["m-0123456789abcdef-0-0-0-1-0123456789abcdef", "unknown"] {
        let unknown = unknown.parse().unwrap();
        assert_eq!(quotas.commit(&unknown, ("queries", 10)).await, Err(ReservationError::Unknown));
        assert_eq!(quotas.roll_back(&unknown).await, Err(ReservationError::Unknown));
    }
    assert_eq!(scene.counts(alice).await, [(0, 10)]);
    assert_eq!(quotas.commit(&read, ("queries", 4)).await, Ok(CloseOutcome::Closed));
    let charged = ("queries", 4).into();
    assert_eq!(quotas.commit(&id, ("queries", 4)).await, Ok(CloseOutcome::AlreadyClosed { charged }));
    assert_eq!(scene.counts(alice).await, [(4, 0)]);
}

/// If many callers close one reservation at once, one of them does.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::many_at_once_end_a_reservation_once(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn many_at_once_end_a_reservation_once(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(1_000)).await;
    for round in 1..=10 {
        let id = scene.quotas.reserve(&scene.alice, ("queries", 10)).await.unwrap().detach();
        let ended = at_once(8, |number| {
            let (quotas, id) = (scene.quotas.clone(), id.clone());
            async move {
                match number % 2 {
                    0 => quotas.commit(&id, ("queries", 7)).await == Ok(CloseOutcome::Closed),
                    _ => quotas.roll_back(&id).await == Ok(CloseOutcome::Closed),
                }
            }
        });
        let ended = ended.await;
        assert_eq!(ended, 1, "in round {round}");
        let [(used, reserved)] = scene.counts(&scene.alice).await[..] else { panic!("one limit") };
        assert!(reserved == 0 && used.is_multiple_of(7), "in round {round}: {used} used, {reserved} reserved");
    }
}
