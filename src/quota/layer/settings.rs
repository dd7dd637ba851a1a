//! Settings of a quota layer.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    jobs::{Duplicates, JobIdSource},
    policy::QuotaPolicy,
};
use crate::{
    error::ConfigError,
    gate::{ClientConfig, PolicyConfig, PolicyContext, Tiered},
    head::RequestHead,
    identity::Client,
    kind::Kind,
    quota::{Limit, Plan, account::AccountSettings, memory::RoomSettings, store::QuotaStore},
};

/// Settings of a [`QuotaLayer`](crate::QuotaLayer).
#[derive(Clone)]
pub(super) struct QuotaConfig {
    pub(super) plans: Tiered<Plan>,
    pub(super) client_plans: Vec<(Client, Plan)>,
    pub(super) clients: ClientConfig,
    pub(super) accept_unverified: bool,
    pub(super) meters: Vec<(Kind, Meter)>,
    pub(super) share: bool,
    pub(super) charge_when: Option<ChargeWhen>,
    pub(super) job_id: Option<JobIdSource>,
    pub(super) duplicates: Duplicates,
    pub(super) free_unfinished: bool,
    /// Its `charge_expired` is set when the layer is built.
    pub(super) account: AccountSettings,
    pub(super) on_expiry: Option<OnExpiry>,
    pub(super) store: QuotaStore,
    pub(super) on_failure: OnFailure,
    /// Greatest number of accounts of one cohort; `None` for a part of all accounts.
    pub(super) most_of_cohort: Option<usize>,
    /// Plan of the accounts that newcomers share; `None` for the plan of each.
    pub(super) overflow: Option<Plan>,
}

pub(super) type Meter = Arc<dyn Fn(&RequestHead<'_>) -> Option<u64> + Send + Sync>;
type ChargeWhen = Arc<dyn Fn(&ServedRequest) -> bool + Send + Sync>;

/// Outcome of a request that reached the service, for [`charge_when`](crate::QuotaLayer::charge_when).
///
/// ```
/// use http::StatusCode;
/// use tollgate::{Plan, QuotaLayer};
/// // An attempt that the client cuts off before the answer has no status, and counts as a failed one.
/// let only_failed_logins = QuotaLayer::new(Plan::standard())
///     .charge_when(|served| served.status.is_none_or(|status| status == StatusCode::UNAUTHORIZED));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedRequest {
    /// Status of the response. `None` if the response never started: the client hung up before the head, or the handler
    /// failed or panicked.
    pub status: Option<StatusCode>,
    /// Whether the whole response was handed to the transport.
    pub complete: bool,
}

/// Decision on a request while the quota store does not answer.
///
/// ```
/// use tollgate::{QuotaStore, OnFailure, Plan, QuotaLayer};
/// let layer = QuotaLayer::new(Plan::standard()).store_in(QuotaStore::memory(), OnFailure::FailClosed);
/// ```
///
/// # Without the ledger
/// Memory always answers, so that this setting has no effect on it. In a ledger, `FailOpen` and `LocalShare` need a
/// spool (`LedgerBuilder::spool_in`): without one the layer does not build. Under them a request passes if the ledger
/// cannot be reached, has too many callers waiting, or does not answer within its deadline (`Ledger::deadline`).
///
/// The charge of such a request is on the local disk before the request passes, under the ids that it would have had in the
/// ledger. From then on no request waits for the ledger. The records in the `Spool` are merged as soon as the ledger accepts
/// them; then requests ask the ledger again. Each merged row has the time at which its request passed without the
/// ledger (`LedgerEntry::passed_at`), also if it exceeds a limit.
///
/// If a commit was on its way and the ledger did not answer in time, the request passes too, under the same ids. Whether the
/// commit took place or not, the ledger holds the charge once.
///
/// A job that passed is a duplicate from then on, in this process and in the next process with the same spool. So are
/// the last 65,536 jobs that this process has seen charged. Other jobs in the ledger are unknown while it is away. A
/// job that another process has charged may reach the handler again, and so may a job that passes in two processes at
/// once. The ledger charges it once.
///
/// Concurrency is counted in this process, as always. While the ledger is away, responses carry no rate limit headers. A
/// handler's [`Charge`](crate::Charge) records as always, and its [`QuotaStatus`](crate::QuotaStatus) lists
/// [no limits](crate::QuotaStatus#without-limits). Every other operation (usage, grants, records by the handle, the end of a
/// reservation by its id) returns that the store is unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// Refuses the request with 503. Nothing is charged, and nothing is served that was not charged.
    FailClosed,
    /// Admits the request regardless of its limits, for services whose work is worth more than a limit.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// use tollgate::{Ledger, OnFailure, Plan, QuotaLayer};
    /// let ledger = Ledger::sqlite("quota.db").spool_in("quota.spool").open().await?;
    /// let layer = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailOpen);
    /// # Ok(())
    /// # }
    /// ```
    FailOpen,
    /// Admits the request while this process stays within its share of each limit: one part in `of` of the amount that
    /// remained. Beyond that it refuses with 429.
    ///
    /// With at most `of` processes, all requests admitted while the ledger is away fit the limit together. Amounts used
    /// before are deducted as far as this process knows them, as of the client's last admission here. In a period
    /// without such an admission, up to a whole limit passes besides the amounts used before. A share is rounded down,
    /// possibly to 0. It does not include grants, and refunds are available again only once the ledger has them.
    LocalShare {
        /// Greatest number of processes that share the limits.
        of: NonZeroU32,
    },
}

