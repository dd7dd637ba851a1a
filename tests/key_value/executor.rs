//! Operations that are carried out once: duplicates, ends of processes, failures of the store.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::sleep;
use tollgate::{
    Clock, Secret,
    key_value::{
        AfterLease, Answer, Completion, Executed, IdempotentError, IdempotentExecutor, KeyValueErrorKind, MemoryStore,
        RecordStore,
    },
};

use crate::faulty::{Fault, FaultyStore};

const KEY: &[u8] = b"order 7";
const LEASE: Duration = Duration::from_secs(30);
const LIFE: Duration = Duration::from_secs(86_400);

fn store() -> Arc<FaultyStore> {
    FaultyStore::new(MemoryStore::new().max_value(1_000).clock(Clock::tokio()))
}

fn process(store: &Arc<FaultyStore>) -> IdempotentExecutor {
    let secret: Secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap();
    IdempotentExecutor::new(store.clone(), &secret, "payments")
}

/// Payments that take a time, counted.
#[derive(Default)]
struct Payments(AtomicUsize);

impl Payments {
    async fn pay(&self, time: Duration) -> Result<Answer, &'static str> {
        let number = self.0.fetch_add(1, SeqCst) + 1;
        sleep(time).await;
        Ok(Answer::new(201, format!("payment {number}")))
    }

    fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

#[track_caller]
fn paid(executed: Result<Executed, IdempotentError<&'static str>>) -> (String, bool, bool) {
    let Executed { answer, replayed, retained, .. } = executed.expect("an answer");
    assert_eq!(answer.status, 201);
    (String::from_utf8(answer.body.to_vec()).unwrap(), replayed, retained)
}

#[tokio::test(start_paused = true)]
async fn duplicates_at_once_are_carried_out_once() {
    let (store, payments) = (store(), Payments::default());
    let processes = [process(&store), process(&store)];
    let calls = processes.iter().cycle().take(64);
    let calls = calls.map(|process| process.idempotent_execute(KEY, async || payments.pay(LEASE * 4).await));
    let (mut answered, mut running) = (0, 0);
    for executed in join_all(calls).await {
        match executed {
            Err(IdempotentError::Running { left }) => {
                assert_eq!(left, LEASE);
                running += 1;
            }
            executed => {
                assert_eq!(paid(executed), ("payment 1".into(), false, true));
                answered += 1;
            }
        }
    }
    assert_eq!((answered, running, payments.count()), (1, 63, 1));
    for process in &processes {
        let again = process.idempotent_execute(KEY, async || Err("not carried out")).await;
        assert_eq!(paid(again), ("payment 1".into(), true, true));
    }
    sleep(LIFE).await;
    let later = processes[0].idempotent_execute(KEY, async || payments.pay(LEASE).await).await;
    assert_eq!(paid(later), ("payment 2".into(), false, true));
}

#[tokio::test(start_paused = true)]
async fn keys_and_prefixes_are_operations_of_their_own() {
    let (store, payments) = (store(), Payments::default());
    let secret: Secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap();
    let refunds = IdempotentExecutor::new(store.clone(), &secret, "refunds");
    let pay = async || payments.pay(LEASE).await;
    assert_eq!(paid(process(&store).idempotent_execute(KEY, pay).await).0, "payment 1");
    assert_eq!(paid(process(&store).idempotent_execute(b"order 8", pay).await).0, "payment 2");
    assert_eq!(paid(refunds.idempotent_execute(KEY, pay).await).0, "payment 3");
    let error = refunds.idempotent_execute(b"", pay).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the record store failed, and nothing was carried out: key must have 1 to 1024 bytes, got 0"
    );
}

#[tokio::test(start_paused = true)]
async fn operation_that_fails_is_carried_out_anew() {
    let (store, payments) = (store(), Payments::default());
    let executor = process(&store);
    let failed = executor.idempotent_execute(KEY, async || {
        payments.pay(LEASE).await?;
        Err("card refused")
    });
    assert_eq!(failed.await.unwrap_err().to_string(), "the operation failed: card refused");
    let again = executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await;
    assert_eq!(paid(again), ("payment 2".into(), false, true));
}

