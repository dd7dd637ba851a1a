//! The layer and its config.

use std::sync::Arc;

use super::rate::Rate;
use super::{handle::TokenBuckets, policy::TokenBucketPolicy};
use crate::{
    cost::Cost,
    error::ConfigError,
    gate::{ConfiguredLayer, PolicyConfig, PolicyContext, gate_layer},
    head::RequestHead,
    identity::{Identify, OnUnidentified, PeerIp, Tier},
    refusal::Dialect,
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
/// [handle](Self::handle), share them. A setter creates a layer with buckets of its own, so settings come first.
pub struct TokenBucketLayer(ConfiguredLayer<TokenBucketConfig>);

/// Settings of a [`TokenBucketLayer`].
#[derive(Clone)]
pub(super) struct TokenBucketConfig {
    pub(super) rate: Rate,
    pub(super) tiers: Vec<(Tier, Rate)>,
    pub(super) global: Option<Rate>,
    pub(super) overflow: Option<Rate>,
    pub(super) identify: Arc<dyn Identify>,
    pub(super) on_unidentified: OnUnidentified,
    pub(super) cost: Option<CostOf>,
    pub(super) dialect: Dialect,
    pub(super) max_clients: usize,
}

type CostOf = Arc<dyn Fn(&RequestHead<'_>) -> Cost + Send + Sync>;

/// So many clients are told apart by default: about 64 MB when all of them are there at once, next to nothing before.
const MAX_CLIENTS: usize = 1 << 20;

impl PolicyConfig for TokenBucketConfig {
    type Policy = TokenBucketPolicy;

    fn build(&self, context: &PolicyContext) -> Arc<TokenBucketPolicy> {
        Arc::new(TokenBucketPolicy::new(self.clone(), context.clone()))
    }
}

gate_layer!(TokenBucketLayer, TokenBucketPolicy, "(layer: tollgate::TokenBucketLayer) -> tollgate::TokenBucketLayer");

impl TokenBucketLayer {
    /// A bucket of `rate` for each client; clients are told apart by their peer address, see
    /// [`identify_by`](Self::identify_by).
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(50).burst(100));
    /// ```
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let config = TokenBucketConfig {
            rate,
            tiers: Vec::new(),
            global: None,
            overflow: None,
            identify: Arc::new(PeerIp::new()),
            on_unidentified: OnUnidentified::default(),
            cost: None,
            dialect: Dialect::default(),
            max_clients: MAX_CLIENTS,
        };
        Self(ConfiguredLayer::new(config, "default"))
    }

    /// Tells clients apart by `identify`; by default by a `SocketAddr` in the request's extensions.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use tollgate::{PeerIp, Rate, TokenBucketLayer};
    ///
    /// let layer = TokenBucketLayer::new(Rate::per_second(50))
    ///     .identify_by(PeerIp::from_extension(|c: &ConnectInfo<SocketAddr>| Some(c.0)));
    /// ```
    #[must_use]
    pub fn identify_by(self, identify: impl Identify) -> Self {
        let identify = Arc::new(identify);
        self.with(|config| config.identify = identify)
    }

    /// Gives clients of `tier` a rate of their own; others keep the usual one.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).rate_for("pro", Rate::per_second(500));
    /// ```
    #[must_use]
    pub fn rate_for(self, tier: impl Into<Tier>, rate: Rate) -> Self {
        let tier = tier.into();
        self.with(|config| {
            config.tiers.retain(|(name, _)| *name != tier);
            config.tiers.push((tier, rate));
        })
    }

    /// Limits all clients together too: a request takes from both buckets or from neither. None by default.
    ///
    /// Refused for the sake of all it gets 503, and no field tells how much the server can take.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(50)).and_global(Rate::per_second(5_000));
    /// ```
    #[must_use]
    pub fn and_global(self, rate: Rate) -> Self {
        self.with(|config| config.global = Some(rate))
    }

    /// What a request costs; one token by default.
    ///
    /// [`Cost::PREFLIGHT`] takes nothing, and is refused while no whole token is left. A cost that comes out of the
    /// request goes through [`Cost::try_new`]: [`Cost::new`] panics on what anybody may send.
    ///
    /// ```
    /// # use tollgate::{Cost, Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(50).burst(100))
    ///     .cost(|request| if request.uri.path() == "/search" { Cost::new(10) } else { Cost::ONE });
    /// ```
    #[must_use]
    pub fn cost(self, cost: impl Fn(&RequestHead<'_>) -> Cost + Send + Sync + 'static) -> Self {
        self.with(|config| config.cost = Some(Arc::new(cost)))
    }

    /// What to do with requests that name no client; they share one bucket by default.
    ///
    /// ```
    /// # use tollgate::{Rate, OnUnidentified, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).on_unidentified(OnUnidentified::Pass);
    /// ```
    #[must_use]
    pub fn on_unidentified(self, on_unidentified: OnUnidentified) -> Self {
        self.with(|config| config.on_unidentified = on_unidentified)
    }

    /// How responses tell of the limit; the fields of the current draft by default.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer, refusal::Dialect};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).rate_limit_headers(Dialect::None);
    /// ```
    #[must_use]
    pub fn rate_limit_headers(self, dialect: Dialect) -> Self {
        self.with(|config| config.dialect = dialect)
    }

    /// How many clients are told apart at once; 1,048,576 by default, which take 64 MB when all are there.
    ///
    /// A client is there while its bucket is not full. When all places are taken, newcomers share one bucket, whose
    /// refusals are 503; nobody who is there is forgotten for their sake.
    ///
    /// # Panics
    /// When `clients` is 0 or above 2^32 - 1.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).max_clients(10_000);
    /// ```
    #[must_use]
    pub fn max_clients(self, clients: usize) -> Self {
        if !(1..=u32::MAX as usize).contains(&clients) {
            panic!("{}", ConfigError::new("max_clients", "be from 1 to 2^32 - 1", clients));
        }
        self.with(|config| config.max_clients = clients)
    }

    /// The rate of the bucket that newcomers share while the table is full; the usual rate by default.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).overflow(Rate::per_second(100));
    /// ```
    #[must_use]
    pub fn overflow(self, rate: Rate) -> Self {
        self.with(|config| config.overflow = Some(rate))
    }

    /// The buckets of this layer, for callers without a request.
    ///
    /// Take it when all is set: a setter makes a layer with buckets of its own. What is said of requests, such as
    /// [`enabled`](Self::enabled), [`shadow`](Self::shadow) and [`exempt`](Self::exempt), does not hold here.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5));
    /// layer.handle().check(&Client::named("nightly job"), Cost::ONE).unwrap();
    /// ```
    #[must_use]
    pub fn handle(&self) -> TokenBuckets {
        TokenBuckets::new(Arc::clone(self.0.policy()))
    }

    fn with(self, change: impl FnOnce(&mut TokenBucketConfig)) -> Self {
        Self(self.0.with(|layer| change(&mut layer.config)))
    }
}
