//! Handle of a circuit breaker: state, commands, and calls that are not requests.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{circuit::Circuit, keys::Keys, machine::BreakerMode, policy::CircuitBreakerPermit, trip::Trip};
use crate::{
    circuit_state::CircuitState,
    classify::Verdict,
    gate::{Event, Guard, PolicyContext},
    identity::Digest,
    refusal::Refusal,
};

/// A circuit breaker for any call. Clones share one state. A layer's breaker is its
/// [`handle`](crate::CircuitBreakerLayer::handle).
///
/// If each key has its own circuit, the state, counts and commands of this handle are those of requests without a key.
/// A command reaches the circuit of a key only through [`key`](Self::key).
///
/// ```
/// use std::time::Duration;
/// use tollgate::{CallError, CircuitBreakerLayer, CircuitState, FakeClock, Trip};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let clock = FakeClock::new();
/// let database = CircuitBreakerLayer::for_client(Duration::from_secs(2))
///     .trip(Trip::consecutive(3))
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
/// clock.advance(Duration::from_millis(1_200)); // 1 s, and the jitter of at most a fifth
/// assert_eq!(database.call(async { Ok::<_, &str>("row") }).await.unwrap(), "row");
/// assert_eq!(database.state(), CircuitState::Closed);
/// # });
/// ```
#[derive(Clone)]
pub struct CircuitBreaker {
    pub(super) circuit: Arc<Circuit>,
    pub(super) keys: Option<Arc<Keys>>,
}

/// Counts of a circuit since its last change of state, within its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls with a result.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that were slow, failed ones included. 0 on a server whose rules have neither a
    /// [`slow_rate`](Trip::slow_rate) nor a [`slow_after`](Trip::slow_after): its calls are not timed.
    pub slow: u64,
    /// Consecutive failures up to now.
    pub consecutive: u32,
    /// Number of the generation. Each change of state and each command begins one; the result of a call from an older
    /// generation changes nothing.
    pub generation: u64,
}

