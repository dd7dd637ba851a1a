//! Tests that every store must pass, for authors of stores and for operators who check one.
//!
//! They access a store only through the handle of the layer whose state it stores. A rule is a function. If the store
//! breaks it, it panics and says what it observed:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use tollgate::{QuotaLayer, conformance};
//!
//! conformance::quotas::all(async |layer: QuotaLayer| layer.handle()).await; // here the store would be set
//! # });
//! ```

#[cfg(feature = "key-value")]
pub mod key_values;
pub mod quotas;
#[cfg(feature = "key-value")]
pub mod records;
