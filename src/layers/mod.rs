//! The layers; none knows another.

pub mod token_bucket;
