//! Layer of quotas, and its setters.

use std::sync::Arc;

use super::{
    handle::Quotas,
    jobs::{Duplicates, JobIdSource},
    policy::QuotaPolicy,
    settings::{OnFailure, QuotaConfig, ServedRequest},
};
use crate::{
    error::ConfigError,
    gate::{ConfiguredLayer, Gate, client_setters, gate_layer},
    head::RequestHead,
    identity::{Client, Tier},
    kind::Kind,
    quota::{Plan, store::QuotaStore},
};

/// Limits the usage of each client by hour, day or month, and its requests in flight.
///
/// One plan for each peer address:
///
/// ```
/// use tollgate::{Period, Plan, Quota, QuotaLayer};
/// use tower::ServiceBuilder;
///
/// let plan = Plan::new("free").limit(Quota::requests(3_600).per(Period::hour())).limit(Quota::concurrent(5));
/// let stack = ServiceBuilder::new().layer(QuotaLayer::new(plan));
/// ```
///
/// One account for each API key, with a plan by tier and units that the handler records, in an axum router:
///
/// ```
/// use std::collections::HashMap;
/// use axum::{Extension, Router, routing::post};
/// use tollgate::{ApiKey, Charge, Period, Plan, Principal, Quota, QuotaLayer};
///
/// async fn complete(Extension(charge): Extension<Charge>) -> &'static str {
///     charge.record("tokens", 317);
///     "done"
/// }
///
/// let keys = HashMap::from([(String::from("s3cret"), Principal::named("acme").in_tier("pro"))]);
/// let tokens = |plan: &str, count| Plan::new(plan).limit(Quota::units("tokens", count).per(Period::month()));
/// let quota = QuotaLayer::new(tokens("free", 10_000))
///     .identify_by(ApiKey::header("x-api-key", keys))
///     .tier_plan("pro", tokens("pro", 1_000_000))
///     .share_with_handler();
/// let app: Router = Router::new().route("/complete", post(complete)).layer(quota);
/// ```
///
/// The layer is its own builder. Its accounts belong to the layer: all services that it and its clones wrap, and its
/// [handle](Self::handle), share them. Settings come first: a setter of a layer in use panics, and
/// [`fork`](Self::fork) creates a separate layer.
pub struct QuotaLayer(ConfiguredLayer<QuotaConfig>);

/// A service behind a [`QuotaLayer`], by a name that a field can have.
///
/// ```
/// use http::{Request, Response};
/// use tollgate::{Period, Plan, Quota, QuotaLayer, QuotaService};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// /// A server over any handler.
/// struct Server<S> {
///     service: QuotaService<S>,
/// }
///
/// impl<S> Server<S> {
///     fn new(handler: S) -> Self {
///         let plan = Plan::new("free").limit(Quota::requests(3_600).per(Period::hour()));
///         Self { service: QuotaLayer::new(plan).layer(handler) }
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let server = Server::new(service_fn(async |_: Request<String>| Ok::<_, ()>(Response::new(String::from("hello")))));
/// let peer: std::net::SocketAddr = "192.0.2.7:4711".parse().unwrap();
/// let response = server.service.oneshot(Request::get("/").extension(peer).body(String::new()).unwrap()).await.unwrap();
/// assert!(response.headers()["ratelimit"].to_str().unwrap().contains(";r=3599;"));
/// # });
/// ```
pub type QuotaService<S> = Gate<S, QuotaPolicy>;

gate_layer!(QuotaLayer, QuotaPolicy, "(layer: tollgate::QuotaLayer) -> tollgate::QuotaLayer");

client_setters!(
    QuotaLayer,
    ///
    /// A plan with a limit of a day or longer does not build with an identity that clients can forge, such as
    /// [`Unverified`](crate::Unverified) or a closure, unless [`accept_unverified`](Self::accept_unverified) is called.
    ///
    /// ```
    /// use tollgate::{Principal, Plan, QuotaLayer, Verified};
    /// struct Tenant(String);
    /// let tenant = Verified::from_extension(|tenant: &Tenant| Some(Principal::named(tenant.0.as_str())));
    /// let layer = QuotaLayer::new(Plan::standard()).identify_by(tenant);
    /// ```
    identify_by,
    /// Sets the number of clients that have an account at once; default 1,048,576.
    ///
    /// A client has an account while it has used or reserved amounts, grants, remembered jobs or requests in flight. If
    /// all accounts are taken, new clients share [one account](Self::overflow), whose refusals are 503; no client loses
    /// its account to a new one. One network has [a part](Self::max_clients_per_network) of the accounts. A ledger has
    /// room for all clients. There this is the number of clients whose requests in flight can be limited.
    max_clients
);

