//! Token buckets: the handle and the layer.

mod edges;
mod layer;
#[path = "../support/mod.rs"]
mod support;
