//! Contestants of this crate.

use std::{hint::black_box, sync::Arc, time::Duration};

use tollgate::{
    Admit, CircuitBreakerLayer, Client, Clock, Cost, Dialect, Digester, GateLayer, Gates, MaybeFuture, Period, Plan,
    Quota, QuotaLayer, Rate, Refusal, RequestHead, TokenBucketLayer, Trip, Unverified,
};

use crate::drive::API_KEY;

/// A burst that no client exhausts; one token a second is refilled.
pub const PLENTY: u32 = 4_000_000_000;

/// A rate that no client reaches.
pub fn plenty() -> TokenBucketLayer {
    limit(Rate::per_second(1).burst(u64::from(PLENTY)))
}

/// A burst that no client exhausts among a million, and one token an hour is refilled: no bucket is full again during
/// the run. This crate forgets full buckets, the peers keep them.
pub const SLOW_BURST: u32 = 1_000_000;

/// A rate that no client reaches among a million.
pub fn million() -> TokenBucketLayer {
    limit(Rate::per_hour(1).burst(u64::from(SLOW_BURST))).max_clients(1_000_000)
}

/// A rate that refuses each client after one request.
pub fn scarce() -> TokenBucketLayer {
    limit(Rate::per_hour(1).burst(1))
}

/// The same with RateLimit fields in each response.
pub fn plenty_told() -> TokenBucketLayer {
    plenty().rate_limit_headers(Dialect::Draft11)
}

/// The same with RateLimit fields in each response.
pub fn scarce_told() -> TokenBucketLayer {
    scarce().rate_limit_headers(Dialect::Draft11)
}

fn limit(rate: Rate) -> TokenBucketLayer {
    TokenBucketLayer::new(rate).identify_by(Unverified::header(API_KEY)).rate_limit_headers(Dialect::None)
}

/// Decides for one of 10,000 borrowed text keys.
pub fn decide() -> impl Fn(&str) -> bool + Send + Sync + 'static {
    decide_in(plenty().max_clients(10_000))
}

/// Decides for one of a million borrowed text keys.
pub fn decide_million() -> impl Fn(&str) -> bool + Send + Sync + 'static {
    decide_in(million())
}

fn decide_in(layer: TokenBucketLayer) -> impl Fn(&str) -> bool + Send + Sync + 'static {
    let buckets = layer.handle();
    move |key| buckets.check(&buckets.digester().secret("key", key.as_bytes()), Cost::ONE).is_ok()
}

/// Computes the digest of a key and nothing else.
pub fn digest() -> impl Fn(&str) -> bool + Send + Sync + 'static {
    |key| black_box(Digester::process().secret("key", key.as_bytes())).tier().is_none()
}

/// Reads the time and nothing else.
pub fn clock() -> impl Fn(&str) -> bool + Send + Sync + 'static {
    let clock = Clock::system();
    move |key| black_box(clock.now()).as_nanos() > 0 || key.is_empty()
}

/// A rate of 60 an hour.
pub fn hourly() -> TokenBucketLayer {
    limit(Rate::per_hour(60))
}

/// A plan of four request limits that no client reaches.
pub fn four_counted() -> QuotaLayer {
    quota(counted())
}

fn counted() -> Plan {
    Plan::new("counted")
        .limit(Quota::requests(1 << 40).per(Period::hour()))
        .limit(Quota::requests(1 << 40).per(Period::day()))
        .limit(Quota::requests(1 << 40).per(Period::week()))
        .limit(Quota::requests(1 << 40).per(Period::month()))
}

/// A plan of requests, bytes and concurrency that no client exhausts.
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

/// A trip at half of the last 100 calls.
pub fn last_calls() -> CircuitBreakerLayer {
    CircuitBreakerLayer::for_server().trip(Trip::failure_rate(0.5).min_requests(20).over_calls(100))
}

/// A trip at half of the calls of 10 s.
pub fn last_seconds() -> CircuitBreakerLayer {
    CircuitBreakerLayer::for_server().trip(Trip::failure_rate(0.5).min_requests(20).over_time(Duration::from_secs(10)))
}

/// A bucket around a breaker, each with a gate of its own.
pub fn nested_two() -> (TokenBucketLayer, CircuitBreakerLayer) {
    (plenty(), last_seconds())
}

/// A bucket around a quota of four limits around a breaker, each with a gate of its own.
pub fn nested_three() -> (TokenBucketLayer, QuotaLayer, CircuitBreakerLayer) {
    (plenty(), four_counted(), last_calls())
}

/// A bucket around a breaker in one gate.
pub fn gates_two() -> Gates<(TokenBucketLayer, CircuitBreakerLayer)> {
    Gates::new((unidentified(), last_seconds())).identify_by(Unverified::header(API_KEY))
}

/// A bucket around a quota of four limits around a breaker in one gate.
pub fn gates_three() -> Gates<(TokenBucketLayer, QuotaLayer, CircuitBreakerLayer)> {
    let quota = QuotaLayer::new(counted()).accept_unverified().rate_limit_headers(Dialect::None);
    Gates::new((unidentified(), quota, last_calls())).identify_by(Unverified::header(API_KEY))
}

/// A rate that no client reaches, without an identity of its own.
fn unidentified() -> TokenBucketLayer {
    TokenBucketLayer::new(Rate::per_second(1).burst(u64::from(PLENTY))).rate_limit_headers(Dialect::None)
}

/// Admits each request: measures the cost of the gate alone.
#[derive(Debug)]
pub struct AdmitAll;

impl Admit for AdmitAll {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
        MaybeFuture::Ready(Ok(()))
    }
}

/// Returns the layer of a policy that does nothing.
pub fn gate() -> GateLayer<AdmitAll> {
    GateLayer::new(AdmitAll)
}
