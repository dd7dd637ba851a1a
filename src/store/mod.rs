//! Where the state of rules is kept.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod ledger;
pub(crate) mod memory;
