//! The quota arithmetic of one client: counters, grants, reservations, slots and jobs; pure, and the same for each store.
//!
//! All limits of one client are decided together: the caller holds the account, and either every counter is charged or
//! none.
//!
//! # Counters
//! A counter is what one limit counts in one window and epoch:
//!
//! - the **limit** by its name, its kind and its period: two plans may have limits of one name that count by the hour
//!   and by the month, and these are two counters;
//! - the **window**, one repetition of the period;
//! - the **epoch**, which each reset raises: from then on another counter counts in the same window.
//!
//! # Attribution
//! Each amount belongs to one counter of each limit of its kind in the plan that is in force at that moment. A
//! reservation has an estimate of the kinds that its plan counts.
//!
//! | amount | counter |
//! |---|---|
//! | charged or reserved at admission | the one that is open at admission |
//! | actual amount of a reservation, up to its estimate | the one of the reservation |
//! | actual amount beyond the estimate, or of a kind without one | the one that is open when it arrives |
//! | bytes that pass, and other usage of an open charge | the one that is open when it arrives |
//! | record outside of a charge | the one that is open when it arrives |
//! | commit after the expiry, where the estimate went back | the one that is open when it arrives |
//! | commit after the expiry, where the estimate was charged | as a commit in time |
//! | return of any amount | the one that it was counted in |
//!
//! A counter holds at most 2^53 - 1, used and reserved. An amount that a caller names is refused if a counter would
//! exceed that. One without a caller who could receive an error is cut, and the part that is cut is reported, at most
//! once: not if the answer to the ledger's COMMIT was lost.
//!
//! So a window that has ended grows by no usage that comes later, and no usage counts nowhere. Each store follows both
//! tables; `conformance::quotas` holds it to them.

mod closing;
mod counter;
mod counters;
mod credits;
mod cut;
mod due_map;
mod grants;
mod jobs;
mod request;
mod reservations;
mod state;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use counter::{Counter, MAX_CLOCK_STEP};
use counters::Retired;
pub(crate) use cut::{Changed, Cut};
pub(crate) use grants::{GrantState, Grants};
pub(crate) use jobs::{Duplicate, Job, JobCharge};
use request::Marks;
pub(crate) use request::{AccountSettings, ChargeRequest, ChargeScope, Denial, Now, Taken};
pub(crate) use reservations::{CloseResult, ClosedBy, Stage};
pub(crate) use state::Account;
pub(crate) use usage::{Nearest, Warning};
