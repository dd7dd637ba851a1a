//! Observers for metrics and logs (features `metrics` and `tracing`).
//!
//! Each is one line on a layer: `.observe(telemetry::Metrics::new())`, `.observe(telemetry::Tracing::new())`. Several
//! observers of a layer receive the same events.
//!
//! No label and no field names a client, an address, a key or a path: each would make a time series, or leak. Labels
//! are the names of policies, limits and states, which your configuration bounds.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod tracing;

#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;
#[cfg(feature = "tracing")]
pub use self::tracing::Tracing;
