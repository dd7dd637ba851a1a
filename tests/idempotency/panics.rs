//! Panics: of the handler, which end its call, and of others, which only hang up.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt, future::join};
use http::StatusCode;
use tokio::time::sleep;
use tollgate::{idempotency::IdempotencyLayer, key_value::AfterLease};
use tower::Layer;

use super::place::{Handler, Service, answer, layer, payment, send, store};

const WORK: Duration = Duration::from_secs(10);

fn slow(handler: &Handler, layer: &IdempotencyLayer) -> Service {
    layer.layer(handler.service(|number, _| async move {
        sleep(WORK).await;
        Ok(answer(201, format!("call {number}")))
    }))
}

/// Panics beside a call that has begun, in the same task.
async fn panic_beside(call: impl Future) {
    let neighbour = async {
        sleep(WORK / 2).await;
        panic!("a fault of a neighbour");
    };
    assert!(AssertUnwindSafe(join(call, neighbour)).catch_unwind().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_neighbour_is_a_hang_up() {
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let (handler, layer) = (Handler::default(), layer(&store()).after_lease(after_lease));
        let service = slow(&handler, &layer);
        panic_beside(send(&service, payment("k"))).await;
        assert_eq!(layer.handle().counts().detached, 1, "the handler runs on");
        assert_eq!(send(&service, payment("k")).await.status, StatusCode::CONFLICT);
        assert!(layer.handle().drain(WORK).await);
        let again = send(&service, payment("k")).await;
        assert_eq!((again.text(), again.is_replayed(), handler.calls()), ("call 1", true, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_neighbour_frees_no_key_under_hold() {
    let (handler, store) = (Handler::default(), store());
    let layer = layer(&store).max_detached(0);
    let service = slow(&handler, &layer);
    panic_beside(send(&service, payment("k"))).await;
    sleep(Duration::from_secs(120)).await;
    let again = send(&service, payment("k")).await;
    assert!(again.text().contains("operation_outcome_unknown"), "{}", again.text());
    assert_eq!((store.calls("abandon"), handler.calls()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn call_that_panicked_is_never_polled_again() {
    let (handler, layer) = (Handler::default(), layer(&store()));
    let service = layer.layer(handler.service(|number, _| async move {
        sleep(WORK).await;
        if number == 1 {
            panic!("a fault of the handler");
        }
        Ok(answer(201, format!("call {number}")))
    }));
    // As a layer does that catches panics: the future outlives its panic.
    let mut call = Box::pin(AssertUnwindSafe(send(&service, payment("k"))).catch_unwind());
    assert!((&mut call).await.is_err());
    assert_eq!(layer.handle().counts().detached, 0);
    drop(call);
    assert_eq!(layer.handle().counts().detached, 0, "it is not spawned");
    sleep(WORK).await;
    assert_eq!(send(&service, payment("k")).await.text(), "call 2", "the key is free");
}
