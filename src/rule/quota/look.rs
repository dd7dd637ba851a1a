//! What an account says of itself.

use std::time::{Duration, SystemTime};

use super::account::{Account, Now};
use crate::{
    PolicyName,
    quota::{Kind, LimitUsage, Usage},
    rule::Leases,
};

impl Account {
    /// What is used of each limit; to be called after [`advance`](Account::advance).
    pub(crate) fn usage(&self, now: Now) -> Usage {
        let (plan, counters, slots) = self.parts();
        let mut limits: Vec<_> = counters
            .iter()
            .zip(plan.counted())
            .enumerate()
            .map(|(index, (counter, limit))| {
                let there = self.limit(index, limit);
                let period = limit.quota.period().filter(|period| counter.has_begun() || period.is_calendar());
                let end = period.map(|period| counter.end(period, now.wall));
                LimitUsage {
                    name: limit.name.clone(),
                    kind: limit.kind().clone(),
                    limit: there,
                    used: counter.used,
                    reserved: counter.reserved,
                    remaining: there.saturating_sub(counter.taken()),
                    resets_at: end.map(|end| SystemTime::UNIX_EPOCH + Duration::from_nanos(end)),
                }
            })
            .collect();
        limits.extend(plan.concurrent().map(|limit| {
            let used = slots.map_or(0, Leases::held) as u64;
            LimitUsage {
                name: limit.name.clone(),
                kind: Kind::Concurrent,
                limit: limit.limit,
                used,
                reserved: 0,
                remaining: limit.limit.saturating_sub(used),
                resets_at: None,
            }
        }));
        Usage { plan: plan.name().clone(), version: plan.version(), limits }
    }

    /// The limit nearest to its end, what is left of it and for how long; requests at a time have no time.
    #[inline]
    pub(crate) fn nearest(&self, now: Now) -> Option<Nearest> {
        let (plan, counters, slots) = self.parts();
        let counted = counters.iter().zip(plan.counted()).enumerate().map(|(index, (counter, limit))| {
            let there = self.limit(index, limit);
            (index, there.saturating_sub(counter.taken()), there)
        });
        let at_a_time = plan.concurrent().map(|limit| {
            let held = slots.map_or(0, Leases::held) as u64;
            (counters.len(), limit.limit.saturating_sub(held), limit.limit)
        });
        // The smaller fraction: a / b < c / d where a * d < c * b.
        let fraction = |(_, a, b): &(usize, u64, u64), (_, c, d): &(usize, u64, u64)| {
            (u128::from(*a) * u128::from(*d)).cmp(&(u128::from(*c) * u128::from(*b)))
        };
        let (index, remaining, _) = counted.chain(at_a_time).min_by(fraction)?;
        let reset = plan
            .counted()
            .get(index)
            .and_then(|limit| limit.quota.period())
            .map(|period| Duration::from_nanos(counters[index].end(period, now.wall).saturating_sub(now.wall)));
        Some(Nearest { index, remaining, reset })
    }
}

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

impl Account {
    /// What is to be said of these limits, one bit each; allocates only if there is something.
    #[inline]
    pub(crate) fn warnings(&self, which: u64) -> Vec<Warning> {
        if which == 0 { Vec::new() } else { self.some_warnings(which) }
    }

    #[cold]
    fn some_warnings(&self, which: u64) -> Vec<Warning> {
        let (plan, counters, _) = self.parts();
        let counted = counters.iter().zip(plan.counted()).enumerate().filter(|(index, _)| which & 1 << index != 0);
        counted
            .map(|(index, (counter, limit))| Warning {
                name: limit.name.clone(),
                used: counter.taken(),
                limit: self.limit(index, limit),
            })
            .collect()
    }
}
