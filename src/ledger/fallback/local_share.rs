//! Local shares: the part of a client's limits that this process may admit while the ledger is away.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    ledger::writer::StoredCounter,
    quota::{Amounts, Limit, Plan, Usage},
    refusal::Violation,
};

/// Allowance of one client: the usage that the ledger last reported, and what has passed here since.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientAllowance {
    parts: Vec<LimitAllowance>,
}

/// Allowance of one limit in one of its periods; times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LimitAllowance {
    count: StoredCounter,
    /// Used and reserved amount that the ledger last reported, without the amounts that passed here since.
    known: u64,
    passed: u64,
}

impl ClientAllowance {
    /// Admits all amounts, or none: of each limit at most one part in `share` of the amount that remained.
    pub(super) fn pass(
        &mut self,
        plan: &Plan,
        amounts: &Amounts,
        share: NonZeroU32,
        wall: u64,
    ) -> Result<(), Vec<Violation>> {
        let mut violations = Vec::new();
        for limit in plan.counted() {
            let Some(asked) = amounts.get(limit.kind()) else { continue };
            let part = self.part(limit, wall);
            let here = limit.limit.saturating_sub(part.known) / u64::from(share.get());
            let left = here.saturating_sub(part.passed);
            if if asked == 0 { left == 0 } else { asked > left } {
                violations.push(Violation {
                    name: limit.name.clone(),
                    kind: limit.kind().clone(),
                    limit: here,
                    current: part.passed,
                    wait: Some(Duration::from_nanos(part.count.counter.ends.saturating_sub(wall))),
                    free_at: Some(Duration::from_nanos(part.count.counter.ends)),
                });
            }
        }
        if !violations.is_empty() {
            return Err(violations);
        }
        for limit in plan.counted() {
            let amount = amounts.counted(limit.kind());
            let part = self.part(limit, wall);
            part.passed = part.passed.saturating_add(amount);
        }
        Ok(())
    }

    /// Stores the usage that the ledger reports. It includes the amounts that had passed here before the ledger was
    /// asked, if all of those were merged: then `before` holds them.
    pub(super) fn update(&mut self, plan: &Plan, usage: &Usage, before: Option<&Self>, wall: u64) {
        for limit in plan.counted() {
            let Some(reported) = usage.get(limit.name.as_str()).filter(|reported| reported.kind == *limit.kind())
            else {
                continue;
            };
            let ends = reported.resets_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            let part = self.part(limit, wall);
            // A rolling period began with a charge by another process.
            part.count.counter.ends = ends.map_or(part.count.counter.ends, crate::time::nanos);
            let used = reported.used.saturating_add(reported.reserved);
            match before {
                Some(before) => {
                    part.known = used;
                    let same = |old: &&LimitAllowance| {
                        old.count.counter.starts == part.count.counter.starts && old.count.is_of(limit)
                    };
                    let passed = before.parts.iter().find(same).map_or(0, |old| old.passed);
                    part.passed = part.passed.saturating_sub(passed);
                }
                None => part.known = part.known.max(used),
            }
        }
    }

    /// Whether all its periods have ended.
    fn is_over(&self, wall: u64) -> bool {
        self.parts.iter().all(|part| part.count.counter.ends <= wall)
    }

    fn part(&mut self, limit: &Limit, wall: u64) -> &mut LimitAllowance {
        let at = self.parts.iter().position(|part| part.count.is_of(limit)).unwrap_or_else(|| {
            self.parts.push(LimitAllowance { count: StoredCounter::beginning(limit, wall), known: 0, passed: 0 });
            self.parts.len() - 1
        });
        let part = &mut self.parts[at];
        if part.count.counter.ends <= wall {
            *part = LimitAllowance { count: StoredCounter::beginning(limit, wall), known: 0, passed: 0 };
        }
        part
    }
}

/// Allowances of all clients of a ledger, whose layers share their counters.
#[derive(Default)]
pub(super) struct Allowances {
    all: HashMap<Arc<str>, ClientAllowance>,
    /// Largest number of clients: that of the layer that allows most.
    most: usize,
    /// Time of the next search for allowances whose periods have ended.
    swept: u64,
}

/// Time between two searches while there is no room, in nanoseconds.
const SWEEP_EVERY: u64 = 1_000_000_000;

