//! Tower middleware that decides who may pass: token buckets, quotas and circuit breakers for axum, tonic and hyper.
//!
//! Each layer asks a policy one question before a request and tells it the end after it; refusals become 429 and 503
//! answers, or gRPC statuses, from the same layer. By default:
//!
//! ```
//! use std::net::SocketAddr;
//! use axum::extract::ConnectInfo;
//! use tollgate::{CircuitBreakerLayer, PeerIp, Rate, TokenBucketLayer, Trip};
//! use tower::ServiceBuilder;
//!
//! let peer = PeerIp::from_extension(|connection: &ConnectInfo<SocketAddr>| Some(connection.0));
//! let layers = ServiceBuilder::new()
//!     .layer(TokenBucketLayer::new(Rate::per_second(50).burst(100)).identify_by(peer)) // one bucket per peer address
//!     .layer(CircuitBreakerLayer::new(Trip::consecutive(5)));
//! ```
//!
//! axum and tonic leave the peer address in an extension type of their own. Without `identify_by` a layer looks for a
//! plain `SocketAddr` in the request's extensions; where there is none, all clients share one bucket.
//!
//! Start with [`TokenBucketLayer`], [`QuotaLayer`] and [`CircuitBreakerLayer`]. [`identity`] finds the client of a request,
//! [`refusal`] is the answer on the wire, and [`GateLayer::new`] takes a policy of your own.
//!
//! Each feature has one module, which depends only on those above it:
//!
//! | module | holds |
//! |---|---|
//! | [`identity`] | clients and how a request is attributed to one |
//! | [`refusal`] | refusals, problem documents, gRPC statuses, rate limit headers |
//! | [`gate`] | the one service behind every layer, and the traits of a policy |
//! | [`token_bucket`], [`quota`], [`circuit_breaker`] | the layers; none knows another |
//! | `ledger` | exact quotas in SQLite and PostgreSQL, billing (features `sqlite`, `postgres`) |
//!
//! With the feature `conformance` the tests that every store must pass are public.

mod backoff;
pub mod circuit_breaker;
mod classify;
#[cfg(feature = "conformance")]
pub mod conformance;
mod cost;
mod error;
pub mod gate;
mod head;
pub mod identity;
mod kind;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod ledger;
mod policy_name;
pub mod quota;
pub mod refusal;
mod sync;
mod time;
pub mod token_bucket;

pub use circuit_breaker::{CallError, CircuitBreaker, CircuitBreakerLayer, CircuitState, Counts, Trip};
pub use classify::{CallOutcome, Classify, DefaultClassifier, Verdict};
pub use cost::Cost;
pub use error::ConfigError;
pub use gate::{Admit, Body, Event, Gate, GateFuture, GateLayer, MaybeFuture, Observer, Outcome, Permit};
pub use head::{RequestHead, ResponseHead};
pub use identity::{
    ApiKey, Client, Digest, Digester, Forwarded, Identify, IdentityGuarantees, Lookup, Name, OnUnidentified, PeerIp,
    Principal, Tier, Unverified, Verified,
};
pub use kind::{Direction, Kind};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use ledger::{
    ArchiveReport, BillingDrift, BillingError, BillingProvider, Drift, Entries, GrantEntry, Invoice, InvoiceLine,
    JobStanding, Ledger, LedgerBuilder, LedgerEntry, LedgerError, LedgerJob, MemoryProvider, PastUsage,
    ReconcileReport, Spool, SpoolError,
};
pub use policy_name::PolicyName;
pub use quota::{
    ActiveGrant, Amounts, Charge, CloseOutcome, Cursor, Duplicates, Explanation, Grant, GrantId, JobIdSource, JobRun,
    LimitExplanation, LimitUsage, OnExpiry, OnFailure, Plan, Quota, QuotaBuilder, QuotaError, QuotaLayer, QuotaStatus,
    QuotaStore, Quotas, RequestBytesLayer, Reservation, ReservationError, ReservationId, ServedRequest, Usage,
    UsagePage,
};
pub use refusal::{Dialect, Reason, Refusal, Violation};
pub use time::{Clock, FakeClock, Moment, Period, Window};
pub use token_bucket::{Rate, TokenBucketLayer, TokenBuckets};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
