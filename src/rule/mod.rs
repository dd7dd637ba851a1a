//! Rules: pure functions of a state and the time. No lock, no clock, no http in here.

pub(crate) mod backoff;
pub(crate) mod circuit;
pub mod gcra;
mod lease;
pub(crate) mod quota;
pub(crate) mod trip;
pub(crate) mod window;

pub use lease::{Acquired, Lease, Leases};
pub use trip::Trip;
