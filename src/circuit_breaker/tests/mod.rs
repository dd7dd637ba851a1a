//! Tests of the parts of a circuit breaker that its handle and layer do not show.

#[cfg(tollgate_loom)]
mod interleavings;
mod machine;
mod trip;