impl CircuitBreaker {
    /// Returns the present state, as a call would find it.
    ///
    /// An open circuit whose open time is over is half-open, because its next call passes as a probe. Its
    /// [transition](Event::Transition) is emitted only with that call, so that a circuit without calls emits none.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.circuit.state()
    }

    /// Returns the counts of the present state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.circuit.counts(self.circuit.shared.context.clock.now())
    }

    /// Returns the rules by which the circuit opens, with the `slow_after` of the layer where they have none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let breaker = CircuitBreakerLayer::for_client(Duration::from_secs(2)).trip(Trip::consecutive(3)).probes(4).handle();
    /// assert_eq!(breaker.trip(), Trip::consecutive(3).slow_after(Duration::from_secs(2)));
    /// assert_eq!(breaker.trip().to_string(), "3 consecutive failures");
    /// assert_eq!((breaker.probes(), breaker.close_after()), (4, 4));
    /// assert_eq!(breaker.recovery_timeout(), Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn trip(&self) -> Trip {
        self.circuit.shared.trip
    }

    /// Returns the time from which on a call is slow, if [slow calls are counted](Counts::slow).
    #[must_use]
    pub fn slow_after(&self) -> Duration {
        self.circuit.shared.trip.slow_bound()
    }

    /// Returns the time from opening to the first probe, without jitter.
    #[must_use]
    pub fn recovery_timeout(&self) -> Duration {
        self.circuit.shared.recovery.open.first
    }

    /// Returns the cap of the open time, without jitter.
    #[must_use]
    pub fn max_open(&self) -> Duration {
        self.circuit.shared.recovery.open.longest
    }

    /// Returns the number of probes that may be under way at once in a half-open circuit.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.circuit.shared.recovery.probes
    }

    /// Returns the number of probes that must succeed to close the circuit.
    #[must_use]
    pub fn close_after(&self) -> u32 {
        self.circuit.shared.recovery.close_after
    }

    /// Returns the time after which a probe without an answer loses its slot.
    #[must_use]
    pub fn probe_timeout(&self) -> Duration {
        self.circuit.shared.recovery.probe_timeout
    }

    /// Refuses all calls until another command.
    pub fn force_open(&self) {
        self.circuit.command(BreakerMode::ForcedOpen, "forced_open");
    }

    /// Admits and counts all calls, and does not open, until another command.
    pub fn force_closed(&self) {
        self.circuit.command(BreakerMode::ForcedClosed, "forced_closed");
    }

    /// Admits all calls and counts none, until another command.
    pub fn disable(&self) {
        self.circuit.command(BreakerMode::Disabled, "disabled");
    }

    /// Admits and counts all calls, and emits the transitions that the circuit would make, until another command. Its
    /// states are then [`ObservedClosed`](CircuitState::ObservedClosed) and its like.
    pub fn observe_only(&self) {
        self.circuit.command(BreakerMode::Observing, "observe_only");
    }

    /// Closes the circuit, clears its counts, and ends the command in force.
    pub fn reset(&self) {
        self.circuit.command(BreakerMode::Automatic, "reset");
    }

    /// Returns the circuit of one key, and creates it if there is none. It is not evicted while the handle lives.
    ///
    /// `None` if this breaker has no keys, or no room for another. The breaker itself is the circuit of all requests
    /// without a key.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::CircuitBreakerLayer;
    /// let breaker = CircuitBreakerLayer::for_client(Duration::from_secs(2)).per_host().handle();
    /// let key = CircuitBreakerLayer::host_key("https://example.org").unwrap();
    /// breaker.key(key).unwrap().force_open();
    /// ```
    #[must_use]
    pub fn key(&self, key: Digest) -> Option<Self> {
        let circuit = self.keys.as_ref()?.circuit(key, self.circuit.shared.context.clock.now())?;
        Some(Self { circuit, keys: None })
    }

    /// Runs `operation` unless the circuit is open. An error or a panic in it is a failure.
    ///
    /// # Cancel safety
    /// A call that is dropped before its end releases its probe slot and is not counted. On a
    /// [client](crate::CircuitBreakerLayer::for_client), if it has already lasted as long as a slow call, it is a
    /// failure, because its caller gave up on a service that hangs. A `tokio::time::timeout` around the call must
    /// therefore be longer than `slow_after`.
    ///
    /// # Errors
    /// [`CallError::Refused`] when the circuit is open, [`CallError::Inner`] when the operation failed.
    pub async fn call<T, E>(&self, operation: impl Future<Output = Result<T, E>>) -> Result<T, CallError<E>> {
        let judge = |result: &Result<T, E>| if result.is_ok() { Verdict::Success } else { Verdict::Failure };
        self.call_with(judge, operation).await
    }

    /// As [`call`](Self::call), with a verdict by `judge`. A panic in it is a failure.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{CircuitBreakerLayer, Verdict};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let breaker = CircuitBreakerLayer::for_client(Duration::from_secs(2)).handle();
    /// let judge = |result: &Result<u8, &str>| match result {
    ///     Err("no such row") => Verdict::Success, // the database did its work
    ///     Err(_) => Verdict::Failure,
    ///     Ok(_) => Verdict::Success,
    /// };
    /// let _ = breaker.call_with(judge, async { Err("no such row") }).await;
    /// assert_eq!(breaker.counts().failures, 0);
    /// # });
    /// ```
    pub async fn call_with<T, E>(
        &self,
        judge: impl FnOnce(&Result<T, E>) -> Verdict,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let PolicyContext { name: policy, observers, .. } = &self.circuit.shared.context;
        let permit = self.circuit.permit(None);
        observers.emit(&match &permit {
            Ok(_) => Event::Admitted { policy, client: None },
            Err(refusal) => Event::Refused { refusal, client: None, shadow: false },
        });
        let mut guard = Guard::new(Some(permit.map_err(CallError::Refused)?));
        let operation = pin!(Some(operation));
        let result = WatchedCall { operation, guard: &guard }.await;
        let verdict = guard.run(|| judge(&result));
        if let Some(permit) = guard.permit() {
            permit.report(verdict);
        }
        result.map_err(CallError::Inner)
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (policy, state) = (&self.circuit.shared.context.name, self.state());
        f.debug_struct("CircuitBreaker").field("policy", policy).field("state", &state).finish_non_exhaustive()
    }
}

/// Error of [`CircuitBreaker::call`].
///
/// It is an [`Error`] for every `E` with `Debug` and `Display`, and for no other, because its text is that of `E`: without
/// these bounds, the text of every inner error would be lost.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{CallError, CircuitBreakerLayer};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let breaker = CircuitBreakerLayer::for_client(Duration::from_secs(2)).handle();
/// match breaker.call(async { Err::<(), _>("timed out") }).await {
///     Err(CallError::Inner(error)) => assert_eq!(error, "timed out"),
///     Err(CallError::Refused(refusal)) => println!("retry in {:?}", refusal.retry_after()),
///     Err(error) => println!("{error}"),
///     Ok(()) => {}
/// }
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The circuit is open; nothing was called.
    Refused(Refusal),
    /// The call itself failed.
    Inner(E),
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

/// For every inner error with a text, so that `?` works in functions that return `Box<dyn Error>`, also with `&str` and
/// boxed errors. Those are no [`Error`] themselves, so that there is no `source` here: to walk the causes of an inner
/// error, match [`Inner`](CallError::Inner).
impl<E: fmt::Debug + fmt::Display> Error for CallError<E> {}

/// An operation and the guard that watches its code, which may also panic when the operation is dropped.
struct WatchedCall<'a, F> {
    operation: Pin<&'a mut Option<F>>,
    guard: &'a Guard<CircuitBreakerPermit>,
}

impl<F: Future> Future for WatchedCall<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { operation, guard } = &mut *self;
        guard.run(|| operation.as_mut().as_pin_mut().expect("dropped only with the call").poll(cx))
    }
}

impl<F> Drop for WatchedCall<'_, F> {
    fn drop(&mut self) {
        self.guard.run(|| self.operation.set(None));
    }
}
