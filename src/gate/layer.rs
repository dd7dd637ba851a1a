//! The layer, which is its own builder and owns the state.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{Request, Response};

use super::service::Gate;
use crate::{
    gate::{Admit, Event, Observer, observe::Observers},
    head::RequestHead,
    policy_name::PolicyName,
    refusal::{Refusal, Responder},
    time::Clock,
};

/// Settings from which a policy is built, once per layer.
///
/// An `Arc` of a policy is the simplest: it builds itself.
///
/// ```
/// use tollgate::{GateLayer, gate::Blueprint};
///
/// /// Writes one function for all kinds of layers.
/// fn only_in_production<B: Blueprint>(layer: GateLayer<B>) -> GateLayer<B> {
///     layer.enabled(std::env::var("STAGE").is_ok_and(|stage| stage == "production"))
/// }
/// ```
pub trait Blueprint: Clone {
    /// What is built.
    type Policy: Admit;

    /// Builds the policy on the terms that every layer has.
    fn build(&self, context: &PolicyContext) -> Arc<Self::Policy>;
}

impl<A: Admit> Blueprint for Arc<A> {
    type Policy = A;

    fn build(&self, _: &PolicyContext) -> Self {
        Self::clone(self)
    }
}

/// What every policy is built with: its name, its clock, and who listens.
///
/// ```
/// use tollgate::{Event, gate::PolicyContext};
///
/// fn tell(context: &PolicyContext) {
///     context.observers.emit(&Event::Admitted { policy: &context.name });
/// }
/// ```
#[derive(Clone, Debug)]
pub struct PolicyContext {
    /// The policy's name in refusals, fields and events.
    pub name: PolicyName,
    /// Where the time comes from.
    pub clock: Clock,
    /// Who hears of events.
    pub observers: Observers,
}

