//! Counters and gauges of the `metrics` facade.

use std::{fmt, sync::Arc};

use ::metrics::{Counter, Gauge, counter, gauge};
use arc_swap::ArcSwap;

use crate::{
    circuit_state::CircuitState,
    gate::{Event, Observer},
    policy_name::PolicyName,
    refusal::Reason,
};

/// Counts the events of a layer for the recorder of the program, through the [`metrics`](::metrics) facade.
///
/// | metric | labels | counts |
/// |---|---|---|
/// | `tollgate.requests` | `policy`, `result`: `admitted`, `refused`, `shadowed` | decisions; `shadowed` requests passed all the same |
/// | `tollgate.refusals` | `policy`, `reason` | refusals by their [`Reason`](crate::Reason), also under shadow |
/// | `tollgate.unidentified` | `policy` | layers that met an unidentified request |
/// | `tollgate.forwarded.unreadable` | `policy` | layers that met a field of a trusted proxy that cannot be read |
/// | `tollgate.overflows` | `policy` | newcomers that shared an account, because the table was full or had those of their network |
/// | `tollgate.cohorts.full` | `policy` | times that one network, or unverified identities, had the accounts that one may have |
/// | `tollgate.leases.reclaimed` | `policy` | slots and probes that were held too long |
/// | `tollgate.limits.near` | `policy`, `limit` | warnings that a client is near its limit |
/// | `tollgate.upgrades.unkept` | `policy` | upgraded connections that hold no concurrency slot |
/// | `tollgate.units.unknown` | `policy` | amounts of a unit that no plan of the layer counts |
/// | `tollgate.circuit.transitions` | `policy`, `from`, `to` | changes of a circuit's state |
/// | `tollgate.circuit.state` | `policy`, `state` | gauge: 1 for the state of the policy's one circuit, 0 for the states that it had before |
/// | `tollgate.store.available` | `policy` | gauge: 0 while requests pass without the store |
/// | `tollgate.store.losses` | `policy` | times that the store stopped answering |
/// | `tollgate.accounts.held` | `policy` | times that a client's requests began to pass without the store, because another transaction held its account |
/// | `tollgate.store.rejections` | `policy` | calls that the store rejected for good |
/// | `tollgate.spool.full` | `policy` | times that the spool was full |
/// | `tollgate.spool.merged`, `tollgate.spool.duplicates` | `policy` | records merged into the store, and jobs among them that had been charged before |
///
/// A circuit per host or key has transitions and no state gauge: a gauge for each key would be a time series for each. An
/// open circuit changes with the next call after its open time. Until then its gauge is that of `open`, while
/// [`CircuitBreaker::state`](crate::CircuitBreaker::state) returns that the call would probe.
///
/// Handles of requests and refusals are registered once and kept. **Install the recorder before the first
/// request**; handles that were registered without one record nothing.
///
/// Numbers that no event has are read from handles at each scrape: `Quotas::live_clients`, `TokenBuckets::live_clients`
/// and the drifts of `Ledger::reconcile`. The example `metrics` does so.
///
/// ```
/// use tollgate::{Rate, TokenBucketLayer, telemetry::Metrics};
/// let limit = TokenBucketLayer::new(Rate::per_second(50)).named("per client").observe(Metrics::new());
/// ```
#[derive(Clone, Default)]
pub struct Metrics(Arc<Registered<PolicyName, Arc<PolicyMetrics>>>);

/// Handles by their label, of which there are few. They are read without a lock.
struct Registered<K, H>(ArcSwap<Vec<(K, H)>>);

/// Registered handles of one policy.
struct PolicyMetrics {
    admitted: Counter,
    refused: Counter,
    shadowed: Counter,
    refusals: Registered<Reason, Counter>,
}

impl<K: PartialEq + Clone, H: Clone> Registered<K, H> {
    /// Returns the handle of a key, registered at its first use.
    fn get(&self, key: &K, register: impl FnOnce() -> H) -> H {
        let known = |all: &[(K, H)]| all.iter().find(|(known, _)| known == key).map(|(_, handle)| handle.clone());
        known(&self.0.load()).unwrap_or_else(|| {
            let new = register();
            self.0.rcu(|all| match known(all) {
                Some(_) => Vec::clone(all),
                None => all.iter().cloned().chain([(key.clone(), new.clone())]).collect(),
            });
            new
        })
    }
}

