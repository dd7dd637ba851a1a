//! Classification of results as failures, and its time.

use super::*;

#[tokio::test]
async fn errors_panics_and_5xx_count_but_4xx_do_not() {
    for (deed, opens) in [
        (Deed::Status(500), true),
        (Deed::Status(503), true),
        (Deed::Status(599), true),
        (Deed::Error, true),
        (Deed::Status(400), false),
        (Deed::Status(404), false),
        (Deed::Status(408), true),
        (Deed::Status(429), false),
        (Deed::Status(304), false),
    ] {
        let scene = Scene::new(three());
        scene.upstream.does(deed.clone());
        for _ in 0..3 {
            scene.get().await;
        }
        assert_eq!(scene.state() == CircuitState::Open, opens, "{deed:?}");
    }
    let scene = Scene::new(three());
    scene.upstream.does(Deed::Panic);
    for _ in 0..3 {
        let future = scene.service.clone().oneshot(get("/"));
        assert!(tokio::spawn(future).await.is_err());
    }
    assert_eq!(scene.state(), CircuitState::Open);
}

#[tokio::test]
async fn status_429_counts_when_configured() {
    let scene = Scene::new(three().count_rate_limits());
    scene.upstream.does(Deed::Status(429));
    for _ in 0..3 {
        scene.get().await;
    }
    assert_eq!(scene.state(), CircuitState::Open);
}

#[tokio::test]
async fn status_429_for_one_client_opens_no_circuit() {
    let scene =
        Scene::new(CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::failure_rate(0.5).or(Trip::consecutive(5))));
    scene.upstream.does(Deed::Status(429));
    for _ in 0..1_000 {
        scene.get().await;
    }
    assert_eq!((scene.state(), scene.breaker.counts().failures), (CircuitState::Closed, 0));
}

#[tokio::test]
async fn one_503_with_a_long_retry_after_is_one_failure() {
    let day = Deed::Fields(503, &[("retry-after", "86400")]);
    let scene = Scene::new(three());
    scene.upstream.does(day.clone());
    scene.get().await;
    assert_eq!((scene.state(), scene.breaker.counts().failures), (CircuitState::Closed, 1));

    let scene = Scene::new(three().honor_retry_after());
    for wait in ["86400", "99999999999999999999999", "30"] {
        scene.breaker.reset();
        let fields: &'static [(&'static str, &'static str)] = Box::leak(Box::new([("retry-after", wait)]));
        scene.upstream.does(Deed::Fields(503, fields));
        scene.get().await;
        let told = scene.refusal().await.retry_after().unwrap();
        let least = if wait == "30" { 30 } else { 60 };
        assert!((least * SECOND..=(least * SECOND * 6 / 5).min(60 * SECOND)).contains(&told), "{told:?}");
    }
}

#[tokio::test]
async fn retry_after_date_counts_from_the_date_field() {
    const SENT: (&str, &str) = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
    let scene = Scene::new(three().honor_retry_after());
    for fields in [
        &[SENT, ("retry-after", "Wed, 21 Oct 2026 07:28:40 GMT")][..],
        &[SENT, ("retry-after", "Wednesday, 21-Oct-26 07:28:40 GMT")],
        &[SENT, ("retry-after", "Wed Oct 21 07:28:40 2026")],
    ] {
        scene.breaker.reset();
        scene.upstream.does(Deed::Fields(503, fields));
        scene.get().await;
        let told = scene.refusal().await.retry_after().unwrap();
        assert!((40 * SECOND..=48 * SECOND).contains(&told), "{told:?}");
    }
    for fields in [
        &[("retry-after", "Wed, 21 Oct 2026 07:28:40 GMT")][..], // without a date, the sender's clock is unknown
        &[SENT, ("retry-after", "soon")],
        &[("date", "today"), ("retry-after", "Wed, 21 Oct 2026 07:28:40 GMT")],
    ] {
        scene.breaker.reset();
        scene.upstream.does(Deed::Fields(503, fields));
        scene.get().await;
        assert_eq!((scene.state(), scene.breaker.counts().failures), (CircuitState::Closed, 1), "{fields:?}");
    }
}

