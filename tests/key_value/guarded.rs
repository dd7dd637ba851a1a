//! The guarded cache on tokio's stopped time: stampedes, processes that die or hang, errors, calls that are dropped.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tollgate::{
    Clock, Secret,
    key_value::{
        AfterLease, Begun, Claim, GuardedCache, GuardedCacheError, KeyValueErrorKind, MemoryStore, Owner, Ownership,
        RecordKey, RecordStore,
    },
};

use crate::faulty::{Fault, FaultyStore};

const KEY: &[u8] = b"book 7";
const LIFE: Duration = Duration::from_secs(3_600);
const LEASE: Duration = Duration::from_secs(2);

type Cache = GuardedCache<&'static str>;

fn secret() -> Secret {
    "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap()
}

fn store() -> Arc<FaultyStore> {
    FaultyStore::new(MemoryStore::new().max_value(1_000).clock(Clock::tokio()))
}

/// Returns the cache of one process over a store.
fn process(store: &Arc<FaultyStore>) -> Cache {
    GuardedCache::new(store.clone(), &secret(), "books", LIFE)
}

/// Computations that take a time, counted.
#[derive(Default)]
struct Computations(AtomicUsize);

impl Computations {
    async fn slow(&self, time: Duration) -> Result<Bytes, &'static str> {
        let number = self.0.fetch_add(1, SeqCst) + 1;
        sleep(time).await;
        Ok(format!("value {number}").into())
    }

    fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Returns the claim of a process that is not in this test.
fn foreign() -> Claim {
    let key = RecordKey::from(secret().digester().digest("guarded", [&b"books"[..], KEY]));
    Claim { lease: LEASE, life: LIFE, after_lease: AfterLease::Rerun, ..Claim::new(key, Owner::random()) }
}