/// Begins an operation, and ends its process in the middle.
async fn die(executor: &IdempotentExecutor, payments: &Payments) {
    let mut call = pin!(executor.idempotent_execute(KEY, async || payments.pay(LEASE).await));
    for _ in 0..10 {
        assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
        tokio::task::yield_now().await;
    }
    assert_eq!(payments.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn process_that_ends_leaves_an_unknown_outcome() {
    let (store, payments) = (store(), Payments::default());
    let executor = process(&store);
    die(&executor, &payments).await;
    let again = async || executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await;
    assert!(matches!(again().await, Err(IdempotentError::Running { left }) if left == LEASE));
    sleep(LEASE).await;
    let Err(IdempotentError::Unknown { key }) = again().await else { panic!("it is unknown") };
    let listed = store.unknown(None, 10).await.unwrap().records;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].key, &*listed[0].about.policy, &*listed[0].about.key), (key, "payments", "order 7"));
    let settled = Completion::Answered(Answer::new(201, "settled"));
    assert!(store.settle(&key, &settled, LIFE).await.unwrap());
    assert_eq!(paid(again().await), ("settled".into(), true, true));
    assert_eq!(payments.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn process_that_ends_is_replaced_where_that_is_allowed() {
    let (store, payments) = (store(), Payments::default());
    let executor = process(&store).after_lease(AfterLease::Rerun);
    die(&executor, &payments).await;
    sleep(LEASE).await;
    let again = executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await;
    assert_eq!(paid(again), ("payment 2".into(), false, true));
}

#[tokio::test(start_paused = true)]
async fn lost_replies_change_nothing() {
    let (store, payments) = (store(), Payments::default());
    let executor = process(&store);
    for call in ["begin", "renew", "complete", "complete"] {
        store.fail(call, Fault::LostReply);
    }
    store.fail("renew", Fault::Hangs);
    let first = executor.idempotent_execute(KEY, async || payments.pay(LEASE * 4).await);
    let second = async {
        sleep(LEASE * 2).await; // one renewal was lost, and one hangs
        executor.idempotent_execute(KEY, async || Err("not carried out")).await
    };
    let (executed, second) = tokio::join!(first, second);
    assert_eq!(paid(executed), ("payment 1".into(), false, true));
    assert!(matches!(second, Err(IdempotentError::Running { .. })), "{second:?}");
    let again = executor.idempotent_execute(KEY, async || Err("not carried out")).await;
    assert_eq!(paid(again), ("payment 1".into(), true, true));
}

#[tokio::test(start_paused = true)]
async fn store_that_is_away_carries_nothing_out() {
    let (store, payments) = (store(), Payments::default());
    let executor = process(&store);
    for faults in [&[Fault::Unavailable][..], &[Fault::LostReply, Fault::LostReply]] {
        faults.iter().for_each(|fault| store.fail("begin", *fault));
        let error = executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await.unwrap_err();
        assert!(matches!(&error, IdempotentError::Store(error) if error.kind() != KeyValueErrorKind::Invalid));
    }
    assert_eq!(payments.count(), 0);
    // The operation that had begun all the same is abandoned.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.calls("abandon"), 1);
    let executed = executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await;
    assert_eq!(paid(executed), ("payment 1".into(), false, true));
}

#[tokio::test(start_paused = true)]
async fn answer_that_cannot_be_stored_is_given_once() {
    let (store, payments) = (store(), Payments::default());
    let executor = process(&store);
    let long = async || {
        payments.pay(LEASE).await?;
        Ok::<_, &str>(Answer::new(200, vec![b'x'; 1_001]))
    };
    let executed = executor.idempotent_execute(KEY, long).await.unwrap();
    assert_eq!((executed.answer.body.len(), executed.retained), (1_001, false));
    let again = executor.idempotent_execute(KEY, long).await.unwrap_err();
    assert_eq!(again.to_string(), "the operation was carried out, and its answer was not retained");

    // With a store that fails at the end it is stored when the store is back. One that stays away leaves an unknown outcome.
    for (faults, key) in [(6, b"order 8"), (100, b"order 9")] {
        (0..faults).for_each(|_| store.fail("complete", Fault::Unavailable));
        let executed = executor.idempotent_execute(key, async || payments.pay(LEASE).await).await.unwrap();
        assert_eq!((executed.replayed, executed.retained), (false, false));
        sleep(Duration::from_secs(600)).await;
    }
    let again = executor.idempotent_execute(b"order 8", async || payments.pay(LEASE).await).await;
    assert_eq!(paid(again), ("payment 2".into(), true, true));
    let again = executor.idempotent_execute(b"order 9", async || payments.pay(LEASE).await).await;
    assert!(matches!(again, Err(IdempotentError::Unknown { .. })), "{again:?}");
    assert_eq!(payments.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn store_that_hangs_holds_no_caller() {
    let (store, payments) = (store(), Payments::default());
    let executor = process(&store);
    store.fail("begin", Fault::Hangs);
    let error = executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await.unwrap_err();
    assert!(error.to_string().contains("the record store has not answered within"), "{error}");
    assert_eq!(payments.count(), 0);
    for call in ["complete", "abandon"] {
        store.fail(call, Fault::Hangs);
    }
    let executed = executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await;
    assert_eq!(paid(executed), ("payment 1".into(), false, false));
    let failed = executor.idempotent_execute(b"order 8", async || Err("card refused")).await;
    assert!(matches!(failed, Err(IdempotentError::Failed("card refused"))));
    sleep(Duration::from_secs(60)).await;
    let again = executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await;
    assert_eq!(paid(again), ("payment 1".into(), true, true));
    let again = executor.idempotent_execute(b"order 8", async || payments.pay(LEASE).await).await;
    assert_eq!(paid(again), ("payment 2".into(), false, true));
}

#[tokio::test(start_paused = true)]
async fn failed_operation_is_freed_when_the_store_is_back() {
    let (store, payments) = (store(), Payments::default());
    let executor = process(&store);
    (0..4).for_each(|_| store.fail("abandon", Fault::Unavailable));
    let failed = executor.idempotent_execute(KEY, async || Err("card refused")).await;
    assert!(matches!(failed, Err(IdempotentError::Failed("card refused"))));
    sleep(LEASE * 2).await;
    let again = executor.idempotent_execute(KEY, async || payments.pay(LEASE).await).await;
    assert_eq!(paid(again), ("payment 1".into(), false, true));
}
