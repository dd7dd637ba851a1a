//! What the others are compared with.

use tollgate::{Cost, Dialect, Rate, TokenBucketLayer, Unverified};

use crate::{drive::API_KEY, peers::PLENTY};

/// Nobody is ever refused.
pub fn plenty() -> TokenBucketLayer {
    limit(Rate::per_second(1_000).burst(u64::from(PLENTY)))
}

/// Everybody is refused after one request.
pub fn scarce() -> TokenBucketLayer {
    limit(Rate::per_hour(1).burst(1))
}

/// The same with RateLimit fields in each answer.
pub fn plenty_told() -> TokenBucketLayer {
    plenty().fields(Dialect::Draft11)
}

/// The same with RateLimit fields in each answer.
pub fn scarce_told() -> TokenBucketLayer {
    scarce().fields(Dialect::Draft11)
}

fn limit(rate: Rate) -> TokenBucketLayer {
    TokenBucketLayer::new(rate).identify_by(Unverified::header(API_KEY)).fields(Dialect::None)
}

/// From borrowed text to a decision.
pub fn decide(clients: usize) -> impl Fn(&str) -> bool + Send + Sync + 'static {
    let buckets = plenty().max_clients(clients).handle();
    move |key| buckets.check(&buckets.digester().secret("key", key.as_bytes()), Cost::ONE).is_ok()
}

/// Sixty an hour.
pub fn hourly() -> TokenBucketLayer {
    limit(Rate::per_hour(60))
}
