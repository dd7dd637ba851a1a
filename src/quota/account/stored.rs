//! An account as a store keeps it between two decisions, and the decisions on it.

use std::{sync::Arc, time::Duration};

use super::{Account, Nearest, Now, Warning, counter::Counter, counts::PRESENT, grants::Grants};
use crate::{
    quota::{Amounts, Limit, MOST, Plan, Usage},
    refusal::Violation,
    time::Moment,
};

/// One count of a limit, in one of its periods.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct StoredCounter {
    pub(crate) limit: Arc<str>,
    pub(crate) kind: Arc<str>,
    /// The period, in nanoseconds since 1970.
    pub(crate) starts: u64,
    pub(crate) ends: u64,
    /// How often the account had counted something anew when this began.
    pub(crate) epoch: u32,
    pub(crate) used: u64,
    pub(crate) reserved: u64,
    /// The client was warned; a response must still tell of it.
    pub(crate) warned: bool,
    pub(crate) warning_pending: bool,
}

/// A grant, and what it has paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct GrantState {
    pub(crate) id: u64,
    pub(crate) limit: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) amount: u64,
    /// Nanoseconds since 1970.
    pub(crate) until: u64,
    pub(crate) approver: String,
    pub(crate) reason: String,
    /// Used up in periods that are over, and in the one that starts at `window` with `epoch`.
    pub(crate) before: u64,
    pub(crate) current: u64,
    pub(crate) window: u64,
    pub(crate) epoch: u32,
    pub(crate) ended: bool,
}

impl StoredCounter {
    /// Whether it counts what `limit` counts.
    pub(crate) fn is_of(&self, limit: &Limit) -> bool {
        *self.limit == *limit.name.as_str() && *self.kind == *limit.kind().as_str()
    }

    /// Whether its period is under way: a clock that has stepped back a little finds it so too.
    pub(crate) fn is_present(&self, wall: u64) -> bool {
        !self.counter().is_over(wall)
    }

    /// All of it that is not free.
    pub(crate) fn taken(&self) -> u64 {
        self.used.saturating_add(self.reserved)
    }

    /// How much of `amount` it can take up: what is used is never more than 2^53 - 1.
    pub(crate) fn room_for(&self, amount: u64) -> u64 {
        amount.min(MOST.saturating_sub(self.taken()))
    }

    /// A count of a limit that begins with the period of `wall`.
    pub(crate) fn beginning(limit: &Limit, wall: u64) -> Self {
        let mut counter = Counter::default();
        if let Some(period) = limit.quota.period() {
            counter.begin(period, wall);
        }
        Self::of(limit, &counter)
    }

    fn counter(&self) -> Counter {
        Counter {
            starts: self.starts,
            ends: self.ends,
            used: self.used,
            reserved: self.reserved,
            epoch: self.epoch,
            warned: self.warned,
            warning_pending: self.warning_pending,
        }
    }

    fn of(limit: &Limit, counter: &Counter) -> Self {
        Self {
            limit: (&limit.name).into(),
            kind: limit.kind().into(),
            starts: counter.starts,
            ends: counter.ends,
            epoch: counter.epoch,
            used: counter.used,
            reserved: counter.reserved,
            warned: counter.warned,
            warning_pending: counter.warning_pending,
        }
    }
}

/// An account under a plan, made of what is kept; its counts are those of the periods under way.
#[derive(Debug)]
pub(crate) struct AccountView(Account);

impl AccountView {
    /// `kept` has what there is of each counted limit of the plan, in its order.
    pub(crate) fn new(plan: &Arc<Plan>, kept: &[Option<&StoredCounter>], grants: &[GrantState]) -> Self {
        let mut account = Account::new(plan);
        for ((counter, kept), limit) in account.counts.counters.iter_mut().zip(kept).zip(plan.counted()) {
            if let Some(kept) = kept {
                *counter = kept.counter();
            }
            for state in grants.iter().filter(|state| state.is_of(limit)) {
                account.counts.grants.restore(state, limit);
            }
        }
        Self(account)
    }

    /// Takes everything, or nothing; gives the limits at which the client is to be warned, and of which it is to be told.
    pub(crate) fn take(
        &mut self,
        amounts: &Amounts,
        reserve: bool,
        wall: u64,
    ) -> Result<(Vec<Warning>, Vec<Warning>), Vec<Violation>> {
        if !self.0.counts.fits(amounts, &[]) {
            return Err(self.0.violations(amounts, at(wall)));
        }
        let marks = self.0.counts.add(amounts, &[], wall, PRESENT, reserve);
        Ok((self.0.warnings(marks.warned), self.0.warnings(marks.pending)))
    }

    /// What stands in the way of these amounts.
    pub(crate) fn check(&self, amounts: &Amounts, wall: u64) -> Vec<Violation> {
        self.0.violations(amounts, at(wall))
    }

    pub(crate) fn usage(&self, wall: u64) -> Usage {
        self.0.usage(at(wall))
    }

    pub(crate) fn nearest(&self, wall: u64) -> Option<Nearest> {
        self.0.nearest(at(wall))
    }

    /// The count of the plan's limit of this number, once it has begun.
    pub(crate) fn count(&self, index: usize) -> Option<StoredCounter> {
        let (counter, limit) = (&self.0.counts.counters[index], &self.0.counts.plan.counted()[index]);
        counter.has_begun().then(|| StoredCounter::of(limit, counter))
    }

    /// What each grant has paid for in the period under way.
    pub(crate) fn paid(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.counts.grants.current()
    }
}

impl GrantState {
    /// Whether it raises `limit`.
    pub(crate) fn is_of(&self, limit: &Limit) -> bool {
        *self.limit == *limit.name.as_str() && *self.kind == *limit.kind().as_str()
    }

    /// Whether it raises what `count` counts.
    pub(crate) fn is_of_count(&self, count: &StoredCounter) -> bool {
        self.limit == count.limit && self.kind == count.kind
    }

    /// What it has paid for stays paid: the count that it paid in is over.
    pub(crate) fn close(&mut self) {
        self.before = self.before.saturating_add(std::mem::take(&mut self.current));
    }
}

/// Uses grants up by what a count has retired its limit, those whose end is nearest first; gives back what is not any more.
pub(crate) fn cover(limit: &Limit, count: &StoredCounter, grants: &mut [GrantState]) {
    let mut all = Grants::default();
    for state in grants.iter().filter(|state| state.is_of(limit)) {
        all.restore(state, limit);
    }
    all.cover(limit, count.taken());
    for (id, current) in all.current() {
        if let Some(state) = grants.iter_mut().find(|state| state.id == id) {
            state.current = current;
        }
    }
}

/// How much higher grants make a limit.
pub(crate) fn raise(limit: &Limit, grants: &[GrantState]) -> u64 {
    let raises =
        |state: &GrantState| if state.ended { state.current } else { state.amount.saturating_sub(state.before) };
    grants.iter().filter(|state| state.is_of(limit)).map(raises).fold(0, u64::saturating_add)
}

fn at(wall: u64) -> Now {
    // Only what a ledger leaves to the process goes by the other clock.
    Now { moment: Moment::default() + Duration::ZERO, wall }
}
