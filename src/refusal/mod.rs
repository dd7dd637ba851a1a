//! Refusals: why a request may not pass, when to come back, and how a client is told.
//!
//! Over HTTP a refusal is a [problem document](problem) with `Retry-After`; over gRPC, on the same layer, it is a
//! status with its details. [`refuse_with`](crate::GateLayer::refuse_with) replaces the former:
//!
//! ```
//! # use std::sync::Arc;
//! # use http::{Request, Response};
//! # use tollgate::{Admit, MaybeFuture, GateLayer, PolicyName, Reason, Refusal, RequestHead, refusal};
//! # use tower::{ServiceBuilder, ServiceExt, service_fn};
//! # struct Closed;
//! # impl Admit for Closed {
//! #     type Permit = ();
//! #     fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<(), Refusal>> {
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
//! A refusal never reads the request's body: a client that sent `Expect: 100-continue` is not asked for it. One that
//! sends at once is answered at once too, and over HTTP/1.1 the connection closes behind the answer: a client that does
//! not read before it has written all, as simple libraries do, may find a broken pipe instead when the body is large.

mod buffer;
mod complete;
mod detail;
mod grpc;
mod item;
mod names;
mod near;
mod number;
mod problem;
mod protobuf;
mod rate_limit_headers;
mod respond;
mod structured_field;
mod violation;
mod wire;
mod x_ratelimit;

use std::{fmt, sync::Arc, time::Duration};

pub use names::EXPOSED_HEADERS;
pub(crate) use names::NEAR_LIMITS;
pub(crate) use near::near_limits;
pub use problem::{problem, status, text};
pub(crate) use rate_limit_headers::Told;
pub use rate_limit_headers::{Dialect, Fields, Reset};
pub(crate) use respond::Responder;
pub use violation::Violation;
pub use wire::Wire;
pub(crate) use wire::{has_grpc_trailers, is_grpc_status};

use crate::policy_name::PolicyName;

/// Why a request may not pass and when to come back; always in the extensions of a refused response.
///
/// It is no error: services keep their own. Its text is for people.
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
pub struct Refusal(Box<Particulars>); // small where it travels: a decision is as large as its larger outcome

#[derive(Clone, Debug, PartialEq, Eq)]
struct Particulars {
    reason: Reason,
    policy: PolicyName,
    limit: u64,
    current: u64,
    retry_after: Option<Duration>,
    fields: Option<Arc<Fields>>,
    spread: Duration,
    violations: Option<Arc<[Violation]>>,
}

/// The kind of a refusal, which decides the status that it is answered with.
///
/// ```
/// assert_eq!(tollgate::Reason::RateLimited.as_str(), "rate_limited");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The client went past its own limit: 429, `RESOURCE_EXHAUSTED`.
    RateLimited,
    /// A capacity that all clients share is used up: 503, `UNAVAILABLE`.
    Capacity,
    /// The circuit to what lies behind is open: 503, `UNAVAILABLE`.
    CircuitOpen,
    /// The store that decides cannot be reached, and nothing was charged: 503, `UNAVAILABLE`.
    Unavailable,
    /// The store did not answer in time whether the charge was made: 503, `UNAVAILABLE`. Asked again with the same job id,
    /// it is made once.
    Indeterminate,
    /// The store rejects the charge for good, and nothing was charged: 500, `INTERNAL`. Sent again, it is rejected again;
    /// [`Event::StoreRejected`](crate::Event::StoreRejected) says why.
    Rejected,
    /// The request could never pass, however long it waits: 413, `RESOURCE_EXHAUSTED`.
    TooLarge,
    /// The job that the request names is being worked on: 409, `ABORTED`.
    JobRunning,
    /// The job that the request names was done before: 409, `ALREADY_EXISTS`.
    DuplicateJob,
    /// The request has the id of another job: 422, `INVALID_ARGUMENT`.
    JobConflict,
    /// The request names its job twice, or by no text of 1 to 255 visible characters: 400, `INVALID_ARGUMENT`.
    InvalidJobId,
    /// The job's id is older than what is remembered, or carries no time where only some time is remembered: 400,
    /// `INVALID_ARGUMENT`. Whether it was charged before is not known any more.
    StaleJobId,
    /// The request names no client and the layer was told to refuse such requests: 403, `PERMISSION_DENIED`.
    Unidentified,
}

impl Reason {
    /// The reason as one word, for logs and metrics.
    ///
    /// ```
    /// assert_eq!(tollgate::Reason::CircuitOpen.as_str(), "circuit_open");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Capacity => "capacity",
            Self::CircuitOpen => "circuit_open",
            Self::Unavailable => "unavailable",
            Self::Indeterminate => "indeterminate",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::JobRunning => "job_running",
            Self::DuplicateJob => "duplicate_job_id",
            Self::JobConflict => "job_conflict",
            Self::InvalidJobId => "invalid_job_id",
            Self::StaleJobId => "stale_job_id",
            Self::Unidentified => "unidentified",
        }
    }
}

impl Refusal {
    /// A refusal by `policy`, with no limit and no time to come back.
    ///
    /// ```
    /// use tollgate::{PolicyName, Reason, Refusal};
    /// let refusal = Refusal::new(Reason::TooLarge, PolicyName::try_new("default").unwrap());
    /// assert_eq!(refusal.retry_after(), None);
    /// ```
    #[must_use]
    pub fn new(reason: Reason, policy: PolicyName) -> Self {
        Self(Box::new(Particulars {
            reason,
            policy,
            limit: 0,
            current: 0,
            retry_after: None,
            fields: None,
            spread: Duration::ZERO,
            violations: None,
        }))
    }

