//! Rules of operations that end, and of their answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{EmptyRecords, LEASE, LIFE, answered, body, claim};
use crate::{
    key_value::{
        AfterLease, Answer, Begun, Claim, Completion, KeyValueErrorKind, MAX_TTL, Owner, Ownership, RecordStore,
    },
    time::FakeClock,
};

/// An operation starts once; others find it running, and then its answer.
pub async fn operation_is_answered_after_it_was_carried_out(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let operation = after_lease as u8;
        let (first, second) = (claim(operation, after_lease), claim(operation, after_lease));
        let begun_at = scene.clock.now();
        assert_eq!(scene.start(&first).await, 1);
        assert_eq!(scene.begin(&second).await, Begun::Running { left: LEASE });
        scene.clock.advance(Duration::from_secs(10));
        assert_eq!(scene.begin(&second).await, Begun::Running { left: LEASE - Duration::from_secs(10) });
        assert_eq!(scene.store.find(&first.key).await.unwrap(), None);

        assert_eq!(scene.complete(&first, &answered("paid")).await, Ownership::Held);
        let answer = Answer::new(201, "paid");
        let ago = scene.clock.now().since(begun_at);
        let Begun::Done { answer: found, first_at } = scene.begin(&second).await else { panic!("it is done") };
        assert_eq!((found, first_at + ago), (answer.clone(), crate::time::Clock::from(scene.clock.clone()).wall()));
        assert_eq!(scene.store.find(&first.key).await.unwrap(), Some(answer));

        // Another operation is not affected.
        assert_eq!(scene.start(&claim(operation + 100, after_lease)).await, 1);
    }
}

/// Status, fields and body are read back as they were stored, and an answer that is not retained as such.
pub async fn answers_are_read_back(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let every_byte = Bytes::from_iter(0..=255_u8);
    let answers = [
        Answer::default(),
        Answer { status: 204, fields: Bytes::new(), body: Bytes::new() },
        Answer { status: 65_535, fields: every_byte.clone(), body: every_byte.clone() },
        Answer { status: 201, fields: Bytes::new(), body: every_byte.repeat(256).into() },
        Answer { status: 200, fields: every_byte, body: Bytes::new() },
    ];
    for (operation, answer) in (0_u8..).zip(answers) {
        let first = claim(operation, AfterLease::Hold);
        scene.start(&first).await;
        assert_eq!(scene.complete(&first, &Completion::Answered(answer.clone())).await, Ownership::Held);
        let Begun::Done { answer: found, .. } = scene.begin(&claim(operation, AfterLease::Hold)).await else {
            panic!("it is done")
        };
        assert_eq!(found, answer);
        assert_eq!(scene.store.find(&first.key).await.unwrap(), Some(answer));
    }
    let first = claim(9, AfterLease::Rerun);
    scene.start(&first).await;
    assert_eq!(scene.complete(&first, &Completion::NotRetained).await, Ownership::Held);
    assert_eq!(scene.begin(&claim(9, AfterLease::Rerun)).await, Begun::NotRetained);
    assert_eq!(scene.store.find(&first.key).await.unwrap(), None);
}

/// A claim with another fingerprint is a mismatch, whatever the state of the record; without one it matches.
pub async fn another_fingerprint_is_a_mismatch(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    let with = |fingerprint| Claim { fingerprint, ..claim(1, AfterLease::Rerun) };
    let (content, other) = (Some([1; 16]), Some([2; 16]));
    let first = with(content);
    scene.start(&first).await;
    assert_eq!(scene.begin(&with(other)).await, Begun::Mismatch);
    assert_eq!(scene.begin(&with(content)).await, Begun::Running { left: LEASE });
    assert_eq!(scene.begin(&with(None)).await, Begun::Running { left: LEASE });
    scene.clock.advance(LEASE);
    assert_eq!(scene.begin(&with(other)).await, Begun::Mismatch, "also when the lease is over");
    let second = with(None);
    assert_eq!(scene.start(&second).await, 2);
    assert_eq!(scene.begin(&with(other)).await, Begun::Mismatch, "the fingerprint stays");
    assert_eq!(scene.complete(&second, &answered("done")).await, Ownership::Held);
    assert_eq!(scene.begin(&with(other)).await, Begun::Mismatch);
    assert_eq!(body(&scene.begin(&with(content)).await), b"done");
    assert_eq!(body(&scene.begin(&with(None)).await), b"done");
    scene.clock.advance(LIFE);
    assert_eq!(scene.start(&with(other)).await, 1, "its life is over");
    assert_eq!(scene.begin(&with(content)).await, Begun::Mismatch);
}