mod honoured_retry_after {
    use super::*;

    #[tokio::test]
    async fn retry_after_without_a_wait_changes_nothing() {
        const DATE: (&str, &str) = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
        for fields in [
            &[("retry-after", "0")][..],
            &[("retry-after", "00")],
            &[DATE, ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")],
            &[DATE, ("retry-after", "Wed, 21 Oct 2026 07:27:59 GMT")],
            &[DATE, ("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")],
            &[("retry-after", "-1")],
            &[("retry-after", "+1")],
            &[("retry-after", "1.5")],
            &[("retry-after", "")],
            &[("retry-after", "5, 0")],
        ] {
            let scene = Scene::new(three().honor_retry_after());
            scene.upstream.does(Deed::Fields(503, fields));
            for failures in 1..=2 {
                assert_eq!(scene.get().await, 503);
                assert_eq!(scene.state(), CircuitState::Closed, "{fields:?}");
                assert_eq!(scene.breaker.counts().failures, failures, "{fields:?}");
            }
            assert_eq!(scene.get().await, 503);
            assert_eq!(scene.state(), CircuitState::Open, "the third failure in a row");
        }
    }

    #[tokio::test]
    async fn huge_retry_after_is_capped() {
        for fields in
            [&[("retry-after", "18446744073709551615")][..], &[("retry-after", "99999999999999999999999999999999")]]
        {
            let scene = Scene::new(three().honor_retry_after());
            scene.upstream.does(Deed::Fields(503, fields));
            scene.get().await;
            assert_eq!(scene.refusal().await.retry_after(), Some(60 * SECOND), "{fields:?}");
        }
    }
}

#[tokio::test]
async fn unready_service_behind_load_shed_or_buffer_opens_circuit() {
    let shed = three();
    for _ in 0..3 {
        assert!(shed.layer(LoadShedLayer::new().layer(NeverReady)).oneshot(get("/")).await.is_err());
    }
    assert_eq!(shed.handle().state(), CircuitState::Open);

    let clock = FakeClock::new();
    let buffered = three().clock(clock.clone());
    let service = buffered.layer(Buffer::new(NeverReady, 10));
    for _ in 0..3 {
        let mut call = later(service.clone().oneshot(get("/")));
        assert!(poll(&mut call).is_pending());
        clock.advance(10 * SECOND); // the caller's time-out
    }
    assert_eq!(buffered.handle().state(), CircuitState::Open);

    let bare = three().clock(clock.clone());
    for _ in 0..3 {
        let mut call = later(bare.layer(NeverReady).oneshot(get("/")));
        assert!(poll(&mut call).is_pending());
        clock.advance(10 * SECOND);
    }
    assert_eq!(bare.handle().counts().calls, 0, "no call has begun");
}

#[tokio::test]
async fn slow_heads_open_the_circuit() {
    let trip = Trip::slow_rate(0.5).slow_after(SECOND).over_calls(4).min_requests(4);
    let clock = FakeClock::new();
    let layer = CircuitBreakerLayer::for_client(10 * SECOND).trip(trip).clock(clock.clone());
    let slow = clock.clone();
    let service = layer.layer(service_fn(move |_: Request<Full<Bytes>>| {
        slow.advance(SECOND);
        async { Ok::<_, ()>(Response::new(Full::<Bytes>::from("late"))) }
    }));
    for _ in 0..4 {
        assert_eq!(layer.handle().state(), CircuitState::Closed);
        service.clone().oneshot(get("/")).await.unwrap();
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
}

#[tokio::test]
async fn slow_reader_counts_only_when_slowness_covers_the_body() {
    for (to_end, expected) in [(false, CircuitState::Closed), (true, CircuitState::Open)] {
        let layer = CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::slow_rate(0.5).over_calls(4));
        let scene = Scene::new(if to_end { layer.slow_to_end() } else { layer });
        scene.upstream.does(Deed::Endless);
        for _ in 0..4 {
            let response = scene.service.clone().oneshot(get("/")).await.unwrap();
            scene.clock.advance(Duration::from_secs(3_600));
            drop(response);
        }
        assert_eq!(scene.state(), expected);
        assert_eq!(scene.breaker.counts().failures, 0);
    }
}

#[tokio::test]
async fn body_error_after_a_good_head_fails_once() {
    let scene = Scene::new(three());
    scene.upstream.does(Deed::Stream(End::Reset));
    scene.get().await;
    let counts = scene.breaker.counts();
    assert_eq!((counts.calls, counts.failures), (2, 1), "the success of the head and the failure of the body");
    scene.upstream.does(Deed::Status(200));
    scene.get().await;
    assert_eq!(scene.breaker.counts().failures, 1);
}

#[tokio::test]
async fn late_body_error_is_a_failure_but_not_slow() {
    let scene = Scene::new(three());
    scene.upstream.does(Deed::Stream(End::Reset));
    let response = scene.service.clone().oneshot(get("/")).await.unwrap();
    scene.clock.advance(100 * SECOND); // its reader was slow
    assert!(response.into_body().collect().await.is_err());
    assert_eq!((scene.breaker.counts().failures, scene.breaker.counts().slow), (1, 0));
}

#[tokio::test]
async fn grpc_is_judged_at_its_trailers() {
    for (deed, opens) in [
        (trailers("0"), false),
        (trailers("5"), false),
        (trailers("8"), false),
        (trailers("1"), true),
        (trailers("2"), true),
        (trailers("4"), true),
        (trailers("13"), true),
        (trailers("14"), true),
        (trailers("15"), true),
        (Deed::Fields(200, &[("grpc-status", "14")]), true), // Trailers-Only
        (Deed::Fields(200, &[("grpc-status", "3")]), false),
        (Deed::Stream(End::Abrupt), true), // no status at all
        (Deed::Stream(End::Reset), true),
        (Deed::Status(502), true), // a proxy that speaks no gRPC
        (Deed::Error, true),
    ] {
        let scene = Scene::new(three());
        scene.upstream.does(deed.clone());
        for _ in 0..3 {
            scene.grpc().await;
        }
        assert_eq!(scene.state() == CircuitState::Open, opens, "{deed:?}");
    }
}

#[tokio::test]
async fn forged_grpc_content_type_opens_no_circuit() {
    for (status, kind) in [(200, "text/plain"), (200, ""), (204, "")] {
        let layer = three();
        let web = layer.layer(service_fn(move |_: Request<Full<Bytes>>| async move {
            let response = Response::builder().status(status).header(CONTENT_TYPE, kind);
            Ok::<_, ()>(response.body(Full::<Bytes>::from("a page")).unwrap())
        }));
        for _ in 0..100 {
            let response = web.clone().oneshot(grpc()).await.unwrap();
            let _ = response.into_body().collect().await;
        }
        assert_eq!((layer.handle().state(), layer.handle().counts().failures), (CircuitState::Closed, 0), "{kind}");
    }
}

#[tokio::test]
async fn grpc_web_is_judged_by_the_status_in_its_head() {
    const WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");
    for (deed, opens) in [
        (Deed::Fields(200, &[WEB, ("grpc-status", "14")]), true),
        (Deed::Fields(200, &[WEB, ("grpc-status", "13")]), true),
        (Deed::Fields(200, &[WEB, ("grpc-status", "5")]), false),
        (Deed::Fields(200, &[WEB, ("grpc-status", "1")]), true),
        (Deed::Fields(200, &[WEB]), false), // its status is in the body, which is not read
        (Deed::Fields(503, &[WEB]), true),
        (Deed::Fields(200, &[("grpc-status", "14")]), false), // plain HTTP, whatever a field is called
    ] {
        let scene = Scene::new(three());
        scene.upstream.does(deed.clone());
        for _ in 0..3 {
            let request = Request::post("/pkg.Service/Method").header(WEB.0, WEB.1);
            scene.send(request.body(Full::default()).unwrap()).await;
        }
        assert_eq!(scene.state() == CircuitState::Open, opens, "{deed:?}");
    }
}

#[tokio::test]
async fn trailers_only_success_counts_once_with_slow_bodies() {
    for layer in [three(), three().slow_to_end()] {
        let scene = Scene::new(layer);
        scene.upstream.does(Deed::Fields(200, &[("grpc-status", "0")]));
        scene.grpc().await;
        scene.upstream.does(Deed::Status(404)); // a proxy that knows no such method
        scene.grpc().await;
        scene.upstream.does(trailers("0"));
        scene.grpc().await;
        let counts = scene.breaker.counts();
        assert_eq!((counts.calls, counts.failures), (3, 0));
    }
}

#[tokio::test]
async fn cancelled_grpc_stream_is_not_counted() {
    let scene = Scene::new(three());
    scene.upstream.does(Deed::Endless);
    for _ in 0..10 {
        let response = scene.service.clone().oneshot(grpc()).await.unwrap();
        scene.clock.advance(100 * SECOND);
        drop(response);
    }
    assert_eq!(scene.breaker.counts().calls, 0);
}

#[tokio::test]
async fn grpc_call_cut_before_trailers_is_not_counted() {
    let layer = three();
    let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
        let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let body = Full::<Bytes>::from("message").with_trailers(async { Some(Ok(status)) });
        Ok::<_, ()>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    }));
    for _ in 0..3 {
        let mut body = Box::pin(service.clone().oneshot(grpc()).await.unwrap().into_body());
        assert!(body.frame().await.unwrap().unwrap().is_data());
        drop(body); // a reset stream, or a window that was just wide enough for the message
    }
    assert_eq!((layer.handle().state(), layer.handle().counts().calls), (CircuitState::Closed, 0));
    for _ in 0..3 {
        Box::pin(service.clone().oneshot(grpc()).await.unwrap().into_body()).collect().await.unwrap();
    }
    assert_eq!((layer.handle().counts().calls, layer.handle().counts().failures), (3, 0));
}

