//! Faults seen in limiters that are tower layers; each name states the behaviour that must not occur.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tollgate::{
    Admit, CircuitBreakerLayer, GateLayer, MaybeFuture, Moment, Outcome, Permit, PolicyName, Rate, Reason, Refusal,
    RequestHead, TokenBucketLayer, Trip,
    rule::{Lease, Leases},
};
use tower::{Layer, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};

use crate::support::gate::{Strict, get as request};

#[tokio::test]
async fn unready_clone_is_not_called() {
    // A concurrency limit and `Strict` panic when they are called without having been polled ready.
    let inner = ConcurrencyLimitLayer::new(1).layer(Strict::default());
    let bucket = TokenBucketLayer::new(Rate::per_second(100)).layer(inner.clone());
    let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).layer(inner);
    for _ in 0..10 {
        assert_eq!(bucket.clone().oneshot(request("/")).await.unwrap().status(), 200);
        assert_eq!(breaker.clone().oneshot(request("/")).await.unwrap().status(), 200);
    }
}

/// A concurrency limit, the simplest policy whose permit holds something.
struct AtMost(Mutex<Leases>);

struct Slot(Arc<AtMost>, Lease);

impl Admit for AtMost {
    type Permit = Slot;
    fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<Slot, Refusal>> {
        let acquired = self.0.lock().unwrap().acquire(Moment::default());
        let full = || Refusal::new(Reason::Capacity, PolicyName::try_new("at most").unwrap());
        MaybeFuture::Ready(acquired.map(|acquired| Slot(Arc::clone(self), acquired.lease)).ok_or_else(full))
    }
}

impl Permit for Slot {
    fn settle(self, _: Outcome<'_>) {
        self.0.0.lock().unwrap().release(self.1);
    }
}

#[tokio::test]
async fn slot_is_held_while_the_body_streams() {
    let layer = GateLayer::of(AtMost(Mutex::new(Leases::new(2, Duration::MAX, Duration::MAX))));
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
    assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), StatusCode::OK, "one place is free again");
}
