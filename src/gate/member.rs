//! Layers as members of gates: their policies are asked side by side, with one reading of each clock.

use std::{fmt, sync::Arc};

use super::{
    admit::{Admit, Permit},
    future::DecisionFuture,
    layer::GateShared,
};
use crate::{
    error::ConfigError,
    identity::Identify,
    refusal::Refusal,
    time::{Clock, Moment},
};

/// A layer of one policy, as [`gate_layer`](crate::gate::gate_layer) defines it.
pub trait PolicyLayer: Clone + Send + Sync + 'static {
    /// The policy.
    type Policy: Admit<Permit = Self::Permit>;
    /// The permit of the policy.
    type Permit: Permit;

    /// Returns the policy and the settings of its gate, built at first use.
    fn gate(&self) -> Result<Arc<GateShared<Self::Policy>>, ConfigError>;

    /// Sets the identity of clients, unless the layer has one of its own. Returns whether it was set.
    fn share_layer_identity(&self, identity: &Arc<dyn Identify>) -> bool;
}

/// A layer whose policy can be asked beside others.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a member of `Gates`",
    note = "members are layers of tollgate, other `Gates`, and policies of your own in a `GateLayer`",
    note = "in place of an `Option`, switch a layer off by `.enabled(false)`; nest other layers by a `ServiceBuilder`"
)]
pub trait AskPolicy: PolicyLayer {
    /// Returns the identity that gates have set, if the policy finds clients by it.
    fn identity(policy: &Self::Policy) -> Option<&Arc<dyn Identify>> {
        let _ = policy;
        None
    }
}

/// Decision of a policy whose permit is written where it stays.
pub enum MemberDecision<A: Admit> {
    /// The permit is written.
    Admitted,
    /// There is no permit.
    Refused(Refusal),
    /// There is no decision yet.
    Pending(DecisionFuture<A>),
}

impl<A: Admit> fmt::Debug for MemberDecision<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admitted => f.write_str("Admitted"),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
            Self::Pending(_) => f.write_str("Pending(..)"),
        }
    }
}

impl<A: Admit> From<Result<(), Refusal>> for MemberDecision<A> {
    #[inline]
    fn from(decision: Result<(), Refusal>) -> Self {
        decision.map_or_else(Self::Refused, |()| Self::Admitted)
    }
}

/// Times at which the policies of a request decide: members that follow each other and have one clock read it once.
#[derive(Debug, Default)]
pub struct RequestTimes<'a>(Option<(&'a Clock, Moment)>);

impl<'a> RequestTimes<'a> {
    /// Reads the clock that a decision will read, if there is one.
    #[inline]
    pub(crate) fn read(&mut self, clock: Option<&'a Clock>) {
        if let Some(clock) = clock {
            self.by(clock);
        }
    }

    /// Returns the time by `clock`: the last one that was read, if it was read from the same clock.
    #[inline]
    pub(crate) fn by(&mut self, clock: &'a Clock) -> Moment {
        if let Some((last, now)) = self.0
            && last.is_same(clock)
        {
            return now;
        }
        let now = clock.now();
        self.0 = Some((clock, now));
        now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::FakeClock;

    #[test]
    fn clock_is_read_once_until_another_one_is_read() {
        let (fake, other) = (FakeClock::new(), FakeClock::new());
        let [one, clone, two] = [&fake, &fake, &other].map(|fake| Clock::from(fake.clone()));
        let start = fake.now();
        let mut times = RequestTimes::default();
        assert_eq!(times.by(&one), start);
        fake.advance(Duration::from_secs(1));
        assert_eq!(times.by(&clone), start, "a clone shows the time that was read");
        assert_eq!(times.by(&two), other.now());
        assert_eq!(times.by(&one), start + Duration::from_secs(1));
    }
}
