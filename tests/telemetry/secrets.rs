//! Canaries: secrets and addresses pass through all three layers, and appear in no label and in no log.

use std::{convert::Infallible, net::SocketAddr};

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use tollgate::{
    ApiKey, CircuitBreakerLayer, FakeClock, Identify, PeerIp, Period, Plan, Principal, Quota, QuotaLayer, Rate,
    TokenBucketLayer, Trip,
    telemetry::{Metrics, Tracing},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::{logs::Lines, recorder::Recorder};

const CANARIES: [&str; 6] = ["k-secret-7f3a", "guessed-key", "alice", "203.0.113.77", "private-path", "canary.example"];

#[test]
fn no_label_and_no_log_names_a_client() {
    let (recorder, lines, clock) = (Recorder::default(), Lines::default(), FakeClock::new());
    let (metrics, log) = (Metrics::new(), Tracing::new().clock(clock.clone()));
    let who = || ApiKey::header("x-api-key", |key: &str| (key == "k-secret-7f3a").then(|| Principal::named("alice")));
    let plan = Plan::new("free").warn_at(50).limit(Quota::requests(4).per(Period::hour()));
    let layers = ServiceBuilder::new()
        .layer(
            TokenBucketLayer::new(Rate::per_hour(5))
                .refund_on(|_| false)
                .named("bucket")
                .identify_by(who().or(PeerIp::new()))
                .clock(clock.clone())
                .observe(metrics.clone())
                .observe(log.clone()),
        )
        .layer(
            QuotaLayer::new(plan)
                .named("quota")
                .identify_by(who().or(PeerIp::new()))
                .clock(clock.clone())
                .observe(metrics.clone())
                .observe(log.clone()),
        )
        .layer(
            CircuitBreakerLayer::for_server()
                .trip(Trip::consecutive(2))
                .named("upstream")
                .per_host()
                .clock(clock)
                .observe(metrics)
                .observe(log),
        );
    let service = layers.service(service_fn(|_: Request<String>| {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        std::future::ready(Ok::<_, Infallible>(response))
    }));
    metrics::with_local_recorder(&recorder, || {
        tracing::subscriber::with_default(lines.clone(), || {
            for key in ["k-secret-7f3a", "guessed-key"] {
                for _ in 0..8 {
                    let request = Request::get("http://canary.example/private-path?token=k-secret-7f3a")
                        .header("x-api-key", key)
                        .extension(SocketAddr::from(([203, 0, 113, 77], 4711)))
                        .body(String::new())
                        .unwrap();
                    let _ = service.clone().oneshot(request).now_or_never().expect("memory decides at once");
                }
            }
        });
    });
    let (text, lines) = (recorder.text(), lines.take());
    for part in
        ["policy=\"bucket\",reason=\"rate_limited\"", "policy=\"upstream\",reason=\"circuit_open\"", "to=\"open\""]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(lines.iter().any(|(_, line)| line.contains("a circuit opened")), "{lines:#?}");
    assert!(lines.iter().any(|(_, line)| line.contains("near a limit")), "{lines:#?}");
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary} is in\n{text}");
        assert!(lines.iter().all(|(_, line)| !line.contains(canary)), "{canary} is in {lines:#?}");
    }
}

#[test]
fn state_of_one_circuit_is_one_hot() {
    let (recorder, clock) = (Recorder::default(), FakeClock::new());
    metrics::with_local_recorder(&recorder, || {
        let layer = CircuitBreakerLayer::for_server()
            .trip(Trip::consecutive(2))
            .named("upstream")
            .clock(clock)
            .observe(Metrics::new());
        let breaker = layer.handle();
        let state = |state: &str| {
            let line = format!("tollgate_circuit_state{{policy=\"upstream\",state=\"{state}\"}} ");
            recorder.text().lines().find_map(|text| text.strip_prefix(&line).map(String::from))
        };
        assert_eq!(state("closed"), None, "no event has come");
        breaker.force_open();
        assert_eq!(["closed", "forced_open"].map(state), [Some("0".into()), Some("1".into())]);
        breaker.reset();
        assert_eq!(["closed", "forced_open"].map(state), [Some("1".into()), Some("0".into())]);
    });
}
