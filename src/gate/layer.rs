//! The layer of a policy of one's own, and the inside of every layer.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use http::{Request, Response};

use super::{
    admit::Admit,
    clients::ClientConfig,
    member::AskPolicy,
    observe::{Event, Observers},
    service::Gate,
    setters::gate_layer,
};
use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Client, Identify},
    policy_name::PolicyName,
    refusal::{OwnText, Reason, Refusal, Responder},
    time::Clock,
};

/// Settings from which a layer builds its policy, once.
///
/// An `Arc` of a policy builds itself.
pub(crate) trait PolicyConfig: Clone {
    type Policy: Admit;

    fn build(&self, context: &PolicyContext) -> Result<Arc<Self::Policy>, ConfigError>;

    /// Returns the settings of clients; `None` if the policy has none.
    fn clients(&mut self) -> Option<&mut ClientConfig> {
        None
    }
}

impl<A: Admit> PolicyConfig for Arc<A> {
    type Policy = A;

    fn build(&self, _: &PolicyContext) -> Result<Self, ConfigError> {
        Ok(Self::clone(self))
    }
}

/// Name, clock, observers and direction, which every policy is built with.
#[derive(Clone)]
pub(crate) struct PolicyContext {
    /// Name of the policy in refusals, fields and events.
    pub(crate) name: PolicyName,
    pub(crate) clock: Clock,
    pub(crate) observers: Observers,
    /// Whether the requests are the server's own, to services that it calls.
    pub(crate) outbound: bool,
}

impl PolicyContext {
    /// Creates a refusal by the policy, marked if the layer is outbound: a handle has no gate that would mark it.
    pub(crate) fn refusal(&self, reason: Reason) -> Refusal {
        let mut refusal = Refusal::new(reason, self.name.clone());
        refusal.set_outbound(self.outbound);
        refusal
    }
}

