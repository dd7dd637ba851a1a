//! Amounts are charged completely or not at all.

use std::sync::{Arc, Mutex};

use super::{MOST, Scene, at_once, comes_to, queries, two_limits, violated};
use crate::{
    gate::Event,
    quota::{CloseOutcome, Plan, Quota, QuotaError, QuotaLayer, Quotas, ReservationError},
    refusal::Reason,
    time::Period,
};

/// An amount that fits is charged, up to the limit itself. One that does not fit is refused with its limit, and changes
/// nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::what_fits_is_charged(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn what_fits_is_charged(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(105)).await;
    let Scene { quotas, alice, .. } = &scene;
    quotas.charge(alice, ("queries", 95)).await.unwrap();
    let refusal = quotas.charge(alice, ("queries", 11)).await.unwrap_err();
    assert_eq!(violated(&refusal), [("queries", 95, 105)]);
    assert!(refusal.retry_after().is_some(), "waiting helps");
    assert_eq!(scene.counts(alice).await, [(95, 0)]);
    quotas.charge(alice, ("queries", 10)).await.unwrap();
    assert!(quotas.charge(alice, ("queries", 1)).await.is_err());
    assert_eq!(scene.counts(alice).await, [(105, 0)]);
    let usage = scene.usage(alice).await;
    let limit = usage.get("queries").unwrap();
    assert_eq!((limit.limit, limit.remaining, limit.is_exceeded()), (105, 0, true));
}

/// If any limit refuses, no limit is charged. A refusal names all limits without room.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::all_limits_are_charged_or_none(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn all_limits_are_charged_or_none(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(10, 20)).await;
    let Scene { quotas, alice, .. } = &scene;
    quotas.charge(alice, [("queries", 8), ("rows", 15)]).await.unwrap();
    for (asked, names) in [
        ([("queries", 3), ("rows", 1)], vec![("queries", 8, 10)]),
        ([("queries", 1), ("rows", 6)], vec![("rows", 15, 20)]),
        ([("queries", 3), ("rows", 6)], vec![("queries", 8, 10), ("rows", 15, 20)]),
    ] {
        for refusal in [
            quotas.check(alice, asked).await.unwrap_err(),
            quotas.charge(alice, asked).await.unwrap_err(),
            quotas.reserve(alice, asked).await.unwrap_err(),
        ] {
            assert_eq!(violated(&refusal), names, "{asked:?}");
        }
        assert_eq!(scene.counts(alice).await, [(8, 0), (15, 0)], "{asked:?}");
    }
    quotas.charge(alice, [("queries", 2), ("rows", 5)]).await.unwrap();
    assert_eq!(scene.counts(alice).await, [(10, 0), (20, 0)]);
}

/// An amount of 0 checks whether anything of the kind remains: it is refused exactly if nothing does.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::zero_asks_whether_anything_is_left(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn zero_asks_whether_anything_is_left(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    for (used, left) in [(0, true), (9, true), (1, false), (5, false)] {
        scene.record(alice, ("queries", used)).await;
        assert_eq!(quotas.check(alice, ("queries", 0)).await.is_ok(), left);
        assert_eq!(quotas.charge(alice, ("queries", 0)).await.is_ok(), left);
        assert_eq!(quotas.reserve(alice, ("queries", 0)).await.is_ok(), left);
    }
    scene.comes_to(alice, &[(15, 0)]).await;
}

/// A kind that the client's plan does not limit is free, in any amount. A unit that no plan counts is an error.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_kind_without_a_limit_is_free(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_kind_without_a_limit_is_free(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    for call in [quotas.charge(alice, ("pages", 1)).await, quotas.check(alice, ("pages", 1)).await] {
        assert_eq!(call.unwrap_err().reason(), Reason::UnknownUnit);
    }
    quotas.record(alice, ("pages", 1)).await.unwrap_err();
    quotas.set_tier_plan("pages", Plan::new("pages").limit(Quota::units("pages", 1).per(Period::hour()))).unwrap();
    quotas.charge(alice, ("pages", u64::MAX)).await.unwrap();
    quotas.charge(alice, [("pages", 1), ("queries", 10)]).await.unwrap();
    scene.record(alice, ("pages", u64::MAX)).await;
    assert_eq!(scene.counts(alice).await, [(10, 0)]);
}

