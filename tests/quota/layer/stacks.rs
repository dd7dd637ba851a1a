//! One `ServiceBuilder` with a quota, a token bucket and a circuit breaker around each kind of tower service.

use super::*;

use axum::{Router, routing::get};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tollgate::{CircuitBreakerLayer, OnUnidentified, Rate, TokenBucketLayer, Trip};
use tonic::transport::{Channel, Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

/// Limits of three a second and two an hour, and a circuit that opens at the first failure.
fn layers() -> (TokenBucketLayer, QuotaLayer, CircuitBreakerLayer) {
    let clock = FakeClock::at(START);
    let limit = TokenBucketLayer::new(Rate::per_second(3)).on_unidentified(OnUnidentified::Share).clock(clock.clone());
    let plan = hourly(2).limit(Quota::bytes(1 << 20).per(Period::hour())).limit(Quota::concurrent(5));
    let quota = QuotaLayer::new(plan).on_unidentified(OnUnidentified::Share).clock(clock.clone());
    (limit, quota, CircuitBreakerLayer::for_server().trip(Trip::consecutive(1)).clock(clock))
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn http() -> Http<HttpConnector, Empty<Bytes>> {
    Http::builder(TokioExecutor::new()).build_http()
}

async fn statuses(address: SocketAddr) -> Vec<u16> {
    let client = http();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let answer = client.get(format!("http://{address}/").parse().unwrap()).await.unwrap();
        statuses.push(answer.status().as_u16());
        answer.into_body().collect().await.unwrap();
    }
    statuses
}

#[tokio::test]
async fn axum_router() {
    let (limit, quota, breaker) = layers();
    let peer = || tollgate::peer_ip!(axum);
    let (limit, quota) = (limit.identify_by(peer()), quota.identify_by(peer()));
    let app = Router::new()
        .route("/", get(|| async { "fine" }))
        .layer(ServiceBuilder::new().layer(limit).layer(quota).layer(breaker));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
    });
    assert_eq!(statuses(address).await, [200, 200, 429, 429]);
}

#[tokio::test]
async fn every_way_to_add_a_layer_to_an_axum_router() {
    let fine = || get(|| async { "fine" });
    let (limit, quota, breaker) = layers();
    let quota = quota.share_with_handler();
    let all = || ServiceBuilder::new().layer(limit.clone()).layer(quota.clone()).layer(breaker.clone());
    let apps = [
        Router::new().route("/", fine()).layer(quota.clone()),
        Router::new().route("/", fine()).layer((quota.clone(), breaker.clone())),
        Router::new().route("/", fine()).route_layer(all()),
        Router::new().route("/", fine().layer(quota.clone())),
        Router::<()>::new().fallback_service(all().service(fine())),
        Router::new().route("/", fine()).layer(
            ServiceBuilder::new()
                .layer(tower_http::trace::TraceLayer::new_for_http())
                .layer(tower_http::timeout::TimeoutLayer::with_status_code(
                    StatusCode::REQUEST_TIMEOUT,
                    Duration::from_secs(30),
                ))
                .layer(quota.clone())
                .layer(tower_http::compression::CompressionLayer::new())
                .layer(tower_http::catch_panic::CatchPanicLayer::new()),
        ),
    ];
    for (n, app) in apps.into_iter().enumerate() {
        let mut request = Request::get("/").body(axum::body::Body::empty()).unwrap();
        request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], 1)));
        let expected = if n < 2 { 200 } else { 429 };
        assert_eq!(app.oneshot(request).await.unwrap().status(), expected, "router {n}: all share one account");
    }
}

#[tokio::test]
async fn bare_hyper_service() {
    let (limit, quota, breaker) = layers();
    let answer = |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hyper"))) };
    let service = ServiceBuilder::new().layer(limit).layer(quota).layer(breaker).service(service_fn(answer));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (socket, peer) = listener.accept().await.unwrap();
            let service = service.clone().map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer);
                request
            });
            let service = TowerToHyperService::new(service);
            let server = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { drop(server.serve_connection(TokioIo::new(socket), service).await) });
        }
    });
    assert_eq!(statuses(address).await, [200, 200, 429, 429]);
}

#[tokio::test]
async fn hyper_client() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        axum::serve(listener, Router::new().route("/", get(|| async { "fine" }))).await.unwrap();
    });
    let (limit, quota, breaker) = layers();
    let client = ServiceBuilder::new().layer(limit).layer(quota).layer(breaker).service(http());
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let request = Request::get(format!("http://{address}/")).body(Empty::new()).unwrap();
        let answer = client.clone().oneshot(request).await.unwrap();
        statuses.push(answer.status().as_u16());
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(statuses, [200, 200, 429]);
}

#[tokio::test]
async fn tonic_server_and_channel() {
    let (listener, address) = listen().await;
    let (_, health) = tonic_health::server::health_reporter();
    let (limit, quota, breaker) = layers();
    let peer = || tollgate::peer_ip!(tonic);
    let (limit, quota) = (limit.identify_by(peer()), quota.identify_by(peer()));
    tokio::spawn(async move {
        Server::builder()
            .layer(ServiceBuilder::new().layer(limit).layer(quota).layer(breaker))
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel.clone());
    for _ in 0..2 {
        client.check(HealthCheckRequest::default()).await.unwrap();
    }
    let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap().as_secs();
    assert!((1_800..=2_100).contains(&delay), "{delay}");
    assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "requests_per_hour");

    let (limit, quota, breaker) = layers();
    let quota = quota.identify_by(|_: &RequestHead<'_>, digester: &tollgate::Digester| Some(digester.named("us")));
    let guarded = ServiceBuilder::new().layer(limit).layer(quota.clone()).layer(breaker).service(channel);
    let mut client = HealthClient::new(guarded);
    for _ in 0..3 {
        let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    }
    let usage = quota.handle().usage(&quota.handle().digester().named("us")).await.unwrap();
    assert_eq!(usage.limits[0].used, 2, "the third was refused before anything was sent");
}

#[tokio::test]
async fn strict_and_never_ready_services() {
    for share in [false, true] {
        let (limit, quota, breaker) = layers();
        let quota = if share { quota.share_with_handler() } else { quota };
        let mut service = ServiceBuilder::new()
            .layer(limit)
            .layer(quota.clone())
            .layer(breaker)
            .service(crate::support::gate::Strict::default());
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(service.ready().await.unwrap().call(by("alice", "/")).await.unwrap().status().as_u16());
        }
        assert_eq!(statuses, [200, 200, 429]);
        let mut never = quota.layer(crate::support::gate::NeverReady);
        assert!(futures_util::poll!(std::pin::pin!(never.ready())).is_pending());
    }
}

#[tokio::test]
async fn both_boxed_clone_services() {
    let (limit, quota, breaker) = layers();
    let inner =
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) });
    let boxed = ServiceBuilder::new()
        .layer(limit.clone())
        .layer(quota.clone())
        .layer(breaker.clone())
        .service(inner)
        .boxed_clone();
    let shared = tower::util::BoxCloneSyncService::new(
        ServiceBuilder::new().layer(limit).layer(quota).layer(breaker).service(inner),
    );
    assert_eq!(boxed.oneshot(by("alice", "/")).await.unwrap().status(), 200);
    assert_eq!(shared.oneshot(by("alice", "/")).await.unwrap().status(), 200);
}
