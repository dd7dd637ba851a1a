//! The layer of several gates, and its build.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use tower_layer::Layer;

use super::{
    chain::{Chain, is_same},
    members::{ChainOf, Members},
    service::GatesService,
};
use crate::{error::ConfigError, identity::Identify};

/// One gate for several layers of this crate, such as a token bucket around a circuit breaker.
///
/// It means exactly what the layers mean when they are nested, the first outermost, and it is faster: the response is wrapped
/// and moved once, the request is identified once, and a clock that the layers share is read once for their decisions.
///
/// ```
/// use tollgate::{CircuitBreakerLayer, Gates, Period, Plan, Quota, QuotaLayer, Rate, TokenBucketLayer};
/// use tower::ServiceBuilder;
///
/// let bucket = TokenBucketLayer::new(Rate::per_second(50).burst(100));
/// let quota = QuotaLayer::new(Plan::new("free").limit(Quota::requests(10_000).per(Period::day())));
/// let breaker = CircuitBreakerLayer::for_server();
/// let gates = Gates::new((bucket, quota, breaker)).identify_by(tollgate::peer_ip!(axum));
/// let quotas = gates.layers().1.handle();
/// let stack = ServiceBuilder::new().layer(gates);
/// ```
///
/// The tuple has 2 to 8 members: layers of this crate, [`GateLayer`](crate::GateLayer)s of your own policies, or other gates,
/// whose members stand in their place. In place of a tuple of layers that one `ServiceBuilder` or axum takes,
/// `Gates::new(tuple)` is all that changes.
///
/// # Members
/// Each member keeps its name, clock, observers and switches, and its [`refuse_with`](crate::GateLayer::refuse_with)
/// answers for its own refusals. They decide in their order, and the first refusal ends the request: members further in are
/// not asked, and those outside treat it as they treat the [`Refusal`](crate::Refusal) of any layer further in. The
/// extensions that an admitted member inserts are there when the next one decides.
///
/// A member shares its state with its clones, so that a handle that was taken before sees the same. [`layers`](Self::layers)
/// returns the members for handles.
///
/// # Time
/// The token buckets and quotas decide on a request at the time at which the first of them received it, before its client was
/// identified; their clock is read once. After a member that waits, or one with another clock, it is read anew. A circuit
/// breaker reads it itself, so that the time of a call has no part of what runs outside of it.
pub struct Gates<L: Members> {
    layers: L,
    /// Whether [`identify_by`](Self::identify_by) has applied to a member; `None` before it was called.
    identifies: Option<bool>,
    built: BuiltGates<L>,
}

/// An alias, because a derived `Clone` would otherwise require that the members are `Clone`.
type BuiltGates<L> = Arc<OnceLock<Result<Arc<GatesShared<ChainOf<L>>>, ConfigError>>>;

/// The members of gates, which all services of a layer share.
pub(super) struct GatesShared<C> {
    pub(super) chain: C,
    /// Bit `n` is set if member `n` is around a client of the server.
    pub(super) outbound: u32,
}

impl<L: Members> Gates<L> {
    /// Creates gates of a tuple of layers, the outermost first.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tollgate::{CircuitBreakerLayer, Gates, OnUnidentified, Rate, TokenBucketLayer};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let bucket = TokenBucketLayer::new(Rate::per_hour(2)).on_unidentified(OnUnidentified::Share);
    /// let service = Gates::new((bucket, CircuitBreakerLayer::for_server()))
    ///     .layer(service_fn(async |_: Request<String>| Ok::<_, ()>(Response::new(String::from("hello")))));
    /// let mut statuses = Vec::new();
    /// for _ in 0..3 {
    ///     statuses.push(service.clone().oneshot(Request::new(String::new())).await.unwrap().status().as_u16());
    /// }
    /// assert_eq!(statuses, [200, 200, 429]);
    /// # });
    /// ```
    #[must_use]
    pub fn new(layers: L) -> Self {
        Self { layers, identifies: None, built: Arc::default() }
    }

