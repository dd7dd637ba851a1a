//! Rules that every record store must follow.
//!
//! `make` returns an empty store whose time is that of the clock that it receives, once for each rule or a few times. A rule
//! may be run alone; [`all`] runs every one. They need a tokio runtime; one with several threads finds more.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use tollgate::{FakeClock, conformance::records, key_value::{MemoryStore, RecordStore}};
//!
//! let make = async |clock: FakeClock| Arc::new(MemoryStore::new().clock(clock)) as Arc<dyn RecordStore>;
//! records::owner_that_lost_its_record_changes_nothing(make).await;
//! records::all(make).await;
//! # });
//! ```

mod answers;
mod histories;
mod leases;
mod lives;
mod outcomes;

use std::{sync::Arc, time::Duration};

use crate::{
    key_value::{AfterLease, Answer, Begun, Claim, Completion, Owner, Ownership, RecordKey, RecordStore},
    time::FakeClock,
};

const LEASE: Duration = Duration::from_secs(30);
const LIFE: Duration = Duration::from_secs(86_400);
const MICROSECOND: Duration = Duration::from_micros(1);

/// Exports rules, and declares the function that runs them all.
macro_rules! rules {
    ($($module:ident { $($rule:ident)* })*) => {
        $(pub use $module::{$($rule),*};)*

        /// Runs every rule.
        ///
        /// ```
        /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        /// use std::sync::Arc;
        /// use tollgate::{FakeClock, conformance::records, key_value::{MemoryStore, RecordStore}};
        ///
        /// let make = async |clock: FakeClock| Arc::new(MemoryStore::new().clock(clock)) as Arc<dyn RecordStore>;
        /// records::all(make).await;
        /// # });
        /// ```
        pub async fn all(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
            $($($rule(&make).await;)*)*
        }
    };
}

rules! {
    answers {
        operation_is_answered_after_it_was_carried_out answers_are_read_back another_fingerprint_is_a_mismatch
        abandoned_operation_starts_anew calls_may_be_repeated bounds_are_errors_that_change_nothing
    }
    leases {
        many_at_once_start_once completion_leaves_no_gap lease_that_is_over_is_taken_once renewed_lease_is_not_taken
        owner_keeps_a_lease_that_was_not_taken owner_that_lost_its_record_changes_nothing
    }
    lives { life_begins_with_completion running_record_outlives_its_lease held_record_stays }
    outcomes {
        lost_outcome_is_unknown settled_outcome_is_answered released_operation_starts_anew
        only_unknown_outcomes_are_settled unknown_outcomes_are_listed_in_pages
    }
    histories { histories_equal_a_model }
}

/// An empty record store, and its clock.
struct EmptyRecords {
    store: Arc<dyn RecordStore>,
    clock: FakeClock,
}

impl EmptyRecords {
    async fn new(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) -> Self {
        let clock = FakeClock::at(Duration::from_secs(1_700_000_000));
        Self { store: make(clock.clone()).await, clock }
    }

    async fn begin(&self, claim: &Claim) -> Begun {
        self.store.begin(claim).await.expect("a valid claim is decided")
    }

    /// Begins an operation that must start.
    async fn start(&self, claim: &Claim) -> u32 {
        match self.begin(claim).await {
            Begun::Started { attempt } => attempt,
            other => panic!("must start, got {other:?}"),
        }
    }

    async fn complete(&self, claim: &Claim, completion: &Completion) -> Ownership {
        self.store.complete(&claim.key, &claim.owner, completion, LIFE).await.expect("a valid answer is stored")
    }

    async fn abandon(&self, claim: &Claim) -> Ownership {
        self.store.abandon(&claim.key, &claim.owner).await.expect("a record is abandoned")
    }

    async fn renew(&self, claim: &Claim) -> Ownership {
        self.store.renew(&claim.key, &claim.owner, LEASE).await.expect("a lease is renewed")
    }
}

/// Returns a claim of a new owner on the operation of this number.
fn claim(operation: u8, after_lease: AfterLease) -> Claim {
    Claim { lease: LEASE, life: LIFE, after_lease, ..Claim::new(RecordKey([operation; 16]), Owner::random()) }
}

fn answered(body: &'static str) -> Completion {
    Completion::Answered(Answer::new(201, body))
}

/// Returns the body of an answer.
#[track_caller]
fn body(begun: &Begun) -> &[u8] {
    match begun {
        Begun::Done { answer, .. } => &answer.body,
        other => panic!("must be done, got {other:?}"),
    }
}
