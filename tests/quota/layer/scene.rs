//! A quota layer under a stopped clock, and a service controlled by the request path.

use super::*;

/// Wall-clock start, 2026-07-01 01:30 UTC: 81,000 s of the day remain.
pub(crate) const START: Duration = Duration::from_secs(1_782_869_400);
pub(crate) const LEFT_TODAY: u64 = 81_000;

pub(crate) type Body = UnsyncBoxBody<Bytes, &'static str>;
pub(crate) type Reply = Result<Response<Body>, &'static str>;

pub(crate) struct Scene {
    pub(crate) clock: FakeClock,
    pub(crate) layer: QuotaLayer,
    pub(crate) quotas: Quotas,
    pub(crate) log: Log,
    pub(crate) served: Arc<AtomicUsize>,
}

/// Identifies clients by `x-user`.
pub(crate) fn user() -> Unverified {
    Unverified::header("x-user").public()
}

impl Scene {
    pub(crate) fn new(plan: Plan, settings: impl FnOnce(QuotaLayer) -> QuotaLayer) -> Self {
        let (clock, log) = (FakeClock::at(START), Log::default());
        let heard = log.clone();
        let layer = settings(QuotaLayer::new(plan).identify_by(user()).accept_unverified().clock(clock.clone()));
        let layer = layer.observe(move |event: &Event<'_>| match event {
            Event::NearLimit { limit, used, of, .. } => heard.push(format!("near {limit} {used}/{of}")),
            Event::AmountCut { kind, amount, .. } => heard.push(format!("cut {amount} of {kind}")),
            Event::Overflow { .. } => heard.push("overflow"),
            Event::Reclaimed { .. } => heard.push("reclaimed"),
            Event::Unidentified { .. } => heard.push("unidentified"),
            _ => {}
        });
        Self { quotas: layer.handle(), clock, layer, log, served: Arc::default() }
    }

    /// Returns a service behind the layer.
    pub(crate) fn service(&self) -> BoxCloneService<Request<Full<Bytes>>, Response<Body>, &'static str> {
        let served = Arc::clone(&self.served);
        let guarded = self.layer.layer(service_fn(move |request| {
            served.fetch_add(1, Ordering::SeqCst);
            serve(request)
        }));
        guarded.map_response(|answer| answer.map(BodyExt::boxed_unsync)).boxed_clone()
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        Answer::read(self.service().oneshot(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(by("alice", path)).await
    }

    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        user().identify(&RequestHead::of(&by(name, "/")), self.quotas.digester()).unwrap()
    }

    /// Returns the amount of a limit that alice has used.
    pub(crate) async fn used(&self, limit: &str) -> u64 {
        self.quotas.usage(&self.client("alice")).await.unwrap().get(limit).unwrap().used
    }

    /// Returns the amount of a limit that is reserved for alice.
    pub(crate) async fn reserved(&self, limit: &str) -> u64 {
        self.quotas.usage(&self.client("alice")).await.unwrap().get(limit).unwrap().reserved
    }
}

pub(crate) fn by(name: &str, path: &str) -> Request<Full<Bytes>> {
    Request::post(path).header("x-user", name).body(Full::default()).unwrap()
}

pub(crate) fn job(id: &str, path: &str) -> Request<Full<Bytes>> {
    let mut request = by("alice", path);
    request.headers_mut().insert("x-job-id", id.parse().unwrap());
    request
}

/// A response read to its end, or as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn read<B: http_body::Body<Data = Bytes>>(answer: Result<Response<B>, &'static str>) -> Self {
        let Ok(answer) = answer else {
            return Self { status: 0, headers: Default::default(), refusal: None, body: Bytes::new() };
        };
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let refusal = head.extensions.get().cloned();
        Self { status: head.status.as_u16(), headers: head.headers, refusal, body }
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", self.body))
    }
}

/// Acts as the path says.
pub(crate) async fn serve(request: Request<Full<Bytes>>) -> Reply {
    let full = |text: String| Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    let path = request.uri().path().to_owned();
    let (deed, number) = path[1..].split_once('/').unwrap_or((&path[1..], "0"));
    let number: u64 = number.parse().unwrap();
    let charge = request.extensions().get::<Charge>();
    Ok(match deed {
        "" | "v2" | "query" => full("done".into()),
        "status" => Response::builder().status(number as u16).body(full("".into()).into_body()).unwrap(),
        "bytes" => full("x".repeat(number as usize)),
        "stream" => Response::new(chunks(number, None)),
        "broken" => Response::new(chunks(number, Some("reset"))),
        "record" => full(charge.unwrap().record("tokens", number).to_string()),
        "near" => {
            let status = request.extensions().get::<QuotaStatus>().unwrap();
            full(status.near.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        }
        "wait" => {
            yield_times(number as usize).await;
            full("waited".into())
        }
        "never" => std::future::pending().await,
        "error" => return Err("no connection"),
        "panic" => panic!("handler"),
        other => panic!("no such deed: {other}"),
    })
}

/// Sends `number` chunks of ten bytes, each after a pause, then an error or the end.
fn chunks(number: u64, error: Option<&'static str>) -> Body {
    let frames = futures_util::stream::unfold(0, move |n| async move {
        yield_times(1).await;
        match error {
            _ if n < number => Some((Ok(Frame::data(Bytes::from_static(b"0123456789"))), n + 1)),
            Some(error) if n == number => Some((Err(error), n + 1)),
            _ => None,
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

pub(crate) fn hourly(requests: u64) -> Plan {
    Plan::new("hourly").limit(Quota::requests(requests).per(Period::hour()))
}
