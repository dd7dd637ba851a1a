//! What one client may still use: a pure machine of counters, grants, reservations, slots and jobs.
//!
//! Everything about one client changes together: whoever holds the account decides all limits at once, or none.

mod account;
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
#[cfg(test)]
mod tests;

pub(crate) use account::Account;
use ask::Marks;
pub(crate) use ask::{Ask, No, Now, Taken, Terms};
pub(crate) use holds::{Closed, Stage};
pub(crate) use jobs::{Duplicate, Job};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use kept::{Count, GrantState, Sheet, cover, raise};
pub(crate) use look::{Nearest, Warning};
