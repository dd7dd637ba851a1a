//! State in this process: a bounded table of clients, and one cell for everyone together.
//!
//! The table is an extendible hash of small pages, each behind a lock of its own. A digest's first bits choose the page
//! through the [directory](directory), its last bits the slot in the page. A full page splits, and only its own entries
//! move; when the pages that the capacity pays for are used up, newcomers are told that it is [full](Full). A live entry
//! is never evicted. An entry whose time has passed equals no entry: requests that come by sweep a page now and then, so
//! that memory goes back without a task of its own.
//!
//! **Locks.** A thread that holds a page waits for another only when it has just taken that one from the free list, where
//! nobody who holds it waits for a page; all others are tried and skipped when taken. So nobody can wait in a circle.

mod accounts;
mod directory;
mod global;
mod page;
mod room;
mod sweep;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use accounts::Accounts;
pub(crate) use global::GlobalCell;
pub(crate) use table::Table;

/// What is written down of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When the client's bucket is full again, in nanoseconds of the clock: until then the entry lives.
    pub(crate) full_at: u64,
    /// How long the bucket takes to fill under the rate that it was written under, in nanoseconds: another rate has to
    /// [rescale](crate::rule::gcra::rescale) it. Zero for a client of whom nothing is known but that its bucket may have
    /// been taken from before the clock was set back.
    pub(crate) span: u64,
}

impl Entry {
    fn lives(&self, now: u64) -> bool {
        self.full_at > now
    }
}

/// There is no room for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;
