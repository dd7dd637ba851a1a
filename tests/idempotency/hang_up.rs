//! Clients that hang up: the handler runs on, its answer is stored, nothing is left.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use futures_util::future::join_all;
use http::StatusCode;
use tokio::{sync::Semaphore, time::sleep};
use tollgate::{
    idempotency::{IdempotencyLayer, OnRunning},
    key_value::AfterLease,
};
use tower::Layer;

use super::place::{Handler, Service, answer, layer, payment, post, send, store};

const WORK: Duration = Duration::from_secs(10);

/// A service whose handlers say how many of them are alive.
fn slow(handler: &Handler, layer: &IdempotencyLayer, alive: &Arc<AtomicUsize>) -> Service {
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let alive = Arc::clone(alive);
    layer.layer(handler.service(move |number, _| {
        alive.fetch_add(1, SeqCst);
        let alive = Alive(Arc::clone(&alive));
        async move {
            let _alive = alive;
            sleep(WORK).await;
            Ok(answer(201, format!("call {number}")))
        }
    }))
}

/// Polls a call a number of times, with pauses, and drops it. Returns whether it had ended.
async fn hang_up_after<F: Future>(polls: usize, call: F) -> bool {
    let mut call = Box::pin(call);
    for _ in 0..polls {
        if poll_fn(|cx| Poll::Ready(Pin::new(&mut call).poll(cx).is_ready())).await {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn call_dropped_at_any_poll_leaves_an_answer_or_nothing() {
    for polls in 0..12 {
        let (handler, store, alive) = (Handler::default(), store(), Arc::default());
        let layer = layer(&store);
        let service = slow(&handler, &layer, &alive);
        hang_up_after(polls, send(&service, payment("k"))).await;
        assert!(layer.handle().drain(WORK * 2).await);
        let ran = handler.calls();
        let again = send(&service, payment("k")).await;
        assert_eq!(again.status, StatusCode::CREATED, "{polls} polls: {}", again.text());
        assert_eq!((again.text(), handler.calls(), again.is_replayed()), ("call 1", 1, ran == 1), "{polls} polls");
        let counts = layer.handle().counts();
        assert_eq!((counts.detached, counts.buffered, alive.load(SeqCst)), (0, 0, 0), "{polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn duplicate_waits_for_a_handler_without_a_client() {
    let (handler, store, alive) = (Handler::default(), store(), Arc::default());
    let layer = layer(&store).on_running(OnRunning::Wait(WORK * 2));
    let service = slow(&handler, &layer, &alive);
    assert!(!hang_up_after(10, send(&service, payment("k"))).await);
    assert_eq!((layer.handle().counts().detached, alive.load(SeqCst)), (1, 1));
    assert!(!layer.handle().drain(WORK / 2).await, "it still runs");
    let reply = send(&service, payment("k")).await;
    assert_eq!((reply.text(), reply.is_replayed(), handler.calls()), ("call 1", true, 1));
}

#[tokio::test(start_paused = true)]
async fn handlers_without_a_client_are_bounded() {
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let (handler, store, alive) = (Handler::default(), store(), Arc::default());
        let layer = layer(&store).max_detached(16).after_lease(after_lease);
        let service = slow(&handler, &layer, &alive);
        let keys: Vec<_> = (0..100).map(|number| format!("k-{number}")).collect();
        for key in &keys {
            assert!(!hang_up_after(10, send(&service, payment(key))).await);
        }
        assert_eq!((layer.handle().counts().detached, alive.load(SeqCst)), (8, 8), "the others are dropped");
        let bob = post("bob", "k", "/payments", "amount=5");
        assert!(!hang_up_after(10, send(&service, bob.clone())).await);
        assert_eq!(layer.handle().counts().detached, 9, "one client has half, and others the rest");
        assert!(layer.handle().drain(WORK * 2).await);
        let replies = join_all(keys.iter().map(|key| send(&service, payment(key)))).await;
        let replayed = replies.iter().filter(|reply| reply.is_replayed()).count();
        assert_eq!(replayed, 8);
        let again = match after_lease {
            AfterLease::Rerun => StatusCode::CREATED, // their keys are free
            AfterLease::Hold => StatusCode::CONFLICT, // they may have done something
        };
        assert_eq!(replies.iter().filter(|reply| reply.status == again && !reply.is_replayed()).count(), 92);
        assert!(send(&service, bob).await.is_replayed());
        assert_eq!(layer.handle().counts().buffered, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn slots_of_inner_layers_are_held_until_the_handler_ends() {
    let (handler, store) = (Handler::default(), store());
    let (slots, layer) = (Arc::new(Semaphore::new(1)), layer(&store));
    let inner = {
        let slots = Arc::clone(&slots);
        handler.service(move |number, _| {
            let slots = Arc::clone(&slots);
            async move {
                let _slot = slots.acquire().await.map_err(|_| "closed")?;
                sleep(WORK).await;
                Ok(answer(201, format!("call {number}")))
            }
        })
    };
    let service = layer.layer(inner);
    assert!(!hang_up_after(10, send(&service, payment("k"))).await);
    assert_eq!(slots.available_permits(), 0);
    assert!(layer.handle().drain(WORK * 2).await);
    assert_eq!(slots.available_permits(), 1);
}
