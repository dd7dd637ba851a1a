//! Layer of quotas, and the handle of its accounts.

mod active_plan;
mod admin;
mod builder;
mod bytes;
mod charge;
mod credit;
mod error;
mod handle;
mod idle;
mod jobs;
mod lifetimes;
mod overflow;
mod permit;
mod plans;
mod policy;
mod report;
mod reservation;
mod retired_versions;
mod run_job;
mod settings;
mod settle_job;
#[cfg(test)]
mod tests;
mod totals;

pub use admin::{Cursor, Explanation, LimitExplanation, UsagePage};
pub use builder::{QuotaLayer, QuotaService};
pub use bytes::{CountedBody, RequestBytes, RequestBytesLayer};
pub use charge::{Charge, KeptSlot, QuotaStatus};
pub use error::QuotaError;
pub use handle::Quotas;
pub use jobs::{Duplicates, JobIdSource};
pub use permit::QuotaPermit;
pub use policy::QuotaPolicy;
pub use reservation::{CloseOutcome, Reservation, ReservationError, ReservationId};
pub use run_job::{JobError, JobRun};
pub use settings::{OnExpiry, OnFailure, ServedRequest};