/// Amounts up to 2^53 - 1 and beyond get the verdict that arithmetic gives, and no sum wraps round.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::large_amounts_are_judged_right(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn large_amounts_are_judged_right(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    const ODD: [u64; 6] = [0, 1, MOST, 1 << 53, (1 << 53) + 1, u64::MAX];
    for limit in [1, 10, MOST] {
        let scene = Scene::new(&make, queries(limit)).await;
        for asked in ODD {
            let (quotas, client) = (&scene.quotas, crate::identity::Client::named(format!("asks {asked}")));
            let fits = asked <= limit;
            assert_eq!(quotas.check(&client, ("queries", asked)).await.is_ok(), fits, "{asked} of {limit}");
            match quotas.reserve(&client, ("queries", asked)).await {
                Ok(held) => {
                    assert!(fits, "{asked} of {limit}");
                    quotas.roll_back(&held.detach()).await.unwrap();
                }
                Err(refusal) => {
                    assert!(!fits, "{asked} of {limit}");
                    assert_eq!(refusal.retry_after(), None, "it never fits");
                }
            }
            assert_eq!(quotas.charge(&client, ("queries", asked)).await.is_ok(), fits, "{asked} of {limit}");
            assert_eq!(scene.counts(&client).await, [(if fits { asked } else { 0 }, 0)]);
        }
    }
    let scene = Scene::new(&make, queries(10)).await;
    scene.record(&scene.alice, ("queries", 5)).await;
    for asked in [6, MOST, u64::MAX - 5, u64::MAX - 4, u64::MAX] {
        assert!(scene.quotas.charge(&scene.alice, ("queries", asked)).await.is_err(), "{asked} after 5");
    }
    assert_eq!(scene.counts(&scene.alice).await, [(5, 0)]);
    let id = scene.quotas.reserve(&scene.alice, ("queries", 3)).await.unwrap().detach();
    for amount in [MOST + 1, u64::MAX] {
        let commit = scene.quotas.commit(&id, ("queries", amount)).await;
        assert_eq!(commit, Err(ReservationError::TooLarge(amount)), "nothing is cut");
        assert_eq!(scene.counts(&scene.alice).await, [(5, 3)], "it stays open");
    }
    assert_eq!(scene.quotas.commit(&id, ("queries", 2)).await, Ok(CloseOutcome::Closed));
    assert_eq!(scene.counts(&scene.alice).await, [(7, 0)]);
}

/// Records go past the limit, up to 2^53 - 1; the next charge is refused. A record of 0 changes nothing. A record beyond
/// 2^53 - 1 is an error, and nothing of it is recorded.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_record_goes_past_the_limit(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_record_goes_past_the_limit(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    for (amount, used) in [(0, 0), (9, 9), (0, 9), (7, 16), (MOST - 16, MOST), (0, MOST)] {
        scene.record(alice, ("queries", amount)).await;
        assert_eq!(scene.counts(alice).await, [(used, 0)], "after {amount}");
        assert_eq!(quotas.check(alice, ("queries", 1)).await.is_ok(), used < 10, "after {amount}");
    }
    quotas.set_plan(two_limits(10, 10)).unwrap();
    scene.record(alice, ("rows", 3)).await;
    for amounts in
        [[("queries", 1), ("rows", 1)], [("queries", 0), ("rows", MOST)], [("queries", u64::MAX), ("rows", 0)]]
    {
        let error = quotas.record(alice, amounts).await.unwrap_err();
        let QuotaError::Invalid(invalid) = error else { panic!("{error}") };
        assert!(invalid.reason().contains("at most 2^53 - 1, got "), "{invalid}");
        assert_eq!(scene.counts(alice).await, [(MOST, 0), (3, 0)], "after {amounts:?}");
    }
}

