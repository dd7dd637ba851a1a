//! The layers; none knows another.

pub mod circuit_breaker;
pub mod token_bucket;