type Predicate = Arc<dyn Fn(&RequestHead<'_>) -> bool + Send + Sync>;

/// Treatment of requests by the gate, whatever the policy.
#[derive(Clone)]
pub(crate) struct GateOptions {
    pub(crate) enabled: bool,
    pub(crate) shadow: bool,
    pub(crate) exempt: Option<Predicate>,
    pub(crate) responder: Responder,
}

/// A layer that lets a policy of your own decide which requests pass.
///
/// ```
/// use std::sync::Arc;
/// use axum::{Router, routing::get};
/// use tollgate::{Admit, Client, GateLayer, MaybeFuture, PolicyName, Reason, Refusal, RequestHead};
///
/// /// Refuses uploads of unknown length.
/// struct LengthRequired(PolicyName);
///
/// impl Admit for LengthRequired {
///     type Permit = ();
///     fn admit(
///         self: &Arc<Self>,
///         request: &RequestHead<'_>,
///         _: Option<&Client>,
///     ) -> MaybeFuture<Result<(), Refusal>> {
///         MaybeFuture::Ready(match request.headers.get("content-length") {
///             Some(_) => Ok(()),
///             None => Err(Refusal::new(Reason::TooLarge, self.0.clone())),
///         })
///     }
/// }
///
/// let policy = LengthRequired(PolicyName::try_new("length").unwrap());
/// let layer = GateLayer::new(policy).named("length").exempt(|request| request.method == "GET");
/// let app: Router = Router::new().route("/upload", get(async || "hello")).layer(layer);
/// ```
///
/// The layer is its own builder. All services that the layer and its clones wrap share the policy.
pub struct GateLayer<A: Admit>(ConfiguredLayer<Arc<A>>);

impl<A: Admit> GateLayer<A> {
    /// Creates a layer of your own policy, under the name `default`.
    #[must_use]
    pub fn new(policy: A) -> Self {
        Self::from_arc(Arc::new(policy))
    }

    /// Creates a layer of a policy that the caller keeps too, to read its state or change its settings.
    ///
    /// ```
    /// # use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
    /// # use tollgate::{Admit, Client, MaybeFuture, GateLayer, PolicyName, Reason, Refusal, RequestHead};
    /// struct Maintenance(AtomicBool);
    ///
    /// impl Admit for Maintenance {
    ///     type Permit = ();
    ///     fn admit(
    ///         self: &Arc<Self>,
    ///         _: &RequestHead<'_>,
    ///         _: Option<&Client>,
    ///     ) -> MaybeFuture<Result<(), Refusal>> {
    ///         let name = PolicyName::try_new("maintenance").unwrap();
    ///         let refused = self.0.load(Ordering::Relaxed).then(|| Refusal::new(Reason::Capacity, name));
    ///         MaybeFuture::Ready(refused.map_or(Ok(()), Err))
    ///     }
    /// }
    ///
    /// let maintenance = Arc::new(Maintenance(AtomicBool::new(false)));
    /// let layer = GateLayer::from_arc(Arc::clone(&maintenance));
    /// maintenance.0.store(true, Ordering::Relaxed); // later, while the server runs
    /// ```
    #[must_use]
    pub fn from_arc(policy: Arc<A>) -> Self {
        Self(ConfiguredLayer::new(policy, "default"))
    }
}

gate_layer!(GateLayer<A>, A, "<A: tollgate::Admit>(layer: tollgate::GateLayer<A>) -> tollgate::GateLayer<A>");

impl<A: Admit> AskPolicy for GateLayer<A> {}

/// The inside of every layer: the settings of its policy, those of the gate, and the policy once it is built.
#[derive(Clone)]
pub(crate) struct ConfiguredLayer<C: PolicyConfig> {
    pub(crate) config: C,
    pub(crate) context: PolicyContext,
    pub(crate) options: GateOptions,
    built: Arc<Built<C>>,
}

/// The policy that a layer and its clones share, once it is built.
struct Built<C: PolicyConfig> {
    /// Identity of clients that gates had set for the layer of which this one is a fork.
    inherited: Option<Arc<dyn Identify>>,
    /// Identity of clients that gates have set for their members. Held while the policy is built.
    shared_identity: Mutex<Option<Arc<dyn Identify>>>,
    gate: OnceLock<Arc<GateShared<C::Policy>>>,
}

/// A policy and the settings of its gate, which all services of a layer share.
pub struct GateShared<A> {
    pub(crate) policy: Arc<A>,
    pub(crate) options: GateOptions,
    context: PolicyContext,
}

impl<C: PolicyConfig> ConfiguredLayer<C> {
    /// Creates a layer of the policy that `config` builds, under the name `name`.
    pub(crate) fn new(config: C, name: &str) -> Self {
        Self {
            config,
            context: PolicyContext {
                name: PolicyName::try_new(name).expect("a valid name"),
                clock: Clock::system(),
                observers: Observers::default(),
                outbound: false,
            },
            options: GateOptions { enabled: true, shadow: false, exempt: None, responder: Responder::default() },
            built: Built::new(None),
        }
    }

    /// Changes settings of a layer that is not in use.
    ///
    /// # Panics
    /// If the layer is in use: it or a clone was built, has a handle, or has wrapped a service. Those would not have the
    /// setting.
    #[track_caller]
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        let name = &self.context.name;
        assert!(
            self.built.gate.get().is_none(),
            "layer {name:?} is in use, it was built or has a handle or a service; call setters before, or .fork() for a \
             separate layer"
        );
        change(&mut self);
        self.fork()
    }

    /// Returns a layer with the same settings that builds a policy of its own.
    pub(crate) fn fork(self) -> Self {
        let identity = self.built.identity().clone().or_else(|| self.built.inherited.clone());
        Self { built: Built::new(identity), ..self }
    }

    /// Sets the identity of clients for this layer and its clones, unless the layer has one of its own. Returns whether it
    /// was set.
    ///
    /// # Panics
    /// If the policy is built, or other gates have set an identity.
    #[track_caller]
    pub(crate) fn share_identity(&self, identity: &Arc<dyn Identify>) -> bool {
        let mut config = self.config.clone();
        if config.clients().is_none_or(|clients| clients.has_own_identity()) {
            return false;
        }
        let name = &self.context.name;
        let mut present = self.built.identity();
        assert!(
            self.built.gate.get().is_none(),
            "layer {name:?} is in use, it was built or has a handle or a service; call identify_by of its gates before, or \
             .fork() for a separate layer"
        );
        let own = present.get_or_insert_with(|| Arc::clone(identity)); // a layer may be a member twice
        assert!(
            Arc::ptr_eq(own, identity),
            "layer {name:?} has the identity of other gates; call .fork() for a separate layer"
        );
        true
    }

    /// Returns the policy, built at first use and shared from then on.
    #[track_caller]
    pub(crate) fn policy(&self) -> &Arc<C::Policy> {
        &self.shared().policy
    }

    /// Builds the policy, unless the layer or a clone has built it.
    pub(crate) fn try_build(self) -> Result<Self, ConfigError> {
        self.built()?;
        Ok(self)
    }

    /// Returns the policy and the settings of its gate, built at first use.
    ///
    /// A failure is not kept: an identity may be missing that gates set later.
    pub(crate) fn built(&self) -> Result<&Arc<GateShared<C::Policy>>, ConfigError> {
        if let Some(gate) = self.built.gate.get() {
            return Ok(gate);
        }
        let shared = self.built.identity(); // one thread builds
        if let Some(gate) = self.built.gate.get() {
            return Ok(gate);
        }
        let policy = match shared.as_ref().or(self.built.inherited.as_ref()) {
            None => self.config.build(&self.context)?,
            Some(identity) => {
                let mut config = self.config.clone();
                config.clients().into_iter().for_each(|clients| clients.share_identity(identity));
                config.build(&self.context)?
            }
        };
        let gate = GateShared { policy, options: self.options.clone(), context: self.context.clone() };
        Ok(self.built.gate.get_or_init(|| Arc::new(gate)))
    }

    #[track_caller]
    fn shared(&self) -> &Arc<GateShared<C::Policy>> {
        match self.built() {
            Ok(shared) => shared,
            Err(invalid) => panic!("{invalid}"),
        }
    }

    #[track_caller]
    pub(crate) fn layer<S>(&self, inner: S) -> Gate<S, C::Policy> {
        Gate::new(inner, Arc::clone(self.shared()))
    }
}

