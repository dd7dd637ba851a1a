//! The handle: a circuit breaker for anything, with or without http.

use std::{fmt, sync::Arc};

use super::machine::Mode;
use super::{
    circuit::Circuit,
    keys::Keys,
    state::{CircuitState, Counts},
};
use crate::identity::Digest;

/// A circuit breaker; clones are the same one. A layer's is its [`handle`](crate::CircuitBreakerLayer::handle).
///
/// With a circuit for each key, its state, counts and orders are those of the requests without a key: an order reaches
/// the circuit of a key only through [`key`](Self::key).
///
/// ```
/// use std::time::Duration;
/// use tollgate::{CallError, CircuitBreakerLayer, CircuitState, FakeClock, Trip};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let clock = FakeClock::new();
/// let database = CircuitBreakerLayer::new(Trip::consecutive(3))
///     .recovery_timeout(Duration::from_secs(1))
///     .clock(clock.clone())
///     .handle();
/// for _ in 0..3 {
///     let _ = database.call(async { Err::<(), _>("connection refused") }).await;
/// }
/// assert_eq!(database.state(), CircuitState::Open);
/// let refused = database.call(async { Ok::<_, &str>("row") }).await;
/// assert!(matches!(refused, Err(CallError::Refused(_))));
///
/// clock.advance(Duration::from_millis(1_200)); // a second, and the fifth that it may be spread by
/// assert_eq!(database.call(async { Ok::<_, &str>("row") }).await.unwrap(), "row");
/// assert_eq!(database.state(), CircuitState::Closed);
/// # });
/// ```
#[derive(Clone)]
pub struct CircuitBreaker {
    pub(super) circuit: Arc<Circuit>,
    pub(super) keys: Option<Arc<Keys>>,
}

impl CircuitBreaker {
    /// The state now. An open circuit whose time is over is half-open from its first probe on.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, CircuitState, Trip};
    /// let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).handle();
    /// breaker.force_open();
    /// assert_eq!(breaker.state(), CircuitState::ForcedOpen);
    /// ```
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.circuit.look(|machine| CircuitState::of(machine.label()))
    }

    /// What the circuit has counted.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).handle();
    /// assert_eq!(breaker.counts().calls, 0);
    /// ```
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.circuit.counts(self.circuit.setup().clock.now())
    }

    /// Refuses everyone until another order.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// CircuitBreakerLayer::new(Trip::consecutive(3)).handle().force_open();
    /// ```
    pub fn force_open(&self) {
        self.circuit.order(Mode::ForcedOpen, "forced_open");
    }

    /// Lets everyone pass and counts, but does not open, until another order.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// CircuitBreakerLayer::new(Trip::consecutive(3)).handle().force_closed();
    /// ```
    pub fn force_closed(&self) {
        self.circuit.order(Mode::ForcedClosed, "forced_closed");
    }

    /// Lets everyone pass and counts nothing until another order.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// CircuitBreakerLayer::new(Trip::consecutive(3)).handle().disable();
    /// ```
    pub fn disable(&self) {
        self.circuit.order(Mode::Disabled, "disabled");
    }

    /// Lets everyone pass, counts, and tells of the transitions that it would make, until another order.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// CircuitBreakerLayer::new(Trip::consecutive(3)).handle().observe_only();
    /// ```
    pub fn observe_only(&self) {
        self.circuit.order(Mode::Observing, "observe_only");
    }

    /// Closes the circuit, forgets what it has counted, and lets it decide by itself again.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, CircuitState, Trip};
    /// let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).handle();
    /// breaker.force_open();
    /// breaker.reset();
    /// assert_eq!(breaker.state(), CircuitState::Closed);
    /// ```
    pub fn reset(&self) {
        self.circuit.order(Mode::Automatic, "reset");
    }

    /// The circuit of one key, made where there is none yet; it is kept for as long as the handle lives.
    ///
    /// `None` when this breaker has no keys, or no room for another. The breaker itself is the circuit of all requests
    /// without a key.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Digester, Trip};
    /// let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).per_host().handle();
    /// let key = CircuitBreakerLayer::host_key("example.org").unwrap();
    /// breaker.key(key).unwrap().force_open();
    /// ```
    #[must_use]
    pub fn key(&self, key: Digest) -> Option<Self> {
        let circuit = self.keys.as_ref()?.circuit(key, self.circuit.setup().clock.now())?;
        Some(Self { circuit, keys: None })
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("policy", &self.circuit.setup().name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
