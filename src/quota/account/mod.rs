//! What one client may still use: a pure machine of counters, grants, reservations, slots and jobs.
//!
//! Everything about one client changes together: whoever holds the account decides all limits at once, or none.

mod ask;
mod by_hand;
mod counter;
mod counts;
mod grants;
mod holds;
mod jobs;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod kept;
mod look;
mod past;
mod reservations;
mod state;
#[cfg(test)]
mod tests;

use ask::Marks;
pub(crate) use ask::{AccountSettings, Ask, No, Now, Taken};
pub(crate) use holds::{Closed, Stage};
pub(crate) use jobs::{Duplicate, Job};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use kept::{Count, GrantState, Sheet, cover, raise};
pub(crate) use look::{Nearest, Warning};
pub(crate) use state::Account;
