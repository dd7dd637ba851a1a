//! The rules of record stores over every store, and beside stores that break one property each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tollgate::{
    Clock, FakeClock,
    conformance::records,
    key_value::{
        AfterLease, Answer, Begun, Claim, Completion, MemoryStore, Owner, Ownership, RecordKey, RecordStore,
        StoreFuture, UnknownPage,
    },
};

async fn in_memory(clock: FakeClock) -> Arc<dyn RecordStore> {
    Arc::new(MemoryStore::new().clock(clock))
}

/// A store in a file, which is removed with it.
#[cfg(feature = "sqlite")]
async fn in_sqlite(clock: FakeClock) -> Arc<dyn RecordStore> {
    let folder = crate::support::directory::Directory::new();
    let store = Arc::new(tollgate::key_value::SqliteStore::open(folder.0.join("store.db")).clock(clock.clone()));
    Arc::new(RecordLiar { folder: Some(Box::new(folder)), ..RecordLiar::new(store, None, clock) })
}

#[cfg(feature = "postgres")]
async fn in_postgres(clock: FakeClock) -> Arc<dyn RecordStore> {
    let url = crate::support::postgres::Postgres::shared().database();
    Arc::new(tollgate::key_value::PostgresStore::open(&url).unwrap().clock(clock))
}

/// Declares one test for each rule, on a runtime with threads.
macro_rules! follows_every_rule {
    ($store:ident) => {
        follows_every_rule! { $store:
            operation_is_answered_after_it_was_carried_out answers_are_read_back another_fingerprint_is_a_mismatch
            abandoned_operation_starts_anew calls_may_be_repeated bounds_are_errors_that_change_nothing
            many_at_once_start_once completion_leaves_no_gap lease_that_is_over_is_taken_once
            renewed_lease_is_not_taken owner_keeps_a_lease_that_was_not_taken
            owner_that_lost_its_record_changes_nothing life_begins_with_completion running_record_outlives_its_lease
            held_record_stays lost_outcome_is_unknown settled_outcome_is_answered released_operation_starts_anew
            only_unknown_outcomes_are_settled unknown_outcomes_are_listed_in_pages histories_equal_a_model
        }
    };
    ($store:ident: $($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $rule() {
            super::records::$rule(super::$store).await;
        }
    )*};
}

mod memory {
    follows_every_rule!(in_memory);
}

#[cfg(feature = "sqlite")]
mod sqlite {
    follows_every_rule!(in_sqlite);
}

#[cfg(feature = "postgres")]
mod postgres_on_a_server {
    follows_every_rule!(in_postgres);
}

/// A property that a record store breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordLie {
    /// `complete` takes any owner for the right one.
    CompletesForAnyOwner,
    /// `renew` takes any owner for the right one.
    RenewsForAnyOwner,
    /// `abandon` takes any owner for the right one.
    AbandonsForAnyOwner,
    /// `complete` frees the record first.
    FreesBeforeCompleting,
    /// `begin` starts what is running.
    StartsTwice,
    /// `begin` takes an owner that calls again for another one.
    ForgetsOwners,
    /// `complete` fails for an owner that calls again.
    ForgetsCompletions,
    /// An owner whose lease is over has lost it.
    EndsWithTheLease,
    /// `renew` changes nothing.
    RenewsNothing,
    /// Lease and life are one time.
    HasOneTime,
    /// The life of an answer begins with the operation.
    CountsLifeFromBegin,
    /// Fingerprints are not compared.
    ForgetsFingerprints,
    /// An outcome that is unknown is carried out again.
    RerunsHeld,
    /// No outcome is carried out again.
    HoldsAll,
    /// `release` frees what is running.
    ReleasesRunning,
    /// Pages begin with the last record of the page before.
    RepeatsRecords,
    /// Bodies end with their first zero byte.
    CutsAnswers,
}

