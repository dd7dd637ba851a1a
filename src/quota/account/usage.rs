//! Reports of an account; valid after [`advance`](Account::advance).

use std::time::Duration;

use super::{Account, Counter, Now, counters::fits};
use crate::{
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Limit, LimitUsage, Usage},
    refusal::Violation,
    time::from_1970,
};

/// The limit nearest to exhaustion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nearest {
    /// Index in the order of the plan; the concurrency limit is the last.
    pub(crate) index: usize,
    pub(crate) remaining: u64,
    pub(crate) reset: Option<Duration>,
}

/// A limit that is near enough for a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) name: PolicyName,
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

/// Retry delay when no slot is free; the release of one is unknown.
const SLOT_WAIT: Duration = Duration::from_secs(1);

impl Account {
    /// Returns the usage of each limit.
    pub(crate) fn usage(&self, wall: u64) -> Usage {
        let mut limits: Vec<_> = self
            .counted()
            .map(|(counter, limit)| {
                let there = self.counters.limit(limit);
                let period = limit.quota.period().filter(|period| counter.has_begun() || period.is_calendar());
                let end = period.map(|period| counter.end(period, wall));
                LimitUsage {
                    name: limit.name.clone(),
                    kind: limit.kind().clone(),
                    limit: there,
                    used: counter.used,
                    reserved: counter.reserved,
                    remaining: there.saturating_sub(counter.taken()),
                    resets_at: end.map(from_1970),
                }
            })
            .collect();
        limits.extend(self.counters.plan.concurrent().map(|limit| LimitUsage {
            name: limit.name.clone(),
            kind: Kind::Concurrent,
            limit: limit.limit,
            used: self.slots.held(),
            reserved: 0,
            remaining: limit.limit.saturating_sub(self.slots.held()),
            resets_at: None,
        }));
        Usage { plan: self.counters.plan.name().clone(), version: self.counters.plan.version(), limits }
    }

    /// Returns the limit nearest to exhaustion, its remainder, and the time until its window ends; a concurrency limit
    /// has no such time.
    #[inline]
    pub(crate) fn nearest(&self, wall: u64) -> Option<Nearest> {
        let counted = self.counted().enumerate().map(|(index, (counter, limit))| {
            let there = self.counters.limit(limit);
            (index, there.saturating_sub(counter.taken()), there)
        });
        let at_a_time =
            self.counters.plan.concurrent().map(|limit| {
                (self.counters.counters.len(), limit.limit.saturating_sub(self.slots.held()), limit.limit)
            });
        // The smaller fraction: a / b < c / d where a * d < c * b.
        let fraction = |(_, a, b): &(usize, u64, u64), (_, c, d): &(usize, u64, u64)| {
            (u128::from(*a) * u128::from(*d)).cmp(&(u128::from(*c) * u128::from(*b)))
        };
        let (index, remaining, _) = counted.chain(at_a_time).min_by(fraction)?;
        let left = |(counter, limit): (&Counter, &Limit)| {
            Some(wait(counter, limit, wall)).filter(|_| limit.quota.period().is_some())
        };
        Some(Nearest { index, remaining, reset: self.counted().nth(index).and_then(left) })
    }

    /// Returns the warnings of these limits, one bit each; allocates only if there are any.
    #[inline]
    pub(crate) fn warnings(&self, which: u64) -> Vec<Warning> {
        if which == 0 { Vec::new() } else { self.some_warnings(which) }
    }

    #[cold]
    fn some_warnings(&self, which: u64) -> Vec<Warning> {
        let chosen = self.counted().enumerate().filter(|(index, _)| which & 1 << index != 0);
        chosen
            .map(|(_, (counter, limit))| Warning {
                name: limit.name.clone(),
                used: counter.taken(),
                limit: self.counters.limit(limit),
            })
            .collect()
    }

    /// Returns the limits without room for these amounts.
    #[cold]
    pub(crate) fn violations(&self, amounts: &Amounts, now: Now) -> Vec<Violation> {
        let mut all: Vec<_> = self
            .counted()
            .filter_map(|(counter, limit)| {
                let (asked, there, current) = (amounts.get(limit.kind())?, self.counters.limit(limit), counter.taken());
                let wait = (asked <= there).then(|| wait(counter, limit, now.wall));
                (!fits(asked, there, current)).then(|| violation(limit, there, current, wait))
            })
            .collect();
        if let (Some(limit), Some(asked)) = (self.counters.plan.concurrent(), amounts.get(&Kind::Concurrent))
            && !self.slots.has(asked, now.moment)
        {
            all.push(violation(limit, limit.limit, self.slots.held(), (asked <= 1).then_some(SLOT_WAIT)));
        }
        all
    }

    pub(crate) fn counted(&self) -> impl Iterator<Item = (&Counter, &Limit)> {
        self.counters.counters.iter().zip(self.counters.plan.counted())
    }
}

/// Returns the time until the window of a limit ends.
fn wait(counter: &Counter, limit: &Limit, wall: u64) -> Duration {
    let end = limit.quota.period().map_or(wall, |period| counter.end(period, wall));
    Duration::from_nanos(end.saturating_sub(wall))
}

fn violation(limit: &Limit, there: u64, current: u64, wait: Option<Duration>) -> Violation {
    Violation { name: limit.name.clone(), kind: limit.kind().clone(), limit: there, current, wait }
}
