//! Rules of the time for which records stay.

use std::{sync::Arc, time::Duration};

use super::{EmptyRecords, LEASE, LIFE, MICROSECOND, answered, body, claim};
use crate::{
    key_value::{AfterLease, Begun, Completion, Ownership, RecordStore},
    time::FakeClock,
};

/// The life of a record that is done begins with its completion, and ends on time.
pub async fn life_begins_with_completion(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let life = Duration::from_secs(60);
    for (operation, after_lease) in [(1, AfterLease::Rerun), (2, AfterLease::Hold)] {
        for completion in [answered("done"), Completion::NotRetained] {
            let first = claim(operation, after_lease);
            scene.start(&first).await;
            scene.clock.advance(LEASE / 2);
            let held = scene.store.complete(&first.key, &first.owner, &completion, life).await.unwrap();
            assert_eq!(held, Ownership::Held);
            scene.clock.advance(life - MICROSECOND);
            let found = scene.begin(&claim(operation, after_lease)).await;
            assert!(matches!(found, Begun::Done { .. } | Begun::NotRetained), "{found:?}");
            // The repeated completion does not make it longer.
            let again = scene.store.complete(&first.key, &first.owner, &completion, life).await.unwrap();
            assert_eq!(again, Ownership::Held);
            scene.clock.advance(MICROSECOND);
            assert_eq!(scene.store.find(&first.key).await.unwrap(), None);
            let again = scene.store.complete(&first.key, &first.owner, &completion, life).await.unwrap();
            assert_eq!(again, Ownership::Lost);
            let next = claim(operation, after_lease);
            assert_eq!(scene.start(&next).await, 1);
            assert_eq!(scene.abandon(&next).await, Ownership::Held);
        }
    }
}

/// A running record that may be carried out again is there for a life after its lease, and then gone.
pub async fn running_record_outlives_its_lease(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let first = claim(1, AfterLease::Rerun);
    scene.start(&first).await;
    scene.clock.advance(LEASE / 3);
    assert_eq!(scene.renew(&first).await, Ownership::Held);
    scene.clock.advance(LEASE + LIFE - MICROSECOND);
    let second = claim(1, AfterLease::Rerun);
    assert_eq!(scene.start(&second).await, 2, "it counts attempts");
    scene.clock.advance(LEASE + LIFE);
    assert_eq!(scene.renew(&second).await, Ownership::Lost);
    assert_eq!(scene.complete(&second, &answered("late")).await, Ownership::Lost);
    assert_eq!(scene.start(&claim(1, AfterLease::Rerun)).await, 1);
}

/// A running record whose outcome counts stays for ever.
pub async fn held_record_stays(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let first = claim(1, AfterLease::Hold);
    scene.start(&first).await;
    scene.clock.advance(Duration::from_secs(20 * 365 * 86_400));
    for operation in 2..8 {
        scene.start(&claim(operation, AfterLease::Rerun)).await; // writes remove what has expired
    }
    assert_eq!(scene.begin(&claim(1, AfterLease::Rerun)).await, Begun::Unknown);
    assert_eq!(scene.complete(&first, &answered("late")).await, Ownership::Held);
    assert_eq!(body(&scene.begin(&claim(1, AfterLease::Hold)).await), b"late");
}
