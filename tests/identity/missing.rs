//! Requests in which a layer's identity finds no client.

use std::{convert::Infallible, net::SocketAddr};

use axum::{Router, extract::connect_info::MockConnectInfo, routing::get};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tollgate::{
    ApiKey, Identify, OnUnidentified, PeerIp, Period, Plan, Principal, Quota, QuotaLayer, Rate, TokenBucketLayer,
    Unverified, Verified, peer_ip,
};
use tower::{Layer, Service, ServiceExt, service_fn};

type Bodied = Full<Bytes>;

/// Sends a request through a layer around a handler that answers "hello".
async fn sent<L, B>(layer: &L, request: Request<Bodied>) -> (http::response::Parts, String)
where
    L: Layer<tower::util::BoxCloneService<Request<Bodied>, Response<Bodied>, Infallible>>,
    L::Service: Service<Request<Bodied>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let hello = service_fn(|_: Request<Bodied>| async { Ok::<_, Infallible>(Response::new(Full::from("hello"))) });
    let response = layer.layer(tower::util::BoxCloneService::new(hello)).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    (head, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

fn plain() -> Request<Bodied> {
    Request::new(Full::default())
}

fn grpc() -> Request<Bodied> {
    let request = Request::post("/a.B/C").version(Version::HTTP_2).header("content-type", "application/grpc");
    request.body(Full::default()).unwrap()
}

fn bucket() -> TokenBucketLayer {
    TokenBucketLayer::new(Rate::per_hour(1)).named("per \"client\"").observe(|_: &tollgate::Event<'_>| {})
}

#[tokio::test]
async fn missing_peer_address_is_a_500_that_says_what_to_do() {
    let plan = Plan::new("free").limit(Quota::requests(1).per(Period::hour()));
    let (bucket, quota) = (bucket(), QuotaLayer::new(plan).named("per \"client\""));
    for (head, body) in [sent(&bucket, plain()).await, sent(&quota, plain()).await] {
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((head.status.as_u16(), &head.headers["cache-control"]), (500, &"no-store".parse().unwrap()));
        assert_eq!(body["violated-policies"][0], "per \"client\"");
        let detail = body["detail"].as_str().unwrap();
        let parts = [
            "Policy per \"client\" found no peer address",
            "into_make_service_with_connect_info::<SocketAddr>()",
            "peer_ip!(axum)",
            "OnUnidentified::Share",
        ];
        for part in parts {
            assert!(detail.contains(part), "{detail}");
        }
    }
    let (head, body) = sent(&bucket.fork().refuse_with(tollgate::refusal::text), plain()).await;
    assert_eq!(head.status, 500);
    assert!(body.starts_with("Policy per \"client\" found no peer address"), "{body}");
    assert_eq!(sent(&bucket, grpc()).await.0.headers["grpc-status"], "13");
}

#[tokio::test]
async fn requests_without_an_address_share_a_limit_by_choice() {
    let shared = bucket().on_unidentified(OnUnidentified::Share);
    let statuses = [sent(&shared, plain()).await.0.status, sent(&shared, plain()).await.0.status];
    assert_eq!(statuses.map(|status| status.as_u16()), [200, 429]);
    let optional = bucket().identify_by(Unverified::header("x-user"));
    assert_eq!(sent(&optional, plain()).await.0.status, 200, "an identity that requests need not have");
}

#[tokio::test]
async fn axum_macro_reads_connect_info_and_its_mock() {
    let limit = TokenBucketLayer::new(Rate::per_hour(1)).identify_by(peer_ip!(axum));
    let app = Router::new().route("/", get(|| async { "hello" })).layer(limit.clone());
    let status = |app: Router| async move {
        let request = http::Request::get("/").body(axum::body::Body::empty()).unwrap();
        app.oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(status(app.clone()).await, 500);
    let from = |host: u8| app.clone().layer(MockConnectInfo(SocketAddr::from(([198, 51, 100, host], 4711))));
    assert_eq!([status(from(7)).await, status(from(7)).await, status(from(8)).await], [200, 429, 200]);

    let mut request = http::Request::new(axum::body::Body::empty());
    request.extensions_mut().insert(axum::extract::ConnectInfo(SocketAddr::from(([198, 51, 100, 7], 4712))));
    assert_eq!(app.oneshot(request).await.unwrap().status(), 429, "the same address by the real extension");
}

#[tokio::test]
async fn unknown_key_without_another_identity_is_a_401() {
    let keys = |key: &str| (key == "k-1").then(|| Principal::named("alice"));
    let both = bucket().identify_by(ApiKey::bearer(keys).or(ApiKey::header("x-api-key", keys)));
    for request in [plain(), Request::builder().header("x-api-key", "guessed").body(Full::default()).unwrap()] {
        let (head, body) = sent(&both, request).await;
        assert_eq!(head.status, 401, "{body}");
        let challenge = r#"Bearer realm="api", ApiKey realm="api", header="x-api-key""#;
        assert_eq!(head.headers["www-authenticate"], challenge);
        assert_eq!(head.headers["cache-control"], "no-store");
    }
    let (head, _) = sent(&both, grpc()).await;
    assert_eq!((&head.headers["grpc-status"], head.status.as_u16()), (&"16".parse().unwrap(), 200));

    let request = Request::builder().header("x-api-key", "k-1").body(Full::default()).unwrap();
    assert_eq!(sent(&both, request).await.0.status, 200);
    let preflight = both.fork().exempt(|request| request.method == http::Method::OPTIONS);
    let request = Request::options("/").body(Full::default()).unwrap();
    assert_eq!(sent(&preflight, request).await.0.status, 200);
}

#[tokio::test]
async fn own_challenge_of_a_custom_answer_remains() {
    let layer = bucket()
        .identify_by(ApiKey::bearer(|_: &str| None))
        .refuse_with(|_| Response::builder().status(401).header("www-authenticate", "Negotiate").body("").unwrap());
    assert_eq!(sent(&layer, plain()).await.0.headers["www-authenticate"], "Negotiate");
}

#[tokio::test]
async fn missing_principal_is_a_500_that_names_the_layer_order() {
    #[derive(Clone)]
    struct User(&'static str);
    let user = || Verified::from_extension(|user: &User| Some(Principal::named(user.0)));
    let layer = bucket().identify_by(user());
    let (head, body) = sent(&layer, plain()).await;
    assert_eq!(head.status, 500);
    assert!(body.contains("The authentication layer must be outside this one"), "{body}");
    let request = Request::builder().extension(User("alice")).body(Full::default()).unwrap();
    assert_eq!(sent(&layer, request).await.0.status, 200);

    let keys = |_: &str| None;
    let either = bucket().identify_by(user().or(ApiKey::bearer(keys)));
    assert_eq!(sent(&either, plain()).await.0.status, 401, "a client may have neither");
    let address = bucket().identify_by(user().or(PeerIp::new()));
    assert!(sent(&address, plain()).await.1.contains("peer address"), "the last one finds every client");
}
