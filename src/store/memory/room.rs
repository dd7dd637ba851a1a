//! Room for a newcomer: by what has ended, or by splitting its page.

use std::sync::PoisonError;

use super::{
    Full,
    page::{Guard, Locked, Page},
    table::{REST, Table},
};
use crate::sync::Ordering;

/// At how many other pages a newcomer looks when the table is full: what has ended is soon found, and a table where all
/// live answers at once, for a page knows when its first entry ends.
pub(super) const LOOK_AT: usize = 2;

impl<const SLOTS: usize> Table<SLOTS> {
    /// Makes room for `tag` in its page, or finds that somebody has just written it.
    #[cold]
    pub(super) fn make_room<'a>(
        &'a self,
        mut page: Guard<'a, SLOTS>,
        tag: u64,
        now: u64,
    ) -> Result<(Guard<'a, SLOTS>, Option<usize>), Full> {
        let rest = if self.live() < self.capacity() { REST } else { 0 };
        self.sweep(&mut page, now.saturating_sub(rest));
        for look in 0..=LOOK_AT {
            if look > 0 {
                // Where pages are wanting and not places, two become one as soon as they fit.
                let joined = if self.live() < self.capacity() { Page::<SLOTS>::ROOM } else { SLOTS / 2 };
                drop(page); // while no lock is held, another page may be looked at
                self.sweep_next(now, joined);
                page = self.owner(tag);
                let at = page.find(tag);
                if at.is_some() {
                    return Ok((page, at));
                }
            }
            if self.live() < self.capacity() {
                page = self.split_for(page, tag, now);
                if !page.is_full() {
                    return Ok((page, None));
                }
            }
        }
        Err(Full)
    }

    /// Splits the page until there is room in the part that owns `tag`, if there are free pages.
    fn split_for<'a>(&'a self, mut page: Guard<'a, SLOTS>, tag: u64, now: u64) -> Guard<'a, SLOTS> {
        while page.is_full() {
            page = match self.split(page, tag) {
                Ok(page) => page,
                Err(mut page) => {
                    self.sweep(&mut page, now);
                    return page;
                }
            };
        }
        page
    }

    /// Splits a page in two and gives the one that owns `tag`; or gives the page back when there is no other.
    fn split<'a>(&'a self, mut page: Guard<'a, SLOTS>, tag: u64) -> Result<Guard<'a, SLOTS>, Guard<'a, SLOTS>> {
        let free = if page.depth() < self.directory.bits() { self.take_free_page() } else { None };
        let Some(index) = free else { return Err(page) };
        let mut other = self.pages[index].lock();
        page.split(&mut other);
        self.directory.assign(other.prefix(), other.depth(), index);
        Ok(if other.owns(tag) { other } else { page })
    }

    fn take_free_page(&self) -> Option<usize> {
        self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).pop().map(|index| index as usize)
    }

    pub(super) fn give_free_page(&self, index: usize) {
        let index = u32::try_from(index).expect("there are fewer than 2^28 pages");
        self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).push(index);
    }

    pub(super) fn sweep(&self, page: &mut Guard<'_, SLOTS>, now: u64) {
        let dropped = page.sweep(now);
        if dropped > 0 {
            self.shared.live.fetch_sub(dropped, Ordering::Relaxed);
        }
    }

    pub(super) fn page(&self, tag: u64) -> (usize, &Locked<SLOTS>) {
        let index = self.directory.page_of(tag);
        (index, &self.pages[index])
    }
}
