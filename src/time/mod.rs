//! Time: monotonic moments, the wall clock, and calendar periods.

mod clock;
mod period;

pub(crate) use clock::nanos;
pub use clock::{Clock, FakeClock, Moment};
pub(crate) use period::Instant;
pub use period::{Period, Window};
