//! Credits: amounts given back after the fact.

use super::{MOST, Scene, at_once, queries, two_limits};
use crate::{
    kind::Kind,
    quota::{Amounts, Credited, Quota, QuotaError, QuotaLayer, Quotas},
    time::Period,
};

fn stands(kind: &str, amount: u64, already: bool) -> Result<Credited, QuotaError> {
    Ok(Credited { kind: Kind::from(kind), amount, already })
}

/// A credit gives back once for each id of a client, on all limits of its kind, and returns what stands.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::credit_gives_back_once(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn credit_gives_back_once(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let week = Quota::units("queries", 100).per(Period::rolling(super::HOUR * 168)).named("weekly");
    let scene = Scene::new(make, two_limits(20, 100).limit(week)).await;
    let Scene { quotas, alice, bob } = &scene;
    for client in [alice, bob] {
        quotas.charge(client, [("queries", 20), ("rows", 9)]).await.unwrap();
    }
    assert!(quotas.charge(alice, ("queries", 1)).await.is_err());
    assert_eq!(quotas.credit(alice, "7", "queries", 5, "garbled").await, stands("queries", 5, false));
    for (kind, amount) in [("queries", 5), ("queries", 6), ("rows", 1)] {
        assert_eq!(quotas.credit(alice, "7", kind, amount, "again").await, stands("queries", 5, true));
    }
    assert_eq!(scene.counts(alice).await, [(15, 0), (9, 0), (15, 0)]);
    assert_eq!(scene.counts(bob).await, [(20, 0), (9, 0), (20, 0)], "another's");
    quotas.charge(alice, ("queries", 5)).await.unwrap();
    assert_eq!(quotas.credit(bob, "7", "rows", 2, "").await, stands("rows", 2, false), "ids are of one client");
    assert_eq!(quotas.credit(alice, "8", "queries", 5, "").await, stands("queries", 5, false));
    assert_eq!(scene.counts(alice).await, [(15, 0), (9, 0), (15, 0)]);
    assert_eq!(scene.counts(bob).await, [(20, 0), (7, 0), (20, 0)]);
}

/// A credit is at most what is used: it takes nothing that is reserved, and no counter goes below 0. One of 0 has taken
/// its id. Where limits of a kind differ, the one that gave back most counts.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::credit_is_at_most_what_was_used(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn credit_is_at_most_what_was_used(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(100, 100)).await;
    let Scene { quotas, alice, .. } = &scene;
    let held = quotas.reserve(alice, ("queries", 30)).await.unwrap().detach();
    assert_eq!(quotas.credit(alice, "early", "queries", 5, "").await, stands("queries", 0, false));
    assert_eq!(quotas.credit(alice, "rows", "rows", 5, "").await, stands("rows", 0, false));
    quotas.charge(alice, ("queries", 10)).await.unwrap();
    assert_eq!(quotas.credit(alice, "most", "queries", MOST, "").await, stands("queries", 10, false));
    assert_eq!(scene.counts(alice).await, [(0, 30), (0, 0)]);
    quotas.commit(&held, Amounts::new()).await.unwrap();
    assert_eq!(quotas.credit(alice, "early", "queries", 5, "").await, stands("queries", 0, true));
    assert_eq!(quotas.credit(alice, "late", "queries", 5, "").await, stands("queries", 5, false));
    assert_eq!(scene.counts(alice).await, [(25, 0), (0, 0)]);
    // The second limit has counted less than the first.
    let day = Quota::units("queries", 100).per(Period::rolling(super::HOUR * 24)).named("daily");
    quotas.set_plan(queries(100).limit(day)).unwrap();
    quotas.charge(alice, ("queries", 3)).await.unwrap();
    assert_eq!(scene.counts(alice).await, [(28, 0), (3, 0)]);
    assert_eq!(quotas.credit(alice, "two", "queries", 8, "").await, stands("queries", 8, false));
    assert_eq!(scene.counts(alice).await, [(20, 0), (0, 0)]);
    quotas.reset_all(alice).await.unwrap();
    assert_eq!(quotas.credit(alice, "reset", "queries", 8, "").await, stands("queries", 0, false));
}

/// A credit needs an account, a kind that some plan counts, and valid values; else it is an error that changes nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::invalid_credit_is_an_error(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn invalid_credit_is_an_error(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let layer = QuotaLayer::new(queries(10)).tier_plan("pro", two_limits(10, 10));
    let scene = Scene::of(make, layer).await;
    let Scene { quotas, alice, bob } = &scene;
    scene.record(alice, ("queries", 7)).await;
    assert_eq!(quotas.credit(bob, "7", "queries", 1, "").await, Err(QuotaError::UnknownAccount));
    for (id, kind, amount, reason) in [
        ("7", "querys", 1, ""),
        ("7", "concurrent_requests", 1, ""),
        ("", "queries", 1, ""),
        ("7\t", "queries", 1, ""),
        ("7", "queries", 0, ""),
        ("7", "queries", u64::MAX, ""),
        ("7", "queries", 1, "\0"),
    ] {
        let error = quotas.credit(alice, id, kind, amount, reason).await.unwrap_err();
        let QuotaError::Invalid(invalid) = error else { panic!("{error}") };
        assert!(invalid.reason().contains(" must be "), "{invalid}");
    }
    assert_eq!(quotas.usage_page(None, 10).await.unwrap().clients.len(), 1);
    assert_eq!(quotas.credit(alice, "rows", "rows", 1, "").await, stands("rows", 0, false), "another plan counts them");
    assert_eq!(quotas.credit(alice, "7", "queries", 7, "~ \u{e4}").await, stands("queries", 7, false));
    scene.record(bob, ("queries", 7)).await;
    assert_eq!(quotas.credit(bob, "7", "queries", 1, "").await, stands("queries", 1, false));
}

/// If many callers credit under one id at once, one of them does, and all learn what stands. A job of that id is another
/// thing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::many_at_once_credit_once(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn many_at_once_credit_once(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(1_000)).await;
    scene.record(&scene.alice, ("queries", 500)).await;
    for round in 1..=10_u64 {
        let id = format!("ticket {round}");
        let credited = at_once(8, |number| {
            let (quotas, alice, id) = (scene.quotas.clone(), scene.alice.clone(), id.clone());
            async move {
                if number == 7 {
                    quotas.run_job(&alice, &id, ("queries", 1), async {}).await.expect("a job of its own");
                    return false;
                }
                let credited = quotas.credit(&alice, &id, "queries", 10, "").await.expect("a credit");
                assert_eq!(credited.amount, 10);
                !credited.already
            }
        });
        assert_eq!(credited.await, 1, "in round {round}");
        assert_eq!(scene.counts(&scene.alice).await, [(500 + round - 10 * round, 0)], "in round {round}");
    }
}
