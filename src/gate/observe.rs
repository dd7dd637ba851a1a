//! Events, and the observers that receive them.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    panics::caught,
    sample::{Sampled, Sampler},
};
use crate::{
    circuit_state::CircuitState,
    identity::{Client, Digest, Name},
    policy_name::PolicyName,
    refusal::Refusal,
};

/// Everything that metrics, traces and logs can record.
///
/// A client in an event is a digest and, if it is public, a name; never the secret that identified it. Do not use
/// clients as labels of metrics: each client would be a time series.
///
/// ```
/// use tollgate::{Event, Observer};
///
/// let observer = |event: &Event<'_>| match event {
///     Event::Refused { refusal, client: Some(client), .. } => println!("{client:?}: {refusal}"),
///     Event::Refused { refusal, .. } => println!("{refusal}"),
///     _ => {}
/// };
/// # fn takes(_: impl Observer) {} takes(observer);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A request was admitted.
    Admitted {
        /// Policy that decided.
        policy: &'a PolicyName,
        /// Client of the request; `None` if it is unidentified or the policy identifies no clients.
        client: Option<&'a Client>,
    },
    /// A request was refused, or would have been.
    Refused {
        /// Reason, and policy that decided.
        refusal: &'a Refusal,
        /// Client of the request; `None` if it is unidentified or the policy identifies no clients.
        client: Option<&'a Client>,
        /// True under [`shadow`](crate::GateLayer::shadow): the request passed all the same.
        shadow: bool,
    },
    /// A request is unidentified; all such requests are treated as [`OnUnidentified`](crate::OnUnidentified) says. Emitted
    /// once a layer.
    Unidentified {
        /// Policy that needed the identity.
        policy: &'a PolicyName,
    },
    /// A trusted proxy sent a field in which no client can be read, so that its clients share the proxy's limit. Emitted
    /// once a layer.
    UnreadableForwarded {
        /// Policy that needed the identity.
        policy: &'a PolicyName,
        /// Name of the field.
        field: &'a HeaderName,
    },
    /// The table of clients is full of live entries, or has those that one network may have, and a newcomer shared state
    /// with other newcomers.
    Overflow {
        /// Policy of the table.
        policy: &'a PolicyName,
    },
    /// One network, or the clients that nothing vouches for, have as many accounts as
    /// [one may have](crate::QuotaLayer::max_clients_per_network). From now on its newcomers share accounts. Emitted once,
    /// until it has half of them.
    CohortFull {
        /// Policy of the accounts.
        policy: &'a PolicyName,
        /// The network, such as `2001:db8::/44` or `198.51.0.0/16`; `None` for the clients that nothing vouches for.
        network: Option<&'a Name>,
    },
    /// A lease that was held too long was reclaimed.
    Reclaimed {
        /// Policy of the lease.
        policy: &'a PolicyName,
    },
    /// A request with a concurrency slot became a connection of another protocol (status 101, or a success of CONNECT). Its
    /// slot was released with the response, though the connection goes on; see
    /// [`Charge::keep_slot`](crate::Charge::keep_slot).
    UpgradeReleasedSlot {
        /// Policy of the slot.
        policy: &'a PolicyName,
    },
    /// A client is near a limit. Emitted once for each limit and window.
    NearLimit {
        /// Policy of the limit.
        policy: &'a PolicyName,
        /// Client near the limit; `None` if newcomers share the account.
        client: Option<&'a Client>,
        /// Name of the limit.
        limit: &'a PolicyName,
        /// Amount used and reserved.
        used: u64,
        /// Amount that the limit allows.
        of: u64,
    },
    /// A handler recorded an amount of a unit that no plan of the layer counts, or a reservation was committed with one.
    /// Nothing is charged for it.
    UnknownUnit {
        /// Policy of the plans.
        policy: &'a PolicyName,
        /// Name of the unit, probably misspelled.
        unit: &'a str,
    },
    /// A counter reached 2^53 - 1, the greatest amount that it holds, by usage without a caller who could receive an error.
    /// The rest of that usage is charged nowhere. It may be bytes of bodies, units that a handler recorded, or those by which
    /// a [`Reservation`](crate::Reservation) was committed.
    AmountCut {
        /// Policy of the plan.
        policy: &'a PolicyName,
        /// Kind of the amount, probably computed wrongly.
        kind: &'a str,
        /// Part of the usage that was cut. Of several limits of the kind, it is that of the one that lacks most.
        amount: u64,
    },
    /// The store of the accounts rejected a call or a settlement for good (a constraint, a trigger, a value out of range).
    ///
    /// Nothing was written for it, and it is not retried. The reservation of a rejected settlement ends at once, as if it
    /// had expired ([`on_expiry`](crate::QuotaLayer::on_expiry)), and other units that the settlement would have charged
    /// are not charged. Where [`OnFailure`](crate::OnFailure) lets requests
    /// pass without the store, an admission passes all the same. Its record is set aside in a file beside the spool, which
    /// `why` names.
    StoreRejected {
        /// Policy of the store.
        policy: &'a PolicyName,
        /// Client of the rejected call.
        client: &'a Client,
        /// Error text of the database.
        why: &'a str,
    },
    /// Another transaction holds the account of a client for longer than its requests wait. Only the requests of this
    /// client pass without the store, as [`OnFailure`](crate::OnFailure) says, until its account is free. Emitted once
    /// until then.
    AccountHeld {
        /// Policy of the store.
        policy: &'a PolicyName,
        /// Client whose account is held.
        client: &'a Client,
    },
    /// The store of the accounts does not answer, and requests pass without it, as [`OnFailure`](crate::OnFailure) says.
    /// Emitted once, until it answers again. Also emitted when a ledger's database answers and must not be used, because it
    /// would lose rows, has other tables, or is not that of the spool; then requests are refused.
    StoreLost {
        /// Policy of the store.
        policy: &'a PolicyName,
        /// Error text.
        why: &'a str,
    },
    /// The store of the accounts decides again.
    StoreBack {
        /// Policy of the store.
        policy: &'a PolicyName,
    },
    /// The spool of the requests that pass without the store is full, or its disk fails: requests are refused. Emitted
    /// once, until the spool is emptied.
    SpoolFull {
        /// Policy of the spool.
        policy: &'a PolicyName,
    },
    /// All requests that had passed without the store are merged into it.
    SpoolMerged {
        /// Policy of the spool.
        policy: &'a PolicyName,
        /// Number of records.
        records: u64,
        /// Number of jobs among them that had been charged before, and were not charged again.
        duplicates: u64,
    },
    /// A ledger performed a step: it connected, or a part of a transaction ended. A transaction decides many charges.
    /// Emitted to the observers of the ledger (`LedgerBuilder::observe`) only.
    StoreStep {
        /// Kind of database: `sqlite` or `postgres`.
        store: &'static str,
        /// `connect`, `begin` (which waits for locks, and reads), `write`, `commit` or `roll_back`.
        operation: &'static str,
        /// Duration of the step, by the clock of its deadline.
        took: Duration,
        /// Whether the database rejected the step, or did not end it in time.
        failed: bool,
    },
    /// A ledger compared its counters (`Ledger::reconcile`) with the sums of their rows. Emitted to the observers of the
    /// ledger only.
    Reconciled {
        /// Kind of database: `sqlite` or `postgres`.
        store: &'static str,
        /// Number of counters that were compared.
        compared: u64,
        /// Number of counters that differ, at most 1,000.
        drifts: u64,
    },
    /// A circuit changed its state.
    Transition {
        /// Policy of the circuit.
        policy: &'a PolicyName,
        /// Key of the circuit, if each key has its own. It cannot be read, only compared with keys that you know, such as
        /// [`host_key`](crate::CircuitBreakerLayer::host_key)'s.
        key: Option<Digest>,
        /// Host and port of the circuit, such as `example.org:443`, if [each host](crate::CircuitBreakerLayer::per_host) has
        /// its own. On a server a client chooses it: do not use it as a label of metrics there.
        host: Option<&'a str>,
        /// State before.
        from: CircuitState,
        /// State after. The event of an open circuit that becomes half-open is emitted with its first probe. Until that call
        /// comes, [`state`](crate::CircuitBreaker::state) and a [`Sample`](crate::Sample) already are half-open.
        to: CircuitState,
        /// Cause of the change.
        cause: &'static str,
    },
}