impl QuotaLayer {
    /// Creates a layer with `plan` for each client. Clients are identified by their peer address; see
    /// [`identify_by`](Self::identify_by).
    ///
    /// ```
    /// use tollgate::{Period, Plan, Quota, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::new("free").limit(Quota::requests(3_600).per(Period::hour())));
    /// ```
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self(ConfiguredLayer::new(QuotaConfig::new(plan), "quota"))
    }

    /// Accepts unverified identities also for limits of a day or longer.
    ///
    /// A client that sends the identity of another uses up the quota of the other. Call this if a component in front of
    /// this layer has verified the identity.
    ///
    /// ```
    /// use tollgate::{Plan, QuotaLayer, Unverified};
    /// let layer = QuotaLayer::new(Plan::standard()).identify_by(Unverified::header("x-user")).accept_unverified();
    /// ```
    #[must_use]
    #[track_caller]
    pub fn accept_unverified(self) -> Self {
        self.with(|config| config.accept_unverified = true)
    }

    /// Sets the plan of clients of `tier`; all other clients have the plan of [`new`](Self::new).
    ///
    /// ```
    /// use tollgate::{Period, Plan, Quota, QuotaLayer};
    /// let pro = Plan::new("pro").limit(Quota::requests(100_000).per(Period::hour()));
    /// let layer = QuotaLayer::new(Plan::standard()).tier_plan("pro", pro);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn tier_plan(self, tier: impl Into<Tier>, plan: Plan) -> Self {
        let tier = tier.into();
        self.with(|config| config.plans.set(Some(tier), plan))
    }

    /// Sets the plan of one client, which replaces that of its tier.
    ///
    /// ```
    /// use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
    /// let big = Plan::new("acme").limit(Quota::requests(1_000_000).per(Period::hour()));
    /// let layer = QuotaLayer::new(Plan::standard()).client_plan(Client::named("acme"), big);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn client_plan(self, client: Client, plan: Plan) -> Self {
        self.with(|config| {
            config.client_plans.retain(|(known, _)| *known != client);
            config.client_plans.push((client, plan));
        })
    }

    /// Sets the amount of `unit` that each request is charged at admission; `of` computes it from the request's head.
    ///
    /// `Some(0)` charges nothing, and the request is refused if nothing of the unit remains. `None` leaves the unit
    /// out, for routes that do not use it. Without this setting each request asks for 0 of a unit of your own, and the
    /// handler records the used amount.
    ///
    /// # Panics
    /// If `unit` is the name of a built-in kind, or is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// use tollgate::{Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).cost("queries", |request| (request.uri.path() == "/query").then_some(1));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn cost(self, unit: &str, of: impl Fn(&RequestHead<'_>) -> Option<u64> + Send + Sync + 'static) -> Self {
        let kind = Kind::units(unit);
        if !matches!(kind, Kind::Units(_)) {
            panic!("{}", ConfigError::new("cost", "be of a unit of your own", kind));
        }
        self.with(|config| {
            config.meters.retain(|(known, _)| *known != kind);
            config.meters.push((kind, Arc::new(of)));
        })
    }

    /// Inserts a [`Charge`](crate::Charge) and a [`QuotaStatus`](crate::QuotaStatus) into the extensions of each request
    /// that reaches the handler, which records the amounts that the request used.
    ///
    /// Both are always present, so that the handler needs no `Option`. This holds if the layer is [switched
    /// off](Self::enabled), the request is [exempt](Self::exempt) or refused under [`shadow`](Self::shadow), the client
    /// is unidentified and passes, or the store is unavailable. Where nothing is charged they are
    /// [idle](crate::Charge#idle-charges). Behind several such layers, the one `Charge` records for [all of
    /// them](crate::Charge#several-layers), and the one `QuotaStatus` lists the limits of all.
    ///
    /// The estimate of a request is reserved at admission; the recorded amount is charged when the response ends.
    ///
    /// ```
    /// use axum::{Extension, Router, routing::post};
    /// use tollgate::{Charge, Period, Plan, Quota, QuotaLayer, QuotaStatus};
    ///
    /// /// Runs in tests and on the developer's machine too, where the layer is switched off.
    /// async fn complete(Extension(charge): Extension<Charge>, Extension(status): Extension<QuotaStatus>) -> String {
    ///     charge.record("tokens", 317);
    ///     let left = status.usage.get("tokens_per_month").map(|limit| limit.remaining);
    ///     left.map_or_else(|| "unlimited".into(), |left| format!("{left} tokens left"))
    /// }
    ///
    /// let plan = Plan::new("free").limit(Quota::units("tokens", 1_000_000).per(Period::month()));
    /// let quota = QuotaLayer::new(plan).accept_unverified().share_with_handler().enabled(false);
    /// let app: Router = Router::new().route("/complete", post(complete)).layer(quota);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn share_with_handler(self) -> Self {
        self.with(|config| config.share = true)
    }

    /// Charges a request that reached the service only if `charge_when` returns true; default: always.
    ///
    /// The closure runs when the response has ended. Until then the request is counted; if it is not charged,
    /// everything is refunded. A request for which the handler [recorded](crate::Charge::record) an amount is charged
    /// without a call of it, and so is one for which it panics. An amount that is recorded later, under
    /// [`keep_slot`](crate::Charge::keep_slot), is charged with its request whatever the closure returned. The closure may
    /// run in a drop and must not block.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tollgate::{Period, Plan, Quota, QuotaLayer};
    ///
    /// let failed_logins = Plan::new("logins").limit(Quota::requests(5).per(Period::hour()));
    /// let layer = QuotaLayer::new(failed_logins)
    ///     .charge_when(|served| served.status.is_none_or(|status| status == StatusCode::UNAUTHORIZED));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn charge_when(self, charge_when: impl Fn(&ServedRequest) -> bool + Send + Sync + 'static) -> Self {
        self.with(|config| config.charge_when = Some(Arc::new(charge_when)))
    }

    /// Charges each job once, by the id that its request carries; by default every request is a job of its own.
    ///
    /// A response with a status from 500 frees the id and returns the charge; see the [outcomes](JobIdSource#outcomes).
    ///
    /// ```
    /// use tollgate::{JobIdSource, Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).job_ids(JobIdSource::header("idempotency-key").or_header("x-job-id"));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn job_ids(self, ids: JobIdSource) -> Self {
        self.with(|config| config.job_id = Some(ids))
    }

    /// Frees the id and returns the charge of a job whose [outcome](JobIdSource#outcomes) is unknown; by default both stay.
    ///
    /// **A client that hangs up early pays nothing then.** Only for work that may run twice.
    #[must_use]
    #[track_caller]
    pub fn free_unfinished(self) -> Self {
        self.with(|config| config.free_unfinished = true)
    }

    /// Sets the decision on duplicates of a job; the default refuses them.
    #[must_use]
    #[track_caller]
    pub fn duplicates(self, duplicates: Duplicates) -> Self {
        self.with(|config| config.duplicates = duplicates)
    }

    /// Stores the accounts in `store`; default: in memory. `on_failure` decides on requests while the store is
    /// unavailable.
    ///
    /// All layers and processes that use a ledger share its counters, by the names of the limits. Concurrency slots
    /// belong to one process: three processes with [`Quota::concurrent(5)`](crate::Quota::concurrent) serve up to 15
    /// requests at a time. A ledger bills by public name, so a layer whose identity may have none does not build. The
    /// clock of the database determines the period.
    ///
    /// A complete example, from a request to an invoice: `cargo run --example billing --features sqlite`.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// use tollgate::{Ledger, OnFailure, Plan, QuotaLayer};
    /// let ledger = Ledger::sqlite("quota.db").open().await?;
    /// let layer = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailClosed);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[track_caller]
    pub fn store_in(self, store: impl Into<QuotaStore>, on_failure: OnFailure) -> Self {
        let store = store.into();
        self.with(|config| (config.store, config.on_failure) = (store, on_failure))
    }

    /// Returns the handle of this layer's accounts, for callers without a request.
    ///
    /// Call it after all setters: those of a layer in use panic.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tollgate::{Client, Plan, QuotaLayer};
    /// let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.record(&Client::named("nightly job"), ("queries", 20)).await.unwrap();
    /// # });
    /// ```
    #[must_use]
    #[track_caller]
    pub fn handle(&self) -> Quotas {
        Quotas(Arc::clone(self.0.policy()))
    }

    #[track_caller]
    pub(super) fn with(self, change: impl FnOnce(&mut QuotaConfig)) -> Self {
        Self(self.0.with(|layer| change(&mut layer.config)))
    }
}