/// A record store that breaks at most one property, over one that breaks none.
struct RecordLiar {
    store: Arc<dyn RecordStore>,
    lie: Option<RecordLie>,
    clock: Clock,
    /// The last claim that was started, with the time.
    started: Mutex<HashMap<RecordKey, (Claim, Duration)>>,
    /// Folder of the store's file, removed after it.
    #[allow(dead_code, reason = "only its drop counts")]
    folder: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl RecordLiar {
    fn new(store: Arc<dyn RecordStore>, lie: Option<RecordLie>, clock: FakeClock) -> Self {
        Self { store, lie, clock: clock.into(), started: Mutex::default(), folder: None }
    }

    fn lies(&self, lie: RecordLie) -> bool {
        self.lie == Some(lie)
    }

    fn last(&self, key: &RecordKey) -> Option<(Claim, Duration)> {
        self.started.lock().unwrap().get(key).cloned()
    }

    /// Returns the owner under which a call is made.
    fn owner(&self, key: &RecordKey, owner: &Owner, lie: RecordLie) -> Owner {
        self.last(key).filter(|_| self.lies(lie)).map_or(*owner, |(claim, _)| claim.owner)
    }

    fn is_over(&self, key: &RecordKey) -> bool {
        let over = |(claim, begun): (Claim, Duration)| self.clock.wall() >= begun + claim.lease;
        self.lies(RecordLie::EndsWithTheLease) && self.last(key).is_some_and(over)
    }
}

async fn lying(lie: RecordLie, clock: FakeClock) -> Arc<dyn RecordStore> {
    Arc::new(RecordLiar::new(Arc::new(MemoryStore::new().clock(clock.clone())), Some(lie), clock))
}

impl RecordStore for RecordLiar {
    fn begin<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Begun> {
        Box::pin(async move {
            let mut claim = claim.clone();
            match self.lie {
                Some(RecordLie::ForgetsFingerprints) => claim.fingerprint = None,
                Some(RecordLie::RerunsHeld) => claim.after_lease = AfterLease::Rerun,
                Some(RecordLie::HoldsAll) => claim.after_lease = AfterLease::Hold,
                Some(RecordLie::HasOneTime) => claim.lease = claim.life,
                Some(RecordLie::ForgetsOwners) => claim.owner = Owner::random(),
                _ => {}
            }
            let mut begun = self.store.begin(&claim).await?;
            if let (true, Begun::Running { .. }) = (self.lies(RecordLie::StartsTwice), &begun) {
                let owner = self.last(&claim.key).expect("it was started").0.owner;
                let _ = self.store.abandon(&claim.key, &owner).await?;
                begun = self.store.begin(&claim).await?;
            }
            if let Begun::Started { .. } = begun {
                self.started.lock().unwrap().insert(claim.key, (claim, self.clock.wall()));
            }
            Ok(begun)
        })
    }

    fn find<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, Option<Answer>> {
        self.store.find(key)
    }