/// Effect of expiry on a reservation.
///
/// ```
/// use tollgate::{OnExpiry, Plan, QuotaLayer};
/// let layer = QuotaLayer::new(Plan::standard()).on_expiry(OnExpiry::ChargeEstimate);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnExpiry {
    /// The amounts are returned: the default in memory.
    #[default]
    Return,
    /// The estimate is charged, because the work may have been done: the default in a ledger.
    ChargeEstimate,
}

impl QuotaConfig {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plans: Tiered::new(plan),
            client_plans: Vec::new(),
            clients: ClientConfig::default(),
            accept_unverified: false,
            meters: Vec::new(),
            share: false,
            charge_when: None,
            job_id: None,
            duplicates: Duplicates::default(),
            free_unfinished: false,
            account: AccountSettings {
                max_hold: Duration::from_secs(3_600),
                max_stall: Duration::from_secs(60),
                ttl: Duration::from_secs(300),
                charge_expired: false,
                max_reservations: 4_096,
                job_horizon: Duration::from_secs(86_400),
                max_jobs: 1 << 16,
            },
            on_expiry: None,
            store: QuotaStore::memory(),
            on_failure: OnFailure::FailClosed,
            most_of_cohort: None,
            overflow: None,
        }
    }

    /// Returns the bounds of the accounts.
    pub(super) fn room(&self) -> RoomSettings {
        let (most, guarantees) = (self.clients.most, self.clients.identify.guarantees());
        RoomSettings {
            most,
            most_of_cohort: self.most_of_cohort.unwrap_or_else(|| RoomSettings::default_of_cohort(most)),
            // Without another kind of client that needs room, they may have all of it.
            bounds_claimed: !guarantees.verified && !guarantees.one_kind,
            overflow: self.shared_plan().cloned().map(Arc::new),
        }
    }

    /// Returns the plan of the accounts that newcomers share, if it is not the plan of each. A ledger has room for all.
    pub(super) fn shared_plan(&self) -> Option<&Plan> {
        self.overflow.as_ref().filter(|_| !self.store.0.bills())
    }

    /// Returns the units that the plans count.
    pub(super) fn units(&self) -> Vec<Kind> {
        self.all_plans().flat_map(Plan::units).cloned().collect()
    }

    fn all_plans(&self) -> impl Iterator<Item = &Plan> {
        self.plans.values().chain(self.client_plans.iter().map(|(_, plan)| plan)).chain(self.shared_plan())
    }

    /// Checks that the identity suits the plan, and that a ledger can store the plan.
    ///
    /// A limit of a day or longer needs an identity that a client cannot forge. A ledger bills by public name.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), ConfigError> {
        let (name, guarantees, bills) = (plan.name(), self.clients.identify.guarantees(), self.store.0.bills());
        if bills && !guarantees.named {
            return Err(ConfigError::message(format!(
                "plan {name:?} is stored in a ledger, which bills by public name, but the identity may find clients \
                 without one; call .named_only() on the ApiKey or Verified of .identify_by(..)"
            )));
        }
        if bills && plan.starts_fresh() {
            return Err(ConfigError::message(format!(
                "plan {name:?} starts fresh, but a ledger continues its counters; reset the accounts instead"
            )));
        }
        let splits = |limit: &&Limit| limit.quota.period().is_some_and(|period| !period.is_of_whole_microseconds());
        if let Some(limit) = plan.counted().iter().find(splits).filter(|_| bills) {
            let what = format!("period of limit {:?} of plan {name:?} in a ledger", limit.name);
            let got = limit.quota.period().map(ToString::to_string).unwrap_or_default();
            return Err(ConfigError::new(&what, "begin and end at whole microseconds", got));
        }
        match plan.lasting() {
            Some(limit) if !self.accept_unverified && !guarantees.verified => Err(ConfigError::message(format!(
                "plan {name:?} has the limit {:?} of a day or longer, but the identity is not verified; \
                 call .accept_unverified() to permit that",
                limit.name
            ))),
            _ => Ok(()),
        }
    }
}

impl PolicyConfig for QuotaConfig {
    type Policy = QuotaPolicy;

    fn build(&self, context: &PolicyContext) -> Result<Arc<QuotaPolicy>, ConfigError> {
        self.all_plans().try_for_each(|plan| self.check(plan))?;
        let units = self.units();
        match self.meters.iter().find(|(unit, _)| !units.contains(unit)) {
            Some((unit, _)) => {
                let must = "be one that a plan of the layer counts";
                Err(ConfigError::quoted("unit of .cost()", must, unit.as_str()))
            }
            None => {
                let policy = Arc::new(QuotaPolicy::new(self.clone(), context.clone())?);
                context.observers.attach(&policy);
                Ok(policy)
            }
        }
    }

    fn clients(&mut self) -> Option<&mut ClientConfig> {
        Some(&mut self.clients)
    }
}

/// Panics if a setting named `what` is no time.
#[track_caller]
pub(super) fn check_time(what: &str, time: Duration) {
    if time.is_zero() {
        panic!("{}", ConfigError::new(what, "be longer than zero", format_args!("{time:?}")));
    }
}

/// Panics if a setting named `what` is 0.
#[track_caller]
pub(super) fn check_positive(what: &str, number: usize) {
    if number == 0 {
        panic!("{}", ConfigError::new(what, "be positive", number));
    }
}