/// Receives every [`Event`]; closures implement it.
///
/// It runs on the request's path and sometimes in a drop: it must not block. If it panics, the event is lost and the
/// request continues.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use tollgate::{Event, Observer};
///
/// #[derive(Default)]
/// struct Refusals(AtomicU64);
/// impl Observer for Refusals {
///     fn observe(&self, event: &Event<'_>) {
///         if matches!(event, Event::Refused { .. }) {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Receives one event.
    fn observe(&self, event: &Event<'_>);

    /// Receives the sampler of a layer, once, when the layer is built. A breaker with keys has a second one.
    ///
    /// Observers of events alone do nothing, which is the default. An observer that forwards events to another one should
    /// forward samplers too.
    fn attach(&self, layer: &Sampler) {
        let _ = layer;
    }
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn observe(&self, event: &Event<'_>) {
        (**self).observe(event);
    }

    fn attach(&self, layer: &Sampler) {
        (**self).attach(layer);
    }
}

/// Observers of a layer; none by default, which costs one branch per event.
#[derive(Clone, Default)]
pub(crate) struct Observers(Option<Arc<dyn Observer>>);

/// Two observers as one. A panic of the first does not keep an event from the second.
struct BothObservers<O>(Observers, O);

impl<O: Observer> Observer for BothObservers<O> {
    fn observe(&self, event: &Event<'_>) {
        self.0.emit(event);
        self.1.observe(event);
    }

    fn attach(&self, layer: &Sampler) {
        self.0.attach_sampler(layer);
        self.1.attach(layer);
    }
}

impl Observers {
    /// Adds an observer. Each event is emitted to all.
    pub(crate) fn and(self, observer: impl Observer) -> Self {
        Self(Some(if self.is_empty() { Arc::new(observer) } else { Arc::new(BothObservers(self, observer)) }))
    }

    /// Attaches the state of a layer to every observer, so that they can sample it.
    pub(crate) fn attach(&self, state: &Arc<impl Sampled>) {
        if !self.is_empty() {
            self.attach_sampler(&Sampler::new(state));
        }
    }

    fn attach_sampler(&self, layer: &Sampler) {
        if let Some(observer) = &self.0 {
            let _ = caught(|| observer.attach(layer));
        }
    }

    /// Emits an event to every observer. A panic of an observer is caught.
    #[inline]
    pub(crate) fn emit(&self, event: &Event<'_>) {
        if let Some(observer) = &self.0 {
            let _ = caught(|| observer.observe(event));
        }
    }

    /// Returns whether there is no observer.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
