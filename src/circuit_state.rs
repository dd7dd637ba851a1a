//! States of a circuit, as handles and events report them.

use std::fmt;

/// The state of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until a probe is due.
    Open,
    /// A few calls pass as probes, the others are refused.
    HalfOpen,
    /// Calls are refused until another command.
    ForcedOpen,
    /// Calls pass and are counted, but the circuit does not open until another command.
    ForcedClosed,
    /// Calls pass and are not counted until another command.
    Disabled,
    /// The circuit only observes, until another command: calls pass, and it would be closed.
    ObservedClosed,
    /// The circuit only observes, until another command: calls pass that it would refuse.
    ObservedOpen,
    /// The circuit only observes, until another command: calls pass of which it would refuse all but a few probes.
    ObservedHalfOpen,
}

impl CircuitState {
    /// Returns the state as one word for labels of metrics, such as `half_open`.
    ///
    /// The states of a circuit that [only observes](crate::CircuitBreaker::observe_only) have words of their own, so that
    /// metrics distinguish what it would do from what it does.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
            Self::ObservedClosed => "observed_closed",
            Self::ObservedOpen => "observed_open",
            Self::ObservedHalfOpen => "observed_half_open",
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