/// An operation that its owner abandons is as good as never begun.
pub async fn abandoned_operation_starts_anew(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let first = Claim { fingerprint: Some([1; 16]), ..claim(after_lease as u8, after_lease) };
        scene.start(&first).await;
        assert_eq!(scene.abandon(&first).await, Ownership::Held);
        assert_eq!(scene.abandon(&first).await, Ownership::Lost);
        let second = Claim { fingerprint: Some([2; 16]), ..claim(after_lease as u8, after_lease) };
        assert_eq!(scene.start(&second).await, 1);
        assert_eq!(scene.complete(&second, &answered("second")).await, Ownership::Held);
        assert_eq!(scene.abandon(&second).await, Ownership::Lost, "what was carried out stays");
        assert_eq!(body(&scene.begin(&Claim { owner: first.owner, ..second }).await), b"second");
    }
}

/// The caller of `begin` or `complete` whose reply was lost calls again, and gets the same reply.
pub async fn calls_may_be_repeated(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let scene = EmptyRecords::new(make).await;
    for after_lease in [AfterLease::Rerun, AfterLease::Hold] {
        let first = claim(after_lease as u8, after_lease);
        assert_eq!(scene.start(&first).await, 1);
        assert_eq!(scene.start(&first).await, 1);
        scene.clock.advance(LEASE + LEASE);
        assert_eq!(scene.start(&first).await, 1, "also when the lease is over");
        assert_eq!(scene.begin(&claim(after_lease as u8, after_lease)).await, Begun::Running { left: LEASE });

        assert_eq!(scene.complete(&first, &answered("first")).await, Ownership::Held);
        assert_eq!(scene.complete(&first, &answered("second")).await, Ownership::Held);
        assert_eq!(body(&scene.begin(&first).await), b"first", "the answer that was given stays");
        assert_eq!(scene.renew(&first).await, Ownership::Lost);
    }
}

/// A time or an answer beyond its bounds is an error, and nothing has changed.
pub async fn bounds_are_errors_that_change_nothing(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    let EmptyRecords { store, .. } = EmptyRecords::new(make).await;
    let invalid = KeyValueErrorKind::Invalid;
    let too_long = MAX_TTL + Duration::from_secs(1);
    let valid = claim(1, AfterLease::Hold);
    for time in [Duration::ZERO, too_long] {
        for wrong in [Claim { lease: time, ..valid.clone() }, Claim { life: time, ..valid.clone() }] {
            assert_eq!(store.begin(&wrong).await.unwrap_err().kind(), invalid);
        }
    }
    assert_eq!(store.begin(&valid).await.unwrap(), Begun::Started { attempt: 1 });
    let long = Completion::Answered(Answer {
        status: 200,
        fields: vec![b'x'; 1].into(),
        body: vec![b'x'; store.max_answer()].into(),
    });
    let (key, owner) = (&valid.key, &valid.owner);
    for time in [Duration::ZERO, too_long] {
        assert_eq!(store.renew(key, owner, time).await.unwrap_err().kind(), invalid);
        assert_eq!(store.complete(key, owner, &answered("x"), time).await.unwrap_err().kind(), invalid);
        assert_eq!(store.settle(key, &answered("x"), time).await.unwrap_err().kind(), invalid);
    }
    assert_eq!(store.complete(key, owner, &long, LIFE).await.unwrap_err().kind(), invalid);
    assert_eq!(store.settle(key, &long, LIFE).await.unwrap_err().kind(), invalid);
    for limit in [0, 1_001] {
        assert_eq!(store.unknown(None, limit).await.unwrap_err().kind(), invalid);
    }
    let other = Claim { owner: Owner::random(), ..valid.clone() };
    assert_eq!(store.begin(&other).await.unwrap(), Begun::Running { left: LEASE });

    let longest = Completion::Answered(Answer::new(200, vec![b'x'; store.max_answer()]));
    assert_eq!(store.complete(key, owner, &longest, MAX_TTL).await.unwrap(), Ownership::Held);
}
