//! Values of a layer that no event carries: they are read when an observer asks for them.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::maybe_future::MaybeFuture;
use crate::{circuit_state::CircuitState, policy_name::PolicyName};

/// A value of a layer, as it is when a [`Sampler`] reads it.
///
/// An event reports a change at its moment. A sample reports a value that changes without an event, such as a number of
/// clients, or by time alone: an open circuit becomes half-open when its open time ends.
///
/// No sample has a client, an address, a key or a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sample<'a> {
    /// Clients of a token bucket or a quota that have a state in memory.
    Clients {
        /// Policy of the clients.
        policy: &'a PolicyName,
        /// Number of clients that have a state now.
        live: usize,
        /// Number of clients that can have one at once.
        most: usize,
    },
    /// The circuit of a breaker; if each key has its own, that of the calls without a key.
    Circuit {
        /// Policy of the circuit.
        policy: &'a PolicyName,
        /// State that a call would find now, as [`CircuitBreaker::state`](crate::CircuitBreaker::state) returns it.
        state: CircuitState,
    },
    /// Circuits of hosts or other keys in one state.
    KeyedCircuits {
        /// Policy of the circuits.
        policy: &'a PolicyName,
        /// State that a call would find now.
        state: CircuitState,
        /// Number of circuits in this state; states without a circuit are not reported.
        circuits: usize,
    },
    /// Amounts under one limit of a plan, added up over its clients by the last pass that
    /// [`Sampler::read_usage`] has completed.
    PlanUsage {
        /// Policy of the plan.
        policy: &'a PolicyName,
        /// Name of the plan: the usual one or that of a tier.
        plan: &'a PolicyName,
        /// Name of the limit.
        limit: &'a PolicyName,
        /// Amount that these clients have used and reserved.
        used: u64,
        /// Amount that the limit allows these clients together, grants included.
        of: u64,
    },
}

/// State of a layer that can be sampled.
pub(crate) trait Sampled: Send + Sync + 'static {
    /// Reports each value as it is now. It neither waits nor visits all clients.
    fn sample(&self, report: &mut dyn FnMut(&Sample<'_>));

    /// Reads the usage of about `most` further clients for later samples, if the layer has any.
    fn read_usage(self: Arc<Self>, most: usize) -> MaybeFuture<()> {
        let _ = most;
        MaybeFuture::Ready(())
    }
}

/// Reads [`Sample`]s of a layer. An [`Observer`](crate::Observer) receives it once, when the layer is built.
///
/// It does not keep the layer's state: after the last service and handle of the layer it reports nothing.
///
/// ```
/// use std::sync::Mutex;
/// use tollgate::{Client, Cost, Event, Observer, Rate, Sample, Sampler, TokenBucketLayer};
///
/// /// Lists the clients of each layer when it is asked to.
/// #[derive(Default)]
/// struct Clients(Mutex<Vec<Sampler>>);
///
/// impl Observer for Clients {
///     fn observe(&self, _: &Event<'_>) {}
///     fn attach(&self, layer: &Sampler) {
///         self.0.lock().unwrap().push(layer.clone());
///     }
/// }
///
/// impl Clients {
///     fn live(&self) -> usize {
///         let mut sum = 0;
///         for layer in &*self.0.lock().unwrap() {
///             layer.sample(&mut |sample| {
///                 if let Sample::Clients { live, .. } = *sample {
///                     sum += live;
///                 }
///             });
///         }
///         sum
///     }
/// }
///
/// let clients = std::sync::Arc::new(Clients::default());
/// let buckets = TokenBucketLayer::new(Rate::per_second(1)).observe(clients.clone()).handle();
/// buckets.check(&Client::named("alice"), Cost::ONE).unwrap();
/// assert_eq!(clients.live(), 1);
/// ```
#[derive(Clone)]
pub struct Sampler(Weak<dyn Sampled>);

impl Sampler {
    pub(super) fn new(state: &Arc<impl Sampled>) -> Self {
        let state = Arc::downgrade(state);
        Self(state)
    }

    /// Returns whether the layer still has a service or a handle.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Calls `report` with each value of the layer as it is now; not at all if the layer is gone.
    ///
    /// It reads some numbers, and the state of each circuit of a breaker with keys, at most
    /// [`max_keys`](crate::CircuitBreakerLayer::max_keys): less than 1 ms for 1,024. It waits for nothing, visits no client,
    /// and changes nothing: a circuit makes no transition by it, and a key does not count as used.
    pub fn sample(&self, report: &mut dyn FnMut(&Sample<'_>)) {
        if let Some(state) = self.0.upgrade() {
            state.sample(report);
        }
    }

    /// Reads the usage of about `most` clients of a quota, for [`Sample::PlanUsage`]. Each call goes on where the last one
    /// has ended. With the last client a pass is complete: its sums are what samples report from then on, and the next
    /// call begins another. Layers other than quotas have nothing to read.
    ///
    /// In memory 1,000 clients take less than 3 ms, with a lock for at most 16 of them at once, and other tasks run in
    /// between. In a ledger each client is one short query beside the charges, in turn.
    ///
    /// A store that does not answer ends the call. The next one goes on at the same client, and the sums stay those of the
    /// last pass until then.
    ///
    /// # Cancel safety
    /// If the future is dropped, the clients since the last part that was added up are read again.
    pub async fn read_usage(&self, most: usize) {
        if let Some(state) = self.0.upgrade() {
            state.read_usage(most).await;
        }
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").field("is_live", &self.is_live()).finish_non_exhaustive()
    }
}
