//! Tower middleware that decides who may pass: token buckets and circuit breakers for axum, tonic and hyper.

mod admit;
mod classify;
mod client;
mod clock;
mod cost;
pub mod gate;
pub mod identify;
mod invalid;
pub mod layers;
mod observe;
mod policy_name;
mod rate;
mod refusal;
pub mod respond;
pub mod rule;
mod store;
#[allow(unused_imports)]
mod sync;

pub use admit::{Admit, Answer, Open, Outcome, Permit};
pub use classify::{Classify, Seen, Statuses, Verdict};
pub use client::{Client, Digest, Digester, Name, Tier};
pub use clock::{Clock, FakeClock, Moment};
pub use cost::Cost;
pub use gate::{Body, Gate, GateFuture, GateLayer};
pub use identify::{Account, ApiKey, Forwarded, Identify, Lookup, PeerIp, Traits, Unverified, Verified};
pub use invalid::Invalid;
pub use layers::circuit_breaker::{CallError, CircuitBreaker, CircuitBreakerLayer, CircuitState, Counts};
pub use layers::token_bucket::{Strangers, TokenBucketLayer, TokenBuckets};
pub use observe::{Audience, Event, Observer};
pub use policy_name::PolicyName;
pub use rate::Rate;
pub use refusal::{Reason, Refusal};
pub use respond::Dialect;
pub use rule::Trip;
