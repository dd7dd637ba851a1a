//! Requests, a bare service for them, and loops that send them.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use tower::{Service, service_fn};

use crate::{
    keys::{key, keys, shuffled},
    lap::{Lap, timed},
};

/// Field that identifies the client.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Number of clients that send requests.
const CLIENTS: u64 = 256;

/// Returns a request of one of the clients.
pub fn request(i: u64) -> Request<Body> {
    static VALUES: LazyLock<Vec<HeaderValue>> =
        LazyLock::new(|| keys(CLIENTS).into_iter().map(|key| HeaderValue::try_from(key).expect("visible")).collect());
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(API_KEY, VALUES[(i % CLIENTS) as usize].clone());
    request
}

/// The service behind every layer: an empty 200 with one field, because each framework sends one.
pub fn bare<R: Default + Send + 'static>()
-> impl Service<Request<Body>, Response = Response<R>, Error = Infallible, Future = Ready<Result<Response<R>, Infallible>>>
+ Clone
+ Send
+ Sync
+ 'static {
    service_fn(|request: Request<Body>| {
        drop(black_box(request));
        let mut response = Response::new(R::default());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        ready(Ok(response))
    })
}

/// Returns the output of a future that must be ready.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits for anything"),
    }
}

/// Polls a service ready, as required before each call, and calls it.
pub fn call<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>) -> S::Future {
    match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => service.call(request),
        _ => panic!("nothing here is ever busy"),
    }
}

/// Returns a loop of requests through `service`, each answered with `status`, after one request of each client.
pub fn serve<S, R>(mut service: S, status: StatusCode) -> Lap
where
    S: Service<Request<Body>, Response = Response<R>> + 'static,
    S::Error: Debug,
{
    for i in 0..2 * CLIENTS {
        let answer = now(call(&mut service, request(i))).expect("an answer");
        assert!(i < CLIENTS || answer.status() == status, "{} instead of {status}", answer.status());
    }
    requests(move |request| call(&mut service, request))
}

/// Returns a loop of requests of a million clients in any order through `service`, after one request of each.
pub fn serve_million<S, R>(mut service: S) -> Lap
where
    S: Service<Request<Body>, Response = Response<R>> + 'static,
    S::Error: Debug,
{
    const MILLION: u64 = 1_000_000;
    fn request(i: u64) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        let value = HeaderValue::from_str(key(i, &mut [0; 20])).expect("visible");
        request.headers_mut().insert(API_KEY, value);
        request
    }
    for i in 0..MILLION {
        let answer = now(call(&mut service, request(i))).expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let mut next = shuffled(MILLION);
    requests_of(move |_| request(next()), move |request| call(&mut service, request))
}

/// Returns a loop of requests through a function; requests are made before the clock runs.
pub fn requests<F: Future>(through: impl FnMut(Request<Body>) -> F + 'static) -> Lap {
    requests_of(request, through)
}

fn requests_of<F: Future>(
    mut make: impl FnMut(u64) -> Request<Body> + 'static,
    mut through: impl FnMut(Request<Body>) -> F + 'static,
) -> Lap {
    let mut batch = Vec::with_capacity(64); // few enough to stay in the cache
    let mut next = 0;
    Box::new(move |operations| {
        let mut took = Duration::ZERO;
        let end = next + operations;
        while next < end {
            let until = end.min(next + 64);
            batch.extend((next..until).map(&mut make));
            next = until;
            took += timed(|| batch.drain(..).for_each(|request| drop(black_box(now(through(request))))));
        }
        took
    })
}
