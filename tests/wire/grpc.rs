//! Refusals over gRPC: to a bare HTTP/2 client, to tonic's client, and from a layer on the client's channel.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, Version,
    header::{CONTENT_TYPE, TE},
};
use http_body::Body as _;
use http_body_util::Full;
use proptest::prelude::*;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tollgate::{
    Dialect, GateLayer, Reason, Refusal, RequestHead,
    refusal::{self, Wire},
};
use tonic::{
    Code, Status,
    transport::{Channel, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use tower::{Layer, ServiceBuilder, ServiceExt};

use crate::support::fixed::{Fixed, handler, name, seconds};

fn refusing(reason: Reason, wait: Option<Duration>) -> Fixed {
    let refusal = Refusal::new(reason, name("per client")).with_limit(100, 100);
    let refusal = match wait {
        Some(wait) => refusal.with_retry_after(wait),
        None => refusal,
    };
    Fixed::admits(Dialect::None, "per client", 0, Duration::ZERO).with_refusal(refusal)
}

/// Returns a call of this content type over HTTP/2.
fn call(content_type: &'static str) -> Request<Full<Bytes>> {
    Request::post("/").version(Version::HTTP_2).header(CONTENT_TYPE, content_type).body(Full::default()).unwrap()
}

/// Returns the head of the response to a request of this type; the body must be known to be empty.
async fn head_of(policy: Fixed, content_type: &'static str) -> http::response::Parts {
    let request = call(content_type);
    let answer = GateLayer::new(policy).layer(handler(&[])).oneshot(request).await.unwrap();
    assert!(answer.body().is_end_stream());
    answer.into_parts().0
}

/// Returns the status that tonic's client reads from the head.
async fn status_of(policy: Fixed) -> Status {
    Status::from_header_map(&head_of(policy, "application/grpc").await.headers).unwrap()
}

#[tokio::test]
async fn every_reason_has_its_code_and_details() {
    for (reason, code, word, waits, limit) in [
        (Reason::RateLimited, Code::ResourceExhausted, "RATE_LIMITED", true, true),
        (Reason::TooLarge, Code::ResourceExhausted, "TOO_LARGE", false, true),
        (Reason::Capacity, Code::Unavailable, "CAPACITY", true, false),
        (Reason::CircuitOpen, Code::Unavailable, "CIRCUIT_OPEN", true, false),
        (Reason::Unavailable, Code::Unavailable, "UNAVAILABLE", true, false),
        (Reason::Indeterminate, Code::Unavailable, "INDETERMINATE", true, false),
        (Reason::Rejected, Code::Internal, "REJECTED", false, false),
        (Reason::UnknownUnit, Code::Internal, "UNKNOWN_UNIT", false, false),
        (Reason::JobRunning, Code::Aborted, "JOB_RUNNING", true, false),
        (Reason::DuplicateJob, Code::AlreadyExists, "DUPLICATE_JOB_ID", false, false),
        (Reason::JobOutcomeUnknown, Code::FailedPrecondition, "JOB_OUTCOME_UNKNOWN", true, false),
        (Reason::JobConflict, Code::InvalidArgument, "JOB_CONFLICT", false, false),
        (Reason::InvalidJobId, Code::InvalidArgument, "INVALID_JOB_ID", false, false),
        (Reason::StaleJobId, Code::InvalidArgument, "STALE_JOB_ID", false, false),
        (Reason::TooManyReservations, Code::ResourceExhausted, "TOO_MANY_RESERVATIONS", true, false),
        (Reason::Unidentified, Code::PermissionDenied, "UNIDENTIFIED", false, false),
    ] {
        let wait = Duration::from_millis(1_900);
        let status = status_of(refusing(reason, Some(wait))).await;
        assert_eq!(status.code(), code);
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), if waits { "1900" } else { "-1" });

        let details = status.check_error_details().unwrap();
        let info = details.error_info().unwrap();
        assert_eq!(reason.as_str(), word.to_lowercase());
        assert_eq!((&*info.reason, &*info.domain, &*info.metadata["policy"]), (word, "tollgate", "per client"));
        assert_eq!(details.retry_info().map(|info| info.retry_delay.unwrap()), waits.then_some(wait));
        let violations = details.quota_failure().map(|failure| &failure.violations[..]).unwrap_or_default();
        assert_eq!(violations.len(), usize::from(limit));
        assert!(violations.iter().all(|v| v.subject == "per client" && v.description == status.message()));
    }
}