/// No counter exceeds 2^53 - 1. A commit by id with which one would is an error, and the reservation stays open; one that
/// is closed answers that, whatever amount is named. Without a caller the amount is cut, and an event reports the part.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::no_counter_exceeds_its_bound(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn no_counter_exceeds_its_bound(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let cut = Arc::<Mutex<Vec<u64>>>::default();
    let reported = Arc::clone(&cut);
    let observer = move |event: &Event<'_>| {
        if let Event::AmountCut { amount, .. } = event {
            reported.lock().unwrap().push(*amount);
        }
    };
    let scene = Scene::of(make, QuotaLayer::new(queries(10)).observe(observer)).await;
    let Scene { quotas, alice, bob } = &scene;
    let id = quotas.reserve(alice, ("queries", 3)).await.unwrap().detach();
    scene.record(alice, ("queries", MOST - 5)).await;
    for amount in [6, MOST, MOST + 1, u64::MAX] {
        assert_eq!(quotas.commit(&id, ("queries", amount)).await, Err(ReservationError::TooLarge(amount)));
        assert_eq!(scene.counts(alice).await, [(MOST - 5, 3)], "it stays open after {amount}");
    }
    assert_eq!(quotas.commit(&id, ("queries", 5)).await, Ok(CloseOutcome::Closed));
    assert_eq!(scene.counts(alice).await, [(MOST, 0)]);
    let closed = CloseOutcome::AlreadyClosed { charged: ("queries", 5).into() };
    assert_eq!(quotas.commit(&id, ("queries", u64::MAX)).await, Ok(closed));

    let id = quotas.reserve(bob, ("queries", 3)).await.unwrap().detach();
    scene.record(bob, ("queries", MOST - 3)).await;
    assert_eq!(quotas.commit(&id, ("queries", 4)).await, Err(ReservationError::TooLarge(4)));
    assert_eq!(quotas.roll_back(&id).await, Ok(CloseOutcome::Closed));
    assert_eq!(quotas.commit(&id, ("queries", u64::MAX)).await, Err(ReservationError::RolledBack));
    assert_eq!(scene.counts(bob).await, [(MOST - 3, 0)]);

    let carol = crate::identity::Client::named("carol");
    let held = quotas.reserve(&carol, ("queries", 2)).await.unwrap();
    scene.record(&carol, ("queries", MOST - 4)).await;
    assert!(cut.lock().unwrap().is_empty(), "callers received an error");
    held.commit(("queries", 9));
    comes_to(async || scene.counts(&carol).await, vec![(MOST, 0)]).await;
    comes_to(async || cut.lock().unwrap().clone(), vec![5]).await;
}

/// Amounts of a kind that is named twice are added.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_kind_that_is_named_twice_is_one(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_kind_that_is_named_twice_is_one(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    assert!(scene.quotas.charge(&scene.alice, [("queries", 6), ("queries", 5)]).await.is_err());
    scene.quotas.charge(&scene.alice, [("queries", 6), ("queries", 4)]).await.unwrap();
    assert_eq!(scene.counts(&scene.alice).await, [(10, 0)]);
}

/// However many callers charge at once, exactly the limit is charged.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::many_at_once_take_exactly_the_limit(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn many_at_once_take_exactly_the_limit(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(105, 50_000)).await;
    scene.record(&scene.alice, ("queries", 5)).await;
    let passed = at_once(100, |number| {
        let (quotas, alice, asked) = (scene.quotas.clone(), scene.alice.clone(), [("queries", 10), ("rows", 7)]);
        async move {
            match number % 2 {
                0 => quotas.charge(&alice, asked).await.is_ok(),
                _ => match quotas.reserve(&alice, asked).await {
                    Ok(held) => quotas.commit(&held.detach(), crate::quota::Amounts::new()).await.is_ok(),
                    Err(_) => false,
                },
            }
        }
    });
    let passed = passed.await;
    assert_eq!(passed, 10, "of a hundred that ask for ten of a hundred");
    assert_eq!(scene.counts(&scene.alice).await, [(105, 0), (70, 0)]);
}
