//! Layer of a circuit breaker, and its settings.

use std::{sync::Arc, time::Duration};

use super::{
    handle::CircuitBreaker,
    host::HostName,
    keys::KeyOf,
    policy::{CircuitBreakerPolicy, ResultClassifier},
    settings::{BreakerSettings, positive},
    trip::Trip,
};
use crate::{
    classify::{Classify, DefaultClassifier},
    error::ConfigError,
    gate::{ConfiguredLayer, Gate, gate_layer},
    head::RequestHead,
    identity::{Digest, Digester},
};

/// Stops calling a service that fails, and probes for its recovery.
///
/// There are two sides, because a failure means another thing on each:
///
/// - [`for_server`](Self::for_server) is for routes of your own server. Strangers choose the requests, and what a
///   stranger can cause must not open the circuit for all.
/// - [`for_client`](Self::for_client) is for calls to a service that your program depends on. Every answer that is of no
///   use counts, and the time from which on an answer is late is part of the constructor.
///
/// One circuit around the routes that depend on one database:
///
/// ```
/// use tollgate::CircuitBreakerLayer;
/// use tower::ServiceBuilder;
///
/// let stack = ServiceBuilder::new().layer(CircuitBreakerLayer::for_server());
/// ```
///
/// One circuit for each host, around hyper's pooled client:
///
/// ```
/// use std::time::Duration;
/// use http_body_util::Empty;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tollgate::CircuitBreakerLayer;
/// use tower::ServiceBuilder;
///
/// let breaker = CircuitBreakerLayer::for_client(Duration::from_secs(2))
///     .recovery_timeout(Duration::from_secs(5))
///     .per_host();
/// let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
/// let client = ServiceBuilder::new().layer(breaker).service(client);
/// ```
///
/// The layer is its own builder. Its circuits belong to the layer: all services that it and its clones wrap, and its
/// [handle](Self::handle), share them. Settings come first: a setter of a layer in use panics, and
/// [`fork`](Self::fork) creates a separate layer.
///
/// [The module](crate::circuit_breaker) says which results count, and where time-outs belong.
pub struct CircuitBreakerLayer(ConfiguredLayer<BreakerSettings>);

/// A service behind a [`CircuitBreakerLayer`].
pub type CircuitBreakerService<S> = Gate<S, CircuitBreakerPolicy>;

gate_layer!(
    CircuitBreakerLayer,
    CircuitBreakerPolicy,
    "(layer: tollgate::CircuitBreakerLayer) -> tollgate::CircuitBreakerLayer"
);

impl CircuitBreakerLayer {
    /// Creates a breaker for routes of a server, whose requests come from strangers.
    ///
    /// It opens when half of the last 100 calls failed, and at least 20 are known: a few broken requests in a row are no
    /// evidence, because one client can send them all. It judges by
    /// [`DefaultClassifier::for_server`]: gRPC's `INTERNAL` and `UNKNOWN`, 408, 501, 505 and 511 do not count, because
    /// garbage and slow uploads cause them.
    ///
    /// A client that hangs up does not count, whenever it does so, and slowness opens no circuit unless the
    /// [rules](Self::trip) have a [`slow_rate`](Trip::slow_rate). To open on a handler that hangs, put a time-out
    /// **inside** the breaker that answers with 504.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::StatusCode;
    /// use tollgate::CircuitBreakerLayer;
    /// use tower::ServiceBuilder;
    /// use tower_http::timeout::TimeoutLayer;
    ///
    /// let stack = ServiceBuilder::new()
    ///     .layer(CircuitBreakerLayer::for_server())
    ///     .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(5)));
    /// ```
    #[must_use]
    pub fn for_server() -> Self {
        Self::with_defaults(DefaultClassifier::for_server(), Trip::failure_rate(0.5))
    }

    /// Creates a breaker for calls to a service. An answer is late from `slow_after` on: the time after which your
    /// program has no use for it, such as that of its own deadline.
    ///
    /// It opens after 5 failures in a row, or when half of the last 100 calls failed, or half were late, and at least
    /// 20 are known. The calls are your own, so that a run of failures is evidence. It judges by
    /// [`DefaultClassifier::for_client`], by which 408 and all of gRPC's server faults count, `CANCELLED` included.
    ///
    /// A call that is dropped after `slow_after` without a head counts as failed. So a time-out outside the breaker, as a
    /// layer or as `tokio::time::timeout`, opens the circuit of a service that hangs, **if it is longer than
    /// `slow_after`**. A call that is dropped earlier does not count: its caller may be impatient. A late answer counts
    /// as slow whatever its verdict.
    ///
    /// Its refusals are [`outbound`](Self::outbound).
    ///
    /// # Panics
    /// If `slow_after` is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::CircuitBreakerLayer;
    ///
    /// # async fn query() -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example() {
    /// let database = CircuitBreakerLayer::for_client(Duration::from_secs(2)).handle();
    /// let row = tokio::time::timeout(Duration::from_secs(3), database.call(query())).await;
    /// # }
    /// ```
    #[must_use]
    #[track_caller]
    pub fn for_client(slow_after: Duration) -> Self {
        ConfigError::or_panic(Self::try_for_client(slow_after))
    }

