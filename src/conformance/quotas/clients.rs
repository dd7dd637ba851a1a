//! Accounts of different clients are separate.

use http::Request;

use super::{HOUR, Scene, Tenant, queries, two_limits};
use crate::{
    head::RequestHead,
    identity::Client,
    quota::{Quota, QuotaLayer, Quotas},
    time::Period,
};

/// A charge, reservation, record or refusal of one client is not seen in the account of another.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::two_clients_never_meet(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn two_clients_never_meet(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, bob } = &scene;
    quotas.charge(alice, ("queries", 10)).await.unwrap();
    assert!(quotas.charge(alice, ("queries", 1)).await.is_err());
    assert_eq!(scene.counts(bob).await, [(0, 0)]);
    let held = quotas.reserve(bob, ("queries", 10)).await.unwrap().detach();
    assert_eq!((scene.counts(alice).await, scene.counts(bob).await), (vec![(10, 0)], vec![(0, 10)]));
    quotas.reset_all(alice).await.unwrap();
    assert_eq!((scene.counts(alice).await, scene.counts(bob).await), (vec![(0, 0)], vec![(0, 10)]));
    scene.record(alice, ("queries", 3)).await;
    quotas.commit(&held, ("queries", 7)).await.unwrap();
    assert_eq!((scene.counts(alice).await, scene.counts(bob).await), (vec![(3, 0)], vec![(7, 0)]));
}

/// A read changes nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::looking_changes_nothing(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn looking_changes_nothing(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(10, 10)).await;
    let Scene { quotas, alice, bob } = &scene;
    scene.record(alice, ("queries", 7)).await;
    let request = Request::get("/").extension(Tenant("alice")).body(()).expect("a request");
    for asked in [0, 1, 3, 4, u64::MAX] {
        for _ in 0..3 {
            assert_eq!(quotas.check(alice, ("queries", asked)).await.is_ok(), asked <= 3, "{asked}");
            assert!(quotas.check(bob, ("queries", asked)).await.is_ok() == (asked <= 10), "{asked}");
        }
        let explained = quotas.explain(&RequestHead::of(&request)).await.unwrap();
        assert_eq!(explained.client.as_ref(), Some(alice));
        let used: Vec<_> = explained.limits.iter().map(|limit| (limit.usage.used, limit.passes)).collect();
        assert_eq!((used, explained.refusal), (vec![(7, true), (0, true)], None));
        assert_eq!(scene.counts(alice).await, [(7, 0), (0, 0)]);
        assert_eq!(scene.counts(bob).await, [(0, 0), (0, 0)]);
    }
    scene.record(alice, ("queries", 3)).await;
    let explained = quotas.explain(&RequestHead::of(&request)).await.unwrap();
    let passes: Vec<_> = explained.limits.iter().map(|limit| limit.passes).collect();
    assert_eq!((passes, explained.refusal.is_some()), (vec![false, true], true));
}

/// A client that is known by its name alone has the tier under which it was charged last. A read under another tier
/// does not change that.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::tier_is_the_one_of_the_last_charge(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn tier_is_the_one_of_the_last_charge(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let pro = queries(100).limit(Quota::units("rows", 9).per(Period::rolling(HOUR * 12)).named("rows"));
    let scene = Scene::of(make, QuotaLayer::new(queries(10)).tier_plan("pro", pro)).await;
    let Scene { quotas, alice, bob } = &scene;
    let tier = |client: &Client, tier: &str| client.clone().with_tier(tier);
    for client in [alice, bob] {
        quotas.charge(&tier(client, "pro"), ("queries", 8)).await.unwrap();
    }
    quotas.charge(alice, ("queries", 30)).await.unwrap();
    quotas.charge(&tier(bob, "free"), ("queries", 1)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(scene.counts(&tier(alice, "free")).await, [(38, 0)]);
        assert!(quotas.check(&tier(alice, "free"), ("queries", 0)).await.is_err());
        assert_eq!(scene.counts(alice).await, [(38, 0), (0, 0)], "it is in tier pro");
        assert_eq!(scene.counts(bob).await, [(9, 0)], "it is not any more");
        assert!(quotas.charge(bob, ("queries", 2)).await.is_err());
        let page = quotas.usage_page(None, 10).await.unwrap();
        let mut limits: Vec<_> = page.clients.iter().map(|(_, usage)| usage.limits[0].limit).collect();
        limits.sort_unstable();
        assert_eq!(limits, [10, 100]);
    }
    quotas.reset(alice, "rows").await.expect("a limit of tier pro");
}

/// Page by page, each client is listed once, with its usage.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::every_client_is_listed_once(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn every_client_is_listed_once(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(1_000)).await;
    let page = scene.quotas.usage_page(None, 10).await.unwrap();
    assert!(page.clients.is_empty() && page.next.is_none(), "no client has an account yet");
    let name = |number: u64| format!("client {number:02}");
    for number in 0..50 {
        scene.record(&Client::named(name(number)), ("queries", number + 1)).await;
    }
    for most in [1, 7, 50, 1_000] {
        let (mut from, mut seen) = (None, Vec::new());
        loop {
            let page = scene.quotas.usage_page(from, most).await.unwrap();
            assert!(page.clients.len() <= most, "{} in a page of {most}", page.clients.len());
            seen.extend(page.clients.iter().map(|(client, usage)| {
                (client.name().map(ToString::to_string).unwrap_or_default(), usage.get("queries").unwrap().used)
            }));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        seen.sort();
        assert_eq!(seen, (0..50).map(|number| (name(number), number + 1)).collect::<Vec<_>>(), "in pages of {most}");
    }
}
