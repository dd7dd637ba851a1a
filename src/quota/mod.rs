//! The words of quotas: what is counted, how much of it, for how long, and what is allowed on top.

pub(crate) mod account;
mod amounts;
mod grant;
mod layer;
mod limit;
pub(crate) mod memory;
mod plan;
pub(crate) mod store;
mod usage;

pub use amounts::Amounts;
pub use grant::{ActiveGrant, Grant, GrantId};
pub use layer::{
    Charge, CloseOutcome, CountedBody, Cursor, Duplicates, Explanation, JobIdSource, JobRun, LimitExplanation,
    OnExpiry, OnFailure, QuotaError, QuotaLayer, QuotaPermit, QuotaPolicy, QuotaStatus, Quotas, RequestBytes,
    RequestBytesLayer, Reservation, ReservationError, ReservationId, ServedRequest, UsagePage,
};
pub use limit::{Quota, QuotaBuilder};
pub(crate) use plan::Limit;
pub use plan::Plan;
pub use store::QuotaStore;
pub use usage::{LimitUsage, Usage};

/// The most that is ever counted: 2^53 - 1, what memory, Lua and SQL all hold exactly.
pub(crate) const MOST: u64 = crate::cost::Cost::MAX.get();
