//! Settings of a circuit breaker, and the circuits that are built from them.

use std::{sync::Arc, thread, time::Duration};

use super::{
    circuit::{Circuit, CircuitShared},
    handle::CircuitBreaker,
    keys::{KeyOf, Keys},
    machine::Recovery,
    policy::{CircuitBreakerPolicy, ResultClassifier},
    trip::Trip,
};
use crate::{
    backoff::Backoff,
    error::ConfigError,
    gate::{PolicyConfig, PolicyContext},
};

/// Settings of a [`CircuitBreakerLayer`](crate::CircuitBreakerLayer).
#[derive(Clone)]
pub(super) struct BreakerSettings {
    pub(super) trip: Trip,
    pub(super) recovery_timeout: Duration,
    pub(super) max_open: Option<Duration>,
    pub(super) probes: u32,
    pub(super) close_after: Option<u32>,
    pub(super) probe_timeout: Option<Duration>,
    pub(super) classifier: ResultClassifier,
    pub(super) key_of: Option<KeyOf>,
    pub(super) max_keys: usize,
}

impl PolicyConfig for BreakerSettings {
    type Policy = CircuitBreakerPolicy;

    fn build(&self, context: &PolicyContext) -> Result<Arc<CircuitBreakerPolicy>, ConfigError> {
        let first = self.recovery_timeout;
        let longest = self.max_open.unwrap_or(first.max(Duration::from_secs(60)));
        let must = || format!("be at least the recovery timeout of {first:?}");
        ConfigError::require(longest >= first, "max_open", &must(), format_args!("{longest:?}"))?;
        let slow = self.trip.slow_bound().clamp(Duration::from_secs(30), Duration::from_secs(600));
        let shared = Arc::new(CircuitShared {
            context: context.clone(),
            trip: self.trip,
            recovery: Recovery {
                open: Backoff { first, longest },
                probes: self.probes,
                close_after: self.close_after.unwrap_or(self.probes),
                probe_timeout: self.probe_timeout.unwrap_or(slow),
            },
            classifier: self.classifier.clone(),
        });
        let keys = self.key_of.clone().map(|key_of| Arc::new(Keys::new(Arc::clone(&shared), key_of, self.max_keys)));
        // One stripe for each parallel thread. At most 16, because a reader of a time window visits each.
        let stripes = thread::available_parallelism().map_or(1, |threads| threads.get().next_power_of_two()).min(16);
        Ok(Arc::new(CircuitBreakerPolicy(CircuitBreaker::new(Circuit::new(shared, stripes, None), keys))))
    }
}

/// Returns the value, or panics at the caller of the setter if it is `zero`.
#[track_caller]
pub(super) fn positive<T: Default + PartialEq>(what: &str, value: T, zero: &str) -> T {
    assert!(value != T::default(), "{}", ConfigError::new(what, "be positive", zero));
    value
}