    /// As [`for_client`](Self::for_client), for input at run time.
    ///
    /// # Errors
    /// If `slow_after` is zero.
    pub fn try_for_client(slow_after: Duration) -> Result<Self, ConfigError> {
        let trip = Trip::failure_rate(0.5).or(Trip::slow_rate(0.5)).or(Trip::consecutive(5)).slow_after(slow_after);
        trip.check()?;
        Ok(Self::with_defaults(DefaultClassifier::for_client(), trip).outbound())
    }

    fn with_defaults(classifier: DefaultClassifier, trip: Trip) -> Self {
        let settings = BreakerSettings {
            trip,
            recovery_timeout: Duration::from_secs(10),
            max_open: None,
            probes: 1,
            close_after: None,
            probe_timeout: None,
            classifier: ResultClassifier::new(classifier),
            key_of: None,
            max_keys: 1_024,
        };
        Self(ConfiguredLayer::new(settings, "circuit_breaker"))
    }

    /// Sets the rules by which the circuit opens. The `slow_after` of [`for_client`](Self::for_client) holds for them
    /// too, unless they have their own.
    ///
    /// # Panics
    /// If a value of `trip` is out of range: a share that is not above 0 and at most 1, an empty window, or a minimum
    /// of 0 or above the window. Also if the consecutive failures or `slow_after` are 0.
    #[must_use]
    #[track_caller]
    pub fn trip(self, trip: Trip) -> Self {
        ConfigError::or_panic(self.try_trip(trip))
    }

    /// As [`trip`](Self::trip), for input at run time.
    ///
    /// # Errors
    /// If a value of `trip` is out of range.
    ///
    /// ```
    /// use tollgate::{CircuitBreakerLayer, Trip};
    /// let error = CircuitBreakerLayer::for_server().try_trip(Trip::failure_rate(1.5)).unwrap_err();
    /// assert_eq!(error.to_string(), "failure rate must be above 0 and at most 1, got 1.5");
    /// ```
    #[track_caller]
    pub fn try_trip(self, trip: Trip) -> Result<Self, ConfigError> {
        trip.check()?;
        Ok(self.with(|config| config.trip = trip.or_slow_after(config.trip)))
    }

    /// Sets the time from opening to the first probe; default 10 s, the time of a restart. Jitter adds at most a fifth,
    /// so that a fleet does not probe at one moment.
    ///
    /// # Panics
    /// If `time` is zero.
    #[must_use]
    #[track_caller]
    pub fn recovery_timeout(self, time: Duration) -> Self {
        let time = positive("recovery_timeout", time, "0s");
        self.with(|config| config.recovery_timeout = time)
    }

    /// Sets the cap of the open time, which doubles with each failed probe; default 60 s, or the recovery time-out if
    /// that is longer. A service that has recovered should not wait longer than a minute for its next probe.
    ///
    /// # Panics
    /// If `time` is zero; if it is below the recovery time-out, once the layer is used.
    #[must_use]
    #[track_caller]
    pub fn max_open(self, time: Duration) -> Self {
        let time = positive("max_open", time, "0s");
        self.with(|config| config.max_open = Some(time))
    }

    /// Sets the number of probes that may be under way at once in a half-open circuit. The default is 1, so that a
    /// service that has just started is not overloaded.
    ///
    /// # Panics
    /// If `probes` is 0.
    #[must_use]
    #[track_caller]
    pub fn probes(self, probes: u32) -> Self {
        let probes = positive("probes", probes, "0");
        self.with(|config| config.probes = probes)
    }

    /// Sets the number of probes that must succeed to close the circuit; default the number of [probes](Self::probes)
    /// that may be under way.
    ///
    /// # Panics
    /// If `successes` is 0.
    #[must_use]
    #[track_caller]
    pub fn close_after(self, successes: u32) -> Self {
        let successes = positive("close_after", successes, "0");
        self.with(|config| config.close_after = Some(successes))
    }

    /// Sets the time after which a probe without an answer loses its slot to the next, so that a lost probe does not
    /// block recovery for ever. The default is 30 s, or [`slow_after`](Trip::slow_after) if that is longer, up to 10
    /// minutes.
    ///
    /// A later answer changes nothing. If this time is shorter than good answers take, a busy service stays half-open.
    ///
    /// # Panics
    /// If `time` is zero.
    #[must_use]
    #[track_caller]
    pub fn probe_timeout(self, time: Duration) -> Self {
        let time = positive("probe_timeout", time, "0s");
        self.with(|config| config.probe_timeout = Some(time))
    }

