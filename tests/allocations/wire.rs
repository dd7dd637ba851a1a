//! Allocations of refusals and rate limit fields.

use std::{convert::Infallible, future::Future, pin::pin, task::Poll, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::Full;
use tollgate::{
    Dialect, GateLayer, Reason, Refusal,
    refusal::{self, Fields, Reset},
};
use tower::{Layer, Service, service_fn};

use crate::support::fixed::{Fixed, NOW, name, seconds};

/// Returns the allocations of `work` after a first run, which initializes all lazy values.
fn allocations<T>(mut work: impl FnMut() -> T) -> u64 {
    drop(work());
    let mut made = None;
    let count = allocation_counter::measure(|| made = Some(work())).count_total;
    drop(made);
    count
}

fn fields(dialect: Dialect) -> Fields {
    Fields::new(dialect, &name("default"), 100, seconds(60), None)
}

/// Counts the allocations of a write into a handler's usual fields.
fn written(fields: &Fields, remaining: u64) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
    allocation_counter::measure(|| fields.write(&mut headers, remaining, seconds(12), || NOW)).count_total
}

#[test]
fn problem_document_allocates_body_and_two_head_values() {
    let refusal = Refusal::new(Reason::RateLimited, name("default")).with_limit(100, 100);
    let soon = refusal.clone().with_retry_after(seconds(5));
    assert_eq!(allocations(|| refusal::problem(&soon)), 3);
    let late = refusal.with_retry_after(seconds(86_400));
    assert_eq!(allocations(|| refusal::problem(&late)), 4, "a number of three digits and more is written out");
}

#[test]
fn fields_of_one_policy_allocate_once_in_a_list() {
    assert_eq!(written(&fields(Dialect::Draft11), 42), 1);
    assert_eq!(written(&fields(Dialect::Draft11), u64::MAX), 1);
    let long = Fields::new(Dialect::Draft11, &name(&"\"".repeat(64)), u64::MAX, Duration::MAX, Some("content-bytes"));
    assert_eq!(written(&long, u64::MAX), 1);
    assert_eq!(written(&fields(Dialect::XRateLimit { reset: Reset::Delta }), 42), 0);
    assert_eq!(written(&fields(Dialect::XRateLimit { reset: Reset::Epoch }), 4_200), 2);
    assert_eq!(written(&fields(Dialect::None), 42), 0);
}

#[test]
fn refused_request_with_fields_allocates_eight_times() {
    let inner = service_fn(|_: Request<Full<Bytes>>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    });
    let mut gate =
        GateLayer::new(Fixed::refuses(Dialect::Draft11, "default", Duration::from_millis(4_100))).layer(inner);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut refused = || {
        let mut answer = pin!(gate.call(Request::default()));
        match answer.as_mut().poll(&mut context) {
            Poll::Ready(Ok(response)) => response,
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => panic!("a refusal does not wait"),
        }
    };
    assert_eq!(refused().status(), 429);
    // The refusal and three for its entry in the extensions, the body, two for the head, one for `RateLimit`.
    assert_eq!(allocations(refused), 8);
}
