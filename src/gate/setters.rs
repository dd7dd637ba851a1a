//! Setters and traits that every layer has, and setters of every layer that distinguishes clients.

/// Implements the common setters, `Layer`, `Clone` and `Debug` for a newtype of a
/// [`ConfiguredLayer`](crate::gate::ConfiguredLayer).
///
/// `$signature` is that of a function from layer to layer, for the doc examples.
macro_rules! gate_layer {
    ($Layer:ident $(<$A:ident>)?, $Policy:ty, $signature:literal) => {
        impl$(<$A: $crate::gate::Admit>)? $Layer$(<$A>)? {
            /// Returns a layer with the same settings and a state of its own.
            ///
            /// Setters of a layer that is in use panic: the services and handles that it has would not have the setting.
            /// A fork is in use only once it has a service or a handle itself.
            /// [`GateLayer`](crate::GateLayer)s share the policy with their forks, but no settings.
            ///
            /// ```
            #[doc = concat!("# fn example", $signature, " {")]
            /// let trial = layer.fork().shadow().named("trial");
            /// # layer
            /// # }
            /// ```
            #[must_use]
            pub fn fork(&self) -> Self {
                Self(self.0.clone().fork())
            }

            /// Builds the policy, so that settings which do not suit each other are an error.
            ///
            /// A layer builds its policy at its first use, with its first service or handle. There such settings panic,
            /// for example within a router. With `try_build` no later use panics. A built layer is [in use](Self::fork).
            ///
            /// # Errors
            /// If settings do not suit each other, such as a plan and the identity of its clients, or a store cannot be
            /// used by the layer. A setter may then be called, and the layer be built again.
            ///
            /// ```
            #[doc = concat!("# fn example", $signature, " {")]
            /// let layer = layer.try_build().unwrap_or_else(|invalid| {
            ///     eprintln!("limits: {invalid}");
            ///     std::process::exit(2)
            /// });
            /// # layer
            /// # }
            /// ```
            pub fn try_build(self) -> Result<Self, $crate::error::ConfigError> {
                self.0.try_build().map(Self)
            }

            /// Sets the name of the policy in refusals, fields and events. In a stack each layer needs a name of its own:
            /// otherwise clients read [numbered ones](crate::Dialect::Draft11), and metrics add up.
            ///
            /// # Panics
            /// If `name` is not a valid [`PolicyName`](crate::PolicyName), or the layer is [in use](Self::fork).
            #[must_use]
            #[track_caller]
            pub fn named(self, name: &str) -> Self {
                match $crate::policy_name::PolicyName::try_new(name) {
                    Ok(name) => Self(self.0.with(|layer| layer.context.name = name)),
                    Err(invalid) => panic!("{invalid}"),
                }
            }

            /// Sets the source of time; default [`Clock::system`](crate::Clock::system).
            #[must_use]
            #[track_caller]
            pub fn clock(self, clock: impl Into<$crate::time::Clock>) -> Self {
                let clock = clock.into();
                Self(self.0.with(|layer| layer.context.clock = clock))
            }

            /// Adds an observer, which receives every [`Event`](crate::Event); none by default.
            ///
            /// ```
            /// # use tollgate::Event;
            #[doc = concat!("# fn example", $signature, " {")]
            /// layer.observe(|event: &Event<'_>| println!("{event:?}"))
            /// # }
            /// ```
            #[must_use]
            #[track_caller]
            pub fn observe(self, observer: impl $crate::gate::Observer) -> Self {
                Self(self.0.with(|layer| {
                    let observers = std::mem::take(&mut layer.context.observers);
                    layer.context.observers = observers.and(observer);
                }))
            }

            /// Switches the layer on or off without a change of types; on by default.
            ///
            /// Switched off, it decides and counts nothing. Handlers keep the extensions that the layer
            /// [shares](crate::QuotaLayer::share_with_handler) with them.
            ///
            /// ```
            #[doc = concat!("# fn example", $signature, " {")]
            /// layer.enabled(std::env::var("NO_LIMIT").is_err())
            /// # }
            /// ```
            #[must_use]
            #[track_caller]
            pub fn enabled(self, enabled: bool) -> Self {
                Self(self.0.with(|layer| layer.options.enabled = enabled))
            }

            /// Makes the layer decide, count and emit events, but pass every request.
            ///
            /// A request that would have been refused is neither charged nor counted. Handlers keep the extensions that
            /// the layer [shares](crate::QuotaLayer::share_with_handler) with them.
            #[must_use]
            #[track_caller]
            pub fn shadow(self) -> Self {
                Self(self.0.with(|layer| layer.options.shadow = true))
            }

            /// Passes requests for which `exempt` returns true, undecided and uncounted; none by default. A later call
            /// replaces the predicate.
            ///
            /// Handlers keep the extensions that the layer [shares](crate::QuotaLayer::share_with_handler) with them.
            ///
            /// ```
            #[doc = concat!("# fn example", $signature, " {")]
            /// layer.exempt(|request| request.uri.path() == "/health")
            /// # }
            /// ```
            #[must_use]
            #[track_caller]
            pub fn exempt(
                self,
                exempt: impl Fn(&$crate::head::RequestHead<'_>) -> bool + Send + Sync + 'static,
            ) -> Self {
                Self(self.0.with(|layer| layer.options.exempt = Some(std::sync::Arc::new(exempt))))
            }

            /// Says that the layer is around a client, through which the server sends requests of its own.
            ///
            /// A handler may pass on a refusal of its client, such as the 503 of an open circuit. Layers around the
            /// handler take the [`Refusal`](crate::Refusal) of a layer further in for a request that the handler did not
            /// receive, and refund it. With this setting the refusal is
            /// [marked](crate::Refusal::is_outbound): the handler did its work, and the request is charged.
            ///
            /// ```
            #[doc = concat!("# fn example", $signature, " {")]
            /// layer.outbound()
            /// # }
            /// ```
            #[must_use]
            #[track_caller]
            pub fn outbound(self) -> Self {
                Self(self.0.with(|layer| layer.context.outbound = true))
            }

            /// Answers refusals with `answer` instead of a problem document.
            ///
            /// `Retry-After` is added unless the answer has one. `Cache-Control` becomes `no-store`, because a cache would
            /// serve the refusal to other clients. `CDN-Cache-Control` and `Surrogate-Control` are removed, because
            /// shared caches obey them instead. Rate limit fields join those that the answer has. gRPC requests keep
            /// their Trailers-Only answer, because no gRPC client understands another.
            ///
            /// ```
            /// # use tollgate::Refusal;
            #[doc = concat!("# fn example", $signature, " {")]
            /// layer.refuse_with(|refusal: &Refusal| {
            ///     http::Response::builder().status(429).body(format!("slow down: {refusal}")).unwrap()
            /// })
            /// # }
            /// ```
            #[must_use]
            #[track_caller]
            pub fn refuse_with<T: Into<bytes::Bytes>>(
                self,
                answer: impl Fn(&$crate::refusal::Refusal) -> http::Response<T> + Send + Sync + 'static,
            ) -> Self {
                let answer = move |refusal: &$crate::refusal::Refusal| answer(refusal).map(Into::into);
                Self(self.0.with(|layer| layer.options.responder = $crate::refusal::Responder::custom(answer)))
            }
        }

        impl<S $(, $A: $crate::gate::Admit)?> tower_layer::Layer<S> for $Layer$(<$A>)? {
            type Service = $crate::gate::Gate<S, $Policy>;

            #[track_caller]
            fn layer(&self, inner: S) -> Self::Service {
                self.0.layer(inner)
            }
        }

        impl$(<$A: $crate::gate::Admit>)? $crate::gate::PolicyLayer for $Layer$(<$A>)? {
            type Policy = $Policy;
            type Permit = <$Policy as $crate::gate::Admit>::Permit;

            fn gate(
                &self,
            ) -> Result<std::sync::Arc<$crate::gate::GateShared<$Policy>>, $crate::error::ConfigError> {
                self.0.built().cloned()
            }

            #[track_caller]
            fn share_layer_identity(&self, identity: &std::sync::Arc<dyn $crate::identity::Identify>) -> bool {
                self.0.share_identity(identity)
            }
        }

        impl$(<$A: $crate::gate::Admit>)? Clone for $Layer$(<$A>)? {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl$(<$A: $crate::gate::Admit>)? std::fmt::Debug for $Layer$(<$A>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($Layer))
                    .field("name", &self.0.context.name)
                    .field("enabled", &self.0.options.enabled)
                    .field("shadow", &self.0.options.shadow)
                    .finish_non_exhaustive()
            }
        }
    };
}

