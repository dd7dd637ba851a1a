//! A book that knows nothing of counters: it remembers each charge, record and reservation with the window that it was
//! made in, and adds up those of the window that is under way.

use std::num::NonZeroU64;

use crate::quota::account::{Stage, tests::*};
use crate::sync::Lease;

/// Which kind each limit counts, and for how long.
pub(super) const KIND: [usize; 3] = [0, 0, 1];
const LENGTH: [u64; 3] = [HOUR, DAY, HOUR];

/// No count of any limit.
const NONE: u64 = u64::MAX;

/// Amounts reserved or used at one time.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// In which count of each limit.
    pub(super) counts: [u64; 3],
    pub(super) used: [u64; 2],
    pub(super) reserved: [u64; 2],
    /// The reservation, when it expires, and how it ended.
    pub(super) hold: Option<(NonZeroU64, Moment, Stage)>,
    /// Amounts asked for, and their time: they are returned whole, and once.
    pub(super) estimate: [Option<u64>; 2],
    pub(super) epoch: Option<u32>,
}

/// All entries, which count of each limit is under way, and who holds a slot.
pub(super) struct Book {
    pub(super) limits: [u64; 4],
    end: [Option<u64>; 3],
    count: [u64; 3],
    pub(super) entries: Vec<Entry>,
    pub(super) slots: Vec<(Lease, Moment)>,
}

impl Book {
    pub(super) fn new(limits: [u64; 4]) -> Self {
        Self { limits, end: [None; 3], count: [0; 3], entries: Vec::new(), slots: Vec::new() }
    }

    /// Goes to another window when this one is over, never back; ends the reservations whose time has run out.
    pub(super) fn advance(&mut self, now: Now, charge_expired: bool) {
        for (limit, length) in LENGTH.into_iter().enumerate() {
            let of_now = (now.wall / length + 1) * length;
            match self.end[limit] {
                Some(end) if now.wall >= end => self.start(limit),
                // Too far ahead for a clock that was right.
                Some(end) if end - length > now.wall + 2 * DAY => self.end[limit] = Some(of_now),
                _ => {}
            }
        }
        for entry in &mut self.entries {
            if let Some((_, expires, stage @ Stage::Open)) = &mut entry.hold
                && now.moment >= *expires
            {
                *stage = Stage::Expired;
                if charge_expired {
                    entry.used = entry.reserved;
                }
                entry.reserved = [0; 2];
            }
        }
    }

    /// Counts a limit from zero, in no window yet.
    pub(super) fn start(&mut self, limit: usize) {
        self.end[limit] = None;
        self.count[limit] += 1;
    }

    /// Counts a limit from zero; the window goes on while the plan has the limit.
    pub(super) fn reset(&mut self, limit: usize) {
        let end = self.end[limit].filter(|_| self.limits[limit] > 0);
        self.start(limit);
        self.end[limit] = end;
    }

    /// Other limits: of one that goes nothing is kept but a window that is under way.
    pub(super) fn change(&mut self, limits: [u64; 4]) {
        self.limits = limits;
        for (limit, there_is) in limits.into_iter().take(3).enumerate() {
            if there_is == 0 && self.end[limit].is_none() {
                self.start(limit);
            }
        }
    }

    /// In which counts an entry is that is made now: of those that the plan has, and those whose window is under way.
    pub(super) fn counts(&self) -> [u64; 3] {
        let counts = |limit: usize| self.limits[limit] > 0 || self.end[limit].is_some();
        std::array::from_fn(|limit| if counts(limit) { self.count[limit] } else { NONE })
    }

    /// Begins the windows in which an entry of these counts is made, where none is under way.
    pub(super) fn begin(&mut self, asked: [Option<u64>; 2], counts: [u64; 3], wall: u64) {
        for limit in 0..3 {
            if self.limits[limit] > 0 && asked[KIND[limit]].is_some() && counts[limit] == self.count[limit] {
                self.end[limit].get_or_insert((wall / LENGTH[limit] + 1) * LENGTH[limit]);
            }
        }
    }

    /// Used and reserved of a limit.
    pub(super) fn sum(&self, limit: usize) -> (u64, u64) {
        let here = self.entries.iter().filter(|entry| entry.counts[limit] == self.count[limit]);
        here.fold((0, 0), |(used, reserved), entry| {
            (used + entry.used[KIND[limit]], reserved + entry.reserved[KIND[limit]])
        })
    }

    /// Takes a slot as the account should: a free one, or one that was held too long.
    pub(super) fn take_slot(&mut self, lease: Lease, now: Moment) {
        while self.slots.len() as u64 >= self.limits[3] {
            let oldest = (0..self.slots.len()).min_by_key(|&at| self.slots[at].1).unwrap();
            self.slots.remove(oldest);
        }
        self.slots.push((lease, now));
    }

    /// Whether there is a slot, or would be if those who have held one too long lost it.
    pub(super) fn has_slot(&self, now: Moment, max_hold: Duration) -> bool {
        let held = self.slots.iter().filter(|(_, since)| now <= *since + max_hold).count();
        (held as u64) < self.limits[3]
    }

    /// Those of the entries that are of some sort.
    pub(super) fn pick(&mut self, which: usize, sort: impl Fn(&Entry) -> bool) -> Option<&mut Entry> {
        let all: Vec<_> = (0..self.entries.len()).filter(|&at| sort(&self.entries[at])).collect();
        (!all.is_empty()).then(|| &mut self.entries[all[which % all.len()]])
    }
}
