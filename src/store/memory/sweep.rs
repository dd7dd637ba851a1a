//! Memory goes back with the requests that come by: each time, a hand moves on over one page.

use super::{page::Guard, table::Table};
use crate::sync::Ordering;

impl<const SLOTS: usize> Table<SLOTS> {
    /// Drops what has ended by `now` in the page under the hand, joins it with its buddy if both together hold at most
    /// `joined` entries, and moves on.
    ///
    /// Waits for nobody: a page in use is skipped. The caller holds no page.
    #[cold]
    pub(super) fn sweep_next(&self, now: u64, joined: usize) {
        let bits = self.directory.bits();
        let hand = self.shared.hand.load(Ordering::Relaxed);
        let mut next = hand + 1;
        self.shared.swept.fetch_add(1, Ordering::Relaxed);
        let (index, page) = self.page((hand as u64) << (64 - bits));
        if let Some(mut page) = page.try_lock().filter(|page| !page.is_free()) {
            self.sweep(&mut page, now);
            self.join(index, &mut page, joined);
            // Moves behind all tags of the page.
            next = (hand | ((1 << (bits - page.depth())) - 1)) + 1;
        }
        self.shared.hand.store(next & ((1 << bits) - 1), Ordering::Relaxed);
    }

    fn join(&self, index: usize, page: &mut Guard<'_, SLOTS>, joined: usize) {
        let Some(buddy_prefix) = page.buddy(self.base_bits).filter(|_| page.len() <= joined / 2) else { return };
        let (buddy_index, buddy) = self.page(buddy_prefix);
        let Some(mut buddy) = buddy.try_lock().filter(|_| buddy_index != index) else { return };
        if buddy.prefix() == buddy_prefix && buddy.depth() == page.depth() && buddy.len() + page.len() <= joined {
            let depth = page.depth();
            page.absorb(&mut buddy);
            self.directory.assign(buddy_prefix, depth, index);
            self.give_free_page(buddy_index);
        }
    }
}