#[tokio::test]
async fn violation_has_the_name_that_the_fields_have() {
    let refusal = Refusal::new(Reason::RateLimited, name("per client")).with_limit(100, 100);
    let policy = Fixed::admits(Dialect::Draft11, "per client-2", 0, Duration::ZERO).with_refusal(refusal);
    let details = status_of(policy).await.check_error_details().unwrap();
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "per client-2");
    assert_eq!(details.error_info().unwrap().metadata["policy"], "per client");
}

#[tokio::test]
async fn answer_has_the_requests_type_and_an_empty_body() {
    for content_type in
        ["application/grpc", "application/grpc+json", "application/grpc-web+proto", "application/grpc-web-text"]
    {
        let head = head_of(refusing(Reason::RateLimited, Some(seconds(5))), content_type).await;
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], content_type);
        assert_eq!(head.headers["grpc-status"], "8");
        assert_eq!(head.headers["cache-control"], "no-store");
        assert_eq!(head.headers["retry-after"], "5");
        assert_eq!(head.headers["grpc-message"], "The limit of 100 is used up. Retry in 5 seconds.");
        assert!(!head.headers["grpc-status-details-bin"].as_bytes().contains(&b'='), "unpadded");
        assert!(head.extensions.get::<Refusal>().is_some());
    }
}

#[tokio::test]
async fn near_grpc_content_type_gets_a_problem_document() {
    for content_type in ["application/grpcurl", "application/json", "application/grpc-websocket"] {
        let request = call(content_type);
        let gate = GateLayer::new(refusing(Reason::RateLimited, None)).layer(handler(&[]));
        let answer = gate.oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert!(!answer.headers().contains_key("grpc-status"));
    }
}

#[tokio::test]
async fn custom_answer_does_not_reach_grpc_clients() {
    let layer = GateLayer::new(refusing(Reason::RateLimited, None))
        .refuse_with(|_: &Refusal| Response::builder().status(420).body("calm").unwrap());
    let request = call("application/grpc");
    let answer = layer.layer(handler(&[])).oneshot(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &HeaderValue::from_static("8")));
}

proptest! {
    #[test]
    fn details_are_readable_for_any_policy_name(
        policy in "[ -~]{1,64}|[%\"\\\\]{1,64}",
        reason in prop::sample::select(vec![Reason::RateLimited, Reason::Capacity, Reason::TooLarge]),
        limit: u64,
        wait: Option<Duration>,
    ) {
        let mut refusal = Refusal::new(reason, name(&policy)).with_limit(limit, limit);
        if let Some(wait) = wait {
            refusal = refusal.with_retry_after(wait);
        }
        let fixed = Fixed::admits(Dialect::None, "any", 0, Duration::ZERO).with_refusal(refusal.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let headers = runtime.block_on(head_of(fixed, "application/grpc")).headers;
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        prop_assert!(size < 1_536, "{size} bytes"); // clients refuse more than 8 KiB

        let status = Status::from_header_map(&headers).unwrap();
        let details = status.check_error_details().unwrap();
        prop_assert_eq!(&details.error_info().unwrap().metadata["policy"], &policy);
        let told = details.retry_info().map(|info| info.retry_delay.unwrap());
        let most = Duration::new(315_576_000_000, 999_999_999);
        prop_assert_eq!(told, refusal.retry_after().map(|wait| Duration::new(wait.as_secs().min(most.as_secs()), wait.subsec_nanos())));
        let mut http = refusal::text(&refusal).into_body().to_vec();
        http.pop();
        prop_assert_eq!(status.message().as_bytes(), http, "the same words on both wires");
    }
}

/// Starts tonic's health service behind a layer, on a socket.
async fn serve(layer: GateLayer<Fixed>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(layer).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn tonic_client_sees_status_and_retry_info() {
    for (reason, code) in [(Reason::RateLimited, Code::ResourceExhausted), (Reason::CircuitOpen, Code::Unavailable)] {
        let address = serve(GateLayer::new(refusing(reason, Some(Duration::from_millis(2_500))))).await;
        let mut client = HealthClient::new(channel(address).await);
        let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_millis(2_500)));
        let status = client.watch(HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "2500");
    }
}

