//! Rules that every store of quotas must follow.
//!
//! `make` returns the handle of the layer that it receives, **over an empty store**, once for each rule or a few times.
//! A rule may be run alone; [`all`] runs those that do not move the clock, [`all_with_clock`] those that do. They need
//! a tokio runtime with its timer; a runtime with several threads finds more.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use tollgate::{QuotaLayer, conformance::quotas};
//!
//! let make = async |layer: QuotaLayer| layer.max_clients(1_000).handle();
//! quotas::all_limits_are_charged_or_none(make).await;
//! quotas::all(make).await;
//! # });
//! ```

mod admin;
mod amounts;
mod clients;
mod clocks;
mod credits;
mod expiry;
mod histories;
mod jobs;
mod reservations;
mod waits;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

pub use histories::random_histories;
pub use waits::told_waits;

use crate::{
    identity::{Client, Principal, Verified},
    quota::{Amounts, Plan, Quota, QuotaLayer, Quotas, Usage},
    refusal::Refusal,
    time::{Clock, FakeClock, Period},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Greatest amount that is counted.
const MOST: u64 = (1 << 53) - 1;

/// Number and interval of the reads after a call that may take time to reach the store.
const LOOKS: u32 = 30_000;
const APART: Duration = Duration::from_millis(10);

/// Exports rules, and declares the function that runs them all.
macro_rules! rules {
    ($(#[$doc:meta])* $all:ident($($of:ty),*): $($module:ident { $($rule:ident)* })*) => {
        $(pub use $module::{$($rule),*};)*

        $(#[$doc])*
        pub async fn $all(make: impl AsyncFn($($of),*) -> Quotas) {
            $($($rule(&make).await;)*)*
        }
    };
}

rules! {
    /// Runs every rule that does not move the clock.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use tollgate::{QuotaLayer, conformance::quotas};
    /// quotas::all(async |layer: QuotaLayer| layer.handle()).await;
    /// # });
    /// ```
    all(QuotaLayer):
    amounts {
        what_fits_is_charged all_limits_are_charged_or_none zero_asks_whether_anything_is_left
        a_kind_without_a_limit_is_free large_amounts_are_judged_right a_record_goes_past_the_limit
        no_counter_exceeds_its_bound a_kind_that_is_named_twice_is_one many_at_once_take_exactly_the_limit
    }
    reservations {
        a_reservation_is_charged_as_what_was_used a_reservation_ends_once an_id_can_be_written_down
        many_at_once_end_a_reservation_once
    }
    admin {
        a_new_plan_keeps_what_was_used a_grant_raises_a_limit_until_it_is_revoked
        the_grant_that_ends_first_is_used_first grant_ends_at_any_time_to_come grant_is_listed_to_its_end
        limits_of_one_name_count_in_their_own_period what_cannot_be_is_said_in_words
        a_reset_counts_from_zero reset_repeats_after_a_late_commit reset_of_an_unknown_client_is_an_error
        grant_comes_before_the_first_request
    }
    clients {
        two_clients_never_meet looking_changes_nothing tier_is_the_one_of_the_last_charge every_client_is_listed_once
    }
    credits { credit_gives_back_once credit_is_at_most_what_was_used invalid_credit_is_an_error many_at_once_credit_once }
    histories { random_histories_equal_a_book }
    jobs {
        a_job_is_done_once another_job_has_another_id a_job_under_way_is_not_begun_again
        an_interrupted_job_is_settled_once job_histories_equal_a_book a_job_that_was_not_begun_leaves_its_id_free
        failed_job_frees_its_id many_at_once_do_a_job_once a_place_comes_back
    }
}

rules! {
    /// Runs every rule about time. The rules move the clock that `make` receives, which is that of the layer; the store
    /// must follow it too.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
    /// quotas::all_with_clock(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
    /// # });
    /// ```
    all_with_clock(QuotaLayer, FakeClock):
    clocks {
        a_period_begins_again a_grant_ends_in_time a_lost_reservation_comes_back a_lost_estimate_is_charged
        a_late_charge_belongs_to_its_own_period a_job_is_forgotten_in_time
        credit_lowers_the_open_window
    }
    expiry { reservations_lost_in_bursts_equal_a_book }
    waits { told_waits_are_true waits_count_on_what_is_left_of_grants }
}

/// Quotas over an empty store, and two clients.
struct Scene {
    quotas: Quotas,
    alice: Client,
    bob: Client,
}

/// Client of the request, in its extensions.
#[derive(Clone)]
struct Tenant(&'static str);

impl Scene {
    async fn new(make: impl AsyncFn(QuotaLayer) -> Quotas, plan: Plan) -> Self {
        Self::of(make, QuotaLayer::new(plan)).await
    }

    /// Creates a scene. Its clients have public names and are verified, because a store may require both.
    async fn of(make: impl AsyncFn(QuotaLayer) -> Quotas, layer: QuotaLayer) -> Self {
        let tenant = Verified::from_extension(|tenant: &Tenant| Some(Principal::named(tenant.0))).named_only();
        let quotas = make(layer.identify_by(tenant)).await;
        Self { quotas, alice: Client::named("alice"), bob: Client::named("bob") }
    }

    async fn usage(&self, client: &Client) -> Usage {
        self.quotas.usage(client).await.expect("a client's usage")
    }

    /// Returns the used and the reserved amount of each limit.
    async fn counts(&self, client: &Client) -> Vec<(u64, u64)> {
        self.usage(client).await.limits.iter().map(|limit| (limit.used, limit.reserved)).collect()
    }

    async fn record(&self, client: &Client, amounts: impl Into<Amounts>) {
        self.quotas.record(client, amounts).await.expect("a record");
    }

    /// Waits for these counts, because a call that does not wait may take time to reach the store.
    async fn comes_to(&self, client: &Client, counts: &[(u64, u64)]) {
        comes_to(async || self.counts(client).await, counts.to_vec()).await;
    }
}

/// Runs `work` for each number below `count` in a task of its own; returns how many return true.
async fn at_once<F: Future<Output = bool> + Send + 'static>(count: u32, work: impl Fn(u32) -> F) -> usize {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let work = work(number);
        tasks.spawn(async {
            tokio::task::yield_now().await;
            work.await
        });
    }
    tasks.join_all().await.into_iter().filter(|passed| *passed).count()
}

async fn comes_to<T: PartialEq + fmt::Debug>(look: impl AsyncFn() -> T, expected: T) {
    for _ in 0..LOOKS {
        if look().await == expected {
            return;
        }
        tokio::time::sleep(APART).await;
    }
    assert_eq!(look().await, expected, "after {:?}", APART * LOOKS);
}

/// A plan that limits queries in a period that begins with the first query and outlasts the test.
fn queries(limit: u64) -> Plan {
    Plan::new("conformance").limit(Quota::units("queries", limit).per(Period::rolling(HOUR * 12)).named("queries"))
}

/// A plan that limits queries and rows.
fn two_limits(queries_limit: u64, rows: u64) -> Plan {
    queries(queries_limit).limit(Quota::units("rows", rows).per(Period::rolling(HOUR * 12)).named("rows"))
}

/// Returns the limits that refuse: name, used amount and size.
fn violated(refusal: &Refusal) -> Vec<(&str, u64, u64)> {
    refusal.violations().iter().map(|one| (one.name.as_str(), one.current, one.limit)).collect()
}

/// Returns the present wall time.
fn wall(clock: &Clock) -> SystemTime {
    SystemTime::UNIX_EPOCH + clock.wall()
}
