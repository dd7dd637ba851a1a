//! What one client may still use: a pure machine of counters, grants, reservations, slots and jobs.
//!
//! Everything about one client changes together: whoever holds the account decides all limits at once, or none.

mod admin;
mod counter;
mod counts;
mod grants;
mod holds;
mod jobs;
mod request;
mod reservations;
mod retired;
mod state;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod stored;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use holds::{Closed, Stage};
pub(crate) use jobs::{Duplicate, Job};
use request::Marks;
pub(crate) use request::{AccountSettings, ChargeRequest, Denial, Now, Taken};
pub(crate) use state::Account;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use stored::{AccountView, GrantState, StoredCounter, cover, raise};
pub(crate) use usage::{Nearest, Warning};
