//! Keys, clients, routes and fingerprints: which requests are one operation.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tollgate::{Client, Digester, PeerIp, RequestHead, idempotency::IdempotencyLayer};
use tower::Layer;

use super::place::{Handler, layer, payment, post, send, store};

#[tokio::test]
async fn duplicate_gets_the_answer_of_the_first() {
    let (handler, layer) = (Handler::default(), layer(&store()));
    let service = handler.echo(&layer);
    let first = send(&service, payment("8e03978e")).await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "call 1: amount=5"));
    assert!(!first.is_replayed());
    for key in ["8e03978e", "\"8e03978e\"", " 8e03978e "] {
        let again = send(&service, payment(key)).await;
        assert_eq!((again.status, again.text()), (StatusCode::CREATED, "call 1: amount=5"), "{key:?}");
        assert!(again.is_replayed());
        httpdate::parse_http_date(again.headers["idempotent-first-date"].to_str().unwrap()).unwrap();
    }
    assert_eq!(handler.calls(), 1);
    let counts = layer.handle().counts();
    assert_eq!((counts.executed, counts.replayed, counts.refused, counts.buffered), (1, 3, 0, 0));
}

#[tokio::test]
async fn client_method_route_and_key_make_an_operation() {
    let handler = Handler::default();
    let service = handler.echo(&layer(&store()).methods([Method::POST, Method::PUT]));
    let mut put = payment("k-1");
    *put.method_mut() = Method::PUT;
    let different = [
        payment("k-1"),
        payment("k-2"),
        post("bob", "k-1", "/payments", "amount=5"),
        post("alice", "k-1", "/refunds", "amount=5"),
        put,
    ];
    for (number, request) in (1..).zip(different) {
        let reply = send(&service, request).await;
        assert_eq!((reply.text(), reply.is_replayed()), (&*format!("call {number}: amount=5"), false));
    }
    let other = handler.echo(&layer(&store()).named("other"));
    assert!(!send(&other, payment("k-1")).await.is_replayed());
}

