//! A quota further in: an operation is charged once, and a replay is not charged.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tollgate::{
    Client, JobIdSource, Period, Plan, Quota, QuotaLayer, Quotas,
    idempotency::{IdempotencyLayer, IdempotentBody, IdempotentExecution},
};
use tower::{Layer, util::BoxCloneSyncService};

use super::place::{Handler, Service, answer, layer, payment, post, send, store, who};

/// Returns a service whose third call fails, under a quota of three requests, and the handle of the quota.
fn service(handler: &Handler, outer: &IdempotencyLayer) -> (Service, Quotas) {
    let jobs =
        JobIdSource::from_head(|request| Some(request.extensions.get::<IdempotentExecution>()?.record().to_string()));
    let plan = Plan::new("small").limit(Quota::requests(3).per(Period::day()));
    let quota = QuotaLayer::new(plan).identify_by(who()).job_ids(jobs);
    let handle = quota.handle();
    let inner = handler
        .service(|number, _| async move { Ok(answer(if number == 3 { 500 } else { 201 }, format!("call {number}"))) });
    let charged = tower::ServiceBuilder::new()
        .map_response(|response: http::Response<_>| response.map(BodyExt::boxed_unsync))
        .map_request(|request: Request<IdempotentBody<Full<Bytes>>>| request)
        .layer(quota)
        .service(inner);
    (outer.layer(BoxCloneSyncService::new(charged)), handle)
}

#[tokio::test]
async fn operation_is_charged_once_and_a_replay_is_not() {
    let handler = Handler::default();
    let (service, quotas) = service(&handler, &layer(&store()));
    let alice = Client::named("alice");
    for key in ["a", "a", "a", "b", "b"] {
        assert_eq!(send(&service, payment(key)).await.status, StatusCode::CREATED);
    }
    assert_eq!(handler.calls(), 2);
    // A failure frees the key and the charge, and its retry is charged again.
    assert_eq!(send(&service, payment("c")).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(send(&service, payment("c")).await.text(), "call 4");
    let refused = send(&service, payment("d")).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "three are charged: {:?}", quotas.usage(&alice).await);
    assert_eq!(send(&service, post("bob", "d", "/payments", "amount=5")).await.text(), "call 5");
    // The refusal was not stored under its key, and replays cost nothing.
    assert_eq!(send(&service, payment("d")).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(send(&service, payment("a")).await.is_replayed());
    assert_eq!(handler.calls(), 5);
}
