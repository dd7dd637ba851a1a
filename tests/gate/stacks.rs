//! One `ServiceBuilder` with both layers around each kind of tower service, over real sockets: an axum router, a tonic
//! server, a bare hyper service, a hyper client, a tonic channel. No stack needs a `HandleErrorLayer`, or an annotation
//! other than a closure's argument.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tollgate::{CircuitBreakerLayer, FakeClock, OnUnidentified, Rate, TokenBucketLayer, Trip};
use tonic::service::LayerExt as _;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use tonic_types::StatusExt;
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// A limit of two requests an hour for each client, and a circuit that opens at the first failure.
fn layers() -> (TokenBucketLayer, CircuitBreakerLayer) {
    (limit(2), breaker())
}

fn limit(burst: u64) -> TokenBucketLayer {
    TokenBucketLayer::new(Rate::per_hour(burst)).on_unidentified(OnUnidentified::Share).clock(FakeClock::new())
}

fn breaker() -> CircuitBreakerLayer {
    let trip = Trip::consecutive(1);
    CircuitBreakerLayer::for_server()
        .trip(trip)
        .recovery_timeout(Duration::from_secs(10))
        .named("upstream")
        .clock(FakeClock::new())
}

type Http = Client<HttpConnector, Empty<Bytes>>;

fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn statuses(address: SocketAddr, paths: &[&str]) -> Vec<u16> {
    let client = http();
    let mut statuses = Vec::new();
    for path in paths {
        let answer = client.get(format!("http://{address}{path}").parse().unwrap()).await.unwrap();
        statuses.push(answer.status().as_u16());
        answer.into_body().collect().await.unwrap();
    }
    statuses
}

#[tokio::test]
async fn axum_router() {
    let (limit, breaker) = layers();
    let limit = limit.identify_by(tollgate::peer_ip!(axum));
    let app = Router::new()
        .route("/", get(|| async { "fine" }))
        .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .layer(ServiceBuilder::new().layer(limit).layer(breaker));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
    });
    assert_eq!(statuses(address, &["/", "/broken", "/", "/"]).await, [200, 500, 429, 429]);
}

#[tokio::test]
async fn every_way_to_add_a_layer_to_an_axum_router() {
    let fine = || get(|| async { "fine" });
    let (limit, breaker) = layers();
    let by_layer = Router::new().route("/", fine()).layer(breaker.clone()).layer(limit.clone());
    let by_tuple = Router::new().route("/", fine()).layer((limit.clone(), breaker.clone()));
    let by_route_layer =
        Router::new().route("/", fine()).route_layer(ServiceBuilder::new().layer(limit.clone()).layer(breaker.clone()));
    let on_handler = Router::new().route("/", fine().layer((limit.clone(), breaker.clone())));
    let nested =
        Router::new().nest("/in", Router::new().route("/", fine()).layer(limit.clone())).layer(breaker.clone());
    let fallback = Router::<()>::new()
        .fallback_service(ServiceBuilder::new().layer(limit.clone()).layer(breaker.clone()).service(fine()));
    let mixed = Router::new().route("/", fine()).layer(
        ServiceBuilder::new()
            .layer(tower_http::trace::TraceLayer::new_for_http())
            .layer(tower_http::timeout::TimeoutLayer::with_status_code(
                StatusCode::REQUEST_TIMEOUT,
                Duration::from_secs(30),
            ))
            .layer(limit.clone())
            .layer(tower_http::compression::CompressionLayer::new())
            .layer(breaker)
            .layer(tower_http::catch_panic::CatchPanicLayer::new()),
    );
    for (n, app) in [by_layer, by_tuple, by_route_layer, on_handler, nested, fallback, mixed].into_iter().enumerate() {
        let uri = if n == 4 { "/in" } else { "/" };
        let mut request = Request::get(uri).body(axum::body::Body::empty()).unwrap();
        request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], 1)));
        let expected = if n < 2 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(app.oneshot(request).await.unwrap().status(), expected, "router {n}: all share one budget of 2");
    }
}

#[tokio::test]
async fn cors_lets_a_browser_read_the_refusal() {
    use tower_http::cors::{Any, CorsLayer};
    let cors = CorsLayer::new().allow_origin(Any).expose_headers(tollgate::refusal::EXPOSED_HEADERS);
    let app = Router::new().route("/", get(|| async { "fine" })).layer((cors, limit(1)));
    let ask = |method: &str| {
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("origin", "https://example.org")
            .header("access-control-request-method", "GET")
            .extension(SocketAddr::from(([192, 0, 2, 1], 1)));
        app.clone().oneshot(request.body(axum::body::Body::empty()).unwrap())
    };
    assert_eq!(ask("GET").await.unwrap().status(), 200);
    let refused = ask("GET").await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["access-control-allow-origin"], "*");
    let exposed = refused.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("retry-after") && exposed.contains("ratelimit"), "{exposed}");
    for _ in 0..5 {
        assert_eq!(ask("OPTIONS").await.unwrap().status(), 200, "a preflight costs nothing where CORS is outside");
    }
}

