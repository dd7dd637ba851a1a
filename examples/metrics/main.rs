//! A server that counts its decisions, and a scrape of the counters in the format of Prometheus.
//!
//! ```text
//! cargo run --example metrics --features metrics              # on 127.0.0.1:3000
//! PORT=8080 cargo run --example metrics --features metrics    # another port; 0 chooses a free one
//! ```
//!
//! `GET /` passes a token bucket of 5 requests a second and a plan of 1,000 requests an hour, and `GET /flaky?status=503` a
//! circuit breaker that opens after 3 failures in a row. `GET /metrics` is the scrape, and is not limited. On SIGTERM or
//! Ctrl-C it accepts nothing new and finishes running requests, for at most 10 s.
//!
//! The recorder is small, so that the example needs no other crate. A service installs one of its own, such as
//! `metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()`.

mod recorder;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use recorder::Recorder;
use tollgate::{
    CircuitBreakerLayer, Gates, Period, Plan, Quota, QuotaLayer, Rate, TokenBucketLayer, Trip, telemetry::Metrics,
};

/// State of the scrape.
#[derive(Clone)]
struct Scrape {
    recorder: Recorder,
    metrics: Metrics,
}

/// Returns the server. One observer counts for all layers, which have a name each, and samples them.
fn app(recorder: Recorder) -> Router {
    let metrics = Metrics::new();
    let limit = TokenBucketLayer::new(Rate::per_second(5).burst(10)).named("per client").observe(metrics.clone());
    let plan = Plan::new("free").limit(Quota::requests(1_000).per(Period::hour()));
    let quota = QuotaLayer::new(plan).named("plan").observe(metrics.clone());
    let limits = Gates::new((limit, quota)).identify_by(tollgate::peer_ip!(axum));
    let breaker = CircuitBreakerLayer::for_server()
        .trip(Trip::consecutive(3))
        .named("upstream")
        .recovery_timeout(Duration::from_secs(2))
        .observe(metrics.clone());
    Router::new()
        .route("/", get(|| async { "hello\n" }).layer(limits))
        .route("/flaky", get(flaky).layer(breaker))
        .route("/metrics", get(text))
        .with_state(Scrape { recorder, metrics })
}

/// Answers with the requested status, like an unreliable upstream.
async fn flaky(Query(parameters): Query<HashMap<String, u16>>) -> StatusCode {
    let status = parameters.get("status").and_then(|status| StatusCode::from_u16(*status).ok());
    status.filter(|status| status.as_u16() >= 200).unwrap_or(StatusCode::OK)
}

/// Returns all metrics. Values that no event carries are read first: an open circuit whose wait is over shows as half-open.
async fn text(State(scrape): State<Scrape>) -> String {
    scrape.metrics.read_usage(1_000).await; // of this many clients in each scrape, so that its cost is bounded
    scrape.metrics.sample();
    scrape.recorder.text()
}

#[tokio::main]
async fn main() -> Result<(), support::ExampleError> {
    support::start(include_str!("main.rs"), None)?;
    let recorder = Recorder::default();
    metrics::set_global_recorder(recorder.clone())?; // before the first request
    let listener = support::bind(3000).await?;
    let address = listener.local_addr()?;
    let stop = support::stop_signal()?;
    println!("listening on http://{address}");
    println!("curl -s -o /dev/null 'http://{address}/?[1-20]'; curl http://{address}/metrics");

    let app = app(recorder).into_make_service_with_connect_info::<SocketAddr>();
    let server = |stop| axum::serve(listener, app).with_graceful_shutdown(stop).into_future();
    Ok(support::run(stop, server).await?)
}