impl<K, H> Default for Registered<K, H> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl Metrics {
    /// Creates an observer. One is enough for several layers, each with a name of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn of(&self, policy: &PolicyName) -> Arc<PolicyMetrics> {
        self.0.get(policy, || Arc::new(PolicyMetrics::register(policy)))
    }
}

impl PolicyMetrics {
    fn register(policy: &PolicyName) -> Self {
        let requests = |result| counter!("tollgate.requests", "policy" => label(policy), "result" => result);
        Self {
            admitted: requests("admitted"),
            refused: requests("refused"),
            shadowed: requests("shadowed"),
            refusals: Registered::default(),
        }
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Admitted { policy, .. } => self.of(policy).admitted.increment(1),
            Event::Refused { refusal, shadow, .. } => {
                let known = self.of(refusal.policy());
                if shadow { &known.shadowed } else { &known.refused }.increment(1);
                known.refusals.get(&refusal.reason(), || refusals(refusal.policy(), refusal.reason())).increment(1);
            }
            Event::Unidentified { policy } => one("tollgate.unidentified", policy),
            Event::UnreadableForwarded { policy, .. } => one("tollgate.forwarded.unreadable", policy),
            Event::Overflow { policy } => one("tollgate.overflows", policy),
            Event::CohortFull { policy, .. } => one("tollgate.cohorts.full", policy),
            Event::Reclaimed { policy } => one("tollgate.leases.reclaimed", policy),
            Event::UpgradeReleasedSlot { policy } => one("tollgate.upgrades.unkept", policy),
            Event::NearLimit { policy, limit, .. } => {
                counter!("tollgate.limits.near", "policy" => label(policy), "limit" => label(limit)).increment(1);
            }
            Event::UnknownUnit { policy, .. } => one("tollgate.units.unknown", policy),
            Event::AccountHeld { policy, .. } => one("tollgate.accounts.held", policy),
            Event::StoreRejected { policy, .. } => one("tollgate.store.rejections", policy),
            Event::StoreLost { policy, .. } => {
                one("tollgate.store.losses", policy);
                available(policy, 0.0);
            }
            Event::StoreBack { policy } => available(policy, 1.0),
            Event::SpoolFull { policy } => one("tollgate.spool.full", policy),
            Event::SpoolMerged { policy, records, duplicates } => {
                counter!("tollgate.spool.merged", "policy" => label(policy)).increment(records);
                counter!("tollgate.spool.duplicates", "policy" => label(policy)).increment(duplicates);
            }
            Event::Transition { policy, key, from, to, .. } => {
                let (before, after) = (from.as_str(), to.as_str());
                counter!("tollgate.circuit.transitions", "policy" => label(policy), "from" => before, "to" => after)
                    .increment(1);
                if key.is_none() {
                    state_gauge(policy, from).set(0.0);
                    state_gauge(policy, to).set(1.0);
                }
            }
        }
    }
}

/// Returns a name as a label, without a copy of its text.
fn label(name: &PolicyName) -> Arc<str> {
    name.into()
}

fn one(name: &'static str, policy: &PolicyName) {
    counter!(name, "policy" => label(policy)).increment(1);
}

fn refusals(policy: &PolicyName, reason: Reason) -> Counter {
    counter!("tollgate.refusals", "policy" => label(policy), "reason" => reason.as_str())
}

fn available(policy: &PolicyName, is_available: f64) {
    gauge!("tollgate.store.available", "policy" => label(policy)).set(is_available);
}

fn state_gauge(policy: &PolicyName, state: CircuitState) -> Gauge {
    gauge!("tollgate.circuit.state", "policy" => label(policy), "state" => state.as_str())
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies: Vec<_> = self.0.0.load().iter().map(|(policy, _)| policy.clone()).collect();
        f.debug_tuple("Metrics").field(&policies).finish()
    }
}