#[tokio::test]
async fn admitted_call_carries_its_fields() {
    let address = serve(GateLayer::new(Fixed::admits(Dialect::Draft11, "default", 7, seconds(3)))).await;
    let mut client = HealthClient::new(channel(address).await);
    let answer = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.metadata().get("ratelimit").unwrap(), r#""default";r=7;t=3"#);
    assert_eq!(answer.into_inner().status, 1);
}

#[tokio::test]
async fn refusal_is_one_frame_that_ends_the_stream() {
    let address = serve(GateLayer::new(refusing(Reason::RateLimited, Some(seconds(5))))).await;
    let (client, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .body(())
        .unwrap();
    // The request's body never comes; a refusal does not wait for it.
    let (answer, _upload) = client.ready().await.unwrap().send_request(request, false).unwrap();
    let answer = answer.await.unwrap();
    assert!(answer.body().is_end_stream(), "a client would take the call as committed");
    assert_eq!(answer.headers()["grpc-status"], "8");
    assert!(!answer.headers().contains_key("content-length") || answer.headers()["content-length"] == "0");
}

#[tokio::test]
async fn layer_on_a_channel_refuses_before_sending() {
    let unreachable = Channel::from_static("http://127.0.0.1:1").connect_lazy();
    let gate = GateLayer::new(refusing(Reason::RateLimited, Some(seconds(5))));
    let mut client = HealthClient::new(ServiceBuilder::new().layer(gate).service(unreachable));
    let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(seconds(5)));

    let address = serve(GateLayer::new(Fixed::admits(Dialect::None, "server", 7, seconds(3)))).await;
    let gate = GateLayer::new(Fixed::admits(Dialect::Draft11, "client", 7, seconds(3)));
    let mut client = HealthClient::new(ServiceBuilder::new().layer(gate).service(channel(address).await));
    let answer = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.metadata().get("ratelimit").unwrap(), r#""client";r=7;t=3"#);
}

#[test]
fn first_content_type_line_decides() {
    let mut request = call("text/plain");
    request.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    assert_eq!(Wire::of(&RequestHead::of(&request)), Wire::Http);
    request.headers_mut().remove(CONTENT_TYPE);
    assert_eq!(Wire::of(&RequestHead::of(&request)), Wire::Http);
}

mod detection {
    use super::*;

    /// Returns whether a request is answered as gRPC.
    fn is_grpc(method: Method, version: Version, content_type: &'static str, te: Option<&'static str>) -> bool {
        let mut request = call(content_type);
        (*request.method_mut(), *request.version_mut()) = (method, version);
        if let Some(te) = te {
            request.headers_mut().insert(TE, HeaderValue::from_static(te));
        }
        match Wire::of(&RequestHead::of(&request)) {
            Wire::Grpc { content_type: echoed } => {
                assert_eq!(echoed, content_type);
                true
            }
            _ => false,
        }
    }

    #[test]
    fn grpc_is_a_post_over_http_2() {
        let types = ["application/grpc", "application/grpc+proto", "application/grpc+json"];
        for content_type in types {
            assert!(is_grpc(Method::POST, Version::HTTP_2, content_type, None));
            assert!(is_grpc(Method::POST, Version::HTTP_3, content_type, None));
            for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_11] {
                assert!(!is_grpc(Method::POST, version, content_type, None), "{version:?}");
            }
        }
    }

    #[test]
    fn grpc_web_is_a_post_over_any_version() {
        for content_type in ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"] {
            for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3] {
                assert!(is_grpc(Method::POST, version, content_type, None), "{version:?}");
            }
        }
    }

    #[test]
    fn other_methods_are_plain_http() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::CONNECT] {
            for content_type in ["application/grpc", "application/grpc-web"] {
                assert!(!is_grpc(method.clone(), Version::HTTP_2, content_type, Some("trailers")), "{method}");
            }
        }
    }

    /// tonic-web translates calls over HTTP/1.1 in place: it sets the type and `te`, and leaves the version.
    #[test]
    fn translated_grpc_web_call_is_grpc() {
        assert!(is_grpc(Method::POST, Version::HTTP_11, "application/grpc", Some("trailers")));
        assert!(!is_grpc(Method::POST, Version::HTTP_11, "application/grpc", Some("gzip")));
    }
}
