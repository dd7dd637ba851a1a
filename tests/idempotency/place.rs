//! A service behind the layer, its handler, and requests.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tollgate::{
    ApiKey, Clock, Principal,
    idempotency::{IdempotencyLayer, IdempotencyService, IdempotentBody},
    key_value::MemoryStore,
};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};

use crate::faulty::FaultyStore;

pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, std::io::Error>;
pub(crate) type Inner = BoxCloneSyncService<Request<IdempotentBody<Full<Bytes>>>, Response<AnswerBody>, &'static str>;
pub(crate) type Service = IdempotencyService<Inner>;

/// An answer that was read to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn is_replayed(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub(crate) fn who() -> ApiKey {
    let named = |key: &str| ["alice", "bob"].contains(&key).then(|| Principal::named(key));
    ApiKey::header("x-api-key", named)
}

/// Returns a store on tokio's time, and a layer over it. The layers of one store stand for processes with one secret.
pub(crate) fn store() -> Arc<FaultyStore> {
    FaultyStore::new(MemoryStore::new().clock(Clock::tokio()))
}

pub(crate) fn layer(store: &Arc<FaultyStore>) -> IdempotencyLayer {
    IdempotencyLayer::new(who(), store.clone(), &"5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap())
}

/// Handler that counts its calls.
#[derive(Clone, Default)]
pub(crate) struct Handler(Arc<AtomicUsize>);

impl Handler {
    pub(crate) fn calls(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// Returns a service that calls `answer` with the number of the call and the request.
    pub(crate) fn service<F>(
        &self,
        answer: impl Fn(usize, Request<IdempotentBody<Full<Bytes>>>) -> F + Clone + Send + Sync + 'static,
    ) -> Inner
    where
        F: Future<Output = Result<Response<AnswerBody>, &'static str>> + Send + 'static,
    {
        let calls = Arc::clone(&self.0);
        BoxCloneSyncService::new(tower::service_fn(move |request| {
            let number = calls.fetch_add(1, SeqCst) + 1;
            answer(number, request)
        }))
    }

    /// Returns a service that answers with the number of the call and the request's body.
    pub(crate) fn echo(&self, layer: &IdempotencyLayer) -> Service {
        layer.layer(self.service(|number, request| async move {
            let body = request.into_body().collect().await.map_err(|_| "unreadable")?.to_bytes();
            Ok(answer(201, format!("call {number}: {}", String::from_utf8_lossy(&body))))
        }))
    }
}

pub(crate) fn body(text: impl Into<Bytes>) -> AnswerBody {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn answer(status: u16, text: impl Into<Bytes>) -> Response<AnswerBody> {
    Response::builder().status(status).body(body(text)).unwrap()
}

/// Returns a POST of a client with a key.
pub(crate) fn post(client: &str, key: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("x-api-key", client).header("idempotency-key", key);
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

/// Returns alice's payment under a key.
pub(crate) fn payment(key: &str) -> Request<Full<Bytes>> {
    post("alice", key, "/payments", "amount=5")
}

pub(crate) async fn send(service: &Service, request: Request<Full<Bytes>>) -> Reply {
    try_send(service, request).await.expect("an answer")
}

/// Sends a request; fails with the error of the service or of the body.
pub(crate) async fn try_send(service: &Service, request: Request<Full<Bytes>>) -> Result<Reply, String> {
    let response = service.clone().oneshot(request).await.map_err(str::to_owned)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Reply { status: head.status, headers: head.headers, body })
}
