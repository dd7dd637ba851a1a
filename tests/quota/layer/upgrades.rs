//! Connections that outlive their response keep their concurrency slot and their records.

use super::*;

use std::sync::Mutex;

use super::scene::serve;
use tollgate::quota::KeptSlot;

type Tasks = Arc<Mutex<Vec<(Charge, KeptSlot)>>>;

/// A layer with one place, and the number of its reports of upgrades without a slot.
fn scene(share: bool) -> (Scene, Log) {
    let log = Log::default();
    let hears = log.clone();
    let plan = hourly(9).limit(Quota::concurrent(1)).limit(Quota::units("messages", 100).per(Period::hour()));
    let scene = Scene::new(plan, |layer| {
        let layer = if share { layer.share_with_handler() } else { layer };
        layer.job_ids(JobIdSource::header("x-job-id")).observe(move |event: &Event<'_>| {
            if let Event::UpgradeReleasedSlot { policy } = event {
                hears.push(policy.to_string());
            }
        })
    });
    (scene, log)
}

/// Answers with this status. With `tasks`, a task holds the slot.
async fn upgrade(scene: &Scene, request: Request<Full<Bytes>>, status: u16, tasks: Option<&Tasks>) -> u16 {
    let tasks = tasks.cloned();
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        if let Some(tasks) = &tasks {
            let charge = request.extensions().get::<Charge>().unwrap();
            tasks.lock().unwrap().push((charge.clone(), charge.keep_slot()));
        }
        let answer = Response::builder().status(status).body(Full::<Bytes>::default()).unwrap();
        async { Ok::<_, Infallible>(answer) }
    });
    scene.layer.layer(handler).oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn kept_slot_is_held_to_the_end_of_the_connection() {
    let ((scene, log), tasks) = (scene(true), Tasks::default());
    assert_eq!(upgrade(&scene, by("alice", "/"), 101, Some(&tasks)).await, 101);
    assert_eq!(scene.used("concurrent_requests").await, 1);
    assert_eq!(upgrade(&scene, by("alice", "/"), 101, Some(&tasks)).await, 429);
    let (charge, slot) = tasks.lock().unwrap().pop().unwrap();
    assert!(charge.record("messages", 3) && charge.record("messages", 4));
    let second = charge.keep_slot();
    drop(slot);
    assert_eq!((scene.used("concurrent_requests").await, scene.used("messages_per_hour").await), (1, 0), "one is left");
    drop(second);
    assert_eq!((scene.used("concurrent_requests").await, scene.used("messages_per_hour").await), (0, 7));
    assert!(!charge.record("messages", 1), "settled");
    drop(charge.keep_slot());
    assert_eq!((scene.used("requests_per_hour").await, scene.reserved("requests_per_hour").await), (1, 0));
    assert_eq!(upgrade(&scene, by("alice", "/"), 101, Some(&tasks)).await, 101);
    assert!(log.lines().is_empty());
}

#[tokio::test]
async fn record_after_an_uncharged_response_is_charged() {
    let (plan, tasks) = (hourly(9).limit(Quota::units("messages", 100).per(Period::hour())), Tasks::default());
    let scene = Scene::new(plan, |layer| {
        let layer = layer.share_with_handler().job_ids(JobIdSource::header("x-job-id"));
        layer.charge_when(|served| served.status.is_some_and(|status| status.is_success()))
    });
    for (id, status, recorded) in [("7", 101, Some(3)), ("8", 500, Some(4)), ("9", 101, None)] {
        assert_eq!(upgrade(&scene, job(id, "/"), status, Some(&tasks)).await, status);
        let (charge, _slot) = tasks.lock().unwrap().pop().unwrap();
        assert!(recorded.is_none_or(|messages| charge.record("messages", messages)));
    }
    assert_eq!((scene.used("requests_per_hour").await, scene.used("messages_per_hour").await), (2, 7));
    for (id, status) in [("7", 409), ("8", 409), ("9", 200)] {
        assert_eq!(upgrade(&scene, job(id, "/"), 200, None).await, status, "job {id}");
    }
}

#[tokio::test]
async fn upgrade_without_a_kept_slot_is_reported() {
    for (method, status, reported) in
        [("GET", 101, true), ("CONNECT", 200, true), ("GET", 200, false), ("CONNECT", 404, false)]
    {
        for share in [false, true] {
            let (scene, log) = scene(share);
            let mut request = by("alice", "/");
            *request.method_mut() = method.parse().unwrap();
            assert_eq!(upgrade(&scene, request, status, None).await, status);
            assert_eq!(scene.used("concurrent_requests").await, 0);
            assert_eq!(log.lines().len(), usize::from(reported), "{method} {status}");
        }
    }
}