    fn renew<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner, lease: Duration) -> StoreFuture<'a, Ownership> {
        Box::pin(async move {
            if self.is_over(key) {
                return Ok(Ownership::Lost);
            }
            if self.lies(RecordLie::RenewsNothing) {
                return Ok(Ownership::Held);
            }
            self.store.renew(key, &self.owner(key, owner, RecordLie::RenewsForAnyOwner), lease).await
        })
    }

    fn complete<'a>(
        &'a self,
        key: &'a RecordKey,
        owner: &'a Owner,
        completion: &'a Completion,
        life: Duration,
    ) -> StoreFuture<'a, Ownership> {
        Box::pin(async move {
            let (last, mut completion, mut life) = (self.last(key), completion.clone(), life);
            if self.is_over(key) {
                return Ok(Ownership::Lost);
            }
            if let (true, Completion::Answered(answer)) = (self.lies(RecordLie::CutsAnswers), &mut completion) {
                let end = answer.body.iter().position(|byte| *byte == 0).unwrap_or(answer.body.len());
                answer.body.truncate(end);
            }
            if let (true, Some((_, begun))) = (self.lies(RecordLie::CountsLifeFromBegin), &last) {
                life = life.saturating_sub(self.clock.wall() - *begun).max(Duration::from_micros(1));
            }
            if let (true, Some((claim, _))) = (self.lies(RecordLie::FreesBeforeCompleting), &last) {
                let _ = self.store.abandon(key, owner).await?;
                tokio::task::yield_now().await;
                let _ = self.store.begin(claim).await?;
            }
            let owner = self.owner(key, owner, RecordLie::CompletesForAnyOwner);
            let owned = self.store.complete(key, &owner, &completion, life).await?;
            let again = last.is_none();
            if owned == Ownership::Held {
                self.started.lock().unwrap().remove(key);
            }
            Ok(if again && self.lies(RecordLie::ForgetsCompletions) { Ownership::Lost } else { owned })
        })
    }

    fn abandon<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner) -> StoreFuture<'a, Ownership> {
        Box::pin(async move { self.store.abandon(key, &self.owner(key, owner, RecordLie::AbandonsForAnyOwner)).await })
    }

    fn unknown<'a>(&'a self, after: Option<&'a RecordKey>, limit: usize) -> StoreFuture<'a, UnknownPage> {
        Box::pin(async move {
            let mut page = self.store.unknown(after, limit).await?;
            if let (true, Some(after)) = (self.lies(RecordLie::RepeatsRecords), after) {
                let all = self.store.unknown(None, 1_000).await?.records;
                page.records.splice(0..0, all.into_iter().filter(|record| record.key == *after));
                page.records.truncate(limit);
            }
            Ok(page)
        })
    }

    fn settle<'a>(&'a self, key: &'a RecordKey, completion: &'a Completion, life: Duration) -> StoreFuture<'a, bool> {
        self.store.settle(key, completion, life)
    }

    fn release<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            if let (true, Some((claim, _))) = (self.lies(RecordLie::ReleasesRunning), self.last(key)) {
                return Ok(self.store.abandon(key, &claim.owner).await? == Ownership::Held);
            }
            self.store.release(key).await
        })
    }

    fn max_answer(&self) -> usize {
        self.store.max_answer()
    }
}

/// Declares a test for each lie: the rule finds it.
macro_rules! finds {
    ($($test:ident: $lie:ident by $rule:ident;)*) => {$(
        #[tokio::test] // on one thread, so that steps of callers always interleave
        #[should_panic]
        async fn $test() {
            let lying = async |clock: super::FakeClock| super::lying(super::RecordLie::$lie, clock).await;
            super::records::$rule(lying).await;
        }
    )*};
}

mod lies {
    finds! {
        complete_without_a_test_of_the_owner: CompletesForAnyOwner by owner_that_lost_its_record_changes_nothing;
        renew_without_a_test_of_the_owner: RenewsForAnyOwner by owner_that_lost_its_record_changes_nothing;
        abandon_without_a_test_of_the_owner: AbandonsForAnyOwner by owner_that_lost_its_record_changes_nothing;
        complete_in_two_steps: FreesBeforeCompleting by completion_leaves_no_gap;
        begin_that_starts_twice: StartsTwice by many_at_once_start_once;
        begin_that_forgets_its_owner: ForgetsOwners by calls_may_be_repeated;
        complete_that_forgets_its_owner: ForgetsCompletions by calls_may_be_repeated;
        lease_that_ends_without_another_owner: EndsWithTheLease by owner_keeps_a_lease_that_was_not_taken;
        renew_of_nothing: RenewsNothing by renewed_lease_is_not_taken;
        one_time_for_lease_and_life: HasOneTime by lease_that_is_over_is_taken_once;
        life_from_begin: CountsLifeFromBegin by life_begins_with_completion;
        fingerprints_not_compared: ForgetsFingerprints by another_fingerprint_is_a_mismatch;
        unknown_outcome_carried_out_again: RerunsHeld by lost_outcome_is_unknown;
        operation_never_carried_out_again: HoldsAll by lease_that_is_over_is_taken_once;
        release_of_what_runs: ReleasesRunning by only_unknown_outcomes_are_settled;
        pages_that_repeat_records: RepeatsRecords by unknown_outcomes_are_listed_in_pages;
        answers_cut_at_a_zero: CutsAnswers by answers_are_read_back;
        history_without_a_test_of_the_owner: CompletesForAnyOwner by histories_equal_a_model;
        history_with_a_lost_fingerprint: ForgetsFingerprints by histories_equal_a_model;
        history_with_one_time: HasOneTime by histories_equal_a_model;
    }
}