/// Implements the setters of a layer's [`ClientConfig`](crate::gate::ClientConfig), which is `clients` in its settings.
///
/// The attributes of a setter are the part of its documentation that is not common to all layers.
macro_rules! client_setters {
    ($Layer:ident, $(#[$identify:meta])* identify_by, $(#[$most:meta])* max_clients) => {
        impl $Layer {
            /// Identifies clients by `identify`; the default is [`PeerIp::new`](crate::PeerIp::new), the `SocketAddr` in the
            /// extensions of the request.
            $(#[$identify])*
            #[must_use]
            #[track_caller]
            pub fn identify_by(self, identify: impl $crate::identity::Identify) -> Self {
                self.with(|config| config.clients.identify_by(identify))
            }

            /// Sets the decision on unidentified requests.
            ///
            /// By default it depends on the identity's [`missing`](crate::Identify::missing). A missing peer address or
            /// principal is a fault of the server's set-up: 500. A missing credential is the client's: 401. Requests
            /// without an optional identity count as one client.
            #[must_use]
            #[track_caller]
            pub fn on_unidentified(self, on_unidentified: $crate::identity::OnUnidentified) -> Self {
                self.with(|config| config.clients.on_unidentified = Some(on_unidentified))
            }

            /// Sets the rate limit headers of responses; default: the fields of the current draft.
            #[must_use]
            #[track_caller]
            pub fn rate_limit_headers(self, dialect: $crate::refusal::Dialect) -> Self {
                self.with(|config| config.clients.dialect = dialect)
            }

            $(#[$most])*
            ///
            /// # Panics
            /// If `clients` is 0 or above 2^32 - 1.
            #[must_use]
            #[track_caller]
            pub fn max_clients(self, clients: usize) -> Self {
                let most = $crate::gate::ClientConfig::checked_most(clients);
                self.with(|config| config.clients.most = most)
            }
        }
    };
}

pub(crate) use client_setters;
pub(crate) use gate_layer;
