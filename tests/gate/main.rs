//! The gate around services of every kind: readiness, settlement and refusals, by hand and over sockets.

mod attacks;
mod body_table;
mod edges;
mod readiness;
mod service;
mod stacks;
#[path = "../support/mod.rs"]
mod support;
mod unidentified_warning;
