//! A policy with a fixed decision, and a handler behind it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tollgate::{
    Admit, Client, Dialect, FakeClock, GateLayer, MaybeFuture, Outcome, Permit, PolicyName, Reason, Refusal,
    RequestHead, refusal::Fields,
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneService};

pub(crate) const NOW: Duration = Duration::from_millis(1_790_000_000_500);

pub(crate) fn name(text: &str) -> PolicyName {
    PolicyName::try_new(text).unwrap()
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Admits or refuses each request, and writes fields in both cases.
#[derive(Clone)]
pub(crate) struct Fixed {
    refusal: Option<Refusal>,
    fields: Arc<Fields>,
    remaining: u64,
    reset: Duration,
}

pub(crate) struct Held(Arc<Fixed>);

impl Fixed {
    pub(crate) fn admits(dialect: Dialect, policy: &str, remaining: u64, reset: Duration) -> Self {
        let fields = Arc::new(Fields::new(dialect, &name(policy), 100, seconds(60), None));
        Self { refusal: None, fields, remaining, reset }
    }

    pub(crate) fn refuses(dialect: Dialect, policy: &str, wait: Duration) -> Self {
        let refusal = Refusal::new(Reason::RateLimited, name(policy)).with_limit(100, 100).with_retry_after(wait);
        Self { refusal: Some(refusal), ..Self::admits(dialect, policy, 0, wait) }
    }

    pub(crate) fn with_refusal(self, refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..self }
    }
}

impl Admit for Fixed {
    type Permit = Held;

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Held, Refusal>> {
        let refusal = self.refusal.clone().map(|refusal| refusal.with_fields(Arc::clone(&self.fields)));
        MaybeFuture::Ready(refusal.map_or_else(|| Ok(Held(Arc::clone(self))), Err))
    }
}

impl Permit for Held {
    type Lasts = tollgate::ToEnd;
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        let Fixed { fields, remaining, reset, .. } = &*self.0;
        fields.write(response.headers_mut(), *remaining, *reset, || NOW);
    }

    fn settle(self, _: Outcome<'_>) {}
}

pub(crate) type Service = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

/// Returns a handler whose response has these fields.
pub(crate) fn handler(fields: &[(&'static str, &'static str)]) -> Service {
    let fields = fields.to_vec();
    BoxCloneService::new(service_fn(move |_| {
        let mut response = Response::new(Full::from("hello"));
        for (name, value) in &fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        std::future::ready(Ok(response))
    }))
}

pub(crate) async fn collected<B>(response: Response<B>) -> Response<Bytes>
where
    B: http_body::Body<Data = Bytes, Error = Infallible>,
{
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// Returns the response of these policies, the first outermost, before a handler with these fields.
pub(crate) async fn answer(policies: &[Fixed], fields: &[(&'static str, &'static str)]) -> Response<Bytes> {
    let mut service = handler(fields);
    for policy in policies.iter().rev() {
        let gate = GateLayer::new(policy.clone()).clock(FakeClock::at(NOW)).layer(service);
        service = BoxCloneService::new(gate.map_future(|answer| async {
            let response = answer.await?;
            Ok::<_, Infallible>(collected(response).await.map(Full::new))
        }));
    }
    collected(service.oneshot(Request::default()).await.unwrap()).await
}

/// Returns the one line of a field; empty without the field.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next().map_or("", |line| line.to_str().unwrap());
    assert!(lines.next().is_none(), "more than one {name}");
    line
}
