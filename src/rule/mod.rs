//! Rules: pure functions of a state and the time. No lock, no clock, no http in here.
//!
//! ```
//! use tollgate::{Cost, Moment, Rate, rule::gcra::{Verdict, decide}};
//!
//! let (rate, now) = (Rate::per_second(1).burst(5), Moment::default());
//! assert!(matches!(decide(&rate, None, Cost::new(5), now), Verdict::Admitted { .. }));
//! ```

pub(crate) mod backoff;
pub(crate) mod circuit;
pub mod gcra;
mod lease;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod ledger;
pub(crate) mod quota;
pub(crate) mod trip;
pub(crate) mod window;

pub use lease::{Acquired, Lease, Leases};
pub use trip::Trip;
