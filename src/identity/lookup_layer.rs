//! Keys whose table has to be awaited.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Principal, Verified,
    credential::{Credential, Location, token},
};
use crate::error::ConfigError;

/// Layer that awaits your table of keys and leaves the principal for [`identity`](Self::identity) or
/// [`Verified::principal`](crate::Verified::principal).
///
/// It belongs outside the layers that limit. A request without a key, or with one that the table does not know, passes
/// without a principal; those layers decide on it. Each key is looked up again, so keep a cache in front of a database.
/// The principal needs a name or an id: an [unnamed](Principal::unnamed) one is no identity.
///
/// # Cancel safety
/// A request that is cancelled drops the look-up.
///
/// ```
/// use tollgate::{Identify, PeerIp, Principal, Rate, TokenBucketLayer, identity::LookupLayer};
/// use tower::ServiceBuilder;
///
/// async fn from_database(key: String) -> Option<Principal> {
///     # let known = true;
///     // select name, tier from keys where ..
///     known.then(|| Principal::named("acme").in_tier("pro"))
/// }
/// let keys = LookupLayer::header("x-api-key", from_database);
/// let limit = TokenBucketLayer::new(Rate::per_second(50)).identify_by(keys.identity().or(PeerIp::new()));
/// let layers = ServiceBuilder::new().layer(keys).layer(limit);
/// ```
#[derive(Clone)]
pub struct LookupLayer<T> {
    credential: Credential,
    table: T,
}

impl<T, F> LookupLayer<T>
where
    T: Fn(String) -> F + Clone,
    F: Future<Output = Option<Principal>>,
{
    /// Looks up the value of the field `name` in `table`.
    ///
    /// # Panics
    /// If `name` is not a field name.
    #[must_use]
    #[track_caller]
    pub fn header(name: impl AsRef<str>, table: T) -> Self {
        ConfigError::or_panic(Self::try_header(name, table))
    }

    /// [`header`](Self::header) for input at run time.
    ///
    /// # Errors
    /// If `name` is not a field name.
    pub fn try_header(name: impl AsRef<str>, table: T) -> Result<Self, ConfigError> {
        let name = token("field name", name.as_ref())?;
        Ok(Self { credential: Credential::at(Location::Header(name)), table })
    }

    /// Looks up the token of `Authorization: Bearer` in `table`.
    #[must_use]
    pub const fn bearer(table: T) -> Self {
        Self { credential: Credential::at(Location::Bearer), table }
    }
}

impl<T> LookupLayer<T> {
    /// Returns the identity of the principal that this layer leaves. Alone, it refuses a request without one with 401.
    #[must_use]
    pub fn identity(&self) -> Verified {
        Verified::principal().asking(self.credential.challenge())
    }
}

impl<T> fmt::Debug for LookupLayer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupLayer").field("credential", &self.credential).finish_non_exhaustive()
    }
}

impl<S, T: Clone> Layer<S> for LookupLayer<T> {
    type Service = LookupService<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        LookupService { layer: self.clone(), inner }
    }
}

/// Service of a [`LookupLayer`].
#[derive(Clone, Debug)]
pub struct LookupService<S, T> {
    layer: LookupLayer<T>,
    inner: S,
}

impl<S, B, T, F> Service<Request<B>> for LookupService<S, T>
where
    S: Service<Request<B>> + Clone,
    T: Fn(String) -> F,
    F: Future<Output = Option<Principal>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = LookupFuture<F, S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let key = self.layer.credential.read(request.headers()).and_then(|key| String::from_utf8(key.to_vec()).ok());
        let Some(key) = key else {
            return LookupFuture { principal: None, waiting: None, response: Some(self.inner.call(request)) };
        };
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone); // the one that was polled ready
        LookupFuture { principal: Some((self.layer.table)(key)), waiting: Some((ready, request)), response: None }
    }
}

pin_project! {
    /// Future of a [`LookupService`].
    pub struct LookupFuture<F, S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        principal: Option<F>,
        // The service that was polled ready, and its request, until it is called.
        waiting: Option<(S, Request<B>)>,
        #[pin]
        response: Option<S::Future>,
    }
}

impl<F, S: Service<Request<B>>, B> fmt::Debug for LookupFuture<F, S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupFuture").field("called", &self.response.is_some()).finish_non_exhaustive()
    }
}

impl<F, S, B> Future for LookupFuture<F, S, B>
where
    F: Future<Output = Option<Principal>>,
    S: Service<Request<B>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(look_up) = this.principal.as_mut().as_pin_mut() {
            let principal = ready!(look_up.poll(cx));
            this.principal.set(None);
            if let Some((mut service, mut request)) = this.waiting.take() {
                if let Some(principal) = principal {
                    request.extensions_mut().insert(principal);
                }
                this.response.set(Some(service.call(request)));
            }
        }
        match this.response.as_pin_mut() {
            Some(response) => response.poll(cx),
            None => Poll::Pending,
        }
    }
}