    /// The same refusal with the limit and what was used of it, both in the policy's units.
    ///
    /// ```
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap());
    /// assert_eq!(refusal.with_limit(5, 4).limit(), 5);
    /// ```
    #[must_use]
    pub fn with_limit(mut self, limit: u64, current: u64) -> Self {
        (self.0.limit, self.0.current) = (limit, current);
        self
    }

    /// The same refusal with the time after which it would not stand if nobody else came.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap());
    /// assert_eq!(refusal.with_retry_after(Duration::from_secs(3)).retry_after_seconds(), Some(3));
    /// ```
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same refusal with the rate limit fields that its answer is to carry.
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

    /// The same refusal with the limits that stand in the way.
    #[must_use]
    pub(crate) fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations = Some(violations.into());
        self
    }

    /// The same refusal, whose `Retry-After` is so much later than [`retry_after`](Self::retry_after), so that not everybody
    /// comes back at once.
    #[must_use]
    pub(crate) fn with_spread(mut self, spread: Duration) -> Self {
        self.0.spread = spread;
        self
    }

    /// The limits that stand in the way, where a plan has several.
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

    /// The limit that keeps the client longest.
    pub(crate) fn worst(&self) -> Option<&Violation> {
        self.violations().iter().max_by_key(|violation| violation.wait.unwrap_or(Duration::MAX))
    }

    /// What `Retry-After` says: [`retry_after_seconds`](Self::retry_after_seconds), and perhaps some more, so that those who
    /// wait for the same moment do not all come in it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap());
    /// assert_eq!(refusal.with_retry_after(Duration::from_secs(3)).retry_after_field(), Some(3));
    /// ```
    #[must_use]
    pub fn retry_after_field(&self) -> Option<u64> {
        self.retry_after().map(|wait| whole_seconds(wait.saturating_add(self.0.spread)).max(1))
    }

    /// Returns what is left of the limit, in the policy's units; 0 where the refusal has no limit.
    pub(crate) fn remaining(&self) -> u64 {
        self.limit().saturating_sub(self.current())
    }

    /// The rate limit fields that the answer carries.
    pub(crate) fn fields(&self) -> Option<&Fields> {
        self.0.fields.as_deref()
    }

    /// The kind of the refusal.
    ///
    /// ```
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// let refusal = Refusal::new(Reason::CircuitOpen, PolicyName::try_new("upstream").unwrap());
    /// assert_eq!(refusal.reason(), Reason::CircuitOpen);
    /// ```
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The policy that refused.
    ///
    /// ```
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// let refusal = Refusal::new(Reason::CircuitOpen, PolicyName::try_new("upstream").unwrap());
    /// assert_eq!(refusal.policy().as_str(), "upstream");
    /// ```
    #[must_use]
    pub fn policy(&self) -> &PolicyName {
        &self.0.policy
    }

    /// The limit, in the policy's units; 0 where there is none to tell.
    ///
    /// ```
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap());
    /// assert_eq!(refusal.with_limit(5, 4).limit(), 5);
    /// ```
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// How much of the limit was used when the request came, in the policy's units.
    ///
    /// ```
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::RateLimited, PolicyName::try_new("default").unwrap());
    /// assert_eq!(refusal.with_limit(5, 4).current(), 4);
    /// ```
    #[must_use]
    pub fn current(&self) -> u64 {
        self.0.current
    }

    /// How long to wait, exactly; `None` when waiting will not help, as when the request is too large or names no client.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{PolicyName, Reason, Refusal};
    /// # let refusal = Refusal::new(Reason::TooLarge, PolicyName::try_new("default").unwrap());
    /// assert!(refusal.with_retry_after(Duration::from_secs(3)).retry_after().is_none());
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0.reason {
            Reason::Rejected
            | Reason::TooLarge
            | Reason::Unidentified
            | Reason::DuplicateJob
            | Reason::JobConflict
            | Reason::InvalidJobId
            | Reason::StaleJobId => None,
            _ => self.0.retry_after,
        }
    }

    /// How long to wait in whole seconds, rounded up and at least 1, as `Retry-After` says it.
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
        self.retry_after().map(|wait| whole_seconds(wait).max(1))
    }
}

/// Seconds, rounded up.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Particulars { reason, policy, limit, current, retry_after, .. } = &*self.0;
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
            (Reason::RateLimited, 0) => f.write_str("limit reached")?,
            (Reason::RateLimited, limit) if self.remaining() > 0 => {
                write!(f, "too little left of the limit of {limit}")?
            }
            (Reason::RateLimited, limit) => write!(f, "limit of {limit} reached")?,
            (Reason::Capacity, _) => f.write_str("shared capacity used up")?,
            (Reason::CircuitOpen, _) => f.write_str("circuit open")?,
            (Reason::Unavailable, _) => f.write_str("store unavailable, nothing charged")?,
            (Reason::Indeterminate, _) => f.write_str("store too late to say whether it was charged")?,
            (Reason::Rejected, _) => f.write_str("rejected by the store, nothing charged")?,
            (Reason::TooLarge, 0) => f.write_str("request can never pass")?,
            (Reason::TooLarge, limit) => write!(f, "request of more than {limit} can never pass")?,
            (Reason::JobRunning, _) => f.write_str("job under way")?,
            (Reason::DuplicateJob, _) => f.write_str("job done before")?,
            (Reason::JobConflict, _) => f.write_str("another job has this id")?,
            (Reason::InvalidJobId, _) => f.write_str("no valid job id")?,
            (Reason::StaleJobId, _) => f.write_str("job id too old, or without a time")?,
            (Reason::Unidentified, _) => f.write_str("no client identified")?,
        }
        match self.retry_after() {
            Some(wait) => write!(f, ", retry in {wait:?}"),
            None => Ok(()),
        }
    }
}
