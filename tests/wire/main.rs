//! Refusals and rate limit fields as clients receive them.

mod fields;
mod grpc;
mod problem;
#[path = "../support/mod.rs"]
mod support;