    /// Identifies clients by `identify`, once a request, for all members that have no identity of their own.
    ///
    /// These are the token buckets and quotas on which `identify_by` was not called. The first of them that does not pass the
    /// request undecided identifies it, and the others use the client that it has found. Each member still treats
    /// unidentified requests as its own `on_unidentified` says, and reports them by its own name. A policy of a
    /// [`GateLayer`](crate::GateLayer) keeps its own [`identify`](crate::Admit::identify).
    ///
    /// The identity becomes that of the layers themselves: their clones and handles have it too.
    ///
    /// # Panics
    /// If such a member is in use, because its services and handles would not have the identity, or if other gates have
    /// given it one. [`fork`](crate::TokenBucketLayer::fork) creates a separate layer. Also if the gates have an identity.
    ///
    /// ```
    /// use tollgate::{ApiKey, Gates, PeerIp, Principal, Rate, TokenBucketLayer};
    ///
    /// let keys = |key: &str| (key == "k-7f3a").then(|| Principal::named("alice"));
    /// let per_key = TokenBucketLayer::new(Rate::per_second(50)).named("key");
    /// let per_hour = TokenBucketLayer::new(Rate::per_hour(10_000)).named("hour");
    /// let per_peer = TokenBucketLayer::new(Rate::per_second(500)).named("peer").identify_by(PeerIp::new()); // keeps it
    /// let gates = Gates::new((per_peer, per_key, per_hour)).identify_by(ApiKey::header("x-api-key", keys));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn identify_by(self, identify: impl Identify) -> Self {
        assert!(self.identifies.is_none(), "the gates have an identity; call .identify_by(..) of gates once");
        let identity: Arc<dyn Identify> = Arc::new(identify);
        let applies = self.layers.share_identity(&identity);
        Self { identifies: Some(applies), built: Arc::default(), ..self }
    }

    /// Returns the members, for their handles.
    ///
    /// ```
    /// use tollgate::{CircuitBreakerLayer, CircuitState, Gates, Rate, TokenBucketLayer};
    ///
    /// let gates = Gates::new((TokenBucketLayer::new(Rate::per_second(5)), CircuitBreakerLayer::for_server()));
    /// let (_, breaker) = gates.layers();
    /// assert_eq!(breaker.handle().state(), CircuitState::Closed);
    /// ```
    #[must_use]
    pub const fn layers(&self) -> &L {
        &self.layers
    }

    /// Builds the policies of all members, so that settings which do not suit each other are an error. Without it they
    /// panic when the first service is wrapped.
    ///
    /// # Errors
    /// If the settings of a member do not suit each other, as its own [`try_build`](crate::QuotaLayer::try_build) says, or if
    /// [`identify_by`](Self::identify_by) was called and no member uses that identity.
    ///
    /// ```
    /// use tollgate::{CircuitBreakerLayer, Gates, Period, Plan, Quota, QuotaLayer, Unverified};
    ///
    /// let monthly = QuotaLayer::new(Plan::new("paid").limit(Quota::requests(1_000).per(Period::month())));
    /// let gates = Gates::new((monthly, CircuitBreakerLayer::for_server())).identify_by(Unverified::header("x-user"));
    /// let error = gates.try_build().unwrap_err();
    /// assert!(error.to_string().contains("the identity is not verified"));
    /// ```
    pub fn try_build(self) -> Result<Self, ConfigError> {
        self.built().map(|_| ()).map_err(ConfigError::clone)?;
        Ok(self)
    }

    fn built(&self) -> Result<&Arc<GatesShared<ChainOf<L>>>, &ConfigError> {
        self.built.get_or_init(|| self.build()).as_ref()
    }

    pub(super) fn has_own_identity(&self) -> bool {
        self.identifies.is_some()
    }

    /// Checks the settings of the gates, not those of their members.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.identifies == Some(false) {
            return Err(ConfigError::message(
                "the identity of gates is used by no member, because each has an identity of its own or needs none; \
                 remove .identify_by(..) of the gates",
            ));
        }
        Ok(())
    }

    fn build(&self) -> Result<Arc<GatesShared<ChainOf<L>>>, ConfigError> {
        self.check()?;
        let mut chain = self.layers.onto(())?;
        let mut identities = Vec::new();
        chain.identities(&mut identities);
        let is_shared =
            |(at, identity): &(usize, &Arc<_>)| identities[at + 1..].iter().any(|other| is_same(identity, other));
        if let Some((_, identity)) = identities.iter().enumerate().find(is_shared) {
            chain.share(identity);
        }
        let outbound = chain.outbound(0);
        Ok(Arc::new(GatesShared { chain, outbound }))
    }
}

impl<S, L: Members> Layer<S> for Gates<L> {
    type Service = GatesService<S, L>;

    #[track_caller]
    fn layer(&self, inner: S) -> Self::Service {
        match self.built() {
            Ok(shared) => GatesService::new(inner, Arc::clone(shared)),
            Err(invalid) => panic!("{invalid}"),
        }
    }
}

impl<L: Members> Clone for Gates<L> {
    fn clone(&self) -> Self {
        Self { layers: self.layers.clone(), identifies: self.identifies, built: Arc::clone(&self.built) }
    }
}

impl<L: Members + fmt::Debug> fmt::Debug for Gates<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gates").field(&self.layers).finish()
    }
}
