//! Events as structured logs.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ::tracing::{Level, debug, enabled, info, trace, warn};

use crate::{
    circuit_state::CircuitState,
    gate::{Event, Observer},
    time::Clock,
};

/// Refusals that are logged in one second, by default.
const REFUSALS: u32 = 10;

/// Logs the events of a layer through the [`tracing`](::tracing) facade, with the target `tollgate`.
///
/// | level | events |
/// |---|---|
/// | TRACE | admissions, steps of a store |
/// | DEBUG | refusals and overflows, at most 10 a second together |
/// | INFO | circuits that close or probe, clients near a limit, a store that is back, a merged spool, a ledger without drift |
/// | WARN | circuits that open, unidentified requests, reclaimed leases, a network with all accounts that it may have, a store that is lost or rejects, an account that is held, a full spool, a ledger with drift |
///
/// INFO and WARN events that requests can cause, such as rejections, are limited to the same rate, apart from refusals.
/// The field `skipped` counts the events that were left out since the one before.
///
/// No event has a client, an address, a key or a path. Spans of your server have the request, if they should.
///
/// ```
/// use tollgate::{Rate, TokenBucketLayer, telemetry::Tracing};
/// let limit = TokenBucketLayer::new(Rate::per_second(50)).observe(Tracing::new().refusals_per_second(100));
/// ```
#[derive(Clone, Debug)]
pub struct Tracing {
    clock: Clock,
    most: u32,
    refusals: Arc<LogLimiter>,
    others: Arc<LogLimiter>,
}

/// Events in the current second, and those that were left out.
#[derive(Debug, Default)]
struct LogLimiter {
    /// The second in the upper 32 bits, the number of its events in the lower.
    second: AtomicU64,
    skipped: AtomicU64,
}

impl Tracing {
    /// Creates an observer.
    #[must_use]
    pub fn new() -> Self {
        Self { clock: Clock::system(), most: REFUSALS, refusals: Arc::default(), others: Arc::default() }
    }

    /// Sets the greatest number of events of a group in one second; 10 by default, and 0 for none.
    #[must_use]
    pub fn refusals_per_second(self, most: u32) -> Self {
        Self { most, ..self }
    }

    /// Sets the clock by which events are limited; the system's by default.
    #[must_use]
    pub fn clock(self, clock: impl Into<Clock>) -> Self {
        Self { clock: clock.into(), ..self }
    }

    /// Logs an event if its group is within the rate, with the number of those that were left out.
    fn limited(&self, group: &LogLimiter, log: impl FnOnce(u64)) {
        if group.passes(self.clock.wall().as_secs(), self.most) {
            log(group.skipped.swap(0, Ordering::Relaxed));
        } else {
            group.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Self::new()
    }
}

impl LogLimiter {
    fn passes(&self, second: u64, most: u32) -> bool {
        let second = second << 32;
        let counted = self.second.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
            let next = if seen & !u64::from(u32::MAX) == second { seen + 1 } else { second + 1 };
            (next - second <= u64::from(most)).then_some(next)
        });
        counted.is_ok()
    }
}

impl Observer for Tracing {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Admitted { policy, .. } => trace!(target: "tollgate", %policy, "admitted"),
            Event::Refused { refusal, shadow, .. } => {
                if enabled!(target: "tollgate", Level::DEBUG) {
                    let (policy, reason, wait) = (refusal.policy(), refusal.reason().as_str(), refusal.retry_after());
                    self.limited(&self.refusals, |skipped| {
                        debug!(target: "tollgate", %policy, reason, shadow, retry_after = ?wait, skipped, "refused");
                    });
                }
            }
            Event::Overflow { policy } => {
                self.limited(&self.refusals, |skipped| {
                    debug!(target: "tollgate", %policy, skipped, "no room in the table of clients: a newcomer shares an account");
                });
            }
            Event::CohortFull { policy, .. } => self.limited(&self.others, |skipped| {
                warn!(target: "tollgate", %policy, skipped, "one network has the accounts that it may have: its newcomers share");
            }),
            Event::Unidentified { policy } => {
                warn!(target: "tollgate", %policy, "a request has no identity: check .identify_by(..) and the order of layers");
            }
            Event::UnreadableForwarded { policy, field } => {
                warn!(target: "tollgate", %policy, %field, "a trusted proxy sent a field that cannot be read: its clients are one");
            }
            Event::Reclaimed { policy } => self.limited(&self.others, |skipped| {
                warn!(target: "tollgate", %policy, skipped, "a slot or probe was held too long and is free again");
            }),
            Event::UpgradeReleasedSlot { policy } => self.limited(&self.others, |skipped| {
                warn!(target: "tollgate", %policy, skipped, "an upgraded connection holds no slot: call Charge::keep_slot");
            }),
            Event::NearLimit { policy, limit, used, of, .. } => self.limited(&self.others, |skipped| {
                info!(target: "tollgate", %policy, %limit, used, of, skipped, "a client is near a limit");
            }),
            Event::UnknownUnit { policy, unit, .. } => self.limited(&self.others, |skipped| {
                warn!(target: "tollgate", %policy, %unit, skipped, "no plan of the layer counts a recorded unit");
            }),
            Event::AmountCut { policy, kind, amount } => self.limited(&self.others, |skipped| {
                warn!(target: "tollgate", %policy, %kind, amount, skipped, "a counter has reached 2^53 - 1 and the rest of an amount is cut");
            }),
            Event::StoreRejected { policy, why, .. } => self.limited(&self.others, |skipped| {
                warn!(target: "tollgate", %policy, error = why, skipped, "the store rejected a call for good");
            }),
            Event::AccountHeld { policy, .. } => self.limited(&self.others, |skipped| {
                warn!(target: "tollgate", %policy, skipped, "another transaction holds an account: its requests pass without the store");
            }),
            Event::StoreLost { policy, why } => {
                warn!(target: "tollgate", %policy, error = why, "the store does not answer: requests pass without it");
            }
            Event::StoreBack { policy } => info!(target: "tollgate", %policy, "the store decides again"),
            Event::SpoolFull { policy } => {
                warn!(target: "tollgate", %policy, "the spool is full or its disk fails: requests are refused");
            }
            Event::SpoolMerged { policy, records, duplicates } => {
                info!(target: "tollgate", %policy, records, duplicates, "the spool is merged into the store");
            }
            Event::StoreStep { store, operation, took, failed } => {
                trace!(target: "tollgate", store, operation, ?took, failed, "a step of the store");
            }
            Event::Reconciled { store, compared, drifts: 0 } => {
                info!(target: "tollgate", store, compared, "the counters are the sums of their rows");
            }
            Event::Reconciled { store, compared, drifts } => {
                warn!(target: "tollgate", store, compared, drifts, "counters are not the sums of their rows");
            }
            Event::Transition { policy, from, to, cause, .. } => self.limited(&self.others, |skipped| {
                if matches!(to, CircuitState::Open | CircuitState::ForcedOpen) {
                    warn!(target: "tollgate", %policy, %from, %to, cause, skipped, "a circuit opened");
                } else {
                    info!(target: "tollgate", %policy, %from, %to, cause, skipped, "a circuit changed its state");
                }
            }),
        }
    }
}
