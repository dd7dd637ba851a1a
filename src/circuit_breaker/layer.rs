//! The layer and its settings.

use std::{sync::Arc, thread, time::Duration};

use super::{
    circuit::{BreakerConfig, Circuit},
    classifier::ResultClassifier,
    handle::CircuitBreaker,
    keys::Keys,
    policy::{CircuitBreakerPolicy, KeyOf},
};
use super::{machine::Recovery, trip::Trip};
use crate::{
    backoff::Backoff,
    classify::Classify,
    error::ConfigError,
    gate::{ConfiguredLayer, PolicyConfig, PolicyContext, gate_layer},
};

/// Stops calling a service that fails, and probes for its recovery.
///
/// One circuit, which opens after five failures in a row:
///
/// ```
/// use tollgate::{CircuitBreakerLayer, Trip};
/// use tower::ServiceBuilder;
///
/// let stack = ServiceBuilder::new().layer(CircuitBreakerLayer::new(Trip::consecutive(5)));
/// ```
///
/// One circuit for each host, around hyper's pooled client:
///
/// ```
/// use std::time::Duration;
/// use http_body_util::Empty;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tollgate::{CircuitBreakerLayer, Trip};
/// use tower::ServiceBuilder;
///
/// let breaker = CircuitBreakerLayer::new(Trip::failure_rate(0.5).min_requests(20))
///     .recovery_timeout(Duration::from_secs(5))
///     .per_host();
/// let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
/// let client = ServiceBuilder::new().layer(breaker).service(client);
/// ```
///
/// The layer is its own builder. Its circuits belong to the layer: all services that it and its clones wrap, and its
/// [handle](Self::handle), share them. A setter creates a layer with circuits of its own, so settings come first.
///
/// [The module](crate::circuit_breaker) says which results count, and where time-outs belong.
pub struct CircuitBreakerLayer(ConfiguredLayer<CircuitBreakerConfig>);

/// Settings of a [`CircuitBreakerLayer`].
#[derive(Clone)]
pub(super) struct CircuitBreakerConfig {
    trip: Trip,
    recovery_timeout: Duration,
    max_open: Option<Duration>,
    probes: u32,
    close_after: Option<u32>,
    probe_timeout: Option<Duration>,
    classifier: ResultClassifier,
    pub(super) key: Option<KeyOf>,
    pub(super) max_keys: usize,
}

gate_layer!(
    CircuitBreakerLayer,
    CircuitBreakerPolicy,
    "(layer: tollgate::CircuitBreakerLayer) -> tollgate::CircuitBreakerLayer"
);

impl CircuitBreakerLayer {
    /// A breaker that opens by `trip`.
    ///
    /// # Panics
    /// When a value of `trip` cannot be: a share not above 0 and at most 1, an empty window, a minimum of 0 or above
    /// the window, 0 consecutive failures.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::{CircuitBreakerLayer, Trip};
    ///
    /// let layer = CircuitBreakerLayer::new(Trip::failure_rate(0.5).min_requests(20).or(Trip::consecutive(5)))
    ///     .recovery_timeout(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn new(trip: Trip) -> Self {
        Self::try_new(trip).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// [`new`](Self::new) for input at run time.
    ///
    /// # Errors
    /// When a value of `trip` cannot be.
    ///
    /// ```
    /// use tollgate::{CircuitBreakerLayer, Trip};
    /// let error = CircuitBreakerLayer::try_new(Trip::failure_rate(1.5)).unwrap_err();
    /// assert_eq!(error.to_string(), "failure rate must be above 0 and at most 1, got 1.5");
    /// ```
    pub fn try_new(trip: Trip) -> Result<Self, ConfigError> {
        trip.check()?;
        let config = CircuitBreakerConfig {
            trip,
            recovery_timeout: Duration::from_secs(10),
            max_open: None,
            probes: 1,
            close_after: None,
            probe_timeout: None,
            classifier: ResultClassifier::default(),
            key: None,
            max_keys: 1_024,
        };
        Ok(Self(ConfiguredLayer::new(config, "circuit_breaker")))
    }

    /// How long the circuit stays open before its first probe, with up to a fifth more so that a fleet does not probe
    /// as one: 10 s by default, time for a restart.
    ///
    /// # Panics
    /// When `time` is zero.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).recovery_timeout(Duration::from_secs(1));
    /// ```
    #[must_use]
    pub fn recovery_timeout(self, time: Duration) -> Self {
        positive("recovery_timeout", time);
        self.with(|config| config.recovery_timeout = time)
    }

    /// The cap of the open time, which doubles with each failed probe: 60 s by default, or the recovery time-out where
    /// that is longer. A service that is well again should not wait longer than a minute to be noticed.
    ///
    /// # Panics
    /// When `time` is zero; when it is below the recovery time-out, as soon as the layer is used.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).max_open(Duration::from_secs(300));
    /// ```
    #[must_use]
    pub fn max_open(self, time: Duration) -> Self {
        positive("max_open", time);
        self.with(|config| config.max_open = Some(time))
    }

    /// How many probes may be under way at once while the circuit is half-open: 1 by default, so that a service which
    /// has just come up is not run over.
    ///
    /// # Panics
    /// When `probes` is 0.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).probes(3);
    /// ```
    #[must_use]
    pub fn probes(self, probes: u32) -> Self {
        at_least_one("probes", probes);
        self.with(|config| config.probes = probes)
    }