/// Polls a call until it computes.
async fn computing<F: Future>(mut call: Pin<&mut F>, computations: &Computations) {
    let before = computations.count();
    for _ in 0..1_000 {
        assert!(polled_once(call.as_mut()).await.is_pending());
        if computations.count() > before {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not compute");
}

async fn polled_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = Some(future);
    poll_fn(|cx| Poll::Ready(future.take().expect("one poll").poll(cx))).await
}

/// Nothing is left of calls that have ended.
#[track_caller]
fn is_idle(cache: &Cache) {
    assert!(format!("{cache:?}").contains("waiting: 0"), "{cache:?}");
}

#[tokio::test(start_paused = true)]
async fn stampede_computes_once_and_asks_the_store_once() {
    let (store, computations) = (store(), Computations::default());
    let cache = process(&store);
    for round in 1..=3 {
        let calls = (0..1_000).map(|_| cache.guarded_get(KEY, async || computations.slow(LEASE * 5).await));
        for value in join_all(calls).await {
            assert_eq!(value.unwrap(), format!("value {round}"));
        }
        assert_eq!(computations.count(), round);
        assert_eq!(["find", "begin", "complete"].map(|call| store.calls(call)), [2 * round - 1, round, round]);
        assert_eq!(cache.guarded_get(KEY, async || Err("not computed")).await.unwrap(), format!("value {round}"));
        sleep(LIFE).await;
    }
    assert!(store.calls("renew") >= 3 * 14, "a computation of five leases renews: {}", store.calls("renew"));
    is_idle(&cache);
}

#[tokio::test(start_paused = true)]
async fn another_process_asks_until_the_value_is_there() {
    let (store, computations) = (store(), Computations::default());
    let (here, there) = (process(&store), process(&store));
    let second = Duration::from_secs(1);
    let first = here.guarded_get(KEY, async || computations.slow(second).await);
    let others = async {
        sleep(Duration::from_millis(1)).await;
        join_all((0..100).map(|_| there.guarded_get(KEY, async || computations.slow(second).await))).await
    };
    let begun = Instant::now();
    let (first, others) = tokio::join!(first, others);
    assert_eq!(first.unwrap(), "value 1");
    assert!(others.into_iter().all(|value| value.unwrap() == "value 1"));
    // One caller of the process asks, each 37.5 to 62.5 ms.
    let questions = store.calls("begin") - 1;
    assert!((16..=27).contains(&questions), "{questions} questions in a second");
    assert!(begun.elapsed() < second + Duration::from_millis(63));
    assert_eq!((computations.count(), store.calls("find")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn process_that_died_is_taken_over_once() {
    let (store, computations) = (store(), Computations::default());
    let caches: Vec<_> = (0..4).map(|_| process(&store)).collect();
    assert_eq!(store.begin(&foreign()).await.unwrap(), Begun::Started { attempt: 1 });
    let begun = Instant::now();
    let calls = caches.iter().cycle().take(400);
    let calls = calls.map(|cache| cache.guarded_get(KEY, async || computations.slow(LEASE * 3).await));
    assert!(join_all(calls).await.into_iter().all(|value| value.unwrap() == "value 1"));
    let took = begun.elapsed();
    assert!(took >= LEASE * 4 && took < LEASE * 4 + Duration::from_millis(130), "{took:?}");
    assert_eq!(computations.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn caller_that_is_not_polled_is_taken_over_once() {
    let (store, computations) = (store(), Computations::default());
    let cache = process(&store);
    let mut hung = pin!(cache.guarded_get(KEY, async || computations.slow(LEASE / 2).await));
    computing(hung.as_mut(), &computations).await;
    let begun = Instant::now();
    let calls = (0..100).map(|_| cache.guarded_get(KEY, async || computations.slow(LEASE * 2).await));
    assert!(join_all(calls).await.into_iter().all(|value| value.unwrap() == "value 2"));
    assert!(begun.elapsed() < LEASE * 3 + Duration::from_millis(130), "{:?}", begun.elapsed());
    assert_eq!(computations.count(), 2);
    // It goes on later, and overwrites nothing.
    assert_eq!(hung.await.unwrap(), "value 1");
    assert_eq!(cache.guarded_get(KEY, async || Err("not computed")).await.unwrap(), "value 2");
    is_idle(&cache);
}

#[tokio::test(start_paused = true)]
async fn dropped_caller_hands_over_at_once() {
    let (store, computations) = (store(), Computations::default());
    let cache = process(&store);
    let begun = Instant::now();
    {
        let mut first = Box::pin(cache.guarded_get(KEY, async || computations.slow(LEASE).await));
        computing(first.as_mut(), &computations).await;
        let calls = (0..10).map(|_| cache.guarded_get(KEY, async || computations.slow(LEASE).await));
        let mut others = pin!(join_all(calls));
        assert!(polled_once(others.as_mut()).await.is_pending());
        drop(first);
        assert!(others.await.into_iter().all(|value| value.unwrap() == "value 2"));
    }
    assert_eq!(begun.elapsed(), LEASE, "no lease was waited for");
    is_idle(&cache);
}

#[tokio::test(start_paused = true)]
async fn last_caller_that_is_dropped_frees_the_record() {
    let (store, computations) = (store(), Computations::default());
    let (here, there) = (process(&store), process(&store));
    {
        let mut first = pin!(here.guarded_get(KEY, async || computations.slow(LEASE).await));
        computing(first.as_mut(), &computations).await;
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.calls("abandon"), 1);
    let begun = Instant::now();
    assert_eq!(there.guarded_get(KEY, async || computations.slow(LEASE).await).await.unwrap(), "value 2");
    assert_eq!(begun.elapsed(), LEASE);
    is_idle(&here);
}

#[tokio::test(start_paused = true)]
async fn error_goes_to_all_that_wait_and_is_not_stored() {
    let (store, computations) = (store(), Computations::default());
    let cache = process(&store);
    let fail = async || {
        computations.slow(LEASE).await?;
        Err("no connection")
    };
    for value in join_all((0..100).map(|_| cache.guarded_get(KEY, fail))).await {
        let Err(error) = value else { panic!("all fail") };
        assert!(matches!(&error, GuardedCacheError::Compute(error) if **error == "no connection"));
        assert_eq!(error.to_string(), "the value could not be computed: no connection");
    }
    assert_eq!(computations.count(), 1);
    assert_eq!(cache.guarded_get(KEY, async || computations.slow(LEASE).await).await.unwrap(), "value 2");
    is_idle(&cache);
}

#[tokio::test(start_paused = true)]
async fn long_wait_ends_with_a_computation_of_ones_own() {
    let (store, computations) = (store(), Computations::default());
    let cache = process(&store).max_compute(LEASE * 5);
    let owner = foreign();
    store.begin(&owner).await.unwrap();
    let renewed = async {
        for _ in 0..20 {
            sleep(LEASE / 2).await;
            assert_eq!(store.renew(&owner.key, &owner.owner, LEASE).await.unwrap(), Ownership::Held);
        }
    };
    let begun = Instant::now();
    let calls = join_all((0..10).map(|_| cache.guarded_get(KEY, async || computations.slow(LEASE).await)));
    let ((), values) = tokio::join!(renewed, async {
        let values = calls.await;
        assert_eq!(begun.elapsed(), LEASE * 6);
        values
    });
    assert!(values.into_iter().all(|value| value.is_ok()));
    assert_eq!((computations.count(), store.calls("complete")), (10, 0));
    is_idle(&cache);
}

#[tokio::test(start_paused = true)]
async fn computation_without_an_end_is_taken_over() {
    let (store, computations) = (store(), Computations::default());
    let (here, there) = (process(&store).max_compute(LEASE * 5), process(&store));
    let hung = here.guarded_get(KEY, async || {
        computations.slow(LIFE).await?;
        Err("too late")
    });
    let begun = Instant::now();
    let other = async {
        sleep(Duration::from_millis(1)).await;
        let value = there.guarded_get(KEY, async || computations.slow(LEASE).await).await;
        assert!(begun.elapsed() < LEASE * 8, "{:?}", begun.elapsed());
        value
    };
    let (hung, other) = tokio::join!(hung, other);
    assert!(hung.is_err());
    assert_eq!(other.unwrap(), "value 2");
}

#[tokio::test(start_paused = true)]
async fn store_that_fails_is_an_error_before_and_none_after() {
    let (store, computations) = (store(), Computations::default());
    let cache = process(&store);
    for call in ["find", "begin"] {
        store.fail(call, Fault::Unavailable);
        let calls = (0..10).map(|_| cache.guarded_get(KEY, async || computations.slow(LEASE).await));
        for value in join_all(calls).await {
            let error = value.unwrap_err();
            assert!(
                matches!(&error, GuardedCacheError::Store(error) if error.kind() == KeyValueErrorKind::Unavailable)
            );
            assert_eq!(error.to_string(), "the store of the cache failed: the store is away");
        }
    }
    assert_eq!(computations.count(), 0);
    store.fail("renew", Fault::Hangs);
    store.fail("complete", Fault::Unavailable);
    assert_eq!(cache.guarded_get(KEY, async || computations.slow(LEASE * 3).await).await.unwrap(), "value 1");
    assert_eq!(cache.guarded_get(KEY, async || computations.slow(LEASE).await).await.unwrap(), "value 2");
    is_idle(&cache);
}

#[tokio::test(start_paused = true)]
async fn value_that_is_too_long_is_returned() {
    let (store, computations) = (store(), Computations::default());
    let cache = process(&store);
    for count in 1..=2 {
        let long = async || {
            computations.slow(LEASE).await?;
            Ok(Bytes::from(vec![b'x'; 1_001]))
        };
        let values = join_all((0..10).map(|_| cache.guarded_get(KEY, long))).await;
        assert!(values.into_iter().all(|value| value.unwrap().len() == 1_001));
        assert_eq!(computations.count(), count);
    }
    let error = cache.guarded_get(b"", async || Ok(Bytes::new())).await.unwrap_err();
    assert_eq!(error.to_string(), "the store of the cache failed: key must have 1 to 1024 bytes, got 0");
}

#[tokio::test(start_paused = true)]
async fn call_dropped_at_any_poll_leaves_nothing() {
    for polls in 0..12 {
        let (store, computations) = (store(), Computations::default());
        let (here, there) = (process(&store), process(&store));
        {
            let mut call = pin!(here.guarded_get(KEY, async || {
                tokio::task::yield_now().await;
                computations.slow(LEASE).await
            }));
            for _ in 0..polls {
                if polled_once(call.as_mut()).await.is_ready() {
                    break;
                }
                sleep(LEASE / 4).await;
            }
        }
        is_idle(&here);
        let begun = Instant::now();
        let value = there.guarded_get(KEY, async || computations.slow(LEASE).await).await.unwrap();
        assert!(value.starts_with(b"value "));
        assert!(begun.elapsed() <= LEASE + Duration::from_millis(63), "{polls} polls: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn calls_run_in_tasks_of_their_own() {
    let (cache, computations) = (Arc::new(process(&store())), Arc::new(Computations::default()));
    let tasks = (0..100).map(|_| {
        let (cache, computations) = (Arc::clone(&cache), Arc::clone(&computations));
        tokio::spawn(async move { cache.guarded_get(KEY, async || computations.slow(LEASE).await).await })
    });
    for value in join_all(tasks).await {
        assert_eq!(value.unwrap().unwrap(), "value 1");
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_hangs_holds_no_caller_for_longer_than_it_may() {
    for call in ["find", "begin"] {
        let (store, computations) = (store(), Computations::default());
        let cache = process(&store).max_compute(LEASE * 5);
        store.fail(call, Fault::Hangs);
        let begun = Instant::now();
        let value = cache.guarded_get(KEY, async || computations.slow(LEASE).await).await;
        assert_eq!((value.unwrap(), begun.elapsed()), ("value 1".into(), LEASE * 6), "{call}");
        is_idle(&cache);
    }
}

#[tokio::test(start_paused = true)]
async fn result_does_not_outlive_a_completion_that_hangs() {
    let (store, computations) = (store(), Computations::default());
    let cache = process(&store);
    store.fail("complete", Fault::Hangs);
    let begun = Instant::now();
    assert_eq!(cache.guarded_get(KEY, async || computations.slow(LEASE).await).await.unwrap(), "value 1");
    assert_eq!(begun.elapsed(), LEASE * 2, "it waits for the store for a lease");
    let second = cache.guarded_get(KEY, async || computations.slow(LEASE).await).await;
    assert_eq!(second.unwrap(), "value 2");
}

#[tokio::test(start_paused = true)]
async fn caches_of_one_store_have_values_of_their_own() {
    let store = store();
    let (books, prices) = (process(&store), Cache::new(store.clone(), &secret(), "prices", LIFE));
    assert_eq!(books.guarded_get(KEY, async || Ok("Moby Dick".into())).await.unwrap(), "Moby Dick");
    assert_eq!(prices.guarded_get(KEY, async || Ok("12.50".into())).await.unwrap(), "12.50");
}
