//! What an account says of itself; to be asked after [`advance`](Account::advance).

use std::time::Duration;

use super::{Account, Now, counter::Counter, counts::fits};
use crate::{
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Limit, LimitUsage, Usage},
    refusal::Violation,
    time::from_1970,
};

/// Which limit is nearest to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nearest {
    /// In the order of the plan, that of requests at a time last.
    pub(crate) index: usize,
    pub(crate) remaining: u64,
    pub(crate) reset: Option<Duration>,
}

/// A limit to which a client has come so near that it is to be warned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) name: PolicyName,
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

/// How long whoever finds no slot is told to wait: nobody knows when one comes back.
const SLOT_WAIT: Duration = Duration::from_secs(1);

impl Account {
    /// What is used of each limit.
    pub(crate) fn usage(&self, now: Now) -> Usage {
        let mut limits: Vec<_> = self
            .counted()
            .map(|(counter, limit)| {
                let there = self.counts.limit(limit);
                let period = limit.quota.period().filter(|period| counter.has_begun() || period.is_calendar());
                let end = period.map(|period| counter.end(period, now.wall));
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
        limits.extend(self.counts.plan.concurrent().map(|limit| LimitUsage {
            name: limit.name.clone(),
            kind: Kind::Concurrent,
            limit: limit.limit,
            used: self.held(),
            reserved: 0,
            remaining: limit.limit.saturating_sub(self.held()),
            resets_at: None,
        }));
        Usage { plan: self.counts.plan.name().clone(), version: self.counts.plan.version(), limits }
    }

    /// The limit nearest to its end, what is left of it and for how long; requests at a time have no time.
    #[inline]
    pub(crate) fn nearest(&self, now: Now) -> Option<Nearest> {
        let counted = self.counted().enumerate().map(|(index, (counter, limit))| {
            let there = self.counts.limit(limit);
            (index, there.saturating_sub(counter.taken()), there)
        });
        let at_a_time = self
            .counts
            .plan
            .concurrent()
            .map(|limit| (self.counts.counters.len(), limit.limit.saturating_sub(self.held()), limit.limit));
        // The smaller fraction: a / b < c / d where a * d < c * b.
        let fraction = |(_, a, b): &(usize, u64, u64), (_, c, d): &(usize, u64, u64)| {
            (u128::from(*a) * u128::from(*d)).cmp(&(u128::from(*c) * u128::from(*b)))
        };
        let (index, remaining, _) = counted.chain(at_a_time).min_by(fraction)?;
        let left = |(counter, limit): (&Counter, &Limit)| {
            Some(wait(counter, limit, now)).filter(|_| limit.quota.period().is_some())
        };
        Some(Nearest { index, remaining, reset: self.counted().nth(index).and_then(left) })
    }

    /// What is to be said of these limits, one bit each; allocates only if there is something.
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
                limit: self.counts.limit(limit),
            })
            .collect()
    }

    /// The limits that have no room for these amounts.
    #[cold]
    pub(super) fn violations(&self, amounts: &Amounts, now: Now) -> Vec<Violation> {
        let mut all: Vec<_> = self
            .counted()
            .filter_map(|(counter, limit)| {
                let (asked, there, current) = (amounts.get(limit.kind())?, self.counts.limit(limit), counter.taken());
                let wait = (asked <= there).then(|| wait(counter, limit, now));
                (!fits(asked, there, current)).then(|| violation(limit, there, current, wait))
            })
            .collect();
        if let (Some(limit), Some(asked)) = (self.counts.plan.concurrent(), amounts.get(&Kind::Concurrent))
            && !self.has_slots(asked, now)
        {
            all.push(violation(limit, limit.limit, self.held(), (asked <= 1).then_some(SLOT_WAIT)));
        }
        all
    }

    fn counted(&self) -> impl Iterator<Item = (&Counter, &Limit)> {
        self.counts.counters.iter().zip(self.counts.plan.counted())
    }
}

/// How long until the limit starts again.
fn wait(counter: &Counter, limit: &Limit, now: Now) -> Duration {
    let end = limit.quota.period().map_or(now.wall, |period| counter.end(period, now.wall));
    Duration::from_nanos(end.saturating_sub(now.wall))
}

fn violation(limit: &Limit, there: u64, current: u64, wait: Option<Duration>) -> Violation {
    Violation { name: limit.name.clone(), kind: limit.kind().clone(), limit: there, current, wait }
}
