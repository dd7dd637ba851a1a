//! Amounts at and beyond the largest countable one: the same verdict everywhere, and no panic.

use super::*;

const MOST: u64 = (1 << 53) - 1;
const ODD: [u64; 6] = [0, 1, MOST, 1 << 53, (1 << 53) + 1, u64::MAX];

#[tokio::test]
async fn no_amount_fits_by_wrapping() {
    for used in [1, 5, 10] {
        let scene = Scene::new(queries(10));
        scene.quotas.record(&alice(), ("queries", used)).await.unwrap();
        for asked in [11, MOST, 1 << 53, u64::MAX - used, u64::MAX - used + 1, u64::MAX - 1, u64::MAX] {
            assert!(scene.quotas.check(&alice(), ("queries", asked)).await.is_err(), "{asked} after {used}");
            assert!(scene.quotas.charge(&alice(), ("queries", asked)).await.is_err(), "{asked} after {used}");
            assert!(scene.quotas.reserve(&alice(), ("queries", asked)).await.is_err(), "{asked} after {used}");
        }
        assert_eq!(scene.limit(&alice(), "queries_per_hour").await.used, used);
    }
}

#[tokio::test]
async fn records_settlements_and_grants_never_wrap() {
    for first in ODD {
        for second in ODD {
            let scene = Scene::new(queries(10));
            let mut sum = 0;
            for amount in [first, second] {
                let fits = amount <= MOST - sum;
                assert_eq!(scene.quotas.record(&alice(), ("queries", amount)).await.is_ok(), fits, "{amount} on {sum}");
                sum += if fits { amount } else { 0 };
            }
            let used = scene.limit(&alice(), "queries_per_hour").await.used;
            assert_eq!(used, sum, "{first} and {second}");
            assert_eq!(scene.quotas.check(&alice(), ("queries", 0)).await.is_ok(), used < 10);

            let held = scene.quotas.reserve(&bob(), ("queries", 1)).await.unwrap();
            held.commit(("queries", first));
            assert_eq!(scene.limit(&bob(), "queries_per_hour").await.used, first.min(MOST));
        }
    }
    let scene = Scene::new(queries(MOST));
    for _ in 0..3 {
        let grant = tollgate::Grant::new("queries_per_hour", MOST, scene.wall() + DAY);
        scene.quotas.grant(&alice(), grant).await.unwrap();
    }
    scene.quotas.record(&alice(), ("queries", MOST)).await.unwrap();
    let hour = scene.limit(&alice(), "queries_per_hour").await;
    assert_eq!(hour.used, MOST);
    assert_eq!(hour.limit, MOST, "no grant raises a limit beyond a counter");
    assert!(scene.quotas.charge(&alice(), ("queries", 1)).await.is_err());
}

#[tokio::test]
async fn amount_that_a_settlement_cuts_is_reported() {
    use std::sync::{Arc, Mutex};
    let cut = Arc::<Mutex<Vec<(String, u64)>>>::default();
    let heard = Arc::clone(&cut);
    let observer = move |event: &tollgate::Event<'_>| {
        if let tollgate::Event::AmountCut { kind, amount, .. } = event {
            heard.lock().unwrap().push(((*kind).to_owned(), *amount));
        }
    };
    let quotas = tollgate::QuotaLayer::new(queries(10)).observe(observer).handle();
    let used = async || quotas.usage(&alice()).await.unwrap().limits[0].used;
    quotas.reserve(&alice(), ("queries", 1)).await.unwrap().commit(("queries", 4));
    assert!(cut.lock().unwrap().is_empty());
    quotas.reserve(&alice(), ("queries", 1)).await.unwrap().commit([("queries", 1 << 53), ("requests", MOST)]);
    assert_eq!(used().await, MOST, "charged as far as the counter goes, above the 4 before");
    let mut held = quotas.reserve(&bob(), ("queries", 1)).await.unwrap();
    held.record("queries", u64::MAX);
    drop(held);
    let expected = [5, u64::MAX - MOST].map(|amount| ("queries".to_owned(), amount));
    assert_eq!(*cut.lock().unwrap(), expected);
}

#[tokio::test]
async fn sum_of_a_repeated_kind_never_wraps() {
    let scene = Scene::new(queries(10));
    assert!(scene.quotas.charge(&alice(), [("queries", u64::MAX), ("queries", 2)]).await.is_err());
}
