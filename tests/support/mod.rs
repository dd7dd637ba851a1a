//! Helpers of several test binaries.
#![allow(dead_code, reason = "each binary uses a part of it")]

pub(crate) mod directory;
pub(crate) mod fixed;
pub(crate) mod gate;
pub(crate) mod postgres;
