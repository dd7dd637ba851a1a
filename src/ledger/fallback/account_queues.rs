//! Records that wait for the ledger, by account, and the accounts that other transactions hold.
//!
//! No operation depends on the number of all records or of all accounts: each runs under the lock of the spool.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use crate::ledger::writer::Command;

/// Queues of records, one for each account, that take turns.
#[derive(Debug, Default)]
pub(super) struct AccountQueues {
    /// Records of each account in `turns`, in the order in which they were added.
    records: HashMap<Arc<str>, VecDeque<Command>>,
    /// Accounts in the order of their turns. One whose records are all merged stays until its turn.
    turns: VecDeque<Arc<str>>,
    /// Number of all records.
    len: usize,
    /// Accounts that other transactions hold.
    held: BTreeSet<Arc<str>>,
    /// Number of records of held accounts.
    held_len: usize,
    /// Held account that was probed last.
    probed: Option<Arc<str>>,
}

impl AccountQueues {
    /// Returns the number of records.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of records of accounts that are not held.
    pub(super) fn free_len(&self) -> usize {
        self.len - self.held_len
    }

    /// Returns the number of records of an account.
    pub(super) fn len_of(&self, tenant: &str) -> usize {
        self.records.get(tenant).map_or(0, VecDeque::len)
    }

    /// Adds a record behind all others of its account.
    pub(super) fn push(&mut self, command: Command) {
        self.len += 1;
        self.held_len += usize::from(self.held.contains(&command.key.tenant));
        if let Some(records) = self.records.get_mut(&command.key.tenant) {
            records.push_back(command);
        } else {
            let tenant = Arc::clone(&command.key.tenant);
            self.turns.push_back(Arc::clone(&tenant));
            self.records.insert(tenant, [command].into());
        }
    }

    /// Removes the first record of an account.
    pub(super) fn pop(&mut self, tenant: &str) -> Option<Command> {
        let command = self.records.get_mut(tenant)?.pop_front()?;
        self.len -= 1;
        self.held_len -= usize::from(self.held.contains(tenant));
        if self.len == 0 {
            self.records.clear();
            self.turns.clear();
        }
        Some(command)
    }

    /// Returns the first records of the accounts whose turns are next, at most `most` in all. These accounts are then
    /// behind all others.
    pub(super) fn next(&mut self, most: usize) -> Vec<Command> {
        let (mut next, mut after) = (Vec::new(), Vec::new());
        while next.len() < most
            && let Some(tenant) = self.turns.pop_front()
        {
            match self.records.get(&tenant).filter(|records| !records.is_empty()) {
                Some(records) => {
                    next.extend(records.iter().take(most - next.len()).cloned());
                    after.push(tenant);
                }
                None => _ = self.records.remove(&tenant),
            }
        }
        self.turns.extend(after);
        next
    }

    pub(super) fn is_held(&self, tenant: &str) -> bool {
        self.held.contains(tenant)
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Marks an account as held; returns whether it was not before.
    pub(super) fn hold(&mut self, tenant: &Arc<str>) -> bool {
        let new = self.held.insert(Arc::clone(tenant));
        self.held_len += if new { self.len_of(tenant) } else { 0 };
        new
    }

    /// Marks an account as free.
    pub(super) fn release(&mut self, tenant: &str) {
        if self.held.remove(tenant) {
            self.held_len -= self.len_of(tenant);
        }
    }

    /// Returns at most `most` held accounts, those first that were not probed since the others.
    pub(super) fn next_probes(&mut self, most: usize) -> Vec<Arc<str>> {
        let after = self.probed.take().map_or(Bound::Unbounded, Bound::Excluded);
        let turns = self.held.range((after, Bound::Unbounded)).chain(&self.held);
        let next: Vec<_> = turns.take(most.min(self.held.len())).cloned().collect();
        self.probed = next.last().cloned();
        next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        ledger::writer::{AdmittedAt, CommandKind, Key, SettleCommand},
        quota::Plan,
    };

    fn record(tenant: &str, id: u128) -> Command {
        let settle = SettleCommand::void(Arc::new(Plan::new("free")), 0, AdmittedAt { at: 0, epoch: 0 });
        let key = Key { tenant: tenant.into(), job: "one".into() };
        Command { key, id, own: true, origin: 0, kind: CommandKind::SettleOf { of: 4, settle } }
    }

    #[test]
    fn each_held_account_is_probed_once_in_a_cycle() {
        let mut queues = AccountQueues::default();
        let names: BTreeSet<Arc<str>> = (0..1_300).map(|number| format!("{number}").into()).collect();
        names.iter().for_each(|name| assert!(queues.hold(name)));
        for _ in 0..3 {
            let mut probed: Vec<_> = (0..3).flat_map(|_| queues.next_probes(512)).collect();
            assert_eq!(probed.len(), 3 * 512, "all rounds are full");
            probed.truncate(1_300);
            let cycle: BTreeSet<_> = probed.into_iter().collect();
            assert_eq!(cycle, names);
        }
        names.iter().skip(2).for_each(|name| queues.release(name));
        assert_eq!(queues.next_probes(512).len(), 2, "an account is probed once in a round");
    }

    #[test]
    fn account_with_many_records_delays_no_other() {
        let mut queues = AccountQueues::default();
        (0..5_000).for_each(|id| queues.push(record("much", id)));
        ["one", "two"].iter().for_each(|tenant| queues.push(record(tenant, 1)));
        assert!(queues.next(512).iter().all(|command| &*command.key.tenant == "much"));
        let second = queues.next(512);
        let first: Vec<_> = second.iter().take(3).map(|command| &*command.key.tenant).collect();
        assert_eq!((first, second.len()), (vec!["one", "two", "much"], 512));
        assert_eq!(second[2].id, 0, "nothing is merged yet");
    }

    proptest! {
        #[test]
        fn counts_are_those_of_the_records(steps in proptest::collection::vec((0..6_u8, 0..5_u8), 0..200)) {
            let mut queues = AccountQueues::default();
            let mut model = BTreeMap::<Arc<str>, (Vec<u128>, bool)>::new();
            for (id, (step, of)) in steps.into_iter().enumerate() {
                let (tenant, id): (Arc<str>, _) = (of.to_string().into(), id as u128);
                let (ids, held) = model.entry(Arc::clone(&tenant)).or_default();
                match step {
                    0 | 1 => {
                        queues.push(record(&tenant, id));
                        ids.push(id);
                    }
                    2 => {
                        let known = (!ids.is_empty()).then(|| ids.remove(0));
                        prop_assert_eq!(queues.pop(&tenant).map(|command| command.id), known);
                    }
                    3 => prop_assert_eq!(queues.hold(&tenant), !std::mem::replace(held, true)),
                    4 => {
                        queues.release(&tenant);
                        *held = false;
                    }
                    _ => {
                        let next = queues.next(3);
                        prop_assert_eq!(next.len(), queues.len().min(3));
                        for command in next {
                            prop_assert!(model[&command.key.tenant].0.contains(&command.id));
                        }
                    }
                }
                let all: usize = model.values().map(|(ids, _)| ids.len()).sum();
                let free: usize = model.values().filter(|(_, held)| !held).map(|(ids, _)| ids.len()).sum();
                prop_assert_eq!((queues.len(), queues.free_len()), (all, free));
                prop_assert_eq!(queues.len_of(&tenant), model[&tenant].0.len());
                prop_assert_eq!(queues.is_held(&tenant), model[&tenant].1);
            }
        }
    }
}
