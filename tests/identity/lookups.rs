//! Tables of keys, in memory and awaited.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, RwLock},
};

use arc_swap::ArcSwap;
use http::{Request, Response};
use tollgate::{Lookup, Principal, Rate, TokenBucketLayer, Verified, identity::LookupLayer};
use tower::{ServiceBuilder, ServiceExt, service_fn};

#[test]
fn maps_and_tables_that_are_replaced_are_tables() {
    let alice = || Principal::named("alice");
    let shared = Arc::new(RwLock::new(HashMap::from([("k-1", alice())])));
    let swapped = Arc::new(ArcSwap::from_pointee(BTreeMap::from([(Box::<str>::from("k-1"), alice())])));
    let tables: [(Box<dyn Lookup>, bool); 4] = [
        (Box::new(HashMap::from([(Arc::<str>::from("k-1"), alice())])), true),
        (Box::new(BTreeMap::from([("k-1", alice())])), true),
        (Box::new(Arc::clone(&shared)), false),
        (Box::new(Arc::clone(&swapped)), false),
    ];
    for (table, named) in &tables {
        assert_eq!((table.look_up("k-1"), table.look_up("k-2")), (Some(alice()), None));
        assert_eq!(table.is_all_named(), *named);
    }
    shared.write().unwrap().insert("k-2", Principal::unnamed());
    swapped.store(Arc::new(BTreeMap::new()));
    assert_eq!(tables[2].0.look_up("k-2"), Some(Principal::unnamed()));
    assert_eq!(tables[3].0.look_up("k-1"), None);
}

#[tokio::test]
async fn awaited_principal_reaches_the_limit() {
    let table = |key: String| async move {
        tokio::task::yield_now().await;
        key.strip_prefix("k-").map(|name| Principal::named(name.to_owned()))
    };
    let keys = LookupLayer::bearer(table);
    let limit = TokenBucketLayer::new(Rate::per_hour(1)).identify_by(keys.identity());
    let service = ServiceBuilder::new().layer(keys.clone()).layer(limit);
    let service =
        service.service(service_fn(|_: Request<String>| async { Ok::<_, Infallible>(Response::new(String::new())) }));
    let ask = async |token: &str| {
        let request =
            Request::builder().header("authorization", format!("Bearer {token}")).body(String::new()).unwrap();
        service.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!([ask("k-alice").await, ask("k-alice").await, ask("k-bob").await], [200, 429, 200]);
    assert_eq!(ask("guessed").await, 401, "neither a principal nor another identity");
    assert_eq!(service.clone().oneshot(Request::new(String::new())).await.unwrap().status(), 401);

    let inside = TokenBucketLayer::new(Rate::per_hour(1)).identify_by(Verified::principal());
    let hello = service_fn(|_: Request<String>| async { Ok::<_, Infallible>(Response::new(String::new())) });
    let service = ServiceBuilder::new().layer(inside).layer(keys).service(hello);
    assert_eq!(service.oneshot(Request::new(String::new())).await.unwrap().status(), 500, "the order is wrong");
}
