//! Rules of owners and of their leases.

use std::{sync::Arc, time::Duration};

use super::{EmptyRecords, LEASE, MICROSECOND, answered, body, claim};
use crate::{
    key_value::{AfterLease, Begun, Claim, Ownership, RecordStore},
    time::FakeClock,
};

/// Owners at once.
const MANY: usize = 64;

/// Lets many owners begin one operation at once; returns the claims that started and how the others were answered.
async fn begin_at_once(scene: &EmptyRecords, after_lease: AfterLease) -> (Vec<(Claim, u32)>, Vec<Begun>) {
    let tasks: Vec<_> = (0..MANY)
        .map(|_| {
            let (store, claim) = (Arc::clone(&scene.store), claim(1, after_lease));
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                let begun = store.begin(&claim).await.expect("a valid claim is decided");
                (claim, begun)
            })
        })
        .collect();
    let (mut started, mut others) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.expect("no panic") {
            (claim, Begun::Started { attempt }) => started.push((claim, attempt)),
            (_, other) => others.push(other),
        }
    }
    (started, others)
}

/// Of many owners at once one starts; the others find the operation running.
pub async fn many_at_once_start_once(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let scene = EmptyRecords::new(&make).await;
        let (started, others) = begin_at_once(&scene, after_lease).await;
        assert_eq!(started.len(), 1, "{started:?}");
        assert_eq!(others, vec![Begun::Running { left: LEASE }; MANY - 1]);
    }
}

/// While an operation is completed, callers find it running or done, and at no time absent.
pub async fn completion_leaves_no_gap(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let scene = EmptyRecords::new(&make).await;
        let first = claim(1, after_lease);
        scene.start(&first).await;
        let completed = {
            let (store, first) = (Arc::clone(&scene.store), first.clone());
            tokio::spawn(async move {
                let completion = answered("done");
                store
                    .complete(&first.key, &first.owner, &completion, super::LIFE)
                    .await
                    .expect("a valid answer is stored")
            })
        };
        let (started, _) = begin_at_once(&scene, after_lease).await;
        assert!(started.is_empty(), "{started:?}");
        assert_eq!(completed.await.expect("no panic"), Ownership::Held);
        assert_eq!(body(&scene.begin(&claim(1, after_lease)).await), b"done");
    }
}

/// A lease that is over is taken by one of many.
pub async fn lease_that_is_over_is_taken_once(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let first = claim(1, AfterLease::Rerun);
    scene.start(&first).await;
    for attempt in 2..5 {
        scene.clock.advance(LEASE - MICROSECOND);
        assert_eq!(scene.begin(&claim(1, AfterLease::Rerun)).await, Begun::Running { left: MICROSECOND });
        scene.clock.advance(MICROSECOND);
        let (started, others) = begin_at_once(&scene, AfterLease::Rerun).await;
        assert_eq!(started.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>(), [attempt]);
        assert_eq!(others, vec![Begun::Running { left: LEASE }; MANY - 1]);
    }
}

/// A lease that is renewed in time is not taken.
pub async fn renewed_lease_is_not_taken(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let first = claim(after_lease as u8, after_lease);
        scene.start(&first).await;
        for _ in 0..9 {
            scene.clock.advance(LEASE / 3);
            assert_eq!(scene.renew(&first).await, Ownership::Held);
            scene.clock.advance(LEASE / 2);
            let found = scene.begin(&claim(after_lease as u8, after_lease)).await;
            assert_eq!(found, Begun::Running { left: LEASE / 2 });
        }
    }
}

/// An owner whose lease is over keeps the record as long as no other has taken it.
pub async fn owner_keeps_a_lease_that_was_not_taken(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let first = claim(after_lease as u8, after_lease);
        scene.start(&first).await;
        scene.clock.advance(LEASE + Duration::from_secs(3_600));
        assert_eq!(scene.renew(&first).await, Ownership::Held);
        assert_eq!(scene.begin(&claim(after_lease as u8, after_lease)).await, Begun::Running { left: LEASE });
        scene.clock.advance(LEASE + Duration::from_secs(3_600));
        assert_eq!(scene.complete(&first, &answered("late")).await, Ownership::Held);
        assert_eq!(body(&scene.begin(&claim(after_lease as u8, after_lease)).await), b"late");
    }
}

/// An owner whose record was taken cannot renew, complete or abandon it, at no time later.
pub async fn owner_that_lost_its_record_changes_nothing(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let (first, second) = (claim(1, AfterLease::Rerun), claim(1, AfterLease::Rerun));
    let tries = async |when: &str| {
        assert_eq!(scene.renew(&first).await, Ownership::Lost, "renew {when}");
        assert_eq!(scene.complete(&first, &answered("first")).await, Ownership::Lost, "complete {when}");
        assert_eq!(scene.abandon(&first).await, Ownership::Lost, "abandon {when}");
    };
    tries("before").await;
    scene.start(&first).await;
    scene.clock.advance(LEASE);
    assert_eq!(scene.start(&second).await, 2);
    tries("while the second runs").await;
    assert_eq!(scene.begin(&first).await, Begun::Running { left: LEASE }, "begun again by the first");
    scene.clock.advance(LEASE);
    tries("while the second is late").await;
    assert_eq!(scene.complete(&second, &answered("second")).await, Ownership::Held);
    tries("after the second").await;
    assert_eq!(body(&scene.begin(&first).await), b"second");
    scene.clock.advance(super::LIFE);
    tries("after the end").await;
    assert_eq!(scene.start(&claim(1, AfterLease::Rerun)).await, 1);
}
