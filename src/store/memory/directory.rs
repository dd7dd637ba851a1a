//! Which page holds a digest: an array over the digest's first bits, read without a lock.

use crate::sync::{AtomicU32, Ordering};

/// For each value of the first bits of a tag, the index of a page.
///
/// A reader may be a moment late: the page says under its lock whether it still owns the tag. Whoever changes the
/// directory holds the locks of the pages concerned, so one who finds a page that no longer owns a tag sees, after that
/// page's lock, who does.
pub(super) struct Directory {
    pages: Box<[AtomicU32]>,
    bits: u32,
}

impl Directory {
    /// A directory over `bits` bits, evenly divided between the pages from 0 to 2^`base_bits` - 1.
    pub(super) fn new(bits: u32, base_bits: u32) -> Self {
        let pages = (0..1_u32 << bits).map(|slot| AtomicU32::new(slot >> (bits - base_bits))).collect();
        Self { pages, bits }
    }

    pub(super) fn page_of(&self, tag: u64) -> usize {
        self.pages[self.slot(tag)].load(Ordering::Acquire) as usize
    }

    /// Gives `page` all tags that begin with the first `depth` bits of `prefix`.
    pub(super) fn assign(&self, prefix: u64, depth: u32, page: usize) {
        let first = self.slot(prefix);
        for slot in &self.pages[first..first + (1 << (self.bits - depth))] {
            #[allow(clippy::cast_possible_truncation)] // there are fewer than 2^32 pages
            slot.store(page as u32, Ordering::Release);
        }
    }

    /// How many bits of a tag count.
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.pages)
    }

    fn slot(&self, tag: u64) -> usize {
        #[allow(clippy::cast_possible_truncation)] // at most 32 bits are left
        let slot = (tag >> (64 - self.bits)) as usize;
        slot
    }
}
