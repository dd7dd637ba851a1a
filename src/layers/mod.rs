//! The layers; none knows another.

pub mod circuit_breaker;
pub mod quota;
pub mod token_bucket;
