//! Layer of token buckets, and its settings.

use std::sync::{Arc, Weak};

use super::rate::Rate;
use super::{handle::TokenBuckets, policy::TokenBucketPolicy};
use crate::{
    cost::Cost,
    error::ConfigError,
    gate::{ClientConfig, ConfiguredLayer, Gate, PolicyConfig, PolicyContext, Tiered, client_setters, gate_layer},
    head::RequestHead,
    identity::Tier,
    refusal::Reason,
};

/// Limits how often each client, and all of them together, may pass.
///
/// One bucket for each peer address:
///
/// ```
/// use tollgate::{Rate, TokenBucketLayer};
/// use tower::ServiceBuilder;
///
/// let stack = ServiceBuilder::new().layer(TokenBucketLayer::new(Rate::per_second(50).burst(100)));
/// ```
///
/// One bucket for each API key, with a rate by tier, in an axum router:
///
/// ```
/// use std::collections::HashMap;
/// use axum::{Router, routing::get};
/// use tollgate::{ApiKey, Principal, Rate, TokenBucketLayer};
///
/// let keys = HashMap::from([(String::from("s3cret"), Principal::named("acme").in_tier("pro"))]);
/// let limit = TokenBucketLayer::new(Rate::per_second(50).burst(100))
///     .identify_by(ApiKey::header("x-api-key", keys))
///     .rate_for("pro", Rate::per_second(500))
///     .and_global(Rate::per_second(5_000));
/// let app: Router = Router::new().route("/", get(async || "hello")).layer(limit);
/// ```
///
/// The layer is its own builder. Its buckets belong to the layer: all services that it and its clones wrap, and its
/// [handle](Self::handle), share them. Settings come first: a setter of a layer in use panics, and
/// [`fork`](Self::fork) creates a separate layer.
pub struct TokenBucketLayer(ConfiguredLayer<TokenBucketConfig>);

/// Settings of a [`TokenBucketLayer`].
#[derive(Clone)]
pub(super) struct TokenBucketConfig {
    pub(super) rates: Tiered<Rate>,
    /// Further rates of each client.
    pub(super) further: Vec<Rate>,
    pub(super) global: Option<Rate>,
    pub(super) overflow: Option<Rate>,
    pub(super) clients: ClientConfig,
    pub(super) cost: Option<CostOf>,
    pub(super) refund: Option<RefundOn>,
}

