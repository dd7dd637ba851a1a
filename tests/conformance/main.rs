//! The conformance suite over each store, and stores that break a rule and must fail it.

#[cfg(feature = "key-value")]
mod key_values;
#[cfg(feature = "key-value")]
mod records;

use tollgate::{FakeClock, QuotaLayer, Quotas, conformance::quotas};

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[path = "../support/mod.rs"]
mod support;

/// Deadline of callers that no answer may come from, however slow the machine is.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const PATIENT: std::time::Duration = std::time::Duration::from_secs(3_600);

async fn in_memory(layer: QuotaLayer) -> Quotas {
    layer.handle()
}

async fn in_memory_by(layer: QuotaLayer, _: FakeClock) -> Quotas {
    layer.handle()
}

#[cfg(feature = "sqlite")]
async fn in_sqlite(layer: QuotaLayer) -> Quotas {
    let ledger = tollgate::Ledger::sqlite_in_memory().open().await.unwrap().deadline(PATIENT);
    layer.store_in(&ledger, tollgate::OnFailure::FailClosed).handle()
}

#[cfg(feature = "sqlite")]
async fn in_sqlite_by(layer: QuotaLayer, clock: FakeClock) -> Quotas {
    let ledger = tollgate::Ledger::sqlite_in_memory().clock(clock).open().await.unwrap().deadline(PATIENT);
    layer.store_in(&ledger, tollgate::OnFailure::FailClosed).handle()
}

/// A ledger with a spool that stays unused while the ledger is available.
#[cfg(feature = "sqlite")]
async fn in_sqlite_with_a_spool(layer: QuotaLayer) -> Quotas {
    let path = std::env::temp_dir().join(format!("tollgate-{:032x}.spool", fastrand::u128(..)));
    let spool = tollgate::Spool::at(&path).unwrap();
    std::fs::remove_file(path).unwrap(); // the open file lives as long as the test
    let ledger = tollgate::Ledger::sqlite_in_memory().spool(spool).open().await.unwrap().deadline(PATIENT);
    let of = std::num::NonZeroU32::new(2).unwrap();
    layer.store_in(&ledger, tollgate::OnFailure::LocalShare { of }).handle()
}

#[cfg(feature = "postgres")]
async fn in_postgres(layer: QuotaLayer) -> Quotas {
    let url = support::postgres::Postgres::shared().database();
    let ledger = tollgate::Ledger::postgres(&url).open_timeout(PATIENT).open().await.unwrap().deadline(PATIENT);
    layer.store_in(&ledger, tollgate::OnFailure::FailClosed).handle()
}

#[cfg(feature = "postgres")]
async fn in_postgres_by(layer: QuotaLayer, clock: FakeClock) -> Quotas {
    let url = support::postgres::Postgres::shared().database();
    let ledger = tollgate::Ledger::postgres(&url).clock(clock).open().await.unwrap().deadline(PATIENT);
    layer.store_in(&ledger, tollgate::OnFailure::FailClosed).handle()
}

/// Declares one test for each rule, on a runtime with threads.
macro_rules! keeps {
    ($store:ident: $($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $rule() {
            tollgate::conformance::quotas::$rule(super::$store).await;
        }
    )*};
}

macro_rules! keeps_every_rule {
    ($store:ident) => {
        keeps! { $store:
            what_fits_is_charged
            all_limits_are_charged_or_none
            zero_asks_whether_anything_is_left
            a_kind_without_a_limit_is_free
            large_amounts_are_judged_right
            a_record_goes_past_the_limit
            no_counter_exceeds_its_bound
            a_kind_that_is_named_twice_is_one
            many_at_once_take_exactly_the_limit
            a_reservation_is_charged_as_what_was_used
            a_reservation_ends_once
            an_id_can_be_written_down
            many_at_once_end_a_reservation_once
            a_new_plan_keeps_what_was_used
            a_grant_raises_a_limit_until_it_is_revoked
            the_grant_that_ends_first_is_used_first
            grant_ends_at_any_time_to_come
            grant_is_listed_to_its_end
            limits_of_one_name_count_in_their_own_period
            what_cannot_be_is_said_in_words
            a_reset_counts_from_zero
            reset_repeats_after_a_late_commit
            reset_of_an_unknown_client_is_an_error
            grant_comes_before_the_first_request
            credit_gives_back_once
            credit_is_at_most_what_was_used
            invalid_credit_is_an_error
            many_at_once_credit_once
            two_clients_never_meet
            looking_changes_nothing
            tier_is_the_one_of_the_last_charge
            every_client_is_listed_once
            random_histories_equal_a_book
            a_job_is_done_once
            another_job_has_another_id
            a_job_under_way_is_not_begun_again
            an_interrupted_job_is_settled_once
            job_histories_equal_a_book
            a_job_that_was_not_begun_leaves_its_id_free
            failed_job_frees_its_id
            many_at_once_do_a_job_once
            a_place_comes_back
        }
    };
}

