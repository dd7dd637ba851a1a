//! Fuzz targets on stable Rust: a fixed number of cases with a fixed seed, and 60 s of random ones in the long tests.
//!
//! Records of spools are a target beside their format, in `src/ledger/fallback/fuzz.rs`.

#[cfg(feature = "sqlite")]
mod archive;
mod documents;
mod engine;
mod identity;
mod ids;
mod input;
mod planted;
mod respond;

#[path = "../support/mod.rs"]
mod support;
