//! Refusals: the reason of a refused request, its wait, and its response.
//!
//! Over HTTP a refusal is a [problem document](problem) with `Retry-After`. Over gRPC, from the same layer, it is a
//! status with details. [`refuse_with`](crate::GateLayer::refuse_with) replaces the HTTP response:
//!
//! ```
//! # use std::sync::Arc;
//! # use http::{Request, Response};
//! # use tollgate::{Admit, Client, MaybeFuture, GateLayer, PolicyName, Reason, Refusal, RequestHead, refusal};
//! # use tower::{ServiceBuilder, ServiceExt, service_fn};
//! # struct Closed;
//! # impl Admit for Closed {
//! #     type Permit = ();
//! #     fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
//! #         MaybeFuture::Ready(Err(Refusal::new(Reason::Capacity, PolicyName::try_new("closed").unwrap())))
//! #     }
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(GateLayer::new(Closed).refuse_with(refusal::text))
//!     .service(service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(String::from("hello"))) }));
//! let answer = service.oneshot(Request::new(String::new())).await.unwrap();
//! assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
//! # });
//! ```
//!
//! # Uploads
//! A refusal never reads the request's body: a client that sent `Expect: 100-continue` is not asked for it. A client
//! that sends at once receives the response at once too, and over HTTP/1.1 the connection is closed after the response.
//! A client that reads only after it has written everything, as simple libraries do, may get a broken pipe instead if
//! the body is large.

mod buffer;
mod grpc;
mod own_text;
mod rate_limit_headers;
mod reason;
mod respond;
mod structured_field;
mod wire;
mod x_ratelimit;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::{Extensions, HeaderValue};

use crate::{kind::Kind, policy_name::PolicyName};

pub(crate) use own_text::OwnText;
pub(crate) use rate_limit_headers::{AdvertisedLimit, NEAR_LIMITS, near_limits};
pub use rate_limit_headers::{Dialect, Fields, Reset};
pub use reason::Reason;
pub(crate) use respond::Responder;
#[allow(unused_imports, reason = "only a feature makes responses without a gate")]
pub(crate) use respond::respond;
pub use respond::{EXPOSED_HEADERS, problem, status, text};
pub use wire::Wire;
pub(crate) use wire::{GrpcHead, has_grpc_trailers};

/// Explanation of a refused request: the reason, the limit and the wait. Every refused response has it in its
/// extensions.
///
/// As an error it is what a handle returns outside HTTP; a gate answers with a response, and services keep their own
/// errors. Its `Display` text is for logs. With the feature `axum` a handler can return it: it becomes the response that a
/// gate would give.
///
/// Layers around a handler take a refusal in a response's extensions for one of a layer further in: the handler did not
/// receive the request, and the tokens or the charge go back. A handler that asks a handle itself, such as
/// [`TokenBuckets::check`](crate::TokenBuckets::check), and answers with [`refusal::problem`](crate::refusal::problem) has
/// received it. That response has no refusal in its extensions, so that the request stays charged. Insert the refusal only
/// if the request is to cost nothing.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{PolicyName, Reason, Refusal};
///
/// let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap())
///     .with_limit(100, 100)
///     .with_retry_after(Duration::from_millis(1_900));
/// assert_eq!(refusal.to_string(), "policy \"default\": limit of 100 reached, retry in 1.9s");
/// assert_eq!(refusal.retry_after_seconds(), Some(2));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal(Box<RefusalParts>); // small where it moves: a decision is as large as its larger outcome

#[derive(Clone, PartialEq, Eq)]
struct RefusalParts {
    reason: Reason,
    policy: PolicyName,
    limit: u64,
    current: u64,
    retry_after: Option<Duration>,
    fields: Option<Arc<Fields>>,
    spread: Duration,
    /// Since 1970.
    resets_at: Option<Duration>,
    violations: Option<Arc<[Violation]>>,
    challenge: Option<HeaderValue>,
    outbound: bool,
}

impl Refusal {
    /// Creates a refusal by `policy`, without a limit and a wait.
    #[must_use]
    pub fn new(reason: Reason, policy: PolicyName) -> Self {
        Self(Box::new(RefusalParts {
            reason,
            policy,
            limit: 0,
            current: 0,
            retry_after: None,
            fields: None,
            spread: Duration::ZERO,
            resets_at: None,
            violations: None,
            challenge: None,
            outbound: false,
        }))
    }

