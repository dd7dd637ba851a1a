//! A book without counters. It stores each charge, record and reservation with its window, and sums those of the open
//! window.

use std::num::NonZeroU64;

use crate::quota::account::{ChargeScope, Stage, tests::*};
use crate::sync::Lease;

/// Kind and period of each limit.
pub(super) const KIND: [usize; 3] = [0, 0, 1];
const LENGTH: [u64; 3] = [HOUR, DAY, HOUR];

/// Window number of a limit that an entry does not belong to.
const NONE: u64 = u64::MAX;

/// Amounts that were reserved or used at one time.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Window of each limit to which the entry belongs.
    pub(super) counts: [u64; 3],
    pub(super) used: [u64; 2],
    pub(super) reserved: [u64; 2],
    /// The reservation, the time of its expiry, and its end; `None` while it is open.
    pub(super) hold: Option<(NonZeroU64, Moment, Option<Stage>)>,
    /// Requested amounts and their time. They are refunded completely, and once.
    pub(super) estimate: [Option<u64>; 2],
    pub(super) scope: Option<ChargeScope>,
}

/// All entries, the open window of each limit, and the holders of slots.
pub(super) struct Book {
    pub(super) limits: [u64; 4],
    end: [Option<u64>; 3],
    /// The time at which the last window was seen to be over: no earlier one begins.
    seen: [u64; 3],
    count: [u64; 3],
    pub(super) entries: Vec<Entry>,
    pub(super) slots: Vec<(Lease, Moment)>,
}

impl Book {
    pub(super) fn new(limits: [u64; 4]) -> Self {
        Self { limits, end: [None; 3], seen: [0; 3], count: [0; 3], entries: Vec::new(), slots: Vec::new() }
    }

    /// Begins another window once this one has ended, never an earlier one; expires overdue reservations.
    pub(super) fn advance(&mut self, now: Now, charge_expired: bool) {
        for (limit, length) in LENGTH.into_iter().enumerate() {
            let of_now = (now.wall / length + 1) * length;
            match self.end[limit] {
                Some(end) if now.wall >= end => {
                    self.start(limit);
                    self.seen[limit] = if self.limits[limit] > 0 { now.wall } else { 0 };
                }
                // So far ahead that the clock was wrong.
                Some(end) if end - length > now.wall + 2 * DAY => self.end[limit] = Some(of_now),
                _ => {}
            }
        }
        for entry in &mut self.entries {
            if let Some((_, expires, stage @ None)) = &mut entry.hold
                && now.moment >= *expires
            {
                *stage = Some(Stage::Expired);
                if charge_expired {
                    entry.used = entry.reserved;
                }
                entry.reserved = [0; 2];
            }
        }
    }

    /// Counts a limit from zero, without an open window.
    pub(super) fn start(&mut self, limit: usize) {
        (self.end[limit], self.seen[limit]) = (None, 0);
        self.count[limit] += 1;
    }

    /// Counts a limit from zero; the window stays open while the plan has the limit.
    pub(super) fn reset(&mut self, limit: usize) {
        let there = self.limits[limit] > 0;
        let (end, seen) = (self.end[limit].filter(|_| there), self.seen[limit]);
        self.start(limit);
        (self.end[limit], self.seen[limit]) = (end, if there { seen } else { 0 });
    }

    /// Changes the limits. Of a limit that is removed, only an open window stays.
    pub(super) fn change(&mut self, limits: [u64; 4]) {
        self.limits = limits;
        for (limit, there_is) in limits.into_iter().take(3).enumerate() {
            if there_is == 0 && self.end[limit].is_none() {
                self.start(limit);
            }
        }
    }

    /// Returns the windows of an entry that is made now: those of the plan's limits.
    pub(super) fn counts(&self) -> [u64; 3] {
        std::array::from_fn(|limit| if self.limits[limit] > 0 { self.count[limit] } else { NONE })
    }

    /// Begins the windows of an entry for limits without an open one.
    pub(super) fn begin(&mut self, asked: [Option<u64>; 2], counts: [u64; 3], wall: u64) {
        for limit in 0..3 {
            if self.limits[limit] > 0 && asked[KIND[limit]].is_some() && counts[limit] == self.count[limit] {
                let seen = self.seen[limit];
                let wall = if seen.saturating_sub(wall) > 2 * DAY { wall } else { wall.max(seen) };
                self.end[limit].get_or_insert((wall / LENGTH[limit] + 1) * LENGTH[limit]);
            }
        }
    }

    /// Returns the used and reserved amount of a limit.
    pub(super) fn sum(&self, limit: usize) -> (u64, u64) {
        let here = self.entries.iter().filter(|entry| entry.counts[limit] == self.count[limit]);
        here.fold((0, 0), |(used, reserved), entry| {
            (used + entry.used[KIND[limit]], reserved + entry.reserved[KIND[limit]])
        })
    }

    /// Returns the number of open reservations.
    pub(super) fn expiring(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.hold, Some((_, _, None)))).count()
    }

    /// Acquires the slot that the account should choose: a free one, or an overdue one.
    pub(super) fn take_slot(&mut self, lease: Lease, now: Moment) {
        while self.slots.len() as u64 >= self.limits[3] {
            let oldest = (0..self.slots.len()).min_by_key(|&at| self.slots[at].1).unwrap();
            self.slots.remove(oldest);
        }
        self.slots.push((lease, now));
    }

    /// Whether a slot is free or overdue.
    pub(super) fn has_slot(&self, now: Moment, max_hold: Duration) -> bool {
        let held = self.slots.iter().filter(|(_, since)| now <= *since + max_hold).count();
        (held as u64) < self.limits[3]
    }

    /// Returns one of the entries that `sort` accepts.
    pub(super) fn pick(&mut self, which: usize, sort: impl Fn(&Entry) -> bool) -> Option<&mut Entry> {
        let all: Vec<_> = (0..self.entries.len()).filter(|&at| sort(&self.entries[at])).collect();
        (!all.is_empty()).then(|| &mut self.entries[all[which % all.len()]])
    }
}
