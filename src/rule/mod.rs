//! Rules: pure functions of a state and the time. No lock, no clock, no http in here.

pub mod gcra;
mod lease;

pub use lease::{Acquired, Lease, Leases};
