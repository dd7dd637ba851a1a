//! What becomes of calls now: read by every call, replaced at a transition.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::epoch::{Epoch, Seat};
use crate::circuit_breaker::ticket::Ticket;
use crate::{circuit_breaker::trip::Tally, sync::Spin, time::Moment};

/// The present regime, once for each seat. A thread looks at its own copy, under a lock that hardly anybody else wants:
/// that costs less than any cell that all threads share.
#[derive(Debug)]
pub(crate) struct Current(Box<[OwnCopy]>);

#[derive(Debug)]
#[repr(align(128))] // two copies share no line, nor a prefetched pair of lines
struct OwnCopy(Spin<Regime>);

/// What becomes of calls in the present generation.
#[derive(Debug)]
pub(crate) enum Regime {
    /// They pass and are counted.
    Counted(Arc<Seat>),
    /// They pass, and nobody counts.
    Free,
    /// The machine must be asked.
    Ask,
}

impl Current {
    /// Everybody asks the machine; `seats` is a power of two.
    pub(crate) fn new(seats: usize) -> Self {
        Self((0..seats).map(|_| OwnCopy(Spin::new(Regime::Ask))).collect())
    }

    pub(crate) fn seats(&self) -> usize {
        self.0.len()
    }

    /// What a call holds that passes without asking the machine.
    #[inline]
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        match &*self.0[thread_number() & (self.0.len() - 1)].0.lock() {
            Regime::Counted(seat) => Some(Ticket::Counted(Arc::clone(seat))),
            Regime::Free => Some(Ticket::Free),
            Regime::Ask => None,
        }
    }

    /// Lets calls pass by `regime` from now on, which knows the number of the seat.
    pub(crate) fn replace(&self, regime: impl Fn(usize) -> Regime) {
        for (number, copy) in self.0.iter().enumerate() {
            let next = regime(number);
            let last = std::mem::replace(&mut *copy.0.lock(), next);
            drop(last); // perhaps the last of its epoch, and outside the lock
        }
    }

    /// Whether anybody holds a ticket of the present regime.
    pub(crate) fn has_calls(&self) -> bool {
        self.0.iter().any(|copy| matches!(&*copy.0.lock(), Regime::Counted(seat) if Arc::strong_count(seat) > 1))
    }

    /// What the window holds, and how many calls in a row failed.
    pub(crate) fn tally(&self, now: Moment) -> (Tally, u32) {
        match &*self.0[0].0.lock() {
            Regime::Counted(seat) => Epoch::tally(seat, now),
            Regime::Free | Regime::Ask => (Tally::default(), 0),
        }
    }
}

/// A number that no other thread has, counted from 0.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}
