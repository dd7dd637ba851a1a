//! Time: monotonic moments, the wall clock, and calendar periods.

mod clock;
mod period;
mod span;

pub use clock::{Clock, FakeClock, Moment};
pub(crate) use clock::{from_1970, nanos, since_1970};
pub(crate) use period::Instant;
#[cfg(feature = "serde")]
pub(crate) use period::PeriodText;
pub use period::{Period, Window};
pub(crate) use span::{Span, UNITS, parse_span};
