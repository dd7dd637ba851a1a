//! Counters and gauges of the `metrics` facade.

mod gauges;

use std::{fmt, sync::Arc};

use ::metrics::{Counter, Histogram, counter, gauge, histogram};
use arc_swap::ArcSwap;

use self::gauges::SampledGauges;
use crate::{
    gate::{Event, Observer, Sampler},
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
/// | `tollgate.amounts.cut` | `policy` | amounts of which a part was cut, because a counter had reached 2^53 - 1 |
/// | `tollgate.circuit.transitions` | `policy`, `from`, `to` | changes of a circuit's state |
/// | `tollgate.store.available` | `policy` | gauge: 0 while requests pass without the store |
/// | `tollgate.store.losses` | `policy` | times that the store stopped answering |
/// | `tollgate.accounts.held` | `policy` | times that a client's requests began to pass without the store, because another transaction held its account |
/// | `tollgate.store.rejections` | `policy` | calls that the store rejected for good |
/// | `tollgate.spool.full` | `policy` | times that the spool was full |
/// | `tollgate.spool.merged`, `tollgate.spool.duplicates` | `policy` | records merged into the store, and jobs among them that had been charged before |
/// | `tollgate.store.duration` | `store`, `operation`, `result`: `ok`, `failed` | histogram, in seconds: steps of a ledger's transactions, such as `commit`; `store` is `sqlite` or `postgres` |
/// | `tollgate.ledger.compared`, `tollgate.ledger.drifts` | `store` | counters that `Ledger::reconcile` has compared with their rows, and those that differed |
///
/// The last two are of ledgers that have the observer, by `LedgerBuilder::observe`.
///
/// No event reports a number of clients, or a circuit that becomes half-open because time passes. These gauges are set when
/// [`sample`](Self::sample) is called, in the handler of a scrape or by a task of each 10 or 15 s:
///
/// | gauge | labels | value |
/// |---|---|---|
/// | `tollgate.circuit.state` | `policy`, `state` | 1 for the state that a call would find now, 0 for all other states that the policy's one circuit has had; transitions set it at once too |
/// | `tollgate.circuit.keys` | `policy`, `state` | circuits of hosts or other keys in a state; a gauge for each key would be a time series for each |
/// | `tollgate.clients`, `tollgate.clients.max` | `policy` | clients with a bucket or an account in memory, and the most that can have one |
/// | `tollgate.quota.used`, `tollgate.quota.limit` | `policy`, `plan`, `limit` | amounts that the clients of a plan have used and reserved, and that they may use together, as [`read_usage`](Self::read_usage) has added them up |
///
/// Every layer that has the observer is sampled, without a list of handles. An observer of your own that forwards its events
/// to this one must forward [`attach`](Observer::attach) too. Layers of one name add up, but of two breakers of one name
/// one shows its state.
///
/// Handles are registered once and kept. **Install the recorder before the first request**; handles that were registered
/// without one record nothing.
///
/// ```
/// use tollgate::{Rate, TokenBucketLayer, telemetry::Metrics};
///
/// let metrics = Metrics::new();
/// let limit = TokenBucketLayer::new(Rate::per_second(50)).named("per client").observe(metrics.clone());
///
/// async fn scrape(metrics: Metrics, render: impl Fn() -> String) -> String {
///     metrics.read_usage(1_000).await; // only for quotas
///     metrics.sample();
///     render() // of the recorder, such as `PrometheusHandle::render`
/// }
/// ```
#[derive(Clone, Default)]
pub struct Metrics(Arc<MetricHandles>);

/// Registered handles of all policies.
#[derive(Default)]
struct MetricHandles {
    policies: Registered<PolicyName, Arc<PolicyMetrics>>,
    steps: Registered<StepKey, Histogram>,
    sampled: SampledGauges,
}

/// Handles by their label, of which there are few. They are read without a lock.
struct Registered<K, H>(ArcSwap<Vec<(K, H)>>);

/// Store, operation, and whether it failed.
type StepKey = (&'static str, &'static str, bool);

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

    /// Reads the values of all layers that have this observer, and sets their gauges.
    ///
    /// Call it before each scrape, or each 10 to 15 s. It reads some numbers of each layer, takes less than 1 ms for 1,024
    /// keys of a breaker, and waits for nothing. It visits no client, and reads no database. It changes no circuit: an open
    /// one whose open time is over shows as half-open, and its transition is counted with the call that makes it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::telemetry::Metrics;
    ///
    /// /// For a recorder that has no handler of scrapes, such as one that pushes.
    /// async fn sample_for_ever(metrics: Metrics) {
    ///     let mut ticks = tokio::time::interval(Duration::from_secs(10));
    ///     loop {
    ///         ticks.tick().await;
    ///         metrics.sample();
    ///     }
    /// }
    /// ```
    pub fn sample(&self) {
        self.0.sampled.sample();
    }

    /// Reads the usage of about `most` further clients of each quota, in turn, for `tollgate.quota.used` and
    /// `tollgate.quota.limit`. The next [`sample`](Self::sample) after a pass over all clients shows its sums.
    ///
    /// The cost is a number of clients, whatever their total: with 100,000 clients and 1,000 a call, each 10 s, a pass takes
    /// 17 minutes, and the gauges show the one before until then. [`Sampler::read_usage`] has the cost of a client, which is a query in a ledger:
    /// there 100 a call, in a task of its own, are enough. Plans that single clients have are left out, because their
    /// number is not bounded and a name may be a client's.
    ///
    /// # Cancel safety
    /// If the future is dropped, the next call goes on where it has stopped.
    pub async fn read_usage(&self, most: usize) {
        for layer in self.0.sampled.layers() {
            layer.read_usage(most).await;
        }
    }

    fn of(&self, policy: &PolicyName) -> Arc<PolicyMetrics> {
        self.0.policies.get(policy, || Arc::new(PolicyMetrics::register(policy)))
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
            Event::AmountCut { policy, .. } => one("tollgate.amounts.cut", policy),
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
            Event::StoreStep { store, operation, took, failed } => {
                let result = if failed { "failed" } else { "ok" };
                let labels = [("store", store), ("operation", operation), ("result", result)];
                let register = || histogram!("tollgate.store.duration", &labels);
                self.0.steps.get(&(store, operation, failed), register).record(took);
            }
            Event::Reconciled { store, compared, drifts } => {
                counter!("tollgate.ledger.compared", "store" => store).increment(compared);
                counter!("tollgate.ledger.drifts", "store" => store).increment(drifts);
            }
            Event::Transition { policy, key, from, to, .. } => {
                let (before, after) = (from.as_str(), to.as_str());
                counter!("tollgate.circuit.transitions", "policy" => label(policy), "from" => before, "to" => after)
                    .increment(1);
                if key.is_none() {
                    self.0.sampled.enter(policy, from, to);
                }
            }
        }
    }

    fn attach(&self, layer: &Sampler) {
        self.0.sampled.add(layer);
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

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies: Vec<_> = self.0.policies.0.load().iter().map(|(policy, _)| policy.clone()).collect();
        f.debug_tuple("Metrics").field(&policies).finish()
    }
}
