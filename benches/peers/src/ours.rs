//! What the others are compared with.

use std::{hint::black_box, sync::Arc, time::Duration};

use tollgate::{
    Admit, CircuitBreakerLayer, Clock, Cost, Dialect, Digester, GateLayer, MaybeFuture, Period, Plan, Quota,
    QuotaLayer, Rate, Refusal, RequestHead, TokenBucketLayer, Trip, Unverified,
};

use crate::{drive::API_KEY, peers::PLENTY};

/// Nobody is ever refused.
pub fn plenty() -> TokenBucketLayer {
    limit(Rate::per_second(1).burst(u64::from(PLENTY)))
}

/// Everybody is refused after one request.
pub fn scarce() -> TokenBucketLayer {
    limit(Rate::per_hour(1).burst(1))
}

/// The same with RateLimit fields in each answer.
pub fn plenty_told() -> TokenBucketLayer {
    plenty().rate_limit_headers(Dialect::Draft11)
}

/// The same with RateLimit fields in each answer.
pub fn scarce_told() -> TokenBucketLayer {
    scarce().rate_limit_headers(Dialect::Draft11)
}

fn limit(rate: Rate) -> TokenBucketLayer {
    TokenBucketLayer::new(rate).identify_by(Unverified::header(API_KEY)).rate_limit_headers(Dialect::None)
}

/// From borrowed text to a decision.
pub fn decide(clients: usize) -> impl Fn(&str) -> bool + Send + Sync + 'static {
    let buckets = plenty().max_clients(clients).handle();
    move |key| buckets.check(&buckets.digester().secret("key", key.as_bytes()), Cost::ONE).is_ok()
}

/// The digest of a key and nothing else.
pub fn digest() -> impl Fn(&str) -> bool + Send + Sync + 'static {
    |key| black_box(Digester::process().secret("key", key.as_bytes())).tier().is_none()
}

/// The time and nothing else.
pub fn clock() -> impl Fn(&str) -> bool + Send + Sync + 'static {
    let clock = Clock::system();
    move |key| black_box(clock.now()).as_nanos() > 0 || key.is_empty()
}

/// Sixty an hour.
pub fn hourly() -> TokenBucketLayer {
    limit(Rate::per_hour(60))
}

/// Four limits of requests, which nobody comes to.
pub fn four_counted() -> QuotaLayer {
    quota(
        Plan::new("counted")
            .limit(Quota::requests(1 << 40).per(Period::hour()))
            .limit(Quota::requests(1 << 40).per(Period::day()))
            .limit(Quota::requests(1 << 40).per(Period::week()))
            .limit(Quota::requests(1 << 40).per(Period::month())),
    )
}

/// Requests, bytes and requests at a time, of which nobody comes to the end.
pub fn four_mixed() -> QuotaLayer {
    quota(
        Plan::new("mixed")
            .limit(Quota::requests(1 << 40).per(Period::hour()))
            .limit(Quota::requests(1 << 40).per(Period::day()))
            .limit(Quota::bytes(1 << 40).per(Period::day()))
            .limit(Quota::concurrent(5)),
    )
}

fn quota(plan: Plan) -> QuotaLayer {
    QuotaLayer::new(plan).accept_unverified().identify_by(Unverified::header(API_KEY)).rate_limit_headers(Dialect::None)
}

/// Opens at half of the last hundred calls.
pub fn last_calls() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(Trip::failure_rate(0.5).min_requests(20).over_calls(100))
}

/// Opens at half of the calls of ten seconds.
pub fn last_seconds() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(Trip::failure_rate(0.5).min_requests(20).over_time(Duration::from_secs(10)))
}

/// Lets everybody pass: what the way through a layer costs by itself.
#[derive(Debug)]
pub struct Everyone;

impl Admit for Everyone {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<(), Refusal>> {
        MaybeFuture::Ready(Ok(()))
    }
}

/// The layer of a policy that does nothing.
pub fn gate() -> GateLayer<Everyone> {
    GateLayer::new(Everyone)
}
