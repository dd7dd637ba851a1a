//! What a circuit shows of itself.

use std::fmt;

/// The state of a circuit.
///
/// ```
/// use tollgate::{CircuitBreakerLayer, CircuitState, Trip};
/// let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).handle();
/// assert_eq!(breaker.state(), CircuitState::Closed);
/// assert_eq!(breaker.state().to_string(), "closed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until a probe is due.
    Open,
    /// A few calls pass as probes, the others are refused.
    HalfOpen,
    /// Refuses everyone, by order.
    ForcedOpen,
    /// Counts, but never opens, by order.
    ForcedClosed,
    /// Counts nothing and refuses nobody, by order.
    Disabled,
    /// Counts and tells of the transitions that it would make, refuses nobody, by order.
    ObserveOnly,
}

impl CircuitState {
    /// The state as one word, as [`Event::Transition`](crate::Event::Transition) and metrics name it.
    ///
    /// A circuit that only observes tells transitions between `observed_closed`, `observed_open` and
    /// `observed_half_open`, so that no metric takes what it would do for what it does.
    ///
    /// ```
    /// assert_eq!(tollgate::CircuitState::HalfOpen.as_str(), "half_open");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
            Self::ObserveOnly => "observe_only",
        }
    }

    pub(crate) fn of(label: &'static str) -> Self {
        match label {
            "closed" => Self::Closed,
            "open" => Self::Open,
            "half_open" => Self::HalfOpen,
            "forced_open" => Self::ForcedOpen,
            "forced_closed" => Self::ForcedClosed,
            "disabled" => Self::Disabled,
            _ => Self::ObserveOnly,
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a circuit has counted since its last change of state, within its window.
///
/// ```
/// use tollgate::{CircuitBreakerLayer, Trip};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).handle();
/// let _ = breaker.call(async { Err::<(), _>("no route to host") }).await;
/// assert_eq!((breaker.counts().calls, breaker.counts().failures, breaker.counts().consecutive), (1, 1, 1));
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls with a result.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that were slow, failed ones included.
    pub slow: u64,
    /// Failures in a row, up to now.
    pub consecutive: u32,
    /// Counts changes of state and orders; the result of a call from an older generation changes nothing.
    pub generation: u64,
}
