//! Tests that every store must pass, for those who write one or who want to see theirs pass.
//!
//! They know a store only by the handle of the layer whose state it keeps. A rule is a function that panics, saying what
//! was seen, when the store breaks it:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use tollgate::{QuotaLayer, conformance};
//!
//! conformance::quotas::all(async |layer: QuotaLayer| layer.handle()).await; // here the store would be set
//! # });
//! ```

pub mod quotas;
