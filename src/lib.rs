//! Tower middleware that admits or refuses requests: token buckets, quotas and circuit breakers for axum, tonic and hyper.
//!
//! Each layer asks its policy for a decision before a request and reports the outcome after it. Refusals become 429 and
//! 503 responses, or gRPC statuses, from the same layer. With the defaults:
//!
//! ```
//! use tollgate::{CircuitBreakerLayer, Gates, Rate, TokenBucketLayer};
//!
//! let buckets = TokenBucketLayer::new(Rate::per_second(50).burst(100)); // one for each peer address
//! let gates = Gates::new((buckets, CircuitBreakerLayer::for_server())).identify_by(tollgate::peer_ip!(axum));
//! let app: axum::Router = axum::Router::new().layer(gates);
//! ```
//!
//! axum and tonic store the peer address in an extension type of their own, which [`peer_ip!`] reads. Without
//! `identify_by` a layer reads a plain `SocketAddr` from the request's extensions. A request without an address is
//! refused with a 500 that names the cause, unless
//! [`on_unidentified(OnUnidentified::Share)`](TokenBucketLayer::on_unidentified) gives all of them one bucket.
//!
//! Start with [`TokenBucketLayer`], [`QuotaLayer`] and [`CircuitBreakerLayer`], and put those that follow each other into
//! [`Gates`]. [`identity`] finds the client of a request,
//! [`refusal`] is the response on the wire, and [`GateLayer::new`] takes a policy of your own.
//!
//! Each feature has one module, which depends only on modules above it:
//!
//! | module | holds |
//! |---|---|
//! | [`identity`] | clients and how a request is attributed to one |
//! | [`refusal`] | refusals, problem documents, gRPC statuses, rate limit headers |
//! | [`gate`] | the one service behind every layer, and the traits of a policy |
//! | [`gates`] | one gate for several layers |
//! | [`token_bucket`], [`quota`], [`circuit_breaker`] | the layers; none depends on another |
//! | `ledger` | exact quotas in SQLite and PostgreSQL, billing (features `sqlite`, `postgres`) |
//! | `idempotency` | answers replayed to requests with an idempotency key (feature `idempotency`) |
//! | `key_value` | key-value stores, operations that run once, guarded caches (feature `key-value`) |
//! | `telemetry` | observers for metrics and logs (features `metrics`, `tracing`) |
//!
//! With the feature `axum` handlers return a [`Refusal`] as a response. The feature `conformance` makes the tests public that every store must pass.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
pub mod circuit_breaker;
mod circuit_state;
mod classify;
#[cfg(feature = "serde")]
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod cost;
mod error;
pub mod gate;
pub mod gates;
mod head;
#[cfg(feature = "idempotency")]
pub mod idempotency;
pub mod identity;
#[cfg(feature = "axum")]
mod into_response;
#[cfg(feature = "key-value")]
pub mod key_value;
mod kind;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[allow(clippy::incompatible_msrv, reason = "sqlx needs Rust 1.94")]
pub mod ledger;
mod policy_name;
pub mod quota;
pub mod refusal;
mod sync;
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub mod telemetry;
mod time;
pub mod token_bucket;

pub use circuit_breaker::{
    CallError, CircuitBreaker, CircuitBreakerLayer, CircuitBreakerService, CircuitState, Counts, Trip,
};
pub use classify::{CallOutcome, Classify, DefaultClassifier, Verdict};
pub use cost::Cost;
pub use error::ConfigError;
pub use gate::{
    Admit, Body, Event, Gate, GateFuture, GateLayer, Lasts, MaybeFuture, Observer, Outcome, Permit, Sample, Sampler,
    ToEnd, ToHead,
};
pub use gates::Gates;
pub use head::{RequestHead, ResponseHead};
pub use identity::{
    ApiKey, Client, Digest, Digester, Forwarded, Identify, IdentityGuarantees, Lookup, Name, OnUnidentified, PeerIp,
    Principal, Secret, Tier, Unverified, Verified,
};
pub use kind::{Direction, Kind};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use ledger::{
    ArchiveReport, BillingDrift, BillingError, BillingProvider, CreditEntry, Drift, Entries, EntryKind, GrantEntry,
    Invoice, InvoiceLine, JobStanding, Ledger, LedgerBuilder, LedgerEntry, LedgerError, LedgerErrorKind, LedgerJob,
    MemoryProvider, PastUsage, ReconcileReport, Spool, SpoolError, SpoolErrorKind,
};
pub use policy_name::PolicyName;
pub use quota::{
    ActiveGrant, Amounts, Charge, CloseOutcome, Credited, Cursor, Duplicates, Explanation, Grant, GrantId, JobError,
    JobIdSource, JobOutcome, JobRun, JobState, LimitExplanation, LimitUsage, OnExpiry, OnFailure, Plan, Quota,
    QuotaBuilder, QuotaError, QuotaLayer, QuotaService, QuotaStatus, QuotaStore, Quotas, RequestBytesLayer,
    Reservation, ReservationError, ReservationId, ServedRequest, Usage, UsagePage,
};
pub use refusal::{Dialect, Reason, Refusal, Violation};
pub use time::{Clock, FakeClock, Moment, Period, Window};
pub use token_bucket::{Rate, TokenBucketLayer, TokenBucketService, TokenBuckets};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
