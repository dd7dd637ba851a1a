//! A circuit breaker round any future.

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{breaker::CircuitBreaker, ticket::Ticket};
use crate::{classify::Verdict, gate::Event, refusal::Refusal, time::Moment};

/// Why [`CircuitBreaker::call`] has no value.
///
/// ```
/// use tollgate::{CallError, CircuitBreakerLayer, Trip};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).handle();
/// match breaker.call(async { Err::<(), _>("timed out") }).await {
///     Err(CallError::Inner(error)) => assert_eq!(error, "timed out"),
///     Err(CallError::Refused(refusal)) => println!("come back in {:?}", refusal.retry_after()),
///     Ok(()) => {}
/// }
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl<E: Error + 'static> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(_) => None,
            Self::Inner(error) => error.source(),
        }
    }
}

impl CircuitBreaker {
    /// Runs `operation` unless the circuit is open; an error or a panic in it is a failure.
    ///
    /// # Cancel safety
    /// Dropped before its end, the call gives back what it holds and is no result, unless it has already lasted as long
    /// as a slow call: then it is a failure, because its caller gave up on a service that hangs.
    ///
    /// # Errors
    /// [`CallError::Refused`] when the circuit is open, [`CallError::Inner`] when the operation failed.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).handle();
    /// assert_eq!(breaker.call(async { Ok::<_, ()>(7) }).await, Ok(7));
    /// # });
    /// ```
    pub async fn call<T, E>(&self, operation: impl Future<Output = Result<T, E>>) -> Result<T, CallError<E>> {
        let judge = |result: &Result<T, E>| if result.is_ok() { Verdict::Success } else { Verdict::Failure };
        self.call_with(judge, operation).await
    }

    /// [`call`](Self::call) with `judge` to say what the result means.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip, Verdict};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let breaker = CircuitBreakerLayer::new(Trip::consecutive(1)).handle();
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
        let held = Held::admit(self).map_err(CallError::Refused)?;
        let mut running = pin!(Running { operation: Some(operation), held });
        let result = poll_fn(|cx| running.as_mut().poll(cx)).await;
        let held = running.project().held;
        held.inside = true; // a panic of the judge is nobody's success either
        let verdict = judge(&result);
        held.settle(verdict);
        result.map_err(CallError::Inner)
    }
}

pin_project! {
    /// An operation and its ticket. The operation is dropped first, because its drop runs its code, which may panic.
    struct Running<F> {
        #[pin]
        operation: Option<F>,
        held: Held,
    }

    impl<F> PinnedDrop for Running<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let inside = mem::replace(&mut this.held.inside, true);
            this.operation.set(None);
            this.held.inside = inside;
        }
    }
}

impl<F: Future> Running<F> {
    /// Polls the operation and drops it once it is complete.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        this.held.inside = true;
        let polled = this.operation.as_mut().as_pin_mut().expect("polled after completion").poll(cx);
        if polled.is_ready() {
            this.operation.set(None);
        }
        this.held.inside = false;
        polled
    }
}

/// A ticket that is settled exactly once, also when the future is dropped.
struct Held {
    ticket: Ticket,
    started: Moment,
    /// The operation's own code is running: whoever finds this set in a drop knows that it panicked.
    inside: bool,
    settled: bool,
}

impl Held {
    fn admit(breaker: &CircuitBreaker) -> Result<Self, Refusal> {
        let setup = breaker.circuit.setup();
        let (policy, observers) = (&setup.name, &setup.observers);
        let started = setup.clock.now();
        match breaker.circuit.admit(started) {
            Ok(ticket) => {
                let held = Self { ticket, started, inside: false, settled: false };
                observers.emit(&Event::Admitted { policy });
                Ok(held)
            }
            Err(wait) => {
                let refusal = setup.refusal(wait);
                observers.emit(&Event::Refused { refusal: &refusal, shadow: false });
                Err(refusal)
            }
        }
    }

    fn settle(&mut self, verdict: Verdict) {
        self.settled = true;
        let Some((now, slow)) = self.ticket.elapsed(self.started) else { return };
        self.ticket.tell(verdict, slow, now);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let Some((now, slow)) = self.ticket.elapsed(self.started) else { return };
        let verdict = if self.inside || slow { Verdict::Failure } else { Verdict::Ignore };
        self.ticket.tell(verdict, slow, now);
    }
}
