//! Peers, set up as their documentation shows.

use std::{num::NonZeroU32, time::Duration};

use axum_gcra::{RateLimitLayer, RateLimitLayerBuilder, gcra};
use axum07::extract::FromRequestParts;
use failsafe::{FailurePolicy, StateMachine, backoff, failure_policy};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::QuantaInstant,
    middleware::{NoOpMiddleware, RateLimitingMiddleware, StateInformationMiddleware},
};
use http::{Request, StatusCode, request::Parts};
use recloser::Recloser;
use tower_governor::{
    GovernorError, GovernorLayer,
    governor::{GovernorConfig, GovernorConfigBuilder},
    key_extractor::KeyExtractor,
};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, DefaultClassifier, SlidingWindowType};

use crate::{
    drive::API_KEY,
    ours::{PLENTY, SLOW_BURST},
};

pub fn governor() -> DefaultKeyedRateLimiter<String> {
    let per_second = NonZeroU32::new(1).expect("positive");
    let burst = NonZeroU32::new(PLENTY).expect("positive");
    RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))
}

/// The limiter takes a `String`, so that borrowed text must be copied first.
pub fn governor_decide() -> impl Fn(&str) -> bool + Send + Sync + 'static {
    let limiter = governor();
    move |key| limiter.check_key(&key.to_owned()).is_ok()
}

/// The same for a million keys.
pub fn governor_decide_million() -> impl Fn(&str) -> bool + Send + Sync + 'static {
    let one = NonZeroU32::new(1).expect("positive");
    let burst = NonZeroU32::new(SLOW_BURST).expect("positive");
    let limiter: DefaultKeyedRateLimiter<String> = RateLimiter::keyed(Quota::per_hour(one).allow_burst(burst));
    move |key| limiter.check_key(&key.to_owned()).is_ok()
}

/// One of tower_governor's two types: with headers and without.
pub type TowerGovernor<M> = GovernorLayer<ByHeader, M, axum::body::Body>;

pub fn tower_governor(scarce: bool) -> TowerGovernor<NoOpMiddleware> {
    let (period, burst) = tower_governor_rate(scarce);
    finish(GovernorConfigBuilder::default().period(period).burst_size(burst).key_extractor(ByHeader).finish())
}

pub fn tower_governor_million() -> TowerGovernor<NoOpMiddleware> {
    let mut builder = GovernorConfigBuilder::default().key_extractor(ByHeader);
    finish(builder.period(Duration::from_secs(3_600)).burst_size(SLOW_BURST).finish())
}

pub fn tower_governor_with_headers(scarce: bool) -> TowerGovernor<StateInformationMiddleware> {
    let (period, burst) = tower_governor_rate(scarce);
    let mut builder = GovernorConfigBuilder::default().period(period).burst_size(burst).key_extractor(ByHeader);
    finish(builder.use_headers().finish())
}

fn tower_governor_rate(scarce: bool) -> (Duration, u32) {
    if scarce { (Duration::from_secs(3_600), 1) } else { (Duration::from_secs(1), PLENTY) }
}

fn finish<M: RateLimitingMiddleware<QuantaInstant>>(config: Option<GovernorConfig<ByHeader, M>>) -> TowerGovernor<M> {
    GovernorLayer::new(config.expect("a valid rate"))
}

/// Takes the key from the field.
#[derive(Clone, Debug)]
pub struct ByHeader;

impl KeyExtractor for ByHeader {
    type Key = String;

    fn extract<T>(&self, request: &Request<T>) -> Result<String, GovernorError> {
        let value = request.headers().get(API_KEY).and_then(|value| value.to_str().ok());
        value.map(str::to_owned).ok_or(GovernorError::UnableToExtractKey)
    }
}

/// The key of a request, for axum_gcra.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Key(String);

#[axum07::async_trait]
impl FromRequestParts<()> for Key {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, (): &()) -> Result<Self, StatusCode> {
        let value = parts.headers.get(API_KEY).and_then(|value| value.to_str().ok());
        value.map(|value| Self(value.to_owned())).ok_or(StatusCode::BAD_REQUEST)
    }
}

pub fn axum_gcra(scarce: bool) -> RateLimitLayerBuilder<Key> {
    let quota = if scarce {
        gcra::Quota::simple(Duration::from_secs(3_600))
    } else {
        gcra::Quota::new(Duration::from_secs(1), std::num::NonZeroU64::new(u64::from(PLENTY)).expect("positive"))
    };
    RateLimitLayer::builder().with_default_quota(quota)
}

/// The last 100 calls, or those of 10 s.
pub fn tower_resilience(window: SlidingWindowType) -> CircuitBreakerLayer<DefaultClassifier> {
    let builder = CircuitBreakerLayer::builder().failure_rate_threshold(0.5).minimum_number_of_calls(20);
    let builder = match window {
        SlidingWindowType::CountBased => builder.sliding_window_size(100),
        SlidingWindowType::TimeBased => builder.sliding_window_duration(Duration::from_secs(10)),
    };
    builder.sliding_window_type(window).build().expect("valid settings")
}

pub fn failsafe() -> StateMachine<impl FailurePolicy + Send + Sync, ()> {
    let backoff = backoff::exponential(Duration::from_secs(10), Duration::from_secs(60));
    let policy = failure_policy::success_rate_over_time_window(0.5, 20, Duration::from_secs(10), backoff);
    failsafe::Config::new().failure_policy(policy).build()
}

pub fn recloser() -> recloser::AsyncRecloser {
    Recloser::custom().error_rate(0.5).closed_len(100).build().into()
}
