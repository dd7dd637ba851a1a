//! Body bytes of a request and its response that are not known at admission.

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
use http::Request;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::active_plan::{ActivePlan, content_length};
use crate::{
    head::RequestHead,
    kind::{Direction, Kind},
    quota::Amounts,
};

/// Bytes that have passed and are not reported to the account.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    /// Response bytes that were not reported yet.
    fresh: u64,
    upload: Option<Box<Upload>>,
}

/// Body of a request that a [`RequestBytesLayer`] counts.
#[derive(Debug)]
struct Upload {
    read: Read,
    /// Bytes that were reported, or charged at admission.
    known: u64,
    /// Bytes that were charged at admission.
    declared: u64,
}

/// Bytes after which usage is reported to the account, so that a long download is not counted only at its end.
const REPORT_BYTES: u64 = 1 << 20;

impl Bytes {
    #[inline]
    pub(super) fn new(active: &ActivePlan, declared: u64, request: &RequestHead<'_>) -> Self {
        let read = if active.request_bytes { request.extensions.get::<Read>() } else { None };
        let upload = read.map(|read| Box::new(Upload { read: read.clone(), known: declared, declared }));
        Self { upload, ..Self::default() }
    }

    /// Whether the body of the request is counted as it is read.
    pub(super) const fn counts_request(&self) -> bool {
        self.upload.is_some()
    }

    /// Whether the body may turn out shorter than what is charged at admission.
    pub(super) fn may_be_returned(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.declared > 0)
    }

    /// Sets the bytes of the body that were read in place of its declared length, unless the handler has recorded the kind.
    pub(super) fn correct_declared(&self, actual: &mut Amounts, asked: &Amounts) {
        let Some(upload) = self.upload.as_ref().filter(|upload| upload.declared > 0) else { return };
        for kind in [Direction::Both, Direction::Request].map(Kind::Bytes) {
            if asked.get(&kind).is_some() && actual.get(&kind).is_none() {
                actual.set(&kind, upload.read.bytes().min(upload.declared));
            }
        }
    }

    /// Adds response bytes that were handed to the transport.
    #[inline]
    pub(super) const fn answered(&mut self, bytes: usize) {
        self.fresh = self.fresh.saturating_add(bytes as u64);
    }

    /// Whether enough bytes have passed for a report to the account.
    pub(super) const fn are_due(&self) -> bool {
        self.fresh >= REPORT_BYTES
    }

    /// Whether all bytes that have passed were reported.
    pub(super) fn are_all_reported(&self) -> bool {
        self.fresh == 0 && self.upload.as_ref().is_none_or(|upload| upload.read.bytes() <= upload.known)
    }

    /// Returns the bytes that have passed since the last call.
    pub(super) fn report(&mut self) -> Amounts {
        let answered = std::mem::take(&mut self.fresh);
        let read = self.upload.as_mut().map_or(0, |upload| {
            let read = upload.read.bytes().max(upload.known);
            read - std::mem::replace(&mut upload.known, read)
        });
        amounts(read, answered)
    }
}

#[inline]
fn amounts(request: u64, response: u64) -> Amounts {
    let mut amounts = Amounts::new();
    if request == 0 && response == 0 {
        return amounts;
    }
    for (direction, bytes) in [
        (Direction::Both, request.saturating_add(response)),
        (Direction::Request, request),
        (Direction::Response, response),
    ] {
        if bytes > 0 {
            amounts.add(&Kind::Bytes(direction), bytes);
        }
    }
    amounts
}

/// Counts request bodies as they are read, for the [`QuotaLayer`](crate::QuotaLayer)s further in; it is placed outside of
/// them. **It changes the type of the request's body** to [`CountedBody`].
///
/// | body | without this layer | with it |
/// |---|---|---|
/// | with a `Content-Length` | its length is charged at admission, whether the body comes or not | its length is reserved at admission; at the end of the response, bytes that the service has not read are returned |
/// | of unknown length | counts nothing | bytes that the service has read are charged at the end of the response, even beyond the limit: no body is cut short |
///
/// Bytes that are read after the end of the response count nothing.
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
    /// Creates the layer.
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

/// Service whose request bodies are counted; made by a [`RequestBytesLayer`].
///
/// It neither decides nor waits, and therefore is not a [`Gate`](crate::Gate), which leaves the type of the request
/// unchanged.
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
        let expected = !request.body().is_end_stream() || content_length(request.headers()) > 0;
        let read = expected.then(Read::default);
        if let Some(read) = &read {
            request.extensions_mut().insert(read.clone());
        }
        self.inner.call(request.map(|body| CountedBody { body, read }))
    }
}

/// Number of body bytes that were read so far; in the request's extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct Read(Arc<AtomicU64>);

impl Read {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pin_project! {
    /// Request body that is counted as it is read; see [`RequestBytesLayer`].
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