type Predicate = Arc<dyn Fn(&RequestHead<'_>) -> bool + Send + Sync>;

/// How the gate treats requests, whatever the policy.
#[derive(Clone)]
pub(super) struct GateOptions {
    pub(super) enabled: bool,
    shadow: bool,
    exempt: Option<Predicate>,
    responder: Responder,
}

/// A layer that lets a policy decide who may pass; [`TokenBucketLayer`](crate::TokenBucketLayer) and
/// [`CircuitBreakerLayer`](crate::CircuitBreakerLayer) are layers of this type.
///
/// The layer is its own builder. Its **state belongs to the layer**: everything that it wraps, and everything that its
/// clones wrap, shares one budget. A setter makes a layer with a state of its own, so settings come first.
///
/// ```
/// use tollgate::{Client, Cost, Rate, TokenBucketLayer};
///
/// let layer = TokenBucketLayer::new(Rate::per_hour(1));
/// let (clone, other) = (layer.clone(), layer.clone().named("other"));
/// let alice = Client::named("alice");
/// layer.handle().check(&alice, Cost::ONE).unwrap();
/// assert!(clone.handle().check(&alice, Cost::ONE).is_err());
/// other.handle().check(&alice, Cost::ONE).unwrap();
/// ```
pub struct GateLayer<B: Blueprint> {
    blueprint: B,
    context: PolicyContext,
    manner: GateOptions,
    built: Arc<OnceLock<Arc<GateShared<B::Policy>>>>,
}

/// A policy and how to apply it: what all services of a layer share.
pub(super) struct GateShared<A> {
    pub(super) policy: Arc<A>,
    pub(super) manner: GateOptions,
    context: PolicyContext,
}

impl<A: Admit> GateLayer<Arc<A>> {
    /// A layer of your own policy.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tollgate::{Admit, MaybeFuture, GateLayer, Refusal};
    /// struct Everyone;
    /// impl Admit for Everyone {
    ///     type Permit = ();
    ///     fn admit(self: &Arc<Self>, _: &tollgate::RequestHead<'_>) -> MaybeFuture<Result<(), Refusal>> {
    ///         MaybeFuture::Ready(Ok(()))
    ///     }
    /// }
    /// let layer = GateLayer::of(Everyone).named("everyone");
    /// ```
    #[must_use]
    pub fn of(policy: A) -> Self {
        Self::shared(Arc::new(policy))
    }

    /// A layer of a policy that others hold too, to look at it or to turn its switches.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tollgate::{Admit, MaybeFuture, GateLayer, Refusal};
    /// # struct Everyone;
    /// # impl Admit for Everyone {
    /// #     type Permit = ();
    /// #     fn admit(self: &Arc<Self>, _: &tollgate::RequestHead<'_>) -> MaybeFuture<Result<(), Refusal>> {
    /// #         MaybeFuture::Ready(Ok(()))
    /// #     }
    /// # }
    /// let policy = Arc::new(Everyone);
    /// let layer = GateLayer::shared(Arc::clone(&policy));
    /// ```
    #[must_use]
    pub fn shared(policy: Arc<A>) -> Self {
        Self::from_blueprint(policy, "default")
    }
}

impl<B: Blueprint> GateLayer<B> {
    /// A layer of the policy that `blueprint` builds, under the name `name`.
    pub(crate) fn from_blueprint(blueprint: B, name: &str) -> Self {
        Self {
            blueprint,
            context: PolicyContext {
                name: PolicyName::try_new(name).expect("a valid name"),
                clock: Clock::system(),
                observers: Observers::default(),
            },
            manner: GateOptions { enabled: true, shadow: false, exempt: None, responder: Responder::default() },
            built: Arc::default(),
        }
    }

    /// Names the policy in refusals, fields and events.
    ///
    /// # Panics
    /// When `name` is no [`PolicyName`].
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).named("search");
    /// ```
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let name = PolicyName::try_new(name).unwrap_or_else(|invalid| panic!("{invalid}"));
        self.with_context(|context| context.name = name)
    }

    /// Takes the time from `clock`; [`Clock::system`] by default.
    ///
    /// ```
    /// # use tollgate::{FakeClock, Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).clock(FakeClock::new());
    /// ```
    #[must_use]
    pub fn clock(self, clock: impl Into<Clock>) -> Self {
        let clock = clock.into();
        self.with_context(|context| context.clock = clock)
    }

    /// Tells `observer` of every [`Event`]; nobody by default. Called twice, both are told.
    ///
    /// ```
    /// # use tollgate::{Event, Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).observe(|event: &Event<'_>| println!("{event:?}"));
    /// ```
    #[must_use]
    pub fn observe(self, observer: impl Observer) -> Self {
        self.with_context(|context| context.observers = std::mem::take(&mut context.observers).and(observer))
    }

    /// Switches the layer on or off without a change of types; on by default.
    ///
    /// Switched off, it decides and counts nothing. Handlers keep the extensions that the layer
    /// [shares](crate::QuotaLayer::share_with_handler) with them.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).enabled(std::env::var("NO_LIMIT").is_err());
    /// ```
    #[must_use]
    pub fn enabled(self, enabled: bool) -> Self {
        self.with_manner(|manner| manner.enabled = enabled)
    }

    /// Makes the layer decide, count and emit events, but pass every request.
    ///
    /// A request that would have been refused is neither charged nor counted. Handlers keep the extensions that the layer
    /// [shares](crate::QuotaLayer::share_with_handler) with them.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).shadow();
    /// ```
    #[must_use]
    pub fn shadow(self) -> Self {
        self.with_manner(|manner| manner.shadow = true)
    }

    /// Passes requests for which `exempt` returns true, undecided and uncounted; none by default. A later call replaces the
    /// predicate.
    ///
    /// Handlers keep the extensions that the layer [shares](crate::QuotaLayer::share_with_handler) with them.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).exempt(|request| request.uri.path() == "/health");
    /// ```
    #[must_use]
    pub fn exempt(self, exempt: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.with_manner(|manner| manner.exempt = Some(Arc::new(exempt)))
    }

    /// Answers refusals with `answer` instead of a problem document.
    ///
    /// `Retry-After` is added unless the answer has one, and `Cache-Control: no-store` unless the answer's own forbids
    /// storing; any other `Cache-Control` is replaced, because a cache would serve the refusal to other clients.
    /// `CDN-Cache-Control` and `Surrogate-Control` are removed, because shared caches obey them instead. Rate limit fields
    /// join those that the answer has. gRPC requests keep their Trailers-Only answer, because no gRPC client understands
    /// another.
    ///
    /// ```
    /// # use tollgate::{Rate, Refusal, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(5)).refuse_with(|refusal: &Refusal| {
    ///     http::Response::builder().status(429).body(format!("slow down: {refusal}")).unwrap()
    /// });
    /// ```
    #[must_use]
    pub fn refuse_with<T: Into<Bytes>>(self, answer: impl Fn(&Refusal) -> Response<T> + Send + Sync + 'static) -> Self {
        self.with_manner(|manner| manner.responder = Responder::custom(move |refusal| answer(refusal).map(Into::into)))
    }

    fn with_context(mut self, change: impl FnOnce(&mut PolicyContext)) -> Self {
        change(&mut self.context);
        self.fresh()
    }

    fn with_manner(mut self, change: impl FnOnce(&mut GateOptions)) -> Self {
        change(&mut self.manner);
        self.fresh()
    }

    /// Changes what the policy is built from.
    pub(crate) fn with_blueprint(mut self, change: impl FnOnce(&mut B)) -> Self {
        change(&mut self.blueprint);
        self.fresh()
    }

    fn fresh(self) -> Self {
        Self { built: Arc::default(), ..self }
    }

    /// The policy, built at first use and shared from then on.
    pub(crate) fn policy(&self) -> &Arc<B::Policy> {
        &self.keeper().policy
    }

    fn keeper(&self) -> &Arc<GateShared<B::Policy>> {
        self.built.get_or_init(|| {
            let policy = self.blueprint.build(&self.context);
            Arc::new(GateShared { policy, manner: self.manner.clone(), context: self.context.clone() })
        })
    }
}

