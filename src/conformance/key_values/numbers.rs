//! Rules of numbers that count, and of what is built on them.

use std::sync::Arc;

use bytes::Bytes;

use super::{EmptyStore, MICROSECOND, MINUTE, fails};
use crate::{
    key_value::{Incremented, KeyValue, KeyValueErrorKind, Ttl, already_processed, fixed_window},
    time::FakeClock,
};

/// A key that is not there becomes 1, with the time to live that is given; then each call adds 1.
pub async fn incr_counts_from_nothing(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    for number in 1..=3 {
        let counted = scene.store.incr(b"forever", None).await.unwrap();
        assert_eq!(counted, Incremented { number, ttl: Ttl::Forever });
    }
    let counted = scene.store.incr(b"key", Some(MINUTE)).await.unwrap();
    assert_eq!(counted, Incremented { number: 1, ttl: Ttl::Left(MINUTE) });
    assert_eq!(scene.get(b"key").await.as_deref(), Some(&b"1"[..]));
}

/// A counter that is there keeps its time to live, and begins anew when that is over.
pub async fn incr_keeps_the_time_to_live(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let EmptyStore { store, clock } = EmptyStore::new(make).await;
    store.incr(b"key", Some(MINUTE * 2)).await.unwrap();
    clock.advance(MINUTE);
    let counted = store.incr(b"key", Some(MINUTE * 2)).await.unwrap();
    assert_eq!(counted, Incremented { number: 2, ttl: Ttl::Left(MINUTE) });
    assert_eq!(store.incr(b"key", None).await.unwrap(), Incremented { number: 3, ttl: Ttl::Left(MINUTE) });
    clock.advance(MINUTE - MICROSECOND);
    assert_eq!(store.incr(b"key", None).await.unwrap().number, 4);
    clock.advance(MICROSECOND);
    let counted = store.incr(b"key", Some(MINUTE)).await.unwrap();
    assert_eq!(counted, Incremented { number: 1, ttl: Ttl::Left(MINUTE) });
    clock.advance(MINUTE);
    assert_eq!(store.incr(b"key", None).await.unwrap(), Incremented { number: 1, ttl: Ttl::Forever });
}

/// A value that is the shortest decimal text of a number counts on, and what is counted is read as such a text.
pub async fn number_is_a_decimal_text(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    for (text, next) in [("0", 1), ("41", 42), ("-1", 0), ("-9223372036854775808", i64::MIN + 1)] {
        scene.set(b"key", text.as_bytes(), Some(MINUTE)).await;
        assert_eq!(scene.get(b"key").await.as_deref(), Some(text.as_bytes()));
        let counted = scene.store.incr(b"key", None).await.unwrap();
        assert_eq!(counted, Incremented { number: next, ttl: Ttl::Left(MINUTE) });
        assert_eq!(scene.get(b"key").await.as_deref(), Some(next.to_string().as_bytes()));
        assert_eq!(scene.store.mget(&[b"key"]).await.unwrap(), [Some(Bytes::from(next.to_string()))]);
    }
    assert!(scene.store.set_nx(b"other", Bytes::from_static(b"7"), None).await.unwrap());
    assert_eq!(scene.store.incr(b"other", None).await.unwrap().number, 8);
    scene.store.mset(&[(b"other", Bytes::from_static(b"70"))], None).await.unwrap();
    assert_eq!(scene.store.incr(b"other", None).await.unwrap().number, 71);
}

/// A value that is no number, or the greatest one, is not counted on, and stays.
pub async fn value_that_is_no_number_stays(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    for text in ["", "x", "1x", "+1", "01", "-0", " 1", "1.0", "9223372036854775808", "9223372036854775807"] {
        scene.set(b"key", text.as_bytes(), Some(MINUTE)).await;
        fails(scene.store.incr(b"key", None).await, KeyValueErrorKind::NotANumber);
        assert_eq!(scene.get(b"key").await.as_deref(), Some(text.as_bytes()), "{text:?}");
        assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Left(MINUTE));
    }
    scene.clock.advance(MINUTE);
    assert_eq!(scene.store.incr(b"key", None).await.unwrap().number, 1, "an expired value is as good as none");
}

/// Many callers at once count each number once.
pub async fn many_at_once_count_each(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let EmptyStore { store, .. } = EmptyStore::new(make).await;
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                for _ in 0..8 {
                    numbers.push(store.incr(b"key", Some(MINUTE)).await.unwrap().number);
                }
                numbers
            })
        })
        .collect();
    let mut numbers = Vec::new();
    for caller in callers {
        numbers.extend(caller.await.unwrap());
    }
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=128), "{numbers:?}");
}

/// Of many deliveries of one event, one is new, until its life is over.
pub async fn event_is_processed_once(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let EmptyStore { store, clock } = EmptyStore::new(make).await;
    let deliveries: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { already_processed(&*store, b"evt_1", MINUTE).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    for delivery in deliveries {
        new += u32::from(!delivery.await.unwrap());
    }
    assert_eq!(new, 1);
    assert!(!already_processed(&*store, b"evt_2", MINUTE).await.unwrap());
    clock.advance(MINUTE - MICROSECOND);
    assert!(already_processed(&*store, b"evt_1", MINUTE).await.unwrap());
    clock.advance(MICROSECOND);
    assert!(!already_processed(&*store, b"evt_1", MINUTE).await.unwrap());
}

/// A window admits its limit and no more, and the next one begins when its time is over.
pub async fn window_admits_its_limit(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let EmptyStore { store, clock } = EmptyStore::new(make).await;
    for round in 0..2 {
        for count in 1..=3_u64 {
            let decision = fixed_window(&*store, b"key", 2, MINUTE).await.unwrap();
            assert_eq!((decision.count, decision.limit), (count, 2), "round {round}");
            assert_eq!(decision.remaining, 2_u64.saturating_sub(count));
            assert_eq!(decision.allowed, count <= 2);
            assert_eq!(decision.retry_after, (count > 2).then_some(MINUTE));
        }
        clock.advance(MINUTE - MICROSECOND);
        let late = fixed_window(&*store, b"key", 2, MINUTE).await.unwrap();
        assert_eq!((late.allowed, late.retry_after), (false, Some(MICROSECOND)));
        clock.advance(MICROSECOND);
    }
    assert!(!fixed_window(&*store, b"none", 0, MINUTE).await.unwrap().allowed, "a limit of 0 admits nothing");
    let (mut admitted, mut callers) = (0, Vec::new());
    for _ in 0..16 {
        let store = Arc::clone(&store);
        callers.push(tokio::spawn(async move { fixed_window(&*store, b"many", 5, MINUTE).await.unwrap().allowed }));
    }
    for caller in callers {
        admitted += u32::from(caller.await.unwrap());
    }
    assert_eq!(admitted, 5);
}
