//! Rules of outcomes that are unknown.

use std::sync::Arc;

use super::{EmptyRecords, LEASE, LIFE, MICROSECOND, answered, body, claim};
use crate::{
    key_value::{AfterLease, Begun, Claim, Completion, Ownership, RecordAbout, RecordKey, RecordStore},
    time::FakeClock,
};

/// Lists all records with an unknown outcome, in pages.
async fn listed(scene: &EmptyRecords, limit: usize) -> Vec<RecordKey> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = scene.store.unknown(after.as_ref(), limit).await.expect("a page");
        assert!(page.records.len() <= limit);
        found.extend(page.records.iter().map(|record| record.key));
        after = page.next;
        if after.is_none() {
            return found;
        }
        assert!(found.len() < 1_000, "a page begins again: {found:?}");
    }
}

/// Starts an operation, and lets its lease pass.
async fn lost(scene: &EmptyRecords, operation: u8) -> Claim {
    let first = claim(operation, AfterLease::Hold);
    scene.start(&first).await;
    scene.clock.advance(LEASE);
    first
}

/// An operation whose owner is gone is not started again: its outcome is unknown, and listed.
pub async fn lost_outcome_is_unknown(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let about = RecordAbout {
        policy: "payments".into(),
        client: "alice".into(),
        method: "POST".into(),
        route: "/payments".into(),
        key: "k-1\0\u{e9}".into(),
    };
    let first = Claim { about: Arc::new(about), ..claim(1, AfterLease::Hold) };
    scene.start(&first).await;
    scene.clock.advance(LEASE - MICROSECOND);
    assert_eq!(scene.begin(&claim(1, AfterLease::Hold)).await, Begun::Running { left: MICROSECOND });
    assert_eq!(listed(&scene, 10).await, []);
    scene.clock.advance(MICROSECOND);
    for after_lease in [AfterLease::Hold, AfterLease::Rerun] {
        assert_eq!(scene.begin(&claim(1, after_lease)).await, Begun::Unknown, "the first owner's choice counts");
    }
    let page = scene.store.unknown(None, 10).await.unwrap();
    let [record] = &page.records[..] else { panic!("one record, got {page:?}") };
    assert_eq!((record.key, record.attempt, page.next), (first.key, 1, None));
    let about = &record.about;
    assert_eq!([&about.policy, &about.client, &about.method, &about.route], ["payments", "alice", "POST", "/payments"]);
    assert_eq!(about.key, "k-1?\u{e9}");

    // Its owner was only slow.
    assert_eq!(scene.renew(&first).await, Ownership::Held);
    assert_eq!(listed(&scene, 10).await, []);
    assert_eq!(scene.begin(&claim(1, AfterLease::Hold)).await, Begun::Running { left: LEASE });
}

/// An outcome that an operator settles is answered, and its owner has lost it.
pub async fn settled_outcome_is_answered(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    for (operation, completion) in [(1, answered("settled")), (2, Completion::NotRetained)] {
        let first = lost(&scene, operation).await;
        assert!(scene.store.settle(&first.key, &completion, LIFE).await.unwrap());
        assert!(!scene.store.settle(&first.key, &answered("twice"), LIFE).await.unwrap());
        assert_eq!(scene.renew(&first).await, Ownership::Lost);
        assert_eq!(scene.complete(&first, &answered("late")).await, Ownership::Lost);
        assert_eq!(scene.abandon(&first).await, Ownership::Lost);
        assert_eq!(listed(&scene, 10).await, []);
        match scene.begin(&claim(operation, AfterLease::Hold)).await {
            Begun::NotRetained => assert_eq!(completion, Completion::NotRetained),
            done => assert_eq!(body(&done), b"settled"),
        }
    }
    scene.clock.advance(LIFE);
    assert_eq!(scene.start(&claim(1, AfterLease::Hold)).await, 1, "its life is over");
}

/// An operation that an operator releases is carried out anew, and its owner has lost it.
pub async fn released_operation_starts_anew(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let first = lost(&scene, 1).await;
    assert!(scene.store.release(&first.key).await.unwrap());
    assert!(!scene.store.release(&first.key).await.unwrap());
    let second = claim(1, AfterLease::Hold);
    assert_eq!(scene.start(&second).await, 1);
    assert_eq!(scene.complete(&first, &answered("first")).await, Ownership::Lost);
    assert_eq!(scene.complete(&second, &answered("second")).await, Ownership::Held);
    assert_eq!(body(&scene.begin(&first).await), b"second");
}

/// An operator cannot settle or release what is running, may be carried out again, or is done.
pub async fn only_unknown_outcomes_are_settled(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let unsettled = async |claim: &Claim, what: &str| {
        assert!(!scene.store.settle(&claim.key, &answered("settled"), LIFE).await.unwrap(), "settle of {what}");
        assert!(!scene.store.release(&claim.key).await.unwrap(), "release of {what}");
    };
    let (held, rerun) = (claim(1, AfterLease::Hold), claim(2, AfterLease::Rerun));
    unsettled(&held, "nothing").await;
    scene.start(&held).await;
    scene.start(&rerun).await;
    scene.clock.advance(LEASE - MICROSECOND);
    unsettled(&held, "a running operation").await;
    scene.clock.advance(MICROSECOND);
    unsettled(&rerun, "one that may run again").await;
    assert_eq!(scene.complete(&held, &answered("done")).await, Ownership::Held);
    unsettled(&held, "a finished operation").await;
    assert_eq!(body(&scene.begin(&held).await), b"done");
    assert_eq!(scene.start(&claim(2, AfterLease::Rerun)).await, 2);
}

/// Unknown outcomes are listed in the order of their keys, in pages that meet, and nothing else.
pub async fn unknown_outcomes_are_listed_in_pages(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    for operation in (0..12).rev().chain([255]) {
        scene.start(&claim(operation, AfterLease::Hold)).await;
    }
    let done = claim(20, AfterLease::Hold);
    scene.start(&done).await;
    scene.start(&claim(21, AfterLease::Rerun)).await;
    assert_eq!(scene.complete(&done, &answered("done")).await, Ownership::Held);
    scene.clock.advance(LEASE);
    scene.start(&claim(22, AfterLease::Hold)).await;
    let expected: Vec<_> = (0..12).chain([255]).map(|operation| RecordKey([operation; 16])).collect();
    for limit in [1, 2, 12, 13, 14, 1_000] {
        assert_eq!(listed(&scene, limit).await, expected, "pages of {limit}");
    }
}
