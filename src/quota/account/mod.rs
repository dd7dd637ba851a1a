//! The quota arithmetic of one client: counters, grants, reservations, slots and jobs; pure, and the same for each store.
//!
//! All limits of one client are decided together: the caller holds the account, and either every counter is charged or
//! none.

mod counter;
mod counters;
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
pub(crate) use grants::{GrantState, Grants};
pub(crate) use jobs::{Duplicate, Job};
use request::Marks;
pub(crate) use request::{AccountSettings, ChargeRequest, Denial, Now, Taken};
pub(crate) use reservations::{CloseResult, Stage};
pub(crate) use state::Account;
pub(crate) use usage::{Nearest, Warning};
