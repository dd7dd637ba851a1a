//! The one warning of a layer without observers, with standard error closed.

use std::{
    convert::Infallible,
    process::{Command, Stdio},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{Rate, TokenBucketLayer};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test]
#[ignore = "run by the other test, with standard error closed"]
async fn unidentified_request() {
    let service = TokenBucketLayer::new(Rate::per_second(1)).layer(service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    }));
    assert_eq!(service.oneshot(Request::new(Full::default())).await.unwrap().status(), 200);
}

#[test]
fn closed_stderr_does_not_fail_the_request() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unidentified_warning::unidentified_request", "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
}
