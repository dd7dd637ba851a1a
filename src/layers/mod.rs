//! The layers; none knows another.
//!
//! ```
//! use tollgate::{CircuitBreakerLayer, Rate, TokenBucketLayer, Trip};
//!
//! let outside_in = (TokenBucketLayer::new(Rate::per_second(50)), CircuitBreakerLayer::new(Trip::consecutive(5)));
//! ```

pub mod circuit_breaker;
pub mod quota;
pub mod token_bucket;
