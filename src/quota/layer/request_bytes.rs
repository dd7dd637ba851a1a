//! Counts the bytes of requests that do not say beforehand how many they bring.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{Request, header::CONTENT_LENGTH};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// Counts the bodies of requests without a `Content-Length` for the [`QuotaLayer`](crate::QuotaLayer)s further in: goes
/// outside of them. **It changes the type of the request's body** to [`CountedBody`].
///
/// Without it such a body counts nothing. With it the bytes that the service read are charged when the response ends,
/// whether there was room for them or not: no body is cut short. A body with a `Content-Length` is charged at admission,
/// as ever, and is not counted twice. What is read after the response has ended counts nothing.
///
/// ```
/// use axum::{Router, body::Body, routing::post};
/// use http::Request;
/// use tollgate::{Direction, Period, Plan, Quota, QuotaLayer, RequestBytesLayer, quota::CountedBody};
/// use tower::ServiceBuilder;
///
/// let uploads = Quota::bytes(1 << 30).per(Period::hour()).counting(Direction::Request);
/// let app: Router = Router::new().route("/", post(|body: Body| async { drop(body) })).layer(
///     ServiceBuilder::new()
///         .layer(RequestBytesLayer::new())
///         .layer(QuotaLayer::new(Plan::new("uploads").limit(uploads)))
///         .map_request(|request: Request<CountedBody<Body>>| request.map(Body::new)), // axum wants its own type
/// );
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestBytesLayer(());

impl RequestBytesLayer {
    /// Counts request bodies.
    ///
    /// ```
    /// let layer = tollgate::RequestBytesLayer::new();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for RequestBytesLayer {
    type Service = RequestBytes<S>;

    fn layer(&self, inner: S) -> RequestBytes<S> {
        RequestBytes { inner }
    }
}

/// A service whose request bodies are counted; made by a [`RequestBytesLayer`].
///
/// It decides nothing and waits for nothing: it is no [`Gate`](crate::Gate), which leaves the request's type alone.
///
/// ```
/// use http::{Request, Response};
/// use tollgate::{RequestBytesLayer, quota::{CountedBody, RequestBytes}};
/// use tower::{Layer, service_fn};
///
/// let inner = service_fn(|_: Request<CountedBody<String>>| async { Ok::<_, ()>(Response::new(String::new())) });
/// let service: RequestBytes<_> = RequestBytesLayer::new().layer(inner);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RequestBytes<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for RequestBytes<S>
where
    S: Service<Request<CountedBody<B>>>,
    B: http_body::Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let told = request.headers().contains_key(CONTENT_LENGTH) || request.body().is_end_stream();
        let read = (!told).then(Read::default);
        if let Some(read) = &read {
            request.extensions_mut().insert(read.clone());
        }
        self.inner.call(request.map(|body| CountedBody { body, read }))
    }
}

/// Body bytes of a request that have been read so far; in its extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct Read(Arc<AtomicU64>);

impl Read {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pin_project! {
    /// A request's body that is counted as it is read; see [`RequestBytesLayer`].
    ///
    /// ```
    /// use http::Request;
    /// use tollgate::quota::CountedBody;
    /// fn boxed(request: Request<CountedBody<axum::body::Body>>) -> Request<axum::body::Body> {
    ///     request.map(axum::body::Body::new)
    /// }
    /// ```
    pub struct CountedBody<B> {
        #[pin]
        body: B,
        read: Option<Read>,
    }
}

impl<B: http_body::Body> http_body::Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let (Some(read), Some(Ok(frame))) = (this.read, &frame)
            && let Some(data) = frame.data_ref()
        {
            read.0.fetch_add(data.remaining() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for CountedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountedBody").field("read", &self.read).finish_non_exhaustive()
    }
}
