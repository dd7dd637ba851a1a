//! Token buckets: the rule, the handle and the layer.

mod edges;
mod gcra;
mod layer;
#[path = "../support/mod.rs"]
mod support;
