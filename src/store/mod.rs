//! Where the state of rules is kept.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[allow(dead_code, unused_imports)]
pub(crate) mod ledger;
pub(crate) mod memory;
