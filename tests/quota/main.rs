//! Quotas in memory: the handle, the layer, and the periods in which they count.

mod handle;
mod layer;
mod periods;
#[cfg(feature = "zones")]
mod periods_in_zones;
#[path = "../support/mod.rs"]
mod support;
