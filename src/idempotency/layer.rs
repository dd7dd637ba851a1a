//! The layer and its settings.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, Method, StatusCode};
use tower_layer::Layer;

use super::{
    config::{IdempotencyConfig, OnRunning, OnStoreFailure, Replay},
    handle::IdempotencyHandle,
    service::IdempotencyService,
    state::IdempotencyState,
};
use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Identify, Secret},
    key_value::{AfterLease, MemoryStore, RecordStore, setting},
    policy_name::PolicyName,
};

/// Layer that runs the handler once for each idempotency key, and answers duplicates with its answer.
///
/// A key belongs to its client, to the method and to the route: with another of them it is another operation. The same key
/// with another body, query or content type is refused with 422.
///
/// The handler receives [`IdempotentBody`](super::IdempotentBody), the read body or the untouched one of a request without
/// a key. See the [module](super) for the order of layers and for all outcomes.
#[derive(Clone)]
pub struct IdempotencyLayer {
    config: Arc<IdempotencyConfig>,
    state: Arc<IdempotencyState>,
}

impl IdempotencyLayer {
    /// Creates a layer over a store. Processes with the same store and secret share its records.
    #[must_use]
    pub fn new(identity: impl Identify, store: Arc<dyn RecordStore>, secret: &Secret) -> Self {
        Self::over(Arc::new(identity), store, Some(secret.clone()))
    }

    /// Creates a layer over a [`MemoryStore`] of its own, whose records end with the process.
    #[must_use]
    pub fn in_memory(identity: impl Identify) -> Self {
        Self::over(Arc::new(identity), Arc::new(MemoryStore::new()), None)
    }

    fn over(identity: Arc<dyn Identify>, store: Arc<dyn RecordStore>, secret: Option<Secret>) -> Self {
        let max_answer = store.max_answer().min(1 << 20);
        let config = IdempotencyConfig {
            identity,
            store,
            secret,
            name: ConfigError::or_panic(PolicyName::try_new("idempotency")),
            header: HeaderName::from_static("idempotency-key"),
            required: false,
            methods: vec![Method::POST, Method::PATCH],
            route: None,
            accept_unverified: false,
            lease: Duration::from_secs(30),
            life: Duration::from_secs(86_400),
            after_lease: AfterLease::Hold,
            replay: Replay::Final,
            replayed_headers: Vec::new(),
            on_running: OnRunning::Refuse,
            on_store_failure: OnStoreFailure::Refuse,
            mismatch: StatusCode::UNPROCESSABLE_ENTITY,
            max_body: 1 << 20,
            max_buffered: 64 << 20,
            max_answer,
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(10),
            max_detached: 1_024,
        };
        Self { config: Arc::new(config), state: Arc::default() }
    }

    fn with(mut self, change: impl FnOnce(&mut IdempotencyConfig)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// Sets the name in refusals and records, which is part of each operation; default `idempotency`. Layers with one store
    /// and different names have operations of their own.
    ///
    /// # Panics
    /// If it is no [`PolicyName`].
    #[must_use]
    #[track_caller]
    pub fn named(self, name: &str) -> Self {
        let name = ConfigError::or_panic(PolicyName::try_new(name));
        self.with(|config| config.name = name)
    }

    /// Sets the header with the key; default `idempotency-key`. A webhook has the id of its event in one.
    ///
    /// # Panics
    /// If it is no header name.
    #[must_use]
    #[track_caller]
    pub fn header(self, name: &str) -> Self {
        let valid = HeaderName::try_from(name).map_err(|_| ConfigError::new("header", "be a header name", name));
        let header = ConfigError::or_panic(valid);
        self.with(|config| config.header = header)
    }

    /// Refuses requests without a key with 400; by default they pass unprotected. Then gRPC calls need a key too.
    #[must_use]
    pub fn required(self) -> Self {
        self.with(|config| config.required = true)
    }

    /// Sets the methods to which the layer applies; default POST and PATCH.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        let methods = methods.into_iter().collect();
        self.with(|config| config.methods = methods)
    }

