//! The warnings about requests without an identity, and about proxies whose fields cannot be read.

use std::{
    convert::Infallible,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{Event, Forwarded, OnUnidentified, PeerIp, Rate, TokenBucketLayer};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test]
#[ignore = "run by the other tests, in a process of its own"]
async fn unidentified_requests() {
    let layer = TokenBucketLayer::new(Rate::per_second(10)).on_unidentified(OnUnidentified::Share);
    for layer in [layer.clone(), layer.observe(|_: &Event<'_>| {})] {
        for _ in 0..2 {
            let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
            }));
            assert_eq!(service.oneshot(Request::new(Full::default())).await.unwrap().status(), 200);
        }
    }
}

#[tokio::test]
#[ignore = "run by the other tests, in a process of its own"]
async fn unreadable_fields() {
    let proxy = std::net::SocketAddr::from(([10, 0, 0, 1], 4711));
    let identity = || PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    let layer = || TokenBucketLayer::new(Rate::per_second(10)).identify_by(identity());
    for layer in [layer(), layer().observe(|_: &Event<'_>| {})] {
        for field in ["198.51.100.7", "canary", "unknown"] {
            let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
            }));
            let request = Request::builder().extension(proxy).header("x-forwarded-for", field);
            assert_eq!(service.oneshot(request.body(Full::default()).unwrap()).await.unwrap().status(), 200);
        }
    }
}

/// Starts one of the tests above in a process of its own.
fn child(test: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("unidentified_warning::{test}"), "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn closed_stderr_does_not_fail_the_request() {
    let mut child = child("unidentified_requests");
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn warning_is_written_once_a_layer_with_and_without_observers() {
    let output = child("unidentified_requests").wait_with_output().unwrap();
    let written = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{written}");
    assert_eq!(written.matches("requests without an identity share one limit").count(), 2, "{written}");
}

#[test]
fn unreadable_field_is_warned_of_once_without_its_value() {
    let output = child("unreadable_fields").wait_with_output().unwrap();
    let written = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !written.contains("canary"), "{written}");
    let warning = "policy \"default\": a trusted proxy sent a x-forwarded-for that cannot be read; its clients are one";
    assert_eq!(written.matches(warning).count(), 2, "{written}");
}