#[tokio::test]
async fn another_request_under_a_key_is_refused() {
    let handler = Handler::default();
    let service = handler.echo(&layer(&store()));
    send(&service, payment("k-1")).await;
    let mut typed = payment("k-1");
    typed.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let others = [
        post("alice", "k-1", "/payments", "amount=6"),
        post("alice", "k-1", "/payments", ""),
        post("alice", "k-1", "/payments?urgent", "amount=5"),
        post("alice", "k-1", "/payments?", "amount=5"),
        typed,
    ];
    for request in others {
        let reply = send(&service, request).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(reply.text().contains(r#""code":"idempotency_key_reused""#), "{}", reply.text());
        assert_eq!(reply.headers["cache-control"], "no-store");
    }
    let conflict = handler.echo(&layer(&store()).mismatch_status(StatusCode::CONFLICT));
    send(&conflict, payment("k-1")).await;
    let reply = send(&conflict, post("alice", "k-1", "/payments", "amount=6")).await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    assert_eq!(handler.calls(), 2);
}

#[tokio::test]
async fn key_that_is_missing_or_invalid_is_refused() {
    let handler = Handler::default();
    let (optional, required) = (handler.echo(&layer(&store())), handler.echo(&layer(&store()).required()));
    let mut none = payment("k");
    none.headers_mut().remove("idempotency-key");
    assert_eq!(send(&optional, none.clone()).await.text(), "call 1: amount=5");
    assert_eq!(send(&optional, none.clone()).await.text(), "call 2: amount=5");
    let reply = send(&required, none).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.text().contains("must have one idempotency key of 1 to 255 visible characters"), "{}", reply.text());

    let mut two = payment("k");
    two.headers_mut().append("idempotency-key", "k".parse().unwrap());
    let long = "x".repeat(256);
    for request in [two, payment(""), payment("a b"), payment("\"a"), payment(&long)] {
        assert_eq!(send(&optional, request).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(handler.calls(), 2);
}

#[tokio::test]
async fn other_methods_and_grpc_pass() {
    let handler = Handler::default();
    let service = handler.echo(&layer(&store()));
    let with = |method: Method, name: &'static str, value: &'static str| {
        let mut request = payment("k-1");
        *request.method_mut() = method;
        *request.version_mut() = http::Version::HTTP_2;
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    for request in [
        with(Method::GET, "x-any", "1"),
        with(Method::HEAD, "x-any", "1"),
        with(Method::PUT, "x-any", "1"),
        with(Method::POST, "content-type", "application/grpc+proto"),
    ] {
        assert!(!send(&service, request.clone()).await.is_replayed());
        assert!(!send(&service, request).await.is_replayed());
    }
    assert_eq!(handler.calls(), 8);
    // Clients that offer HTTP/2 over plain text send this with each request.
    let offer = with(Method::POST, "upgrade", "h2c");
    assert!(!send(&service, offer.clone()).await.is_replayed());
    assert!(send(&service, offer).await.is_replayed());
}

#[tokio::test]
async fn no_content_type_leads_past_a_required_key() {
    let handler = Handler::default();
    let service = handler.echo(&layer(&store()).required());
    for kind in ["application/grpc", "application/grpc-web", "application/grpc-web-text", "application/json"] {
        let mut request = payment(kind);
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        assert!(!send(&service, request.clone()).await.is_replayed());
        assert!(send(&service, request.clone()).await.is_replayed(), "{kind}");
        request.headers_mut().remove("idempotency-key");
        send(&service, request).await;
    }
    assert_eq!(handler.calls(), 4, "none without a key");
}

#[tokio::test]
async fn request_without_a_client_is_refused() {
    let handler = Handler::default();
    let service = handler.echo(&layer(&store()));
    let reply = send(&service, post("mallory", "k-1", "/payments", "")).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(reply.headers.contains_key("www-authenticate"));
    // An address is accepted on request.
    let by_ip = handler.echo(&IdempotencyLayer::in_memory(PeerIp::new()).accept_unverified());
    let of = |ip: &str| {
        let mut request = payment("k-1");
        request.extensions_mut().insert::<SocketAddr>(format!("{ip}:1").parse().unwrap());
        request
    };
    assert_eq!(send(&by_ip, payment("k-1")).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(send(&by_ip, of("192.0.2.1")).await.text(), "call 1: amount=5");
    assert!(send(&by_ip, of("192.0.2.1")).await.is_replayed());
    assert!(!send(&by_ip, of("192.0.2.2")).await.is_replayed());
}

#[tokio::test]
async fn identity_that_no_other_process_repeats_is_refused() {
    let local = |_: &RequestHead<'_>, _: &Digester| Some(Digester::process().secret("session", b"s3cret"));
    let named = |_: &RequestHead<'_>, _: &Digester| Some(Client::named("provider"));
    let secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap();
    let handler = Handler::default();
    let layer = IdempotencyLayer::new(local, store(), &secret).accept_unverified();
    let reply = send(&handler.echo(&layer), payment("k-1")).await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(reply.text().contains("cannot find the records of this client in another process"), "{}", reply.text());
    let layer = IdempotencyLayer::new(named, store(), &secret).accept_unverified();
    assert_eq!(send(&handler.echo(&layer), payment("k-1")).await.status, StatusCode::CREATED);
    // In memory any will do.
    let layer = IdempotencyLayer::in_memory(local).accept_unverified();
    assert_eq!(send(&handler.echo(&layer), payment("k-1")).await.status, StatusCode::CREATED);
}

#[test]
#[should_panic = "policy \"idempotency\": the identity must be verified and one party's own"]
fn identity_that_clients_share_is_refused_when_built() {
    let _ = IdempotencyLayer::in_memory(PeerIp::new()).layer(());
}

#[tokio::test]
async fn route_and_header_are_settings() {
    let handler = Handler::default();
    let by_event = layer(&store()).header("x-event-id").route(|_| "/webhook".into());
    let service = handler.echo(&by_event);
    let event = |path: &str| {
        let request = Request::post(path).header("x-api-key", "alice").header("x-event-id", "evt_1");
        request.body(Full::new(Bytes::from_static(b"{}"))).unwrap()
    };
    assert_eq!(send(&service, event("/webhook")).await.text(), "call 1: {}");
    assert!(send(&service, event("/webhook")).await.is_replayed());
    // One operation by its route, and another request by its path.
    assert_eq!(send(&service, event("/api/webhook")).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}