#[tokio::test]
async fn classifier_overrides_the_default() {
    let scene = Scene::new(three().classify(|seen: &CallOutcome<'_>| match seen {
        CallOutcome::Head(head) if head.status == 418 => Verdict::Trip,
        CallOutcome::Head(head) if head.status == 420 => Verdict::TripFor(Duration::MAX),
        CallOutcome::Head(head) if head.status == 404 => Verdict::Failure,
        CallOutcome::Head(head) if head.status == 500 => Verdict::Ignore,
        _ => DefaultClassifier::for_client().classify(seen),
    }));
    scene.upstream.does(Deed::Status(500));
    scene.get().await;
    assert_eq!(scene.breaker.counts().calls, 0);
    scene.upstream.does(Deed::Status(404));
    scene.get().await;
    assert_eq!(scene.breaker.counts().failures, 1);
    scene.upstream.does(Deed::Status(418));
    scene.get().await;
    assert_eq!(scene.state(), CircuitState::Open);
    scene.breaker.reset();
    scene.upstream.does(Deed::Status(420));
    scene.get().await;
    assert_eq!(scene.refusal().await.retry_after(), Some(60 * SECOND));
}

#[tokio::test]
async fn panicking_classifier_counts_no_success() {
    for (request, deed) in [(get as fn(&str) -> _, Deed::Status(200)), (|_| grpc(), trailers("0"))] {
        let layer = three().classify(|seen: &CallOutcome<'_>| match seen {
            CallOutcome::Error(_) => Verdict::Failure,
            _ => std::panic::resume_unwind(Box::new("without a word")),
        });
        let scene = Scene::new(layer);
        scene.upstream.does(deed.clone());
        assert_eq!(scene.send(request("/")).await, 200);
        assert_eq!((scene.breaker.counts().calls, scene.breaker.counts().failures), (1, 1));

        scene.upstream.does(Deed::Error);
        for _ in 0..2 {
            scene.get().await;
        }
        scene.wait_for_probe();
        scene.upstream.does(deed);
        scene.send(request("/")).await;
        assert_eq!(scene.state(), CircuitState::Open, "an unclassified probe");
    }
}