macro_rules! keeps_every_rule_of_time {
    ($store:ident) => {
        keeps! { $store:
            a_period_begins_again
            a_grant_ends_in_time
            a_lost_reservation_comes_back
            a_lost_estimate_is_charged
            a_late_charge_belongs_to_its_own_period
            credit_lowers_the_open_window
            told_waits_are_true
            waits_count_on_what_is_left_of_grants
        }
    };
}

mod memory {
    keeps_every_rule!(in_memory);
    keeps_every_rule_of_time!(in_memory_by);
    keeps! { in_memory_by: a_job_is_forgotten_in_time reservations_lost_in_bursts_equal_a_book }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    keeps_every_rule!(in_sqlite);
    keeps_every_rule_of_time!(in_sqlite_by);
}

#[cfg(feature = "sqlite")]
mod sqlite_with_a_spool {
    keeps_every_rule!(in_sqlite_with_a_spool);
}

#[cfg(feature = "postgres")]
mod postgres_on_a_server {
    keeps_every_rule!(in_postgres);
    keeps_every_rule_of_time!(in_postgres_by);
}

#[tokio::test]
async fn memory_equals_the_book_in_10_000_histories() {
    quotas::random_histories(in_memory, 10_000).await;
}

#[tokio::test]
#[ignore = "minutes: a million histories"]
async fn memory_equals_the_book_in_a_million_histories() {
    quotas::random_histories(in_memory, 1_000_000).await;
}

#[tokio::test]
async fn waits_of_memory_are_true_in_10_000_histories() {
    assert!(quotas::told_waits(in_memory_by, 10_000).await > 3_000);
}

#[tokio::test]
#[ignore = "minutes: a million histories"]
async fn waits_of_memory_are_true_in_a_million_histories() {
    assert!(quotas::told_waits(in_memory_by, 1_000_000).await > 300_000);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
#[ignore = "minutes: many histories"]
async fn waits_of_sqlite_are_true_in_10_000_histories() {
    assert!(quotas::told_waits(in_sqlite_by, 10_000).await > 3_000);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
#[ignore = "minutes: many histories"]
async fn sqlite_equals_the_book_in_10_000_histories() {
    quotas::random_histories(in_sqlite, 10_000).await;
}

#[tokio::test]
async fn memory_passes_every_rule_on_one_thread() {
    quotas::all(in_memory).await;
    quotas::all_with_clock(in_memory_by).await;
}

/// A store with room for one client, in which all others share an account.
async fn crowded(layer: QuotaLayer) -> Quotas {
    layer.max_clients(1).handle()
}

#[tokio::test]
#[should_panic(expected = "right: ([(10, 0)], [(0, 10)])")]
async fn store_that_mixes_clients_fails() {
    quotas::two_clients_never_meet(crowded).await;
}

#[tokio::test]
#[should_panic(expected = "in pages of 1")]
async fn store_that_omits_clients_fails() {
    quotas::every_client_is_listed_once(crowded).await;
}

#[tokio::test]
#[should_panic]
async fn store_that_ignores_the_clock_fails() {
    let system = async |layer: QuotaLayer, _: FakeClock| layer.clock(tollgate::Clock::system()).handle();
    quotas::a_period_begins_again(system).await;
}
