//! Release of a concurrency slot at every end of a request.

use super::*;

fn scene() -> Scene {
    Scene::new(Plan::new("free").limit(Quota::concurrent(1)), |layer| layer.max_hold(SECOND * 60).max_stall(SECOND * 5))
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn slot_returns_after_every_outcome() {
    let scene = scene();
    for round in 0..3 {
        for path in ["/", "/error", "/status/500", "/stream/3", "/broken/3", "/bytes/100000"] {
            scene.get(path).await;
            assert_eq!(scene.used("concurrent_requests").await, 0, "{path}, round {round}");
        }
        let service = scene.service();
        assert!(tokio::spawn(async move { drop(service.oneshot(by("alice", "/panic")).await) }).await.is_err());
        assert_eq!(scene.used("concurrent_requests").await, 0, "panic");
        drop(scene.service().oneshot(by("alice", "/stream/3")).await.unwrap());
        assert_eq!(scene.used("concurrent_requests").await, 0, "gone after the head");
    }
}

#[tokio::test]
async fn slot_is_held_to_the_end_of_the_body() {
    let scene = scene();
    let mut body = Box::pin(scene.service().oneshot(by("alice", "/stream/3")).await.unwrap().into_body());
    for _ in 0..3 {
        assert_eq!(scene.get("/").await.status, 429);
        body.frame().await.unwrap().unwrap();
    }
    assert!(body.frame().await.is_none());
    assert_eq!(scene.get("/").await.status, 200);
}

#[tokio::test]
async fn stalled_reader_loses_its_slot_and_frees_it_once() {
    let scene = scene();
    let stuck = scene.service().oneshot(by("alice", "/stream/3")).await.unwrap();
    scene.clock.advance(SECOND * 5);
    assert_eq!(scene.get("/").await.status, 429, "not overdue yet");
    scene.clock.advance(SECOND);
    let next = scene.service().oneshot(by("alice", "/stream/3")).await.unwrap();
    assert_eq!(next.status(), 200);
    assert_eq!(scene.log.lines(), ["reclaimed"]);
    drop(stuck);
    assert_eq!(scene.get("/").await.status, 429, "the slot is the next request's");
    drop(next);
    assert_eq!(scene.get("/").await.status, 200);
}

#[tokio::test]
async fn max_hold_bounds_a_working_handler() {
    let scene = scene();
    let mut working = Box::pin(scene.service().oneshot(by("alice", "/never")));
    assert!(futures_util::poll!(&mut working).is_pending());
    scene.clock.advance(SECOND * 60);
    assert_eq!(scene.get("/").await.status, 429, "no progress is expected before the head");
    scene.clock.advance(SECOND);
    assert_eq!(scene.get("/").await.status, 200);
}

#[tokio::test]
async fn slow_reader_keeps_its_slot() {
    let scene = scene();
    let mut body = Box::pin(scene.service().oneshot(by("alice", "/stream/9")).await.unwrap().into_body());
    for _ in 0..9 {
        scene.clock.advance(SECOND * 3);
        body.frame().await.unwrap().unwrap();
        assert_eq!(scene.get("/").await.status, 429);
    }
}

#[tokio::test]
async fn concurrency_refusal_has_no_reset_time() {
    let scene = scene();
    let held = scene.service().oneshot(by("alice", "/stream/3")).await.unwrap();
    assert_eq!(held.headers()["ratelimit"], r#""concurrent_requests";r=0"#);
    assert!(held.headers().get("retry-after").is_none());
    let refused = scene.get("/").await;
    assert_eq!(refused.field("ratelimit"), r#""concurrent_requests";r=0"#);
    assert_eq!(refused.field("retry-after"), "1");
}
