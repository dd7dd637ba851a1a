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

/// Returns a client's request of a declared length, whose body comes after ten seconds.
fn declared(client: &'static str, key: &str, length: usize) -> Request<Streamed> {
    let mut request = in_pieces(1, Duration::from_secs(10), false);
    request.headers_mut().insert("x-api-key", client.parse().unwrap());
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request.headers_mut().insert("content-length", length.to_string().parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn bytes_of_all_bodies_are_bounded_and_given_back() {
    let layer = layer(&store()).max_body(100).max_answer(100).max_buffered(150);
    let service = streaming(&layer);
    for _ in 0..2 {
        let alice = upload(&service, declared("alice", "a", 100));
        let (bob, late) = (declared("bob", "b", 50), declared("bob", "c", 1));
        let (alice, bob, late) = tokio::join!(alice, upload(&service, bob), upload(&service, late));
        assert_eq!([alice.0, bob.0, late.0], [201, 201, 503]);
        assert!(String::from_utf8_lossy(&late.1).contains("All capacity is in use."), "{late:?}");
        assert_eq!(layer.handle().counts().buffered, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_client_leaves_half_of_the_bytes_to_others() {
    let layer = layer(&store()).max_body(100).max_answer(100).max_buffered(400);
    let service = streaming(&layer);
    let alices = join_all(["a", "b", "c"].map(|key| upload(&service, declared("alice", key, 100))));
    let bobs = join_all(["a", "b"].map(|key| upload(&service, declared("bob", key, 100))));
    let (alices, bobs) = tokio::join!(alices, bobs);
    assert_eq!(alices.iter().map(|reply| reply.0).collect::<Vec<_>>(), [201, 201, 429]);
    assert!(String::from_utf8_lossy(&alices[2].1).contains("all the capacity that one client may have"));
    assert_eq!(bobs.iter().map(|reply| reply.0).collect::<Vec<_>>(), [201, 201]);
    assert_eq!(layer.handle().counts().buffered, 0);
}

#[tokio::test(start_paused = true)]
async fn body_of_unknown_length_counts_with_what_has_arrived() {
    let layer = layer(&store()).max_body(100).max_answer(100).max_buffered(100);
    let (service, handle) = (streaming(&layer), layer.handle());
    let sampled = async {
        sleep(Duration::from_millis(3_500)).await;
        assert_eq!(handle.counts().buffered, 30);
        let bob = upload(&service, declared("bob", "b", 50)).await;
        assert_eq!(bob.0, 201);
    };
    let (alice, ()) = tokio::join!(upload(&service, in_pieces(9, Duration::from_secs(1), false)), sampled);
    assert_eq!(alice.0, 503, "it has no room beside bob's");
    assert_eq!((handle.counts().buffered, handle.counts().executed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn answer_without_room_is_passed_on_and_not_retained() {
    let (handler, store) = (Handler::default(), store());
    let layer = layer(&store).max_body(100).max_answer(100).max_buffered(150);
    let service = layer.layer(handler.service(|_, _| async { Ok(answer(201, "x".repeat(60))) }));
    let streams = streaming(&layer);
    let during = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(send(&service, payment("k")).await.text(), "x".repeat(60));
        assert_eq!(layer.handle().counts().not_retained, 1);
    };
    let (bob, ()) = tokio::join!(upload(&streams, declared("bob", "b", 100)), during);
    assert_eq!(bob.0, 201);
    assert_eq!(send(&service, payment("k")).await.status, StatusCode::CONFLICT);
    assert_eq!((handler.calls(), layer.handle().counts().buffered), (1, 0));
    assert_eq!(send(&service, payment("l")).await.status, StatusCode::CREATED);
    assert!(send(&service, payment("l")).await.is_replayed());
}

#[test]
#[should_panic = "max_buffered must be at least 101, which is max_body, got 100"]
fn body_above_all_bytes_is_refused_when_built() {
    let _ = Handler::default().echo(&layer(&store()).max_body(101).max_buffered(100));
}

#[tokio::test]
async fn answer_in_many_empty_frames_takes_no_room() {
    let frames = || stream::iter((0..100_000).map(|_| Ok(Frame::data(Bytes::new()))));
    let handler = Handler::default();
    let inner = handler.service(move |_, _| async move {
        Ok(Response::new(StreamBody::new(frames().chain(stream::iter([Ok(Frame::data("end".into()))]))).boxed_unsync()))
    });
    let service = layer(&store()).layer(inner);
    for replayed in [false, true] {
        let response = service.clone().oneshot(payment("k")).await.unwrap();
        assert_eq!(response.headers().contains_key("idempotent-replayed"), replayed);
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!((first.into_data().unwrap(), body.frame().await.is_none()), ("end".into(), true));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_answer_is_a_stream() {
    let handler = Handler::default();
    let layer = layer(&store()).answer_timeout(Duration::from_secs(3));
    let service = layer.layer(handler.service(|_, _| async {
        let pieces = stream::iter(0..5).then(|number| async move {
            sleep(Duration::from_secs(1)).await;
            Ok(Frame::data(Bytes::from(number.to_string())))
        });
        Ok(Response::new(StreamBody::new(pieces).boxed_unsync()))
    }));
    let begun = Instant::now();
    let response = service.clone().oneshot(payment("k")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(3), "its head is not held up");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "01234");
    assert_eq!(send(&service, payment("k")).await.status, StatusCode::CONFLICT);
    assert_eq!((handler.calls(), layer.handle().counts().not_retained), (1, 1));
}

#[tokio::test]
async fn fields_above_the_cap_are_not_stored() {
    let handler = Handler::default();
    let service = layer(&store()).max_answer(30).layer(handler.service(|_, _| async {
        let mut response = answer(201, "");
        response.headers_mut().insert("location", "/payments/0123456789".parse().unwrap());
        Ok(response)
    }));
    assert_eq!(send(&service, payment("k")).await.headers["location"], "/payments/0123456789");
    assert_eq!(send(&service, payment("k")).await.status, StatusCode::CONFLICT);
}
