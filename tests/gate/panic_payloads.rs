//! Panics whose payload panics again when it is dropped.

use std::{net::SocketAddr, panic::panic_any, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tollgate::{
    Admit, CallOutcome, CircuitBreakerLayer, Client, Event, GateLayer, MaybeFuture, Outcome, Permit, Plan, QuotaLayer,
    Rate, Refusal, RequestHead, TokenBucketLayer, Trip,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{hello, support::gate::get};

/// Panics in its `Drop`. As the payload of a panic it would escape a catch that only drops it.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic_any("in the drop of a payload")
    }
}

#[tokio::test]
async fn payload_that_panics_in_its_drop_is_caught() {
    struct Armed;
    impl Permit for Armed {
        type Lasts = tollgate::ToEnd;
        fn settle(self, _: Outcome<'_>) {
            panic_any(Payload)
        }
    }
    impl Admit for Armed {
        type Permit = Self;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Self, Refusal>> {
            MaybeFuture::Ready(Ok(Self))
        }
    }
    let service = GateLayer::new(Armed).observe(|_: &Event<'_>| panic_any(Payload)).layer(service_fn(hello));
    let body = service.clone().oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    drop(service.oneshot(get("/")).await.unwrap());

    let breaker = CircuitBreakerLayer::for_server().classify(|_: &CallOutcome<'_>| panic_any(Payload));
    let buckets = TokenBucketLayer::new(Rate::per_hour(9)).refund_on(|_| panic_any(Payload));
    let quota = QuotaLayer::new(Plan::standard()).charge_when(|_| panic_any(Payload));
    let peer = |mut request: Request<Full<Bytes>>| {
        request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], 1)));
        request
    };
    let all = (quota, buckets.clone(), breaker.trip(Trip::consecutive(1)));
    for _ in 0..2 {
        let service = all.layer(service_fn(hello)); // the second request is refused by the circuit
        drop(service.oneshot(peer(get("/"))).await.unwrap().into_body().collect().await.unwrap());
    }
    assert_eq!(buckets.handle().live_clients(), 1, "tokens stay spent");
}