    /// Measures slowness by the time to the end of the body instead of the head, and judges a good answer only there.
    ///
    /// Only for callers that no client can slow down: otherwise one slow reader opens the circuit for all.
    #[must_use]
    #[track_caller]
    pub fn slow_to_end(self) -> Self {
        self.with(|config| config.classifier.slow_to_end = true)
    }

    /// Counts 429 and `RESOURCE_EXHAUSTED` as failures, for a service whose limit is shared by all callers. Off by
    /// default, because one client's limit must not open the circuit for all.
    #[must_use]
    #[track_caller]
    pub fn count_rate_limits(self) -> Self {
        self.with(|config| config.classifier.default = config.classifier.default.count_rate_limits())
    }

    /// Opens at once when a failed response has `Retry-After`, for at least that time and at most 60 s. Off by default,
    /// because it lets one answer decide for all callers.
    ///
    /// A date counts from the response's own `Date` and is ignored without one. A wait of 0, a date that has passed and
    /// a malformed value are ignored too: the response is a failure like any other.
    #[must_use]
    #[track_caller]
    pub fn honor_retry_after(self) -> Self {
        self.with(|config| config.classifier.honor_retry_after = true)
    }

    /// Classifies results by `classify` instead of [`DefaultClassifier`].
    ///
    /// ```
    /// use tollgate::{CircuitBreakerLayer, CallOutcome, Trip, Verdict};
    /// let layer = CircuitBreakerLayer::for_server().classify(|outcome: &CallOutcome<'_>| match outcome {
    ///     CallOutcome::Head(head) if head.status.is_success() => Verdict::Success,
    ///     _ => Verdict::Failure,
    /// });
    /// ```
    #[must_use]
    #[track_caller]
    pub fn classify(self, classify: impl Classify) -> Self {
        self.with(|config| config.classifier.custom = Some(Arc::new(classify)))
    }

    /// Gives each key its own circuit. Requests without a key share one.
    ///
    /// The gate waits for the service's readiness even while a key's circuit is open, because a key is known only with
    /// its request.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Digester, RequestHead};
    /// let layer = CircuitBreakerLayer::for_server();
    /// let layer = layer.per_key(|request: &RequestHead<'_>, digester: &Digester| {
    ///     let tenant = request.headers.get("x-tenant")?;
    ///     Some(digester.digest("tenant", [tenant.as_bytes()]))
    /// });
    /// ```
    #[must_use]
    #[track_caller]
    pub fn per_key(self, key: impl Fn(&RequestHead<'_>, &Digester) -> Option<Digest> + Send + Sync + 'static) -> Self {
        self.with(|config| config.key_of = Some(KeyOf::Function(Arc::new(key))))
    }

    /// Gives each requested host and port its own circuit.
    ///
    /// The host is that of the URI, else of the `Host` field. Its case and a final dot do not matter, and `http://h` is
    /// `h:80`, because a dead port 80 says nothing of port 443. A request in origin form, as servers receive over
    /// HTTP/1.1, has no scheme: there a host without a port has a circuit of its own.
    #[must_use]
    #[track_caller]
    pub fn per_host(self) -> Self {
        self.with(|config| config.key_of = Some(KeyOf::Host))
    }

    /// Returns the key of a host, as [`per_host`](Self::per_host) makes it of a URI or an authority; `None` for other
    /// texts, and for a text that is too long for a host.
    ///
    /// ```
    /// use tollgate::CircuitBreakerLayer;
    /// let key = CircuitBreakerLayer::host_key("https://Example.org").unwrap();
    /// assert_eq!(key, CircuitBreakerLayer::host_key("example.org.:443").unwrap());
    /// ```
    #[must_use]
    pub fn host_key(host: &str) -> Option<Digest> {
        HostName::of_uri(&host.parse().ok()?).map(|host| host.key())
    }

    /// Sets the number of keys that may have a circuit at once; default 1,024, about 1 MB with the default window.
    ///
    /// At the cap a newcomer replaces a closed circuit without a failure, or one that has not been used for 10 minutes.
    /// If it finds none, its calls pass unguarded, with [`Event::Overflow`](crate::Event::Overflow).
    ///
    /// # Panics
    /// If `keys` is 0.
    #[must_use]
    #[track_caller]
    pub fn max_keys(self, keys: usize) -> Self {
        let keys = positive("max_keys", keys, "0");
        self.with(|config| config.max_keys = keys)
    }

    /// Returns the breaker: its state, its commands, and calls that are not requests.
    #[must_use]
    #[track_caller]
    pub fn handle(&self) -> CircuitBreaker {
        self.0.policy().0.clone()
    }

    #[track_caller]
    fn with(self, change: impl FnOnce(&mut BreakerSettings)) -> Self {
        Self(self.0.with(|layer| change(&mut layer.config)))
    }
}