    /// Sets the limit and its used amount, both in the policy's units.
    #[must_use]
    pub fn with_limit(mut self, limit: u64, current: u64) -> Self {
        (self.0.limit, self.0.current) = (limit, current);
        self
    }

    /// Sets the wait after which the request would pass if no other request came.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Sets the rate limit fields of the response. Their policy is the one that the response names as violated.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use tollgate::{PolicyName, Reason, Refusal, refusal::{Dialect, Fields}};
    /// let name = PolicyName::try_new("default").unwrap();
    /// let fields = Fields::new(Dialect::Draft11, &name, 100, Duration::from_secs(60), None);
    /// let refusal = Refusal::new(Reason::RateLimited, name).with_fields(Arc::new(fields));
    /// ```
    #[must_use]
    pub fn with_fields(mut self, fields: Arc<Fields>) -> Self {
        self.0.fields = Some(fields);
        self
    }

    /// Sets the value of `WWW-Authenticate`, which a refusal with 401 must have (RFC 9110, section 15.5.2).
    #[must_use]
    pub fn with_challenge(mut self, challenge: HeaderValue) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// Sets the limits that the request exceeds.
    #[must_use]
    pub(crate) fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations = Some(violations.into());
        self
    }

    /// Adds `spread` to `Retry-After`, so that clients that are free again at `resets_at` do not all return at once.
    #[must_use]
    pub(crate) fn with_spread(mut self, spread: Duration, resets_at: Option<Duration>) -> Self {
        (self.0.spread, self.0.resets_at) = (spread, resets_at);
        self
    }

    pub(crate) fn set_outbound(&mut self, outbound: bool) {
        self.0.outbound = outbound;
    }

    /// Returns the refusal of a gate further in: the handler did not receive the request.
    ///
    /// The refusal of an outbound gate belongs to a request that the handler itself made, unless another `outbound` gate
    /// around the same client looks.
    #[inline]
    pub(crate) fn further_in(extensions: &Extensions, outbound: bool) -> Option<&Self> {
        extensions.get::<Self>().filter(|refusal| outbound || !refusal.0.outbound)
    }

    /// Returns whether an [outbound](crate::GateLayer::outbound) layer refused the request, which then was one that the
    /// server sent, not one that it received.
    ///
    /// ```
    /// use http::Response;
    /// use tollgate::Refusal;
    ///
    /// /// Returns whether a layer of this server refused the request, so that no handler has seen it.
    /// fn was_refused<B>(response: &Response<B>) -> bool {
    ///     response.extensions().get::<Refusal>().is_some_and(|refusal| !refusal.is_outbound())
    /// }
    /// ```
    #[must_use]
    pub fn is_outbound(&self) -> bool {
        self.0.outbound
    }

    /// Returns the limits of the plan that the request exceeds; empty for policies without a plan.
    ///
    /// ```
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap());
    /// for violation in refusal.violations() {
    ///     println!("{}: {} of {}", violation.name, violation.current, violation.limit);
    /// }
    /// ```
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        self.0.violations.as_deref().unwrap_or_default()
    }

    /// Returns the violated limit with the longest wait.
    pub(crate) fn worst(&self) -> Option<&Violation> {
        self.violations().iter().max_by_key(|violation| violation.wait.unwrap_or(Duration::MAX))
    }

    /// Returns the wait that the client is told: the exact one and the spread.
    pub(super) fn advised_wait(&self) -> Option<Duration> {
        self.retry_after().map(|wait| wait.saturating_add(self.0.spread))
    }

    /// Returns the time since 1970 at which enough of the limit is free again, if it is known. It is by the clock of the
    /// store that decided: in a ledger that of its database.
    #[must_use]
    pub fn resets_at(&self) -> Option<Duration> {
        self.0.resets_at
    }

    /// Returns the remaining amount of the limit, in the policy's units; 0 if the refusal has no limit.
    pub(crate) fn remaining(&self) -> u64 {
        self.limit().saturating_sub(self.current())
    }

    /// Returns the rate limit fields of the response.
    pub(crate) fn fields(&self) -> Option<&Fields> {
        self.0.fields.as_deref()
    }

    /// Returns the name of the violated policy, as the rate limit fields report it. A layer with several rates has a name
    /// for each.
    pub(super) fn violated_policy(&self) -> &PolicyName {
        self.fields().map_or(self.policy(), |fields| &fields.name)
    }

    /// Returns the value of `WWW-Authenticate`.
    pub(super) fn challenge(&self) -> Option<&HeaderValue> {
        self.0.challenge.as_ref()
    }

    /// Returns the kind of the refusal.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Returns the policy that refused.
    #[must_use]
    pub fn policy(&self) -> &PolicyName {
        &self.0.policy
    }

    /// Returns the limit, in the policy's units; 0 if the refusal has none.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Returns the amount of the limit that was used when the request arrived, in the policy's units.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.0.current
    }

    /// Returns the exact wait; `None` if waiting does not help, as when the request is too large or unidentified.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::TooLarge, PolicyName::try_new("default").unwrap());
    /// assert!(refusal.with_retry_after(Duration::from_secs(3)).retry_after().is_none());
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after.filter(|_| self.reason().is_temporary())
    }

    /// Returns the value of `Retry-After`, which the body repeats: the wait in whole seconds, rounded up and at least 1.
    ///
    /// Clients of a quota that wait for the same moment are told different times after it, so that they do not all
    /// return in one second. [`resets_at`](Self::resets_at) is the moment itself.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap());
    /// assert_eq!(refusal.clone().with_retry_after(Duration::ZERO).retry_after_seconds(), Some(1));
    /// assert_eq!(refusal.with_retry_after(Duration::from_nanos(1_000_000_001)).retry_after_seconds(), Some(2));
    /// ```
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.advised_wait().map(|wait| whole_seconds(wait).max(1))
    }
}

