//! Duplicates while the first request runs, on tokio's stopped time.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::{Instant, sleep};
use tollgate::{
    idempotency::{IdempotencyLayer, OnRunning},
    key_value::AfterLease,
};
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimitLayer};

use super::faulty::Fault;
use super::place::{Handler, Service, answer, layer, payment, send, store};

const WORK: Duration = Duration::from_secs(100); // more than three leases
const LEASE: Duration = Duration::from_secs(30);

fn slow(handler: &Handler, layer: &IdempotencyLayer) -> Service {
    layer.layer(handler.service(|number, _| async move {
        sleep(WORK).await;
        Ok(answer(201, format!("call {number}")))
    }))
}

fn waiting() -> OnRunning {
    OnRunning::Wait(Duration::MAX)
}

#[tokio::test(start_paused = true)]
async fn duplicates_are_refused_while_it_runs_and_replayed_afterwards() {
    let (handler, store) = (Handler::default(), store());
    let (here, there) = (slow(&handler, &layer(&store)), slow(&handler, &layer(&store)));
    let first = send(&here, payment("k"));
    let others = async {
        for _ in 0..WORK.as_secs() - 1 {
            sleep(Duration::from_secs(1)).await; // as `Retry-After` says
            for service in [&here, &there] {
                let reply = send(service, payment("k")).await;
                assert_eq!(reply.status, StatusCode::CONFLICT);
                assert_eq!(reply.headers["retry-after"], "1");
                assert!(reply.text().contains(r#""code":"operation_running""#), "{}", reply.text());
            }
        }
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.text(), "call 1");
    for service in [&here, &there] {
        let reply = send(service, payment("k")).await;
        assert_eq!((reply.text(), reply.is_replayed()), ("call 1", true));
    }
    assert!(store.calls("renew") >= 9, "{}", store.calls("renew"));
}

#[tokio::test(start_paused = true)]
async fn duplicates_wait_here_and_elsewhere() {
    let (handler, store) = (Handler::default(), store());
    let processes = [(); 2].map(|()| slow(&handler, &layer(&store).on_running(waiting())));
    let begun = Instant::now();
    let replies = join_all((0..64).map(|number| send(&processes[number % 2], payment("k")))).await;
    assert_eq!(handler.calls(), 1);
    assert!(begun.elapsed() < WORK + Duration::from_millis(625), "{:?}", begun.elapsed());
    assert_eq!(replies.iter().filter(|reply| reply.is_replayed()).count(), 63);
    for reply in &replies {
        assert_eq!((reply.status, reply.text()), (StatusCode::CREATED, "call 1"));
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_the_duplicates_asks_for_all() {
    let (handler, store) = (Handler::default(), store());
    let [here, there] = [(); 2].map(|()| slow(&handler, &layer(&store).on_running(waiting())));
    let others = async {
        sleep(Duration::from_secs(1)).await;
        let replies = join_all((0..60).map(|_| send(&there, payment("k")))).await;
        assert!(replies.iter().all(|reply| reply.text() == "call 1"));
    };
    tokio::join!(send(&here, payment("k")), others);
    // One question of each at first and at the end, one of each in five seconds, and those of the one that asks.
    let asked = store.calls("begin");
    assert!(asked < 2 * 60 + 60 * 99 / 3 + 99 * 3, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn another_duplicate_asks_when_the_first_hangs_up() {
    let (handler, store) = (Handler::default(), store());
    let [here, there] = [(); 2].map(|()| slow(&handler, &layer(&store).on_running(waiting())));
    let asks = async {
        sleep(Duration::from_secs(1)).await;
        let _ = tokio::time::timeout(WORK / 2, send(&there, payment("k"))).await;
    };
    let waits = async {
        sleep(Duration::from_secs(2)).await;
        let reply = send(&there, payment("k")).await;
        (reply, Instant::now())
    };
    let begun = Instant::now();
    let ((reply, at), (), _) = tokio::join!(waits, asks, send(&here, payment("k")));
    assert_eq!(reply.text(), "call 1");
    assert!(at - begun < WORK + Duration::from_millis(625), "{:?}", at - begun);
}

#[tokio::test(start_paused = true)]
async fn slow_renewals_keep_the_lease() {
    let (handler, store) = (Handler::default(), store());
    let [here, there] = [(); 2].map(|()| slow(&handler, &layer(&store)));
    (0..20).for_each(|_| store.fail("renew", Fault::Takes(LEASE / 2)));
    let duplicates = async {
        while handler.calls() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..WORK.as_secs() - 1 {
            sleep(Duration::from_secs(1)).await;
            let reply = send(&there, payment("k")).await;
            assert!(reply.text().contains("operation_running"), "a living owner is never unknown: {}", reply.text());
        }
    };
    let (first, ()) = tokio::join!(send(&here, payment("k")), duplicates);
    assert_eq!((first.text(), handler.calls()), ("call 1", 1));
}

#[tokio::test(start_paused = true)]
async fn renewal_that_hangs_gives_way_to_the_next() {
    let (handler, store) = (Handler::default(), store());
    let [here, there] = [(); 2].map(|()| slow(&handler, &layer(&store)));
    store.fail("renew", Fault::Hangs);
    let duplicates = async {
        for _ in 0..WORK.as_secs() - 1 {
            sleep(Duration::from_secs(1)).await;
            let reply = send(&there, payment("k")).await;
            assert!(reply.text().contains("operation_running"), "{}", reply.text());
        }
    };
    tokio::join!(send(&here, payment("k")), duplicates);
}

#[tokio::test(start_paused = true)]
async fn wait_ends_with_a_refusal() {
    let (handler, store) = (Handler::default(), store());
    let service = slow(&handler, &layer(&store).on_running(OnRunning::Wait(WORK / 4)));
    let first = send(&service, payment("k"));
    let second = async {
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let reply = send(&service, payment("k")).await;
        assert_eq!((reply.status, begun.elapsed()), (StatusCode::CONFLICT, WORK / 4));
    };
    tokio::join!(first, second);
}

#[tokio::test(start_paused = true)]
async fn waiting_duplicates_are_bounded() {
    let (handler, store) = (Handler::default(), store());
    let service = slow(&handler, &layer(&store).on_running(waiting()));
    let replies = join_all((0..100).map(|_| send(&service, payment("k")))).await;
    let refused = replies.iter().filter(|reply| reply.status == StatusCode::CONFLICT).count();
    assert_eq!((replies.len() - refused, handler.calls()), (65, 1), "the first, and 64 that wait");
    assert!(send(&service, payment("k")).await.is_replayed(), "their places are free again");
}

#[tokio::test(start_paused = true)]
async fn waiting_duplicate_holds_no_slot_of_the_inner_service() {
    let (handler, store) = (Handler::default(), store());
    let inner = handler.service(|number, _| async move {
        sleep(WORK).await;
        Ok(answer(201, format!("call {number}")))
    });
    let limited = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(2)).service(inner);
    let service = layer(&store).on_running(waiting()).layer(tower::util::BoxCloneSyncService::new(limited));
    let begun = Instant::now();
    let same = join_all((0..10).map(|_| send(&service, payment("k"))));
    let other = async {
        sleep(Duration::from_secs(1)).await;
        send(&service, payment("other")).await
    };
    let (same, other) = tokio::join!(same, other);
    assert!(same.iter().all(|reply| reply.text() == "call 1"));
    assert_eq!((other.text(), begun.elapsed()), ("call 2", WORK + Duration::from_secs(1)));
}

/// Begins a call, and ends its process in the middle.
async fn die(service: &Service) {
    let call = tokio::time::timeout(Duration::from_secs(1), async {
        let call = Box::leak(Box::new(Box::pin(send(service, payment("k"))))); // a process that is gone drops nothing
        call.as_mut().await
    });
    assert!(call.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn process_that_ends_leaves_an_unknown_outcome() {
    let (handler, store) = (Handler::default(), store());
    let layer = layer(&store);
    let service = slow(&handler, &layer);
    die(&service).await;
    sleep(LEASE).await;
    let reply = send(&service, payment("k")).await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    assert!(reply.text().contains(r#""code":"operation_outcome_unknown""#), "{}", reply.text());
    assert!(!reply.headers.contains_key("retry-after"), "{:?}", reply.headers);

    let handle = layer.handle();
    let unknown = handle.unknown(None, 10).await.unwrap().records;
    let [record] = &unknown[..] else { panic!("one record, got {unknown:?}") };
    let about = &record.about;
    let texts = [&about.policy, &about.client, &about.method, &about.route, &about.key];
    assert_eq!(texts, ["idempotency", "alice", "POST", "/payments", "k"]);
    let headers = http::HeaderMap::from_iter([(http::header::LOCATION, "/payments/7".parse().unwrap())]);
    assert!(handle.settle(&record.key, StatusCode::CREATED, &headers, "settled").await.unwrap());
    let reply = send(&service, payment("k")).await;
    assert_eq!(
        (reply.text(), &reply.headers["location"], reply.is_replayed()),
        ("settled", &"/payments/7".parse().unwrap(), true)
    );
    assert_eq!(handler.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn released_or_rerun_operation_runs_again() {
    for after_lease in [AfterLease::Hold, AfterLease::Rerun] {
        let (handler, store) = (Handler::default(), store());
        let layer = layer(&store).after_lease(after_lease);
        let service = slow(&handler, &layer);
        die(&service).await;
        sleep(LEASE).await;
        if after_lease == AfterLease::Hold {
            let key = layer.handle().unknown(None, 1).await.unwrap().records[0].key;
            assert!(layer.handle().release(&key).await.unwrap());
        }
        assert_eq!(send(&service, payment("k")).await.text(), "call 2");
    }
}
