//! Memory goes back at once, for whoever does not want to wait for requests to come by.

use super::table::{REST, Table};
use crate::Moment;

impl<const SLOTS: usize> Table<SLOTS> {
    /// Drops what has ended in all pages, one after the other, and joins those that are nearly empty.
    ///
    /// A page in use is skipped, and a request waits for one page at most.
    pub(crate) fn sweep_all(&self, now: Moment) {
        for _ in 0..self.pages.len() {
            self.sweep_next(now.as_nanos().saturating_sub(REST), SLOTS / 2);
        }
    }
}
