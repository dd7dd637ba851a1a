//! Changes by operators: plans, grants and resets.

use std::time::{Duration, SystemTime};

use super::{HOUR, Scene, queries, two_limits, wall};
use crate::{
    quota::{Amounts, Grant, GrantId, Plan, Quota, QuotaError, QuotaLayer, Quotas},
    time::{Clock, Period},
};

/// Usage of a limit stays when the plan changes, in either direction.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_new_plan_keeps_what_was_used(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_new_plan_keeps_what_was_used(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    quotas.charge(alice, ("queries", 8)).await.unwrap();
    quotas.set_plan(queries(9)).unwrap();
    quotas.charge(alice, ("queries", 1)).await.unwrap();
    assert!(quotas.charge(alice, ("queries", 1)).await.is_err());
    quotas.set_plan(queries(5)).unwrap();
    let usage = scene.usage(alice).await;
    let limit = usage.get("queries").unwrap();
    assert_eq!((limit.used, limit.limit, limit.remaining), (9, 5, 0));
    quotas.set_plan(two_limits(20, 7)).unwrap();
    quotas.charge(alice, [("queries", 11), ("rows", 7)]).await.unwrap();
    assert_eq!(scene.counts(alice).await, [(20, 0), (7, 0)]);
}

/// A grant raises its limit for its client, is listed with its approver and reason, and can be revoked once.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_grant_raises_a_limit_until_it_is_revoked(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_grant_raises_a_limit_until_it_is_revoked(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(10, 10)).await;
    let Scene { quotas, alice, bob } = &scene;
    assert!(quotas.grants(alice).await.unwrap().is_empty());
    let until = wall(&Clock::system()) + HOUR * 24;
    let grant = Grant::new("queries", 5, until).approved_by("M. Okafor").because("month-end close");
    let id = quotas.grant(alice, grant.clone()).await.unwrap();
    let all = quotas.grants(alice).await.unwrap();
    assert_eq!((all.len(), all[0].id, all[0].used), (1, id, 0));
    assert_eq!((all[0].grant.limit(), all[0].grant.amount()), ("queries", 5));
    assert_eq!((all[0].grant.approver(), all[0].grant.reason()), ("M. Okafor", "month-end close"));
    assert!(quotas.charge(bob, ("queries", 11)).await.is_err(), "it is another's");
    assert!(quotas.charge(alice, ("rows", 11)).await.is_err(), "it is for another limit");
    quotas.charge(alice, ("queries", 12)).await.unwrap();
    assert_eq!(scene.usage(alice).await.get("queries").unwrap().limit, 15);
    assert_eq!(quotas.grants(alice).await.unwrap()[0].used, 2, "what the limit has comes first");
    assert_eq!(quotas.revoke(bob, id).await, Ok(false), "it is another's");
    assert_eq!(quotas.revoke(alice, id).await, Ok(true));
    assert_eq!(quotas.revoke(alice, id).await, Ok(false));
    assert!(quotas.grants(alice).await.unwrap().is_empty());
    assert!(quotas.charge(alice, ("queries", 1)).await.is_err());
}

/// Of several grants the one that ends first is listed first and used first.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::the_grant_that_ends_first_is_used_first(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn the_grant_that_ends_first_is_used_first(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(100)).await;
    let Scene { quotas, alice, .. } = &scene;
    let now = wall(&Clock::system());
    for (amount, hours) in [(20, 50), (10, 20), (5, 90)] {
        quotas.grant(alice, Grant::new("queries", amount, now + HOUR * hours)).await.unwrap();
    }
    quotas.charge(alice, ("queries", 115)).await.unwrap();
    let all = quotas.grants(alice).await.unwrap();
    let used: Vec<_> = all.iter().map(|given| (given.grant.amount(), given.used)).collect();
    assert_eq!(used, [(10, 10), (20, 5), (5, 0)]);
}

