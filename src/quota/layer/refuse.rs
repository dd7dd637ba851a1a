//! Refusals by a quota.

use std::{sync::Arc, time::Duration};

use super::{active_plan::ActivePlan, policy::QuotaPolicy};
use crate::{
    identity::Client,
    policy_name::PolicyName,
    quota::{
        account::{Denial, Duplicate, Now},
        store::{AdmitError, StoreError},
    },
    refusal::{Reason, Refusal, Violation},
};

/// Retry delay while the job is running; its end is unknown.
const JOB_WAIT: Duration = Duration::from_secs(1);

/// Retry delay of a client with too many jobs.
const ROOM_WAIT: Duration = Duration::from_secs(60);

/// Retry delay when the store did not answer: about the shortest time of a failover or of a full queue.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// Upper bound of the spread after the start of a window.
const MOST_SPREAD: Duration = Duration::from_secs(300);

impl QuotaPolicy {
    pub(super) fn refusal(&self, active: &ActivePlan, client: &Client, refused: AdmitError, now: Now) -> Refusal {
        let refusal = |reason| Refusal::new(reason, self.common.context.name.clone());
        let (denial, shared) = match refused {
            AdmitError::Denied { denial, shared } => (denial, shared),
            AdmitError::Store(StoreError::Nameless | StoreError::Invalid(_)) => return refusal(Reason::Unidentified),
            AdmitError::Store(StoreError::Rejected(_)) => return refusal(Reason::Rejected),
            AdmitError::Store(StoreError::Unavailable) => {
                return refusal(Reason::Unavailable).with_retry_after(STORE_WAIT);
            }
            AdmitError::Store(StoreError::Indeterminate) => {
                return refusal(Reason::Indeterminate).with_retry_after(STORE_WAIT);
            }
        };
        match denial {
            Denial::Job(Duplicate::Running) => refusal(Reason::JobRunning).with_retry_after(JOB_WAIT),
            Denial::Job(Duplicate::Done) => refusal(Reason::DuplicateJob),
            Denial::Job(Duplicate::Conflict) => refusal(Reason::JobConflict),
            Denial::Job(Duplicate::Stale) => refusal(Reason::StaleJobId),
            Denial::Job(Duplicate::Full) => refusal(Reason::RateLimited).with_retry_after(ROOM_WAIT),
            Denial::Limits(violations) if shared => {
                // Neither the limit nor the usage of a shared account is reported: it would show the traffic of
                // others.
                let wait = violations.iter().map(|violation| violation.wait).max().flatten();
                match wait {
                    Some(wait) => refusal(Reason::Capacity).with_retry_after(wait),
                    None => refusal(Reason::TooLarge),
                }
            }
            Denial::Limits(violations) => self.over(active, client, violations, now),
        }
    }

    /// Returns the refusal of a client at its limits. It reports the limit with the longest wait.
    fn over(&self, active: &ActivePlan, client: &Client, violations: Vec<Violation>, now: Now) -> Refusal {
        let reason = match violations.iter().any(|violation| violation.wait.is_none()) {
            true => Reason::TooLarge,
            false => Reason::RateLimited,
        };
        let refusal = Refusal::new(reason, self.common.context.name.clone()).with_violations(violations);
        let Some(worst) = refusal.worst().cloned() else { return refusal.with_retry_after(JOB_WAIT) };
        let refusal = refusal.with_limit(worst.limit, worst.current);
        let Some(wait) = worst.wait else { return refusal };
        let mut refusal =
            refusal.with_retry_after(wait).with_spread(spread(active, client, &worst.name, now.wall, wait));
        if let Some((index, _)) = active.limit(&worst.name)
            && let Some(fields) = active.fields.get(index)
        {
            refusal = refusal.with_fields(Arc::clone(fields));
        }
        refusal
    }
}

/// Returns the delay after a common boundary, so that clients do not all retry at once.
///
/// It is constant for a client and a boundary: at most 300 s, and at most a tenth of the period.
fn spread(active: &ActivePlan, client: &Client, limit: &PolicyName, wall: u64, wait: Duration) -> Duration {
    let period = active.limit(limit).and_then(|(_, limit)| limit.quota.period()).filter(|period| period.is_calendar());
    let most = period.map_or(Duration::ZERO, |period| (period.longest() / 10).min(MOST_SPREAD));
    let boundary = u128::from(wall.saturating_add(crate::time::nanos(wait)));
    let mixed = (client.digest().0 ^ boundary.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32;
    let millis = mixed % most.as_millis().max(1);
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
