//! The layers.

pub mod circuit_breaker;
