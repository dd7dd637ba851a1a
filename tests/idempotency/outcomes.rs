//! Ends of handlers: what is stored, replayed, or freed.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tollgate::{PolicyName, Reason, Refusal, idempotency::Replay, key_value::AfterLease};
use tower::{Layer, ServiceExt};

use super::place::{AnswerBody, Handler, answer, layer, payment, send, store, try_send};

/// Returns a body of these frames.
fn frames(frames: Vec<Result<Frame<Bytes>, std::io::Error>>) -> AnswerBody {
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn data(text: &'static str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

#[tokio::test]
async fn answers_that_settle_nothing_free_the_key() {
    let handler = Handler::default();
    for status in [401, 403, 408, 413, 421, 425, 429, 500, 502, 503] {
        let inner = handler.service(move |number, _| async move {
            Ok(answer(if number % 2 == 1 { status } else { 201 }, format!("call {number}")))
        });
        let service = layer(&store()).layer(inner);
        assert_eq!(send(&service, payment("k")).await.status.as_u16(), status);
        let second = send(&service, payment("k")).await;
        assert_eq!((second.status, second.is_replayed()), (StatusCode::CREATED, false), "after {status}");
        assert!(send(&service, payment("k")).await.is_replayed());
    }
}

#[tokio::test]
async fn answers_that_settle_are_replayed() {
    for status in [200, 201, 202, 204, 301, 400, 402, 404, 409, 410, 418, 422, 451] {
        let handler = Handler::default();
        let inner = handler.service(move |_, _| async move { Ok(answer(status, "")) });
        let service = layer(&store()).layer(inner);
        assert!(!send(&service, payment("k")).await.is_replayed());
        let again = send(&service, payment("k")).await;
        assert_eq!((again.status.as_u16(), again.is_replayed()), (status, true));
    }
}

#[tokio::test]
async fn failures_are_replayed_on_request() {
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let handler = Handler::default();
        let inner = handler.service(|number, _| async move {
            match number {
                1 => Ok(answer(500, "call 1")),
                2 => Err("no connection"),
                3 => Ok(Response::new(frames(vec![data("half"), Err(std::io::Error::other("cut"))]))),
                _ => panic!("call {number}"),
            }
        });
        let service = layer(&store()).replay(Replay::EvenFailures).after_lease(after_lease).layer(inner);
        assert_eq!(send(&service, payment("a")).await.status, StatusCode::INTERNAL_SERVER_ERROR);
        let again = send(&service, payment("a")).await;
        assert_eq!(
            (again.status, again.is_replayed(), again.text()),
            (StatusCode::INTERNAL_SERVER_ERROR, true, "call 1")
        );
        assert_eq!(try_send(&service, payment("b")).await.unwrap_err(), "no connection");
        assert_eq!(try_send(&service, payment("c")).await.unwrap_err(), "cut");
        assert!(AssertUnwindSafe(send(&service, payment("d"))).catch_unwind().await.is_err());
        for _ in 0..10 {
            tokio::task::yield_now().await; // its end is stored in the background
        }
        for key in ["b", "c", "d"] {
            let again = send(&service, payment(key)).await;
            assert_eq!(again.status, StatusCode::CONFLICT, "{key}");
            assert!(again.text().contains("answer_not_retained"), "{}", again.text());
        }
        assert_eq!(handler.calls(), 4);
    }
}

#[tokio::test]
async fn service_that_is_not_ready_has_not_failed() {
    let handler = Handler::default();
    let never_ready = tower::service_fn(|_| async { Ok::<_, &'static str>(answer(201, "")) });
    let never_ready = tower::util::BoxCloneSyncService::new(NotReady(never_ready));
    let store = store();
    let layer = layer(&store).replay(Replay::EvenFailures);
    let service = layer.layer(never_ready);
    let response = tower::Service::call(&mut service.clone(), payment("k")).await;
    assert_eq!(response.err(), Some("not ready"));
    assert_eq!(send(&handler.echo(&layer), payment("k")).await.text(), "call 1: amount=5", "the key is free");
}

/// A service that is never ready.
#[derive(Clone)]
struct NotReady<S>(S);

impl<R, S: tower::Service<R, Error = &'static str>> tower::Service<R> for NotReady<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        std::task::Poll::Ready(Err("not ready"))
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

#[tokio::test]
async fn error_and_panic_free_the_key() {
    let handler = Handler::default();
    let inner = handler.service(|number, _| async move {
        match number {
            1 => Err("no connection"),
            2 => panic!("a fault of the handler"),
            _ => Ok(answer(201, format!("call {number}"))),
        }
    });
    let service = layer(&store()).layer(inner);
    assert_eq!(try_send(&service, payment("k")).await.unwrap_err(), "no connection");
    assert!(AssertUnwindSafe(send(&service, payment("k"))).catch_unwind().await.is_err());
    for _ in 0..10 {
        tokio::task::yield_now().await; // it is freed in the background
    }
    assert_eq!(send(&service, payment("k")).await.text(), "call 3");
    assert!(send(&service, payment("k")).await.is_replayed());
}

#[tokio::test]
async fn refusal_of_a_layer_further_in_frees_the_key() {
    let handler = Handler::default();
    let inner = handler.service(|number, _| async move {
        let mut response = answer(409, format!("call {number}"));
        let policy = PolicyName::try_new("quota").unwrap();
        response.extensions_mut().insert(Refusal::new(Reason::JobRunning, policy));
        Ok(response)
    });
    let service = layer(&store()).layer(inner);
    for number in 1..=2 {
        assert_eq!(send(&service, payment("k")).await.text(), format!("call {number}"));
    }
}

#[tokio::test]
async fn refusal_of_a_request_of_the_handlers_own_is_its_answer() {
    // A breaker in front of the handler's client; the handler passes its refusal on, with another status.
    let open = tollgate::CircuitBreakerLayer::for_server().outbound();
    open.handle().force_open();
    let client =
        open.layer(tower::service_fn(|_: http::Request<String>| async { Ok::<_, ()>(Response::new(String::new())) }));
    let refused = client.oneshot(http::Request::new(String::new())).await.unwrap();
    let refusal = refused.extensions().get::<Refusal>().unwrap().clone();
    assert!(refusal.is_outbound());
    let handler = Handler::default();
    let inner = handler.service(move |number, _| {
        let mut response = answer(202, format!("call {number}"));
        response.extensions_mut().insert(refusal.clone());
        async move { Ok(response) }
    });
    let service = layer(&store()).layer(inner);
    for replayed in [false, true] {
        let reply = send(&service, payment("k")).await;
        assert_eq!((reply.text(), reply.is_replayed()), ("call 1", replayed));
    }
}

#[tokio::test]
async fn only_fields_of_the_answer_are_replayed() {
    let handler = Handler::default();
    let inner = handler.service(|_, request| async move {
        assert!(!request.headers().contains_key("accept-encoding"), "the answer is stored for all");
        let mut response = answer(201, "paid");
        let kept =
            ["content-type", "content-language", "location", "etag", "last-modified", "link", "vary", "x-receipt"];
        let dropped = [
            "set-cookie",
            "date",
            "age",
            "retry-after",
            "ratelimit",
            "x-ratelimit-remaining",
            "access-control-allow-origin",
            "x-request-id",
            "connection",
        ];
        for name in kept.into_iter().chain(dropped) {
            response.headers_mut().append(name, format!("one {name}").parse().unwrap());
        }
        response.headers_mut().append("link", "another".parse().unwrap());
        response.headers_mut().insert("content-length", "4".parse().unwrap());
        Ok(response)
    });
    let service = layer(&store()).replay_header("x-receipt").layer(inner);
    let mut request = payment("k");
    request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let first = send(&service, request.clone()).await;
    assert_eq!(first.headers["set-cookie"], "one set-cookie");
    let again = send(&service, request).await;
    let mut expected = HeaderMap::new();
    for name in ["content-type", "content-language", "location", "etag", "last-modified", "link", "vary", "x-receipt"] {
        expected.append(name, format!("one {name}").parse().unwrap());
    }
    expected.append("link", "another".parse().unwrap());
    expected.insert("idempotent-replayed", "true".parse().unwrap());
    let date = again.headers["idempotent-first-date"].clone();
    expected.insert("idempotent-first-date", date);
    assert_eq!((again.headers, &again.body[..]), (expected, &b"paid"[..]));
}

#[test]
#[should_panic = "replay_header must be the name of a header that does not belong to one exchange, got Set-Cookie"]
fn header_of_one_exchange_is_refused_when_built() {
    let _ = layer(&store()).replay_header("Set-Cookie");
}

#[tokio::test]
async fn answers_that_are_not_retained_are_passed_on() {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
    type Make = Box<dyn Fn() -> Response<AnswerBody> + Send + Sync>;
    let cases: Vec<(&str, Make, &str)> = vec![
        (
            "over the cap",
            Box::new(|| Response::new(frames(vec![data("12345"), data("67890"), data("x")]))),
            "1234567890x",
        ),
        ("long by its hint", Box::new(|| answer(200, "1234567890x")), "1234567890x"),
        (
            "trailers",
            Box::new(move || Response::new(frames(vec![data("a"), Ok(Frame::trailers(trailers.clone()))]))),
            "a",
        ),
        (
            "events",
            Box::new(|| {
                let mut response = answer(200, "data: 1\n\n");
                response.headers_mut().insert("content-type", "Text/Event-Stream; charset=utf-8".parse().unwrap());
                response
            }),
            "data: 1\n\n",
        ),
    ];
    for (what, make, text) in cases {
        let (handler, make) = (Handler::default(), Arc::new(make));
        let inner = handler.service(move |_, _| {
            let response = make();
            async move { Ok(response) }
        });
        let service = layer(&store()).max_answer(10).layer(inner);
        assert_eq!(send(&service, payment("k")).await.text(), text, "{what}");
        let again = send(&service, payment("k")).await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{what}");
        assert!(again.text().contains(r#""code":"answer_not_retained""#), "{}", again.text());
        assert!(!again.headers.contains_key("retry-after"), "a retry does not help");
        assert_eq!(handler.calls(), 1);
    }
}

#[tokio::test]
async fn trailers_reach_the_client() {
    let handler = Handler::default();
    let inner = handler.service(|_, _| async {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        Ok(Response::new(frames(vec![data("a"), Ok(Frame::trailers(trailers))])))
    });
    let response = layer(&store()).layer(inner).oneshot(payment("k")).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "1");
    assert_eq!(collected.to_bytes(), "a");
}

#[tokio::test]
async fn body_that_fails_frees_the_key() {
    let handler = Handler::default();
    let inner = handler.service(|number, _| async move {
        Ok(match number {
            1 => Response::new(frames(vec![data("half"), Err(std::io::Error::other("cut"))])),
            _ => answer(201, format!("call {number}")),
        })
    });
    let service = layer(&store()).layer(inner);
    assert_eq!(try_send(&service, payment("k")).await.unwrap_err(), "cut");
    assert_eq!(send(&service, payment("k")).await.text(), "call 2");
    assert!(send(&service, payment("k")).await.is_replayed());
}

#[tokio::test]
async fn answer_in_pieces_is_replayed_whole() {
    let handler = Handler::default();
    let inner = handler.service(|_, _| async move { Ok(Response::new(frames(vec![data("a"), data(""), data("bc")]))) });
    let service = layer(&store()).layer(inner);
    for replayed in [false, true] {
        let reply = send(&service, payment("k")).await;
        assert_eq!((reply.text(), reply.is_replayed()), ("abc", replayed));
    }
}

#[tokio::test(start_paused = true)]
async fn answer_is_forgotten_after_its_life() {
    let handler = Handler::default();
    let service = handler.echo(&layer(&store()));
    send(&service, payment("k")).await;
    tokio::time::sleep(Duration::from_secs(86_399)).await;
    assert!(send(&service, payment("k")).await.is_replayed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(send(&service, payment("k")).await.text(), "call 2: amount=5");
}
