//! A quota around any async function.

use tokio::sync::oneshot;

use super::*;

fn two_at_a_time() -> Scene {
    Scene::new(queries(100).limit(Quota::concurrent(2)))
}

#[tokio::test]
async fn refused_work_is_never_polled() {
    let scene = Scene::new(queries(10));
    let rows = scene.quotas.run(&alice(), ("queries", 10), async { 42 }).await.unwrap();
    assert_eq!(rows, 42);
    let refusal = scene.quotas.run(&alice(), ("queries", 1), async { panic!("polled") }).await.unwrap_err();
    assert_eq!(violated(&refusal), (Kind::from("queries"), 10, 10));
}

#[tokio::test]
async fn work_without_a_client_is_the_anonymous_clients() {
    let scene = Scene::new(queries(10));
    scene.quotas.run(None, ("queries", 4), async {}).await.unwrap();
    let anonymous = scene.quotas.anonymous();
    assert_eq!(name(&anonymous), "anonymous");
    assert_eq!(scene.limit(&anonymous, "queries_per_hour").await.used, 4);
}

#[tokio::test]
async fn slot_returns_however_the_work_ends() {
    let scene = two_at_a_time();
    let alice = alice();
    let failed = scene.quotas.run(&alice, ("queries", 1), async { Err::<(), _>("no connection") }).await;
    assert_eq!(failed.unwrap(), Err("no connection"), "its error is its own");
    for _ in 0..3 {
        let quotas = scene.quotas.clone();
        let task =
            tokio::spawn(async move { quotas.run(&super::alice(), ("queries", 1), async { panic!("mid-way") }).await });
        assert!(task.await.unwrap_err().is_panic());
    }
    for _ in 0..3 {
        let work = scene.quotas.run(&alice, ("queries", 1), std::future::pending::<()>());
        let mut work = Box::pin(work);
        assert!(futures_util::poll!(&mut work).is_pending());
        assert_eq!(scene.limit(&alice, "concurrent_requests").await.used, 1);
        drop(work);
    }
    let usage = scene.quotas.usage(&alice).await.unwrap();
    assert_eq!(usage.get("concurrent_requests").unwrap().used, 0);
    assert_eq!(usage.get("queries_per_hour").unwrap().used, 7, "work that was begun is charged");
}

#[tokio::test]
async fn concurrency_limit_bounds_running_work() {
    let scene = two_at_a_time();
    let mut ends = Vec::new();
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let (end, ended) = oneshot::channel::<()>();
        let quotas = scene.quotas.clone();
        tasks.push(tokio::spawn(async move { quotas.run(&alice(), ("queries", 1), ended).await.unwrap() }));
        ends.push(end);
        tokio::task::yield_now().await;
    }
    let refusal = scene.quotas.run(&alice(), ("queries", 1), async {}).await.unwrap_err();
    assert_eq!(violated(&refusal), (Kind::Concurrent, 2, 2));
    assert_eq!(scene.limit(&alice(), "queries_per_hour").await.used, 2, "a refusal is free");
    ends.pop().unwrap().send(()).unwrap();
    tasks.pop().unwrap().await.unwrap().unwrap();
    scene.quotas.run(&alice(), ("queries", 1), async {}).await.unwrap();
}

#[tokio::test]
async fn unpolled_work_is_not_charged() {
    let scene = two_at_a_time();
    drop(scene.quotas.run(&alice(), ("queries", 5), async {}));
    assert_eq!(scene.limit(&alice(), "queries_per_hour").await.used, 0);
}