#[tokio::test]
async fn guard_dropped_before_the_end_keeps_nothing() {
    let (scene, _) = scene(true);
    let handler = service_fn(|request: Request<Full<Bytes>>| {
        drop(request.extensions().get::<Charge>().unwrap().keep_slot());
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
    });
    let answer = scene.layer.layer(handler).oneshot(by("alice", "/")).await.unwrap();
    drop(answer);
    assert_eq!(scene.used("concurrent_requests").await, 0);
}

#[tokio::test]
async fn kept_job_runs_until_the_guard_is_dropped() {
    let ((scene, _), tasks) = (scene(true), Tasks::default());
    assert_eq!(upgrade(&scene, job("7", "/"), 101, Some(&tasks)).await, 101);
    assert_eq!(upgrade(&scene, job("7", "/"), 101, None).await, 409, "it runs");
    tasks.lock().unwrap().clear();
    assert_eq!(scene.used("requests_per_hour").await, 1);
    assert_eq!(upgrade(&scene, job("7", "/"), 101, None).await, 409, "done");
}

#[tokio::test]
async fn guard_keeps_the_slots_of_all_layers() {
    let ((outer, _), (inner, _), tasks) = (scene(true), scene(true), Tasks::default());
    let held = Arc::clone(&tasks);
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let charge = request.extensions().get::<Charge>().unwrap();
        held.lock().unwrap().push((charge.clone(), charge.keep_slot()));
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
    });
    let stack = ServiceBuilder::new().layer(outer.layer.clone()).layer(inner.layer.clone()).service(handler);
    drop(stack.oneshot(by("alice", "/")).await.unwrap());
    for expected in [1, 0] {
        assert_eq!(outer.used("concurrent_requests").await, expected);
        assert_eq!(inner.used("concurrent_requests").await, expected);
        tasks.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn kept_slot_outlives_max_stall_and_not_max_hold() {
    let second = Duration::from_secs(1);
    let plan = Plan::new("free").limit(Quota::concurrent(1));
    let scene = Scene::new(plan, |layer| layer.share_with_handler().max_hold(second * 600).max_stall(second * 5));
    let held = Tasks::default();
    let tasks = Arc::clone(&held);
    let stream = scene.layer.layer(service_fn(move |request: Request<Full<Bytes>>| {
        let charge = request.extensions().get::<Charge>().unwrap();
        tasks.lock().unwrap().push((charge.clone(), charge.keep_slot()));
        serve(request)
    }));
    let mut body = Box::pin(stream.oneshot(by("alice", "/stream/3")).await.unwrap().into_body());
    for _ in 0..3 {
        scene.clock.advance(second * 4);
        body.frame().await.unwrap().unwrap();
    }
    assert!(body.frame().await.is_none());
    drop(body);
    scene.clock.advance(second * 588);
    assert_eq!(scene.get("/").await.status, 429, "held for 600 s");
    scene.clock.advance(second);
    assert_eq!(scene.get("/").await.status, 200, "overdue");
    assert_eq!(scene.log.lines(), ["reclaimed"]);
    held.lock().unwrap().clear();
    assert_eq!(scene.used("concurrent_requests").await, 0);
}

#[tokio::test]
async fn stalled_reader_loses_its_slot_in_spite_of_a_guard() {
    let second = Duration::from_secs(1);
    let plan = Plan::new("free").limit(Quota::concurrent(1));
    let scene = Scene::new(plan, |layer| layer.share_with_handler().max_stall(second * 5));
    let held = Tasks::default();
    let tasks = Arc::clone(&held);
    let stream = scene.layer.layer(service_fn(move |request: Request<Full<Bytes>>| {
        let charge = request.extensions().get::<Charge>().unwrap();
        tasks.lock().unwrap().push((charge.clone(), charge.keep_slot()));
        serve(request)
    }));
    let stuck = stream.oneshot(by("alice", "/stream/3")).await.unwrap();
    scene.clock.advance(second * 6);
    assert_eq!(scene.get("/").await.status, 200, "its response has not ended");
    drop(stuck);
}

#[tokio::test]
async fn idle_guard_has_no_effect() {
    drop(Charge::default().keep_slot());
}
