//! The one warning about requests without an identity.

use std::{
    convert::Infallible,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{Event, OnUnidentified, Rate, TokenBucketLayer};
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

/// Starts the test above in a process of its own.
fn child() -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unidentified_warning::unidentified_requests", "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn closed_stderr_does_not_fail_the_request() {
    let mut child = child();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn warning_is_written_once_a_layer_with_and_without_observers() {
    let output = child().wait_with_output().unwrap();
    let written = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{written}");
    assert_eq!(written.matches("requests without an identity share one limit").count(), 2, "{written}");
}
