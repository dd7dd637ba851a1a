//! Bounds: long bodies, slow bodies, bytes of all bodies.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::{Instant, sleep};
use tollgate::idempotency::{IdempotencyLayer, IdempotencyService, IdempotentBody};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};

use super::place::{AnswerBody, Handler, answer, layer, payment, send, store};

type Streamed = UnsyncBoxBody<Bytes, std::io::Error>;
type StreamInner = BoxCloneSyncService<Request<IdempotentBody<Streamed>>, Response<AnswerBody>, &'static str>;

/// Returns a service whose requests have streamed bodies. It answers with their length.
fn streaming(layer: &IdempotencyLayer) -> IdempotencyService<StreamInner> {
    layer.layer(BoxCloneSyncService::new(tower::service_fn(|request: Request<IdempotentBody<Streamed>>| async move {
        let body = request.into_body().collect().await.map_err(|_| "unreadable")?.to_bytes();
        Ok(answer(201, body.len().to_string()))
    })))
}

/// Returns a request whose body comes in pieces, with a pause before each, and then fails if it is told to.
fn in_pieces(pieces: usize, pause: Duration, fails: bool) -> Request<Streamed> {
    let pieces = stream::iter(0..pieces).then(move |_| async move {
        sleep(pause).await;
        Ok(Frame::data(Bytes::from_static(b"0123456789")))
    });
    let end = stream::iter(fails.then(|| Err(std::io::Error::other("cut"))));
    let request = Request::post("/uploads").header("x-api-key", "alice").header("idempotency-key", "k");
    request.body(StreamBody::new(pieces.chain(end)).boxed_unsync()).unwrap()
}

async fn upload(service: &IdempotencyService<StreamInner>, request: Request<Streamed>) -> (u16, Bytes) {
    let response = service.clone().oneshot(request).await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test(start_paused = true)]
async fn long_body_is_refused_by_its_length_and_by_its_content() {
    let handler = Handler::default();
    let layer = layer(&store()).max_body(100);
    let mut declared = payment("k");
    declared.headers_mut().insert("content-length", "101".parse().unwrap());
    assert_eq!(send(&handler.echo(&layer), declared).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut never = in_pieces(usize::MAX, Duration::from_secs(1), false);
    never.headers_mut().insert("content-length", "101".parse().unwrap());
    let begun = Instant::now();
    assert_eq!(upload(&streaming(&layer), never).await.0, 413);
    assert_eq!(begun.elapsed(), Duration::ZERO, "it is not read");

    assert_eq!(upload(&streaming(&layer), in_pieces(11, Duration::ZERO, false)).await.0, 413);
    let exact = upload(&streaming(&layer), in_pieces(10, Duration::ZERO, false)).await;
    assert_eq!(exact, (201, "100".into()));
    assert_eq!(handler.calls(), 0);
    assert_eq!(layer.handle().counts().buffered, 0);
}

#[tokio::test(start_paused = true)]
async fn slow_or_broken_body_carries_nothing_out() {
    let layer = layer(&store()).body_timeout(Duration::from_secs(10));
    let service = streaming(&layer);
    let begun = Instant::now();
    assert_eq!(upload(&service, in_pieces(100, Duration::from_secs(1), false)).await.0, 408);
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert_eq!(upload(&service, in_pieces(2, Duration::ZERO, true)).await.0, 408);
    assert_eq!(upload(&service, in_pieces(9, Duration::from_secs(1), false)).await, (201, "90".into()));
    assert_eq!(layer.handle().counts().executed, 1);
}

#[tokio::test]
async fn bodies_of_known_length_take_no_more_than_they_have() {
    let handler = Handler::default();
    let layer = layer(&store()).max_body(100).max_buffered(100);
    let service = handler.echo(&layer);
    let keys: Vec<_> = (0..32).map(|number| format!("k-{number}")).collect();
    // Without a content length, as over HTTP/2: the body itself knows it.
    let replies = join_all(keys.iter().map(|key| send(&service, super::place::post("alice", key, "/empty", "")))).await;
    assert!(replies.iter().all(|reply| reply.status == StatusCode::CREATED), "{replies:?}");
}

#[tokio::test(start_paused = true)]
async fn bytes_of_all_bodies_are_bounded_and_given_back() {
    let layer = layer(&store()).max_body(100).max_buffered(250);
    let service = streaming(&layer);
    let slow = |key: &str| {
        let mut request = in_pieces(1, Duration::from_secs(1), false);
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        request
    };
    let replies = join_all(["a", "b", "c"].map(|key| upload(&service, slow(key)))).await;
    assert_eq!(replies.iter().map(|reply| reply.0).collect::<Vec<_>>(), [201, 201, 503], "each counts with the bound");
    let mut known = slow("c");
    known.headers_mut().insert("content-length", "10".parse().unwrap());
    let replies = tokio::join!(upload(&service, slow("d")), upload(&service, slow("e")), upload(&service, known));
    assert_eq!([replies.0.0, replies.1.0, replies.2.0], [201, 201, 201], "a known length counts itself");
    assert_eq!(layer.handle().counts().buffered, 0);
}