    /// How many probes must succeed for the circuit to close: as many as may be under way by default.
    ///
    /// # Panics
    /// When `successes` is 0.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).close_after(5);
    /// ```
    #[must_use]
    pub fn close_after(self, successes: u32) -> Self {
        at_least_one("close_after", successes);
        self.with(|config| config.close_after = Some(successes))
    }

    /// After how long a probe without an answer loses its place to the next: 30 s by default, or
    /// [`slow_after`](Trip::slow_after) where that is longer, up to ten minutes, so that a lost probe does not hold up
    /// recovery for ever.
    ///
    /// What it answers later changes nothing: shorter than good answers take, and a busy service stays half-open.
    ///
    /// # Panics
    /// When `time` is zero.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).probe_timeout(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn probe_timeout(self, time: Duration) -> Self {
        positive("probe_timeout", time);
        self.with(|config| config.probe_timeout = Some(time))
    }

    /// Takes the time to the end of the body for slowness, not to its head, and judges a good answer only there.
    ///
    /// Only for callers that nobody downstream can hold back: otherwise one slow reader opens everyone's circuit.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::slow_rate(0.5)).slow_to_end();
    /// ```
    #[must_use]
    pub fn slow_to_end(self) -> Self {
        self.with(|config| config.classifier.slow_to_end = true)
    }

    /// Counts 429 and `RESOURCE_EXHAUSTED` as failures, for a service whose limit all callers share; not by default,
    /// because one client's limit must not open everyone's circuit.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).count_rate_limits();
    /// ```
    #[must_use]
    pub fn count_rate_limits(self) -> Self {
        self.with(|config| config.classifier.default = config.classifier.default.count_rate_limits())
    }

    /// Opens at once when a failed response says `Retry-After`, for so long at least and 60 s at most; not by default,
    /// because it lets one answer decide for everyone.
    ///
    /// A date counts from the response's own `Date` and is ignored without one. A wait of 0, a date that has passed and a
    /// malformed value are ignored too: the response is a failure like any other.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).honor_retry_after();
    /// ```
    #[must_use]
    pub fn honor_retry_after(self) -> Self {
        self.with(|config| config.classifier.honor_retry_after = true)
    }

    /// Lets `classify` say what a failure is, instead of [`DefaultClassifier`](crate::DefaultClassifier).
    ///
    /// ```
    /// use tollgate::{CircuitBreakerLayer, CallOutcome, Trip, Verdict};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).classify(|seen: &CallOutcome<'_>| match seen {
    ///     CallOutcome::Head(head) if head.status.is_success() => Verdict::Success,
    ///     _ => Verdict::Failure,
    /// });
    /// ```
    #[must_use]
    pub fn classify(self, classify: impl Classify) -> Self {
        self.with(|config| config.classifier.custom = Some(Arc::new(classify)))
    }

    /// The breaker itself: its state, its switches, and a guard for calls that are no requests.
    ///
    /// Settings come first: a setter after it makes another breaker.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, CircuitState, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3));
    /// assert_eq!(layer.handle().state(), CircuitState::Closed);
    /// ```
    #[must_use]
    pub fn handle(&self) -> CircuitBreaker {
        self.0.policy().breaker.clone()
    }

    pub(super) fn with(self, change: impl FnOnce(&mut CircuitBreakerConfig)) -> Self {
        Self(self.0.with(|layer| change(&mut layer.config)))
    }
}

fn positive(what: &str, time: Duration) {
    assert!(!time.is_zero(), "{}", ConfigError::new(what, "be positive", "0s"));
}

fn at_least_one(what: &str, number: u32) {
    assert!(number > 0, "{}", ConfigError::new(what, "be positive", number));
}

impl PolicyConfig for CircuitBreakerConfig {
    type Policy = CircuitBreakerPolicy;

    fn build(&self, context: &PolicyContext) -> Arc<CircuitBreakerPolicy> {
        let first = self.recovery_timeout;
        let longest = self.max_open.unwrap_or(first.max(Duration::from_secs(60)));
        let must = || format!("be at least the recovery timeout of {first:?}");
        assert!(longest >= first, "{}", ConfigError::new("max_open", &must(), format_args!("{longest:?}")));
        let config = Arc::new(BreakerConfig {
            name: context.name.clone(),
            clock: context.clock.clone(),
            observers: context.observers.clone(),
            trip: self.trip,
            recovery: Recovery {
                open: Backoff { first, longest },
                probes: self.probes,
                close_after: self.close_after.unwrap_or(self.probes),
                probe_timeout: self
                    .probe_timeout
                    .unwrap_or(self.trip.slow_bound().clamp(Duration::from_secs(30), Duration::from_secs(600))),
            },
            classifier: self.classifier.clone(),
        });
        let keys = self.key.is_some().then(|| Arc::new(Keys::new(Arc::clone(&config), self.max_keys)));
        let breaker = CircuitBreaker { circuit: Circuit::new(config, stripes(), None), keys };
        Arc::new(CircuitBreakerPolicy { breaker, key: self.key.clone() })
    }
}

/// As many threads as run side by side, within reason: a reader of the window visits each seat.
fn stripes() -> usize {
    thread::available_parallelism().map_or(1, |threads| threads.get().next_power_of_two()).min(16)
}
