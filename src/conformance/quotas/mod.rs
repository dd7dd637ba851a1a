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
mod jobs;
mod reservations;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

pub use admin::{
    a_grant_raises_a_limit_until_it_is_revoked, a_new_plan_keeps_what_was_used, a_reset_counts_from_zero,
    grant_ends_at_any_time_to_come, reset_repeats_after_a_late_commit, the_grant_that_ends_first_is_used_first,
    what_cannot_be_is_said_in_words,
};
pub use amounts::{
    a_kind_that_is_named_twice_is_one, a_kind_without_a_limit_is_free, a_record_goes_past_the_limit,
    all_limits_are_charged_or_none, large_amounts_are_judged_right, many_at_once_take_exactly_the_limit,
    what_fits_is_charged, zero_asks_whether_anything_is_left,
};
pub use clients::{every_client_is_listed_once, looking_changes_nothing, two_clients_never_meet};
pub use clocks::{
    a_grant_ends_in_time, a_job_is_forgotten_in_time, a_late_charge_belongs_to_its_own_period,
    a_lost_estimate_is_charged, a_lost_reservation_comes_back, a_period_begins_again,
};
pub use jobs::{
    a_job_is_done_once, a_job_that_was_not_begun_leaves_its_id_free, a_job_under_way_is_not_begun_again,
    a_place_comes_back, another_job_has_another_id, many_at_once_do_a_job_once,
};
pub use reservations::{
    a_reservation_ends_once, a_reservation_is_charged_as_what_was_used, an_id_can_be_written_down,
    many_at_once_end_a_reservation_once,
};

use crate::{
    identity::{Client, Principal, Verified},
    quota::{Amounts, Plan, Quota, QuotaLayer, Quotas, Usage},
    refusal::Refusal,
    time::{Clock, Period},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Greatest amount that is counted.
const MOST: u64 = (1 << 53) - 1;

/// Number and interval of the reads after a call that may take time to reach the store.
const LOOKS: u32 = 30_000;
const APART: Duration = Duration::from_millis(10);

/// Runs every rule that does not move the clock.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::all(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn all(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    what_fits_is_charged(&make).await;
    all_limits_are_charged_or_none(&make).await;
    zero_asks_whether_anything_is_left(&make).await;
    a_kind_without_a_limit_is_free(&make).await;
    large_amounts_are_judged_right(&make).await;
    a_record_goes_past_the_limit(&make).await;
    a_kind_that_is_named_twice_is_one(&make).await;
    many_at_once_take_exactly_the_limit(&make).await;
    a_reservation_is_charged_as_what_was_used(&make).await;
    a_reservation_ends_once(&make).await;
    an_id_can_be_written_down(&make).await;
    many_at_once_end_a_reservation_once(&make).await;
    a_new_plan_keeps_what_was_used(&make).await;
    a_grant_raises_a_limit_until_it_is_revoked(&make).await;
    the_grant_that_ends_first_is_used_first(&make).await;
    grant_ends_at_any_time_to_come(&make).await;
    what_cannot_be_is_said_in_words(&make).await;
    a_reset_counts_from_zero(&make).await;
    reset_repeats_after_a_late_commit(&make).await;
    two_clients_never_meet(&make).await;
    looking_changes_nothing(&make).await;
    every_client_is_listed_once(&make).await;
    a_job_is_done_once(&make).await;
    another_job_has_another_id(&make).await;
    a_job_under_way_is_not_begun_again(&make).await;
    a_job_that_was_not_begun_leaves_its_id_free(&make).await;
    many_at_once_do_a_job_once(&make).await;
    a_place_comes_back(&make).await;
}

/// Runs every rule about time, for stores that follow the [`Clock`] of their layer. The rules move that clock.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::all_with_clock(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn all_with_clock(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    a_period_begins_again(&make).await;
    a_grant_ends_in_time(&make).await;
    a_lost_reservation_comes_back(&make).await;
    a_lost_estimate_is_charged(&make).await;
    a_late_charge_belongs_to_its_own_period(&make).await;
    a_job_is_forgotten_in_time(&make).await;
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