/// A grant is listed to its end, with what the limit of the present plan needs of it: nothing where a larger plan has
/// room. A part that was used before a reset stays used.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::grant_is_listed_to_its_end(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn grant_is_listed_to_its_end(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    let until = wall(&Clock::system()) + HOUR * 24;
    let id = quotas.grant(alice, Grant::new("queries", 5, until)).await.unwrap();
    quotas.charge(alice, ("queries", 15)).await.unwrap();
    for (limit, used) in [(10, 5), (12, 3), (20, 0), (10, 5)] {
        quotas.set_plan(queries(limit)).unwrap();
        let listed: Vec<_> = quotas.grants(alice).await.unwrap().iter().map(|given| given.used).collect();
        assert_eq!(listed, [used], "of {limit}");
        let usage = scene.usage(alice).await;
        assert_eq!(usage.get("queries").unwrap().limit, limit + 5);
    }
    quotas.reset(alice, "queries").await.unwrap();
    assert_eq!(quotas.grants(alice).await.unwrap()[0].used, 5);
    assert!(quotas.charge(alice, ("queries", 11)).await.is_err());
    quotas.charge(alice, ("queries", 10)).await.unwrap();
    assert_eq!(quotas.revoke(alice, id).await, Ok(true));
    assert_eq!(quotas.revoke(alice, id).await, Ok(false));
    assert!(quotas.grants(alice).await.unwrap().is_empty());
}

/// Limits of one name that count in different periods have counters of their own. A client that changes from one to the
/// other and back finds each as it was.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::limits_of_one_name_count_in_their_own_period(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn limits_of_one_name_count_in_their_own_period(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let longer =
        || Plan::new("longer").limit(Quota::units("queries", 20).per(Period::rolling(HOUR * 24)).named("queries"));
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    let held = quotas.reserve(alice, ("queries", 6)).await.unwrap().detach();
    quotas.set_plan(longer()).unwrap();
    assert_eq!(scene.counts(alice).await, [(0, 0)]);
    quotas.charge(alice, ("queries", 15)).await.unwrap();
    quotas.commit(&held, ("queries", 9)).await.unwrap();
    assert_eq!(scene.counts(alice).await, [(18, 0)], "what exceeds the estimate is used under the present plan");
    quotas.set_plan(queries(10)).unwrap();
    assert_eq!(scene.counts(alice).await, [(6, 0)]);
    quotas.set_plan(longer()).unwrap();
    assert_eq!(scene.counts(alice).await, [(18, 0)]);
}

/// A grant may end at any later time, and at 9999-12-31 if it has no end. It is listed as it was granted, and its
/// account and others keep working.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::grant_ends_at_any_time_to_come(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn grant_ends_at_any_time_to_come(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, bob } = &scene;
    // Around the last instants of i64 and u64 nanoseconds, of years of four digits, and of a clock.
    for seconds in [9_223_372_036, 18_446_744_073, 18_446_744_074, 253_402_300_799, 1 << 62] {
        let Some(until) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) else { continue };
        let grant = Grant::new("queries", 5, until);
        let id = quotas.grant(alice, grant.clone()).await.unwrap();
        let listed = quotas.grants(alice).await.unwrap();
        let (listed, wanted) = (listed[0].grant.until(), grant.until());
        assert!(listed <= wanted && wanted < listed + Duration::from_millis(1), "{listed:?} of {wanted:?}");
        quotas.charge(alice, ("queries", 15)).await.unwrap();
        assert_eq!(quotas.revoke(alice, id).await, Ok(true));
        quotas.reset_all(alice).await.unwrap();
        quotas.charge(bob, ("queries", 1)).await.unwrap();
        quotas.usage_page(None, 10).await.unwrap();
    }
    assert_eq!(scene.counts(alice).await, [(0, 0)]);
    assert_eq!(scene.counts(bob).await, [(5, 0)]);
}

/// A limit that was reset during a reservation can be reset again, whatever was committed in between.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::reset_repeats_after_a_late_commit(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn reset_repeats_after_a_late_commit(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(100, 100)).await;
    let Scene { quotas, alice, .. } = &scene;
    let held = quotas.reserve(alice, [("queries", 10), ("rows", 10)]).await.unwrap().detach();
    quotas.reset_all(alice).await.unwrap();
    quotas.commit(&held, [("queries", 4), ("rows", 4)]).await.unwrap();
    quotas.charge(alice, [("queries", 1), ("rows", 1)]).await.unwrap();
    for _ in 0..2 {
        quotas.reset_all(alice).await.unwrap();
        assert_eq!(scene.counts(alice).await, [(0, 0), (0, 0)]);
    }
}