/// Rounds up to whole seconds.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// Omits the parts that only the response needs, such as the bytes of its header fields.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RefusalParts { reason, policy, limit, current, retry_after, .. } = &*self.0;
        f.debug_struct("Refusal")
            .field("reason", reason)
            .field("policy", policy)
            .field("limit", limit)
            .field("current", current)
            .field("retry_after", retry_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {:?}: ", self.policy())?;
        match (self.reason(), self.limit()) {
            (Reason::RateLimited, limit @ 1..) if self.remaining() > 0 => {
                write!(f, "too little left of the limit of {limit}")?
            }
            (Reason::RateLimited, limit @ 1..) => write!(f, "limit of {limit} reached")?,
            (Reason::TooLarge, limit @ 1..) => write!(f, "request of more than {limit} can never pass")?,
            (reason, _) => f.write_str(reason.forms().summary)?,
        }
        if let (Reason::UnknownUnit, [violation, ..]) = (self.reason(), self.violations()) {
            write!(f, ", unit {:?}", violation.kind.as_str())?;
        }
        match self.retry_after() {
            Some(wait) => {
                // Rounded up: a client that waits as long is admitted.
                let millis = wait.as_nanos().div_ceil(1_000_000);
                write!(f, ", retry in {:?}", Duration::from_millis(millis.try_into().unwrap_or(u64::MAX)))
            }
            None => Ok(()),
        }
    }
}

impl Error for Refusal {}

/// Limit that a refused request would have exceeded.
///
/// The limits of a plan are decided together, so a [`Refusal`] has one violation for each limit that does not
/// suffice. Its own [`limit`](Refusal::limit) and wait are those of the violation with the longest
/// wait.
///
/// A problem document lists the names of all violations, and a gRPC status has a `google.rpc.QuotaFailure` for each.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
///
/// let plan = Plan::new("free").limit(Quota::requests(1).per(Period::hour())).limit(Quota::units("tokens", 5).per(Period::hour()));
/// let quotas = QuotaLayer::new(plan).handle();
/// let alice = Client::named("alice");
/// quotas.record(&alice, [("requests", 1), ("tokens", 5)]).await.unwrap();
/// let refusal = quotas.check(&alice, [("requests", 1), ("tokens", 1)]).await.unwrap_err();
/// let names: Vec<_> = refusal.violations().iter().map(|violation| violation.name.as_str()).collect();
/// assert_eq!(names, ["requests_per_hour", "tokens_per_hour"]);
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Name of the limit.
    pub name: PolicyName,
    /// Kind of the amounts that it counts, or would count.
    pub kind: Kind,
    /// Limit, including grants.
    pub limit: u64,
    /// Used and reserved amount.
    pub current: u64,
    /// Longest time until enough of it is free; `None` if the request asks for more than the whole limit.
    pub wait: Option<Duration>,
    /// Time since 1970 at which the wait is over, by the clock of the store that decided.
    pub(crate) free_at: Option<Duration>,
}