impl<C: PolicyConfig> Built<C> {
    /// Creates the state of a layer that is not in use.
    fn new(inherited: Option<Arc<dyn Identify>>) -> Arc<Self> {
        Arc::new(Self { inherited, shared_identity: Mutex::default(), gate: OnceLock::new() })
    }

    fn identity(&self) -> MutexGuard<'_, Option<Arc<dyn Identify>>> {
        self.shared_identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> fmt::Debug for GateShared<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateShared").field("name", &self.context.name).finish_non_exhaustive()
    }
}

impl<A: Admit> GateShared<A> {
    /// Returns whether every request would be refused now; never under shadow.
    pub(crate) fn shut(&self) -> bool {
        self.options.enabled && !self.options.shadow && self.policy.shut()
    }

    /// Returns whether the gate is around a client of the server.
    #[inline]
    pub(crate) fn outbound(&self) -> bool {
        self.context.outbound
    }

    /// Returns whether a request passes without a decision.
    pub(crate) fn bypasses<B>(&self, request: &Request<B>) -> bool {
        let exempts = |exempt: &Predicate| exempt(&RequestHead::of(request));
        !self.options.enabled || self.options.exempt.as_ref().is_some_and(exempts)
    }

    /// Emits the event of a decision. Under shadow, a refused request passes without a permit.
    #[inline(always)] // the permit would be copied once more
    pub(crate) fn apply(
        &self,
        decision: Result<A::Permit, Refusal>,
        client: Option<&Client>,
    ) -> Result<Option<A::Permit>, Refusal> {
        match decision {
            Ok(permit) => {
                self.admitted(client);
                Ok(Some(permit))
            }
            Err(refusal) => self.refused(refusal, client).map(|()| None),
        }
    }

    /// Emits the event of an admission.
    #[inline(always)]
    pub(crate) fn admitted(&self, client: Option<&Client>) {
        self.context.observers.emit(&Event::Admitted { policy: &self.context.name, client });
    }

    /// Emits the event of a refusal, and returns the refusal, unless the request passes under shadow.
    #[inline(always)]
    pub(crate) fn refused(&self, mut refusal: Refusal, client: Option<&Client>) -> Result<(), Refusal> {
        refusal.set_outbound(self.context.outbound);
        let shadow = self.options.shadow;
        self.context.observers.emit(&Event::Refused { refusal: &refusal, client, shadow });
        if shadow { Ok(()) } else { Err(refusal) }
    }

    /// Returns the response of a refused request.
    pub(crate) fn answer(&self, refusal: Refusal, request: &RequestHead<'_>) -> Response<OwnText> {
        self.options.responder.answer(refusal, request, || self.context.clock.wall())
    }
}