    /// Sets the route of a request, which is part of its operation; default the path.
    ///
    /// A layer inside axum's `nest` sees the path without the prefix. Outside it sees the whole.
    ///
    /// ```
    /// # use tollgate::{PeerIp, idempotency::IdempotencyLayer};
    /// use axum::extract::OriginalUri;
    ///
    /// let layer = IdempotencyLayer::in_memory(PeerIp::new()).route(|request| {
    ///     let original = request.extensions.get::<OriginalUri>().map(|original| &original.0);
    ///     original.unwrap_or(request.uri).path().to_owned()
    /// });
    /// ```
    #[must_use]
    pub fn route(self, route: impl Fn(&RequestHead<'_>) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.route = Some(Arc::new(route)))
    }

    /// Accepts identities that several clients may share or claim, such as addresses and unverified headers. **One client
    /// can then read the answer to another's request**, if it knows the key.
    #[must_use]
    pub fn accept_unverified(self) -> Self {
        self.with(|config| config.accept_unverified = true)
    }

    /// Sets the time after which a process that does not renew counts as gone; default 30 s, renewed at each third.
    ///
    /// # Panics
    /// If it is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn lease(self, lease: Duration) -> Self {
        ConfigError::or_panic(setting("lease", lease));
        self.with(|config| config.lease = lease)
    }

