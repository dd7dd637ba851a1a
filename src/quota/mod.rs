//! The words of quotas: what is counted, how much of it, for how long, and what is allowed on top.

mod amounts;
mod grant;
mod kind;
mod limit;
mod plan;
mod usage;
mod violation;

pub use amounts::Amounts;
pub(crate) use grant::no_such_limit;
pub use grant::{Grant, GrantId, Granted};
pub use kind::{Direction, Kind};
pub use limit::{Counted, Quota};
pub(crate) use plan::Limit;
pub use plan::Plan;
pub use usage::{LimitUsage, Usage};
pub use violation::Violation;

/// The most that is ever counted: 2^53 - 1, what memory, Lua and SQL all hold exactly.
pub(crate) const MOST: u64 = crate::Cost::MAX.get();