impl Allowances {
    /// Makes room for a layer with `most` clients.
    pub(super) fn fit(&mut self, most: usize) {
        self.most = self.most.max(most);
    }

    /// Returns the allowance of a client, which is empty if the client is new.
    pub(super) fn get(&self, tenant: &str) -> ClientAllowance {
        self.all.get(tenant).cloned().unwrap_or_default()
    }

    /// Returns the allowance of a client to change; `None` if there is no room for another client.
    pub(super) fn client(&mut self, tenant: &Arc<str>, wall: u64) -> Option<&mut ClientAllowance> {
        if !self.all.contains_key(tenant) && self.all.len() >= self.most {
            if self.swept <= wall {
                self.swept = wall.saturating_add(SWEEP_EVERY);
                self.all.retain(|_, local| !local.is_over(wall));
            }
            if self.all.len() >= self.most {
                return None;
            }
        }
        Some(self.all.entry(Arc::clone(tenant)).or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        quota::{LimitUsage, Quota},
        time::Period,
    };

    const NOW: u64 = 1_782_869_400_000_000_000;
    const HOUR: u64 = 3_600_000_000_000;

    fn of(share: u32) -> NonZeroU32 {
        NonZeroU32::new(share).unwrap()
    }

    fn plan(limit: u64) -> Plan {
        Plan::new("paid").limit(Quota::units("tokens", limit).per(Period::hour()))
    }

    fn usage(plan: &Plan, used: u64) -> Usage {
        let limit = &plan.counted()[0];
        let reported = LimitUsage {
            name: limit.name.clone(),
            kind: limit.kind().clone(),
            limit: limit.limit,
            used,
            reserved: 0,
            remaining: limit.limit.saturating_sub(used),
            resets_at: None,
        };
        Usage { plan: plan.name().clone(), version: 0, limits: vec![reported] }
    }

    #[test]
    fn a_third_of_what_was_left_passes_and_no_more() {
        let (plan, mut local) = (plan(100), ClientAllowance::default());
        local.update(&plan, &usage(&plan, 40), Some(&ClientAllowance::default()), NOW);
        local.pass(&plan, &("tokens", 20).into(), of(3), NOW).unwrap();
        let violations = local.pass(&plan, &("tokens", 1).into(), of(3), NOW).unwrap_err();
        assert_eq!((violations[0].limit, violations[0].current), (20, 20));
        assert_eq!(violations[0].wait, Some(Duration::from_secs(1_800)));
        assert!(local.pass(&plan, &("tokens", 0).into(), of(3), NOW).is_err(), "nothing is left");
        local.pass(&plan, &("tokens", 33).into(), of(3), NOW + HOUR).unwrap();
    }

    #[test]
    fn what_passed_here_is_not_counted_twice_once_the_ledger_has_it() {
        let (plan, mut local) = (plan(100), ClientAllowance::default());
        local.pass(&plan, &("tokens", 50).into(), of(2), NOW).unwrap();
        let before = local.clone();
        local.update(&plan, &usage(&plan, 50), None, NOW);
        assert!(local.pass(&plan, &("tokens", 1).into(), of(2), NOW).is_err(), "some of it may not be there yet");
        local.update(&plan, &usage(&plan, 50), Some(&before), NOW);
        local.pass(&plan, &("tokens", 25).into(), of(2), NOW).unwrap();
        assert!(local.pass(&plan, &("tokens", 1).into(), of(2), NOW).is_err());
    }

    proptest! {
        #[test]
        fn many_processes_together_stay_within_what_was_left(
            limit in 1..1_000_u64, share in 1..8_usize, used in 0..1_200_u64, known: bool,
            asks in proptest::collection::vec((0..8_usize, 0..60_u64), 0..200),
        ) {
            let plan = plan(limit);
            let mut fleet = vec![ClientAllowance::default(); share];
            if known {
                fleet.iter_mut().for_each(|local| local.update(&plan, &usage(&plan, used), Some(&ClientAllowance::default()), NOW));
            }
            let mut passed = 0;
            for (who, amount) in asks {
                if fleet[who % share].pass(&plan, &("tokens", amount).into(), of(share as u32), NOW).is_ok() {
                    passed += amount;
                }
            }
            let left = if known { limit.saturating_sub(used) } else { limit };
            prop_assert!(passed <= left, "{passed} of {left}");
        }
    }
}