impl<A: Admit> GateShared<A> {
    /// Whether everyone would be refused now. A layer that only watches refuses nobody.
    pub(super) fn shut(&self) -> bool {
        self.manner.enabled && !self.manner.shadow && self.policy.shut()
    }

    /// Whether nobody is to be asked about this request.
    pub(super) fn waves_through<B>(&self, request: &Request<B>) -> bool {
        let exempts = |exempt: &Predicate| exempt(&RequestHead::of(request));
        !self.manner.enabled || self.manner.exempt.as_ref().is_some_and(exempts)
    }

    /// Tells of a decision, and lets a refusal pass where the layer only watches.
    #[inline(always)] // the permit would be copied once more
    pub(super) fn apply(&self, decision: Result<A::Permit, Refusal>) -> Result<Option<A::Permit>, Refusal> {
        let policy = &self.context.name;
        match decision {
            Ok(permit) => {
                self.context.observers.emit(&Event::Admitted { policy });
                Ok(Some(permit))
            }
            Err(refusal) => {
                let shadow = self.manner.shadow;
                self.context.observers.emit(&Event::Refused { refusal: &refusal, shadow });
                if shadow { Ok(None) } else { Err(refusal) }
            }
        }
    }

    /// Returns the response of a refused request.
    pub(super) fn answer(&self, refusal: Refusal, request: &RequestHead<'_>) -> Response<Bytes> {
        self.manner.responder.answer(refusal, request, || self.context.clock.wall())
    }
}

impl<S, B: Blueprint> tower_layer::Layer<S> for GateLayer<B> {
    type Service = Gate<S, B::Policy>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate::new(inner, Arc::clone(self.keeper()))
    }
}

impl<B: Blueprint> Clone for GateLayer<B> {
    fn clone(&self) -> Self {
        Self {
            blueprint: self.blueprint.clone(),
            context: self.context.clone(),
            manner: self.manner.clone(),
            built: Arc::clone(&self.built),
        }
    }
}

impl<B: Blueprint> fmt::Debug for GateLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateLayer")
            .field("name", &self.context.name)
            .field("enabled", &self.manner.enabled)
            .field("shadow", &self.manner.shadow)
            .finish_non_exhaustive()
    }
}
