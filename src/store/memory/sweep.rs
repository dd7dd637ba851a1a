//! Memory goes back with the requests that come by: each time, a hand moves on over one page.

use super::{page::Guard, table::Table};
use crate::sync::Ordering;

impl<const SLOTS: usize> Table<SLOTS> {
    /// Drops what has ended by `now` in the page under the hand, joins it with its buddy if both are nearly empty, and moves on.
    ///
    /// Waits for nobody: a page in use is skipped. The caller holds no page.
    #[cold]
    pub(super) fn sweep_next(&self, now: u64) {
        let bits = self.directory.bits();
        let hand = self.shared.hand.load(Ordering::Relaxed);
        let mut next = hand + 1;
        self.shared.swept.fetch_add(1, Ordering::Relaxed);
        let (index, page) = self.page((hand as u64) << (64 - bits));
        if let Some(mut page) = page.try_lock().filter(|page| !page.is_free()) {
            self.sweep(&mut page, now);
            self.join(index, &mut page);
            // Moves behind all tags of the page.
            next = (hand | ((1 << (bits - page.depth())) - 1)) + 1;
        }
        self.shared.hand.store(next & ((1 << bits) - 1), Ordering::Relaxed);
    }

    /// Joins a page with its buddy, if what both hold is at most half of a page: so that it does not soon split again.
    fn join(&self, index: usize, page: &mut Guard<'_, SLOTS>) {
        let Some(buddy_prefix) = page.buddy(self.base_bits).filter(|_| page.len() <= SLOTS / 4) else { return };
        let (buddy_index, buddy) = self.page(buddy_prefix);
        let Some(mut buddy) = buddy.try_lock().filter(|_| buddy_index != index) else { return };
        if buddy.prefix() == buddy_prefix && buddy.depth() == page.depth() && buddy.len() + page.len() <= SLOTS / 2 {
            let depth = page.depth();
            page.absorb(&mut buddy);
            self.directory.assign(buddy_prefix, depth, index);
            self.give_free_page(buddy_index);
        }
    }
}