/// A grant or reset that names no limit of the plan, or a grant that has ended, is refused with its reason and changes
/// nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::what_cannot_be_is_said_in_words(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn what_cannot_be_is_said_in_words(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    let now = wall(&Clock::system());
    scene.record(alice, ("queries", 5)).await;
    for error in [
        quotas.reset(alice, "querys").await.unwrap_err(),
        quotas.grant(alice, Grant::new("querys", 5, now + HOUR)).await.unwrap_err(),
    ] {
        let QuotaError::Invalid(invalid) = error else { panic!("{error}") };
        assert!(invalid.reason().contains("queries") && invalid.reason().contains("querys"), "{invalid}");
    }
    let ended = quotas.grant(alice, Grant::new("queries", 5, now - HOUR)).await;
    assert!(matches!(ended, Err(QuotaError::Invalid(_))), "{ended:?}");
    assert_eq!(scene.counts(alice).await, [(5, 0)]);
    assert!(quotas.grants(alice).await.unwrap().is_empty());
}

/// A reset sets one limit, all limits of a kind, or all limits to zero. An earlier reservation belongs to the old
/// counter.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_reset_counts_from_zero(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_reset_counts_from_zero(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(100, 100)).await;
    let Scene { quotas, alice, bob } = &scene;
    for client in [alice, bob] {
        scene.record(client, [("queries", 60), ("rows", 60)]).await;
    }
    quotas.reset(alice, "queries").await.unwrap();
    assert_eq!(scene.counts(alice).await, [(0, 0), (60, 0)]);
    let held = quotas.reserve(alice, [("queries", 30), ("rows", 30)]).await.unwrap().detach();
    quotas.reset_all(alice).await.unwrap();
    assert_eq!(scene.counts(alice).await, [(0, 0), (0, 0)]);
    quotas.commit(&held, Amounts::new()).await.unwrap();
    assert_eq!(scene.counts(alice).await, [(0, 0), (0, 0)]);
    assert_eq!(scene.counts(bob).await, [(60, 0), (60, 0)], "another's");
}

/// A reset of a client that never came is an error, creates no account, and changes no other account.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::reset_of_an_unknown_client_is_an_error(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn reset_of_an_unknown_client_is_an_error(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(10, 10)).await;
    let Scene { quotas, alice, bob } = &scene;
    scene.record(alice, ("queries", 7)).await;
    for _ in 0..2 {
        // Beside charges, with which a store may decide it at once.
        let charged = tokio::spawn({
            let (quotas, alice) = (quotas.clone(), alice.clone());
            async move { quotas.charge(&alice, ("rows", 1)).await }
        });
        let all = tokio::spawn({
            let (quotas, bob) = (quotas.clone(), bob.clone());
            async move { quotas.reset_all(&bob).await }
        });
        let reset = quotas.reset(bob, "queries").await;
        charged.await.unwrap().expect("a charge that fits");
        assert_eq!((reset, all.await.unwrap()), (Err(QuotaError::UnknownAccount), Err(QuotaError::UnknownAccount)));
        assert!(matches!(quotas.reset(bob, "querys").await, Err(QuotaError::Invalid(_))));
        assert_eq!(quotas.usage_page(None, 10).await.unwrap().clients.len(), 1);
    }
    assert_eq!(scene.counts(alice).await, [(7, 0), (2, 0)]);
    scene.record(bob, ("queries", 7)).await;
    quotas.reset(bob, "queries").await.unwrap();
    quotas.reset_all(bob).await.unwrap();
    assert_eq!(scene.counts(bob).await, [(0, 0), (0, 0)]);
}

/// A grant to a client that never came creates its account, is listed, and raises the limit from the first request on.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::grant_comes_before_the_first_request(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn grant_comes_before_the_first_request(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, bob } = &scene;
    assert_eq!(quotas.revoke(bob, GrantId(1)).await, Ok(false), "nothing was granted");
    let id = quotas.grant(alice, Grant::new("queries", 5, wall(&Clock::system()) + HOUR)).await.unwrap();
    let listed: Vec<_> = quotas.grants(alice).await.unwrap().iter().map(|given| given.id).collect();
    assert_eq!(listed, [id]);
    let page = quotas.usage_page(None, 10).await.unwrap().clients;
    let listed: Vec<_> = page.iter().map(|(client, usage)| (client, usage.limits[0].limit)).collect();
    assert_eq!(listed, [(alice, 15)]);
    quotas.charge(alice, ("queries", 15)).await.unwrap();
    assert!(quotas.charge(alice, ("queries", 1)).await.is_err());
}
