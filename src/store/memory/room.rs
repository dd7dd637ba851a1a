//! Room for a newcomer: by what has ended in its page, else by splitting it.

use std::sync::PoisonError;

use super::{
    Full,
    page::{Guard, Locked},
    table::Table,
};
use crate::sync::Ordering;

impl<const SLOTS: usize> Table<SLOTS> {
    /// Makes room for `tag` in its page, or finds that somebody has just written it.
    #[cold]
    pub(super) fn make_room<'a>(
        &'a self,
        mut page: Guard<'a, SLOTS>,
        tag: u64,
        now: u64,
    ) -> Result<(Guard<'a, SLOTS>, Option<usize>), Full> {
        self.sweep(&mut page, now);
        if self.live() >= self.capacity() {
            drop(page); // while no lock is held, one more page may be looked at
            self.sweep_next(now);
            page = self.owner(tag);
            let at = page.find(tag);
            if at.is_some() {
                return Ok((page, at));
            }
            if self.live() >= self.capacity() {
                return Err(Full);
            }
        }
        while page.is_full() {
            page = self.split(page, tag)?;
        }
        Ok((page, None))
    }

    /// Splits a page in two; gives the one that owns `tag`.
    fn split<'a>(&'a self, mut page: Guard<'a, SLOTS>, tag: u64) -> Result<Guard<'a, SLOTS>, Full> {
        if page.depth() >= self.directory.bits() {
            return Err(Full);
        }
        let index = self.take_free_page().ok_or(Full)?;
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
