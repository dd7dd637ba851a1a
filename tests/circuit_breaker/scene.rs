//! A breaker in front of a scripted upstream.

use super::*;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc+proto");

pub(crate) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, &'static str>;

/// Behaviour of the upstream for its next requests.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Status(u16),
    Fields(u16, &'static [(&'static str, &'static str)]),
    /// A good head, some data, then this end.
    Stream(End),
    /// A good head with a body that never ends.
    Endless,
    /// One message, then silence.
    Quiet,
    /// The same after a delay of the head.
    Slow(FakeClock, Duration),
    /// An empty response, after a delay of the head.
    SlowStatus(FakeClock, Duration, u16),
    Error,
    Panic,
    Hang,
}

/// End of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Abrupt,
    Reset,
    Status(&'static str),
}

/// A scripted upstream that counts its calls.
#[derive(Clone, Debug)]
pub(crate) struct Upstream(Arc<(Mutex<Deed>, AtomicUsize)>);

impl Upstream {
    pub(crate) fn new(deed: Deed) -> Self {
        Self(Arc::new((Mutex::new(deed), AtomicUsize::new(0))))
    }

    pub(crate) fn does(&self, deed: Deed) {
        *self.0.0.lock().unwrap() = deed;
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    /// Answers gRPC requests with gRPC responses.
    pub(crate) async fn answer(self, request: Request<Full<Bytes>>) -> Result<Response<Body>, &'static str> {
        let mut response = self.serve().await?;
        if request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == GRPC) {
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
        }
        Ok(response)
    }

    async fn serve(self) -> Result<Response<Body>, &'static str> {
        self.0.1.fetch_add(1, Ordering::SeqCst);
        let deed = self.0.0.lock().unwrap().clone();
        let good = |body: Body| Ok(Response::new(body));
        let full = |bytes: &'static str| Full::from(bytes).map_err(|never| match never {}).boxed_unsync();
        match deed {
            Deed::Status(status) => Ok(Response::builder().status(status).body(full("")).unwrap()),
            Deed::SlowStatus(clock, time, status) => {
                clock.advance(time);
                Ok(Response::builder().status(status).body(full("")).unwrap())
            }
            Deed::Fields(status, fields) => {
                let response = Response::builder().status(status);
                let response = fields.iter().fold(response, |response, (name, value)| response.header(*name, *value));
                Ok(response.body(full("")).unwrap())
            }
            Deed::Stream(end) => {
                let last = match end {
                    End::Abrupt => None,
                    End::Reset => Some(Err("reset")),
                    End::Status(status) => {
                        let fields = [("grpc-status".parse().unwrap(), status.parse().unwrap())];
                        Some(Ok(Frame::trailers(HeaderMap::from_iter(fields))))
                    }
                };
                let frames = [Ok(Frame::data("some".into()))].into_iter().chain(last);
                good(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
            }
            Deed::Quiet | Deed::Slow(..) => {
                if let Deed::Slow(clock, time) = deed {
                    clock.advance(time);
                }
                let first = futures_util::stream::iter([Ok(Frame::data("some".into()))]);
                good(StreamBody::new(first.chain(futures_util::stream::pending())).boxed_unsync())
            }
            Deed::Endless => good(StreamBody::new(futures_util::stream::pending()).boxed_unsync()),
            Deed::Error => Err("connection refused"),
            Deed::Panic => panic!("the upstream panics"),
            Deed::Hang => std::future::pending().await,
        }
    }
}

/// A breaker in front of an upstream, under a stopped clock.
pub(crate) struct Scene {
    pub(crate) clock: FakeClock,
    pub(crate) upstream: Upstream,
    pub(crate) breaker: CircuitBreaker,
    pub(crate) log: Log,
    pub(crate) service: BoxCloneService<Request<Full<Bytes>>, Response<Body>, &'static str>,
}

impl Scene {
    pub(crate) fn new(layer: CircuitBreakerLayer) -> Self {
        let (clock, upstream, log) = (FakeClock::new(), Upstream::new(Deed::Status(200)), Log::default());
        let seen = log.clone();
        let layer = layer.clock(clock.clone()).observe(move |event: &Event<'_>| match event {
            Event::Transition { from, to, cause, .. } => seen.push(format!("{from} -> {to}: {cause}")),
            Event::Reclaimed { .. } => seen.push("reclaimed"),
            Event::Overflow { .. } => seen.push("overflow"),
            _ => {}
        });
        let breaker = layer.handle();
        let server = upstream.clone();
        let inner = layer.layer(service_fn(move |request| server.clone().answer(request)));
        let service =
            BoxCloneService::new(inner.map_response(|response: Response<_>| response.map(BodyExt::boxed_unsync)));
        Self { clock, upstream, breaker, log, service }
    }

    /// Sends a request, reads the response to its end, and returns the status; 0 for an error.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> u16 {
        match self.service.clone().oneshot(request).await {
            Ok(response) => {
                let status = response.status().as_u16();
                let _ = response.into_body().collect().await;
                status
            }
            Err(_) => 0,
        }
    }

    pub(crate) async fn get(&self) -> u16 {
        self.send(get("/")).await
    }

    pub(crate) async fn refusal(&self) -> Refusal {
        let response = self.service.clone().oneshot(get("/")).await.unwrap();
        response.extensions().get::<Refusal>().expect("a refusal").clone()
    }

    pub(crate) async fn grpc(&self) -> u16 {
        self.send(grpc()).await
    }

    /// Sends a request and drops it unanswered after `wait`.
    pub(crate) fn give_up_after(&self, wait: Duration) {
        let future = self.service.clone().oneshot(get("/"));
        let mut future = pin!(future);
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        self.clock.advance(wait);
    }

    /// Advances the clock until a probe is due: the open time and its jitter of at most a fifth.
    pub(crate) fn wait_for_probe(&self) {
        self.clock.advance(12 * SECOND);
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.breaker.state()
    }
}

pub(crate) fn grpc() -> Request<Full<Bytes>> {
    let call = Request::post("/pkg.Service/Method").version(http::Version::HTTP_2);
    call.header(CONTENT_TYPE, GRPC).body(Full::default()).unwrap()
}

pub(crate) fn trailers(status: &'static str) -> Deed {
    Deed::Stream(End::Status(status))
}

pub(crate) fn three() -> CircuitBreakerLayer {
    CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3)).recovery_timeout(10 * SECOND)
}

pub(crate) fn later<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    Box::pin(future)
}