    /// Sets the time for which an answer is replayed; default 24 h.
    ///
    /// # Panics
    /// If it is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn life(self, life: Duration) -> Self {
        ConfigError::or_panic(setting("life", life));
        self.with(|config| config.life = life)
    }

    /// Sets the fate of an operation whose process is gone; default [`AfterLease::Hold`]: a duplicate is refused until
    /// [`IdempotencyHandle::settle`] or [`IdempotencyHandle::release`] decides. With [`AfterLease::Rerun`] the next one runs
    /// the handler again once the lease is over.
    #[must_use]
    pub fn after_lease(self, after_lease: AfterLease) -> Self {
        self.with(|config| config.after_lease = after_lease)
    }

    /// Sets the decision on answers that tell of a failure; default [`Replay::Final`].
    #[must_use]
    pub fn replay(self, replay: Replay) -> Self {
        self.with(|config| config.replay = replay)
    }

    /// Stores a header of answers, beside `Content-*`, `Location`, `ETag`, `Last-Modified`, `Link`, `Cache-Control` and
    /// `Vary`.
    ///
    /// # Panics
    /// If it is no header name, or one that belongs to one exchange or client: `Set-Cookie`, `Date`, `Age`, `Retry-After`,
    /// rate limit fields, `Access-Control-*` and hop-by-hop fields.
    #[must_use]
    #[track_caller]
    pub fn replay_header(self, name: &str) -> Self {
        let valid = HeaderName::try_from(name).ok().filter(|name| !super::answer::is_of_one_exchange(name));
        let must = "be the name of a header that does not belong to one exchange";
        let header = ConfigError::or_panic(valid.ok_or_else(|| ConfigError::new("replay_header", must, name)));
        self.with(|config| config.replayed_headers.push(header))
    }

    /// Sets the decision on a duplicate while the first request runs; default [`OnRunning::Refuse`].
    #[must_use]
    pub fn on_running(self, on_running: OnRunning) -> Self {
        self.with(|config| config.on_running = on_running)
    }

    /// Sets the decision while the store cannot begin records; default [`OnStoreFailure::Refuse`].
    #[must_use]
    pub fn on_store_failure(self, on_store_failure: OnStoreFailure) -> Self {
        self.with(|config| config.on_store_failure = on_store_failure)
    }

    /// Sets the status of a refusal because a key was used for another request; default 422.
    ///
    /// # Panics
    /// If it is no status of a client error.
    #[must_use]
    #[track_caller]
    pub fn mismatch_status(self, status: StatusCode) -> Self {
        let is_valid = status.is_client_error();
        ConfigError::or_panic(ConfigError::require(is_valid, "mismatch_status", "be from 400 to 499", status.as_u16()));
        self.with(|config| config.mismatch = status)
    }

    /// Sets the greatest length of the body of a request with a key in bytes; default 1 MiB. A longer one is refused with
    /// 413.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        self.with(|config| config.max_body = bytes)
    }

    /// Sets the greatest number of bytes of all bodies of requests and answers that are held; default 64 MiB. A request beyond
    /// it is refused with 503, and an answer beyond it is passed on and not retained.
    ///
    /// One client has at most half of it, but at least the room of one request: beyond that it is refused with 429. A body
    /// counts with its length from the beginning, and one of unknown length with what has arrived.
    ///
    /// # Panics
    /// If it is 0. [`layer`](Layer::layer) panics if it is less than [`max_body`](Self::max_body).
    #[must_use]
    #[track_caller]
    pub fn max_buffered(self, bytes: usize) -> Self {
        ConfigError::or_panic(ConfigError::require(bytes > 0, "max_buffered", "be positive", bytes));
        self.with(|config| config.max_buffered = bytes)
    }

    /// Sets the greatest length of an answer that is stored in bytes, fields included; default 1 MiB, or what the store
    /// takes if that is less. A longer answer is passed on and not retained.
    ///
    /// # Panics
    /// If it is more than the store takes.
    #[must_use]
    #[track_caller]
    pub fn max_answer(self, bytes: usize) -> Self {
        let most = self.config.store.max_answer();
        let must = format!("be at most {most}, which the store takes; raise .max_value() of the store");
        ConfigError::or_panic(ConfigError::require(bytes <= most, "max_answer", &must, bytes));
        self.with(|config| config.max_answer = bytes)
    }

    /// Sets the time in which the body of a request with a key must arrive; default 30 s. A later one is refused with 408.
    ///
    /// # Panics
    /// If it is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn body_timeout(self, timeout: Duration) -> Self {
        ConfigError::or_panic(setting("body_timeout", timeout));
        self.with(|config| config.body_timeout = timeout)
    }

    /// Sets the time in which the body of an answer must end; default 10 s. A slower one is a stream: it is passed on as it
    /// comes, and not retained. If the client has hung up, there is no such bound.
    ///
    /// # Panics
    /// If it is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn answer_timeout(self, timeout: Duration) -> Self {
        ConfigError::or_panic(setting("answer_timeout", timeout));
        self.with(|config| config.answer_timeout = timeout)
    }

    /// Sets the greatest number of handlers that run on after their client hung up; default 1,024. One client has at most
    /// half of them. One more is dropped in the middle, as without this layer; then [`after_lease`](Self::after_lease)
    /// decides.
    #[must_use]
    pub fn max_detached(self, handlers: usize) -> Self {
        self.with(|config| config.max_detached = handlers)
    }

    /// Returns a handle for shutdown, for unknown outcomes and for counts.
    #[must_use]
    pub fn handle(&self) -> IdempotencyHandle {
        IdempotencyHandle::new(Arc::clone(&self.config), Arc::clone(&self.state))
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    /// Wraps a service.
    ///
    /// # Panics
    /// If the clients of the identity may share it or claim that of others, unless
    /// [`accept_unverified`](IdempotencyLayer::accept_unverified) is set; and if
    /// [`max_body`](IdempotencyLayer::max_body) is above [`max_buffered`](IdempotencyLayer::max_buffered).
    #[track_caller]
    fn layer(&self, inner: S) -> Self::Service {
        ConfigError::or_panic(self.config.check());
        let guarantees = self.config.identity.guarantees();
        assert!(
            self.config.accept_unverified || guarantees.verified && guarantees.personal,
            "policy {:?}: the identity must be verified and one party's own, or a client could read the answers to \
             another's requests; use ApiKey or Verified, or call .accept_unverified()",
            self.config.name,
        );
        IdempotencyService::new(inner, Arc::clone(&self.config), Arc::clone(&self.state))
    }
}

impl fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}
