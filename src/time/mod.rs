//! Time: monotonic moments, the wall clock, and calendar periods.

mod clock;
mod period;

pub use clock::{Clock, FakeClock, Moment};
pub(crate) use clock::{from_1970, nanos, since_1970};
pub(crate) use period::Instant;
pub use period::{Period, Window};
