//! Where the state of rules is kept.

pub(crate) mod memory;
