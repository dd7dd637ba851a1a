//! Faults seen in limiters that are tower layers; each name states the behaviour that must not occur.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate::{
    Admit, CircuitBreakerLayer, Client, GateLayer, MaybeFuture, OnUnidentified, Outcome, Permit, PolicyName, Rate,
    Reason, Refusal, RequestHead, TokenBucketLayer, Trip,
};
use tower::{Layer, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};

use crate::support::gate::{Strict, get as request};

#[tokio::test]
async fn unready_clone_is_not_called() {
    // A concurrency limit and `Strict` panic when they are called without having been polled ready.
    let inner = ConcurrencyLimitLayer::new(1).layer(Strict::default());
    let bucket =
        TokenBucketLayer::new(Rate::per_second(100)).on_unidentified(OnUnidentified::Share).layer(inner.clone());
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(3)).layer(inner);
    for _ in 0..10 {
        assert_eq!(bucket.clone().oneshot(request("/")).await.unwrap().status(), 200);
        assert_eq!(breaker.clone().oneshot(request("/")).await.unwrap().status(), 200);
    }
}

/// A concurrency limit, the simplest policy whose permit holds something.
struct AtMost(Arc<Semaphore>);

struct Slot(OwnedSemaphorePermit);

impl Admit for AtMost {
    type Permit = Slot;
    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Slot, Refusal>> {
        let full = || Refusal::new(Reason::Capacity, PolicyName::try_new("at most").unwrap());
        MaybeFuture::Ready(Arc::clone(&self.0).try_acquire_owned().map(Slot).map_err(|_| full()))
    }
}

impl Permit for Slot {
    type Lasts = tollgate::ToEnd;
    fn settle(self, _: Outcome<'_>) {
        drop(self.0);
    }
}

#[tokio::test]
async fn slot_is_held_while_the_body_streams() {
    let layer = GateLayer::new(AtMost(Arc::new(Semaphore::new(2))));
    let service = layer.layer(service_fn(|_: Request<()>| async {
        let frames = futures_util::stream::pending::<Result<Frame<Bytes>, ()>>();
        Ok::<_, ()>(Response::new(StreamBody::new(frames)))
    }));
    let mut streaming = Vec::new();
    for _ in 0..500 {
        let response = service.clone().oneshot(Request::new(())).await.unwrap();
        if response.status() == StatusCode::OK {
            streaming.push(response);
        }
    }
    assert_eq!(streaming.len(), 2);
    streaming.pop();
    assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), StatusCode::OK, "one slot is free again");
}
