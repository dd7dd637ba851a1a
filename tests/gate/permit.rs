//! Callbacks of a permit: on the request, on a bypass, and on the body.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tollgate::{Admit, Client, GateLayer, MaybeFuture, Outcome, Permit, PolicyName, Reason, Refusal, RequestHead};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{hello, support::gate::get};

#[tokio::test]
async fn on_request_extends_the_request_before_the_handler() {
    struct Stamp;
    impl Permit for Stamp {
        type Lasts = tollgate::ToEnd;
        fn on_request(&mut self, extensions: &mut http::Extensions) {
            extensions.insert("stamped");
        }
        fn settle(self, _: Outcome<'_>) {}
    }
    struct Stamper {
        later: bool,
        shut: bool,
    }
    impl Admit for Stamper {
        type Permit = Stamp;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Stamp, Refusal>> {
            if self.later { MaybeFuture::future(async { Ok(Stamp) }) } else { MaybeFuture::Ready(Ok(Stamp)) }
        }
        fn shut(&self) -> bool {
            self.shut
        }
    }
    for (later, shut) in [(false, false), (false, true), (true, false), (true, true)] {
        let seen = service_fn(|request: Request<Full<Bytes>>| async move {
            let stamp = request.extensions().get::<&str>().copied().unwrap_or_default();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(stamp)))
        });
        let answer = GateLayer::new(Stamper { later, shut }).layer(seen).oneshot(get("/")).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "stamped", "later {later}, shut {shut}");
    }
}

#[tokio::test]
async fn on_bypass_runs_for_every_request_without_a_permit() {
    struct Stamp;
    impl Permit for Stamp {
        type Lasts = tollgate::ToEnd;
        fn on_request(&mut self, extensions: &mut http::Extensions) {
            extensions.insert("permit");
        }
        fn settle(self, _: Outcome<'_>) {}
    }
    #[derive(Clone, Copy, Debug)]
    struct Stamper {
        later: bool,
        refuses: bool,
        shut: bool,
    }
    impl Admit for Stamper {
        type Permit = Stamp;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Stamp, Refusal>> {
            let refusal = Refusal::new(Reason::Capacity, PolicyName::try_new("stamper").unwrap());
            let decision = if self.refuses { Err(refusal) } else { Ok(Stamp) };
            if self.later { MaybeFuture::future(async { decision }) } else { MaybeFuture::Ready(decision) }
        }
        fn shut(&self) -> bool {
            self.shut
        }
        fn on_bypass(&self, extensions: &mut http::Extensions) {
            extensions.insert("bypass");
        }
    }
    type Switch = fn(GateLayer<Stamper>) -> GateLayer<Stamper>;
    let switches: [(Switch, bool); 3] =
        [(|layer| layer.enabled(false), true), (|layer| layer.exempt(|_| true), true), (|layer| layer.shadow(), false)];
    for (switch, always) in switches {
        for bits in 0..8 {
            let policy = Stamper { later: bits & 1 != 0, refuses: bits & 2 != 0, shut: bits & 4 != 0 };
            let seen = service_fn(|request: Request<Full<Bytes>>| async move {
                let stamp = request.extensions().get::<&str>().copied().unwrap_or_default();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(stamp)))
            });
            let layer = switch(GateLayer::new(policy));
            let ready = layer.clone().layer(seen).oneshot(get("/"));
            // Called without having been polled ready, the gate polls the service ready first.
            let unready = layer.layer(seen).call(get("/"));
            for answer in [ready.await.unwrap(), unready.await.unwrap()] {
                let stamp = answer.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(stamp, if always || policy.refuses { "bypass" } else { "permit" }, "{policy:?}");
            }
        }
    }
}

#[tokio::test]
async fn on_body_runs_only_if_a_body_follows_the_head() {
    struct Listening(Option<Arc<std::sync::atomic::AtomicUsize>>);
    impl Permit for Listening {
        type Lasts = tollgate::ToEnd;
        fn on_body(&mut self) {
            self.0.take().expect("called once").fetch_add(1, Ordering::Relaxed);
        }
        fn settle(self, _: Outcome<'_>) {}
    }
    struct Listener(Arc<std::sync::atomic::AtomicUsize>);
    impl Admit for Listener {
        type Permit = Listening;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Listening, Refusal>> {
            MaybeFuture::Ready(Ok(Listening(Some(Arc::clone(&self.0)))))
        }
    }
    let bodies = Arc::default();
    let layer = GateLayer::new(Listener(Arc::clone(&bodies)));
    let answer = layer.clone().layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(bodies.load(Ordering::Relaxed), 1);
    answer.into_body().collect().await.unwrap();
    let empty = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) });
    layer.clone().layer(empty).oneshot(get("/")).await.unwrap();
    let head = Request::head("/").body(Full::default()).unwrap();
    layer.layer(service_fn(hello)).oneshot(head).await.unwrap();
    assert_eq!(bodies.load(Ordering::Relaxed), 1, "neither an empty one nor one that is not sent");
}
