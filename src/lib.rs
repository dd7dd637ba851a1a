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
//! Each server leaves the peer address in an extension type of its own. Without `identify_by` a layer looks for a
//! plain `SocketAddr` in the request's extensions; where there is none, all clients share one bucket.
//!
//! Start with [`TokenBucketLayer`], [`QuotaLayer`] and [`CircuitBreakerLayer`]; who is asking is [`identify`]'s matter,
//! what a refusal looks like [`respond`]'s, and a policy of your own goes through [`GateLayer::of`].
//!
//! | floor | modules |
//! |---|---|
//! | layers | [`layers`] |
//! | the one service | [`gate`] |
//! | ports | [`identify`], [`respond`], [`Admit`], [`Observer`], [`Classify`] |
//! | rules | [`rule`] |
//! | words | [`Rate`], [`Cost`], [`Client`], [`Refusal`], [`Clock`] |
//!
//! A file imports only from floors below its own; layers do not know each other. With the feature `conformance` the tests
//! that every store must pass are public.

mod admit;
mod classify;
mod client;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod cost;
pub mod gate;
mod head;
pub mod identify;
mod in_force;
mod invalid;
pub mod layers;
mod observe;
mod period;
mod policy_name;
mod quota;
mod quota_store;
mod rate;
mod refusal;
pub mod respond;
pub mod rule;
mod store;
mod sync;

pub use admit::{Admit, Answer, Answered, Open, Outcome, Permit};
pub use classify::{Classify, Seen, Statuses, Verdict};
pub use client::{Client, Digest, Digester, Name, Tier};
pub use clock::{Clock, FakeClock, Moment};
pub use cost::Cost;
pub use gate::{Body, Gate, GateFuture, GateLayer};
pub use head::{RequestHead, ResponseHead};
pub use identify::{Account, ApiKey, Forwarded, Identify, Lookup, PeerIp, Strangers, Traits, Unverified, Verified};
pub use invalid::Invalid;
pub use layers::circuit_breaker::{CallError, CircuitBreaker, CircuitBreakerLayer, CircuitState, Counts};
pub use layers::quota::{
    AccountError, Charge, Cursor, Duplicates, Ended, Explained, ExplainedLimit, JobId, JobRun, OnExpiry, OnFailure,
    QuotaLayer, QuotaStatus, Quotas, RequestBytesLayer, Reservation, ReservationError, ReservationId, Served,
    UsagePage,
};
pub use layers::token_bucket::{TokenBucketLayer, TokenBuckets};
pub use observe::{Audience, Event, Observer};
pub use period::{Period, Window};
pub use policy_name::PolicyName;
pub use quota::{
    Amounts, Counted, Direction, Grant, GrantId, Granted, Kind, LimitUsage, Plan, Quota, Usage, Violation,
};
pub use quota_store::AccountStore;
pub use rate::Rate;
pub use refusal::{Reason, Refusal};
pub use respond::Dialect;
pub use rule::Trip;
#[cfg(feature = "postgres")]
pub use store::ledger::PostgresLedger;
#[cfg(feature = "sqlite")]
pub use store::ledger::SqliteLedger;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use store::ledger::{
    AccountDrift, Archived, BillingDrift, BillingError, BillingProvider, Entries, GrantEntry, Invoice, InvoiceLine,
    JobStanding, Ledger, LedgerEntry, LedgerError, LedgerJob, MemoryProvider, PastUsage, Reconciled, Spool, SpoolError,
};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