type CostOf = Arc<dyn Fn(&RequestHead<'_>) -> Cost + Send + Sync>;
type RefundOn = Arc<dyn Fn(Reason) -> bool + Send + Sync>;

impl PolicyConfig for TokenBucketConfig {
    type Policy = TokenBucketPolicy;

    fn build(&self, context: &PolicyContext) -> Result<Arc<TokenBucketPolicy>, ConfigError> {
        let build = |policy: &Weak<_>| TokenBucketPolicy::new(self.clone(), context.clone(), Weak::clone(policy));
        let policy = Arc::new_cyclic(build);
        context.observers.attach(&policy);
        Ok(policy)
    }

    fn clients(&mut self) -> Option<&mut ClientConfig> {
        Some(&mut self.clients)
    }
}

/// A service behind a [`TokenBucketLayer`], by a name that a field can have.
///
/// ```
/// use http::{Request, Response};
/// use tollgate::{Rate, TokenBucketLayer, TokenBucketService};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// /// A server over any handler.
/// struct Server<S> {
///     service: TokenBucketService<S>,
/// }
///
/// impl<S> Server<S> {
///     fn new(handler: S) -> Self {
///         Self { service: TokenBucketLayer::new(Rate::per_second(50)).layer(handler) }
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let server = Server::new(service_fn(async |_: Request<String>| Ok::<_, ()>(Response::new(String::from("hello")))));
/// let peer: std::net::SocketAddr = "192.0.2.7:4711".parse().unwrap();
/// let response = server.service.oneshot(Request::get("/").extension(peer).body(String::new()).unwrap()).await.unwrap();
/// assert_eq!(response.headers()["ratelimit"], "\"default\";r=49;t=1");
/// # });
/// ```
pub type TokenBucketService<S> = Gate<S, TokenBucketPolicy>;

gate_layer!(TokenBucketLayer, TokenBucketPolicy, "(layer: tollgate::TokenBucketLayer) -> tollgate::TokenBucketLayer");

client_setters!(
    TokenBucketLayer,
    ///
    /// ```
    /// use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(50)).identify_by(tollgate::peer_ip!(axum));
    /// ```
    identify_by,
    /// Sets the number of clients that have a bucket at once; default 1,048,576, which take 64 MB if all are live.
    ///
    /// A client is live while its bucket is not full. When the table is full of live clients, newcomers share one bucket,
    /// whose refusals are 503; no live client is evicted.
    max_clients
);

impl TokenBucketLayer {
    /// Creates a layer with a bucket of `rate` for each client. Clients are identified by their peer address; see
    /// [`identify_by`](Self::identify_by).
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let config = TokenBucketConfig {
            rates: Tiered::new(rate),
            further: Vec::new(),
            global: None,
            overflow: None,
            clients: ClientConfig::default(),
            cost: None,
            refund: None,
        };
        Self(ConfiguredLayer::new(config, "default"))
    }

    /// Gives clients of `tier` a rate of their own; others keep the usual one.
    ///
    /// A client with keys in several tiers has a bucket in each: requests in one tier take no tokens of another.
    #[must_use]
    #[track_caller]
    pub fn rate_for(self, tier: impl Into<Tier>, rate: Rate) -> Self {
        let tier = tier.into();
        self.with(|config| config.rates.set(Some(tier), rate))
    }

    /// Limits each client by a further rate, whatever its tier: a request takes from all of its buckets or from none.
    ///
    /// A refusal says when all of them have enough tokens. `RateLimit-Policy` lists all rates of the client: the first by
    /// the [name](Self::named) of the layer, the further ones with `-2`, `-3` and so on after it. `RateLimit` reports the
    /// one that is nearest to a refusal: the one with the fewest tokens, and of equals that with the longest reset. A refused
    /// response reports the rate that refuses. Each rate has a table of its own, of [`max_clients`](Self::max_clients)
    /// clients.
    ///
    /// Two layers cannot do the same: the outer one has taken its token when the inner one refuses, and a client that
    /// floods the inner one is locked out by the outer one.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).and_rate(Rate::per_hour(1_000));
    /// // Responses have the field `RateLimit-Policy: "default";q=5;w=1, "default-2";q=1000;w=3600`.
    /// ```
    #[must_use]
    #[track_caller]
    pub fn and_rate(self, rate: Rate) -> Self {
        self.with(|config| config.further.push(rate))
    }

    /// Limits all clients together too: a request takes from both buckets or from neither. No global limit by default.
    ///
    /// A request that the global bucket refuses gets 503, and no field reports the capacity of the server.
    #[must_use]
    #[track_caller]
    pub fn and_global(self, rate: Rate) -> Self {
        self.with(|config| config.global = Some(rate))
    }

    /// Sets the cost of a request; default one token.
    ///
    /// [`Cost::PREFLIGHT`] takes nothing, and is refused while no whole token is left. A cost that is read from the
    /// request goes through [`Cost::try_new`]: with [`Cost::new`] a client could cause a panic.
    ///
    /// ```
    /// # use tollgate::{Cost, Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(50).burst(100))
    ///     .cost(|request| if request.uri.path() == "/search" { Cost::new(10) } else { Cost::ONE });
    /// ```
    #[must_use]
    #[track_caller]
    pub fn cost(self, cost: impl Fn(&RequestHead<'_>) -> Cost + Send + Sync + 'static) -> Self {
        self.with(|config| config.cost = Some(Arc::new(cost)))
    }

    /// Sets the reasons for which tokens go back when a tollgate layer further in refuses the request.
    ///
    /// By default those that are not the client's doing: [`Reason::CircuitOpen`], [`Reason::Capacity`],
    /// [`Reason::Unavailable`] and [`Reason::RecordsUnavailable`]. For all other reasons the tokens stay spent. Otherwise a client could guess API keys, or
    /// repeat the ids of finished jobs, without a limit. Tokens of the bucket that newcomers share stay spent too. The
    /// function may be called more than once for a request. If it panics, the tokens stay spent.
    ///
    /// ```
    /// # use tollgate::{Rate, Reason, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(50)).refund_on(|reason| reason == Reason::CircuitOpen);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn refund_on(self, refund: impl Fn(Reason) -> bool + Send + Sync + 'static) -> Self {
        self.with(|config| config.refund = Some(Arc::new(refund)))
    }

    /// Sets the rate of the bucket that newcomers share while the table is full; default the usual rate.
    #[must_use]
    #[track_caller]
    pub fn overflow(self, rate: Rate) -> Self {
        self.with(|config| config.overflow = Some(rate))
    }

    /// Returns the buckets of this layer, for callers without a request.
    ///
    /// Call it after all setters: those of a layer in use panic. Settings about requests, such as
    /// [`enabled`](Self::enabled), [`shadow`](Self::shadow) and [`exempt`](Self::exempt), do not apply to the handle.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5));
    /// layer.handle().check(&Client::named("nightly job"), Cost::ONE).unwrap();
    /// ```
    #[must_use]
    #[track_caller]
    pub fn handle(&self) -> TokenBuckets {
        TokenBuckets(Arc::clone(self.0.policy()))
    }

    #[track_caller]
    fn with(self, change: impl FnOnce(&mut TokenBucketConfig)) -> Self {
        Self(self.0.with(|layer| change(&mut layer.config)))
    }
}