#[tokio::test]
async fn bare_hyper_service() {
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let status = if request.uri().path() == "/broken" { 500 } else { 200 };
        Ok(Response::builder().status(status).body(Full::from("hyper")).unwrap())
    }
    let (limit, breaker) = (limit(3).refund_on(|_| false), breaker());
    let service = ServiceBuilder::new().layer(limit).layer(breaker).service(service_fn(answer));
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
    assert_eq!(statuses(address, &["/", "/broken", "/", "/"]).await, [200, 500, 503, 429]);
}

#[tokio::test]
async fn hyper_client() {
    let (listener, address) = listen().await;
    let app =
        Router::new().route("/", get(|| async { "fine" })).route("/broken", get(|| async { StatusCode::BAD_GATEWAY }));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let (limit, breaker) = (limit(4).refund_on(|_| false), breaker());
    let client = ServiceBuilder::new().layer(limit).layer(breaker).service(http());
    let mut statuses = Vec::new();
    for path in ["/", "/broken", "/", "/", "/"] {
        let request = Request::get(format!("http://{address}{path}")).body(Empty::new()).unwrap();
        let answer = client.clone().oneshot(request).await.unwrap();
        statuses.push(answer.status().as_u16());
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(statuses, [200, 502, 503, 503, 429], "the circuit to the upstream is open; the last is over the limit");
}

#[tokio::test]
async fn client_of_a_dead_upstream() {
    let (listener, address) = listen().await;
    drop(listener); // the port has no listener from now on
    let client = ServiceBuilder::new().layer(breaker()).service(http());
    let request = || Request::get(format!("http://{address}/")).body(Empty::new()).unwrap();
    assert!(client.clone().oneshot(request()).await.is_err(), "an error stays the inner service's");
    assert_eq!(client.oneshot(request()).await.unwrap().status(), 503);
}

async fn grpc(limit: TokenBucketLayer, breaker: CircuitBreakerLayer) -> HealthClient<Channel> {
    let (listener, address) = listen().await;
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("known", ServingStatus::Serving).await;
    tokio::spawn(async move {
        Server::builder()
            .layer(ServiceBuilder::new().layer(limit).layer(breaker))
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
    HealthClient::new(channel)
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn tonic_client_reads_resource_exhausted_with_retry_info() {
    let (limit, breaker) = layers();
    let peer = tollgate::peer_ip!(tonic);
    let mut client = grpc(limit.identify_by(peer), breaker).await;
    for _ in 0..2 {
        client.check(check("known")).await.unwrap();
    }
    let status = client.check(check("known")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1_800)));
}

#[tokio::test]
async fn tonic_client_reads_unavailable_from_the_breaker() {
    let breaker = breaker();
    let handle = breaker.handle();
    let mut client = grpc(limit(100), breaker).await;
    client.check(check("known")).await.unwrap();
    let not_found = client.check(check("unknown")).await.unwrap_err();
    assert_eq!(not_found.code(), tonic::Code::NotFound, "the caller's own mistake opens nothing");
    client.check(check("known")).await.unwrap();
    handle.force_open();
    let status = client.check(check("known")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    handle.reset();
    client.check(check("known")).await.unwrap();
}

#[tokio::test]
async fn single_service_of_a_tonic_server() {
    let (_, service) = tonic_health::server::health_reporter();
    let (limit, breaker) = layers();
    let limited = ServiceBuilder::new().layer(limit).layer(breaker).named_layer(service);
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        Server::builder().add_service(limited).serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(client.check(check("")).await.err().map(|status| status.code()));
    }
    assert_eq!(codes[2], Some(tonic::Code::ResourceExhausted), "{codes:?}");
}

#[tokio::test]
async fn tonic_channel() {
    let (listener, address) = listen().await;
    let (_reporter, service) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
    let (limit, breaker) = layers();
    let mut client = HealthClient::new(ServiceBuilder::new().layer(limit).layer(breaker).service(channel));
    for _ in 0..2 {
        client.check(check("")).await.unwrap();
    }
    let status = client.check(check("")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
}

#[tokio::test]
async fn both_boxed_clone_services() {
    let service = || {
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("boxed"))) })
    };
    let (limit, breaker) = layers();
    let boxed = ServiceBuilder::new().layer(limit.clone()).layer(breaker.clone()).service(service()).boxed_clone();
    let shared =
        tower::util::BoxCloneSyncService::new(ServiceBuilder::new().layer(limit).layer(breaker).service(service()));
    assert_eq!(boxed.oneshot(crate::support::gate::get("/")).await.unwrap().status(), 200);
    assert_eq!(shared.oneshot(crate::support::gate::get("/")).await.unwrap().status(), 200);
}
