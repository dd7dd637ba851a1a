//! A model of a database: committed rows, account locks, and commits under way.

use std::{collections::BTreeMap, sync::Arc};

use crate::ledger::writer::{Loaded, Reads, ReservationRow, Row, Stored, UnfinishedJob, Writes};

/// Committed rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) accounts: BTreeMap<Arc<str>, Stored>,
    pub(crate) rows: Vec<Row>,
    pub(crate) holds: Vec<ReservationRow>,
    pub(crate) unfinished: Vec<UnfinishedJob>,
}

impl Store {
    /// Rows that a transaction reads.
    pub(crate) fn load(&self, reads: &Reads, now: u64) -> Loaded {
        let account = |tenant: &Arc<str>| {
            let mut stored = self.accounts.get(tenant).cloned().unwrap_or_default();
            let since = reads.since.get(tenant).map_or(now, |since| now.min(*since));
            stored.counts.retain(|count| count.counter.ends > since);
            stored.grants.retain(|grant| !grant.ended || grant.current > 0);
            (Arc::clone(tenant), stored)
        };
        let accounts = reads.tenants.iter().map(account).collect();
        let rows = self.rows.iter().filter(|row| reads.jobs.contains(&row.key)).cloned().collect();
        let unknown = |tenant: &&Arc<str>| {
            !self.accounts.contains_key(*tenant) && !self.rows.iter().any(|row| row.key.tenant == **tenant)
        };
        let created = reads.tenants.iter().filter(unknown).cloned().collect();
        let unfinished = self.unfinished.iter().filter(|job| reads.jobs.contains(&job.key)).cloned().collect();
        Loaded { now, accounts, rows, unfinished, created, ..Loaded::default() }
    }

    /// Whether a row with the same unique key is stored.
    pub(crate) fn has(&self, row: &Row) -> bool {
        self.rows.iter().any(|other| clashes(row, other))
    }

    pub(crate) fn apply(&mut self, writes: &Writes) {
        self.rows.extend(writes.rows.iter().cloned());
        let place = |row: &Row| (row.key.clone(), row.attempt, row.entry, row.part, row.limit.clone(), row.command);
        self.rows.sort_by_cached_key(place);
        for (tenant, count) in &writes.counts {
            let stored = self.accounts.entry(Arc::clone(tenant)).or_default();
            stored.counts.retain(|old| {
                (&old.limit, &old.kind, &old.period, old.counter.starts, old.counter.epoch)
                    != (&count.limit, &count.kind, &count.period, count.counter.starts, count.counter.epoch)
            });
            stored.counts.push(count.clone());
            stored.counts.sort_by_key(|count| {
                (
                    count.limit.clone(),
                    count.kind.clone(),
                    count.period.clone(),
                    count.counter.starts,
                    count.counter.epoch,
                )
            });
        }
        for (tenant, grant) in &writes.grants {
            let stored = self.accounts.entry(Arc::clone(tenant)).or_default();
            stored.grants.retain(|old| old.id != grant.id);
            stored.grants.push(grant.clone());
            stored.grants.sort_by_key(|grant| grant.id);
        }
        for (tenant, tier) in &writes.tiers {
            self.accounts.entry(Arc::clone(tenant)).or_default().tier = Arc::clone(tier);
        }
        for hold in &writes.opened {
            self.holds.retain(|old| (&old.key, old.attempt) != (&hold.key, hold.attempt));
            self.holds.push(hold.clone());
        }
        for hold in &writes.renewed {
            let open = self.holds.iter_mut().filter(|old| old.key == hold.key && old.attempt == hold.attempt);
            open.for_each(|old| old.until = hold.until);
        }
        self.holds
            .retain(|hold| !writes.closed.iter().any(|(key, attempt)| *key == hold.key && *attempt == hold.attempt));
        self.holds.sort_by_key(|hold| (hold.key.clone(), hold.attempt));
        for job in &writes.begun {
            self.unfinished.retain(|old| (&old.key, old.attempt) != (&job.key, job.attempt));
            self.unfinished.push(job.clone());
        }
        for job in &writes.interrupted {
            let known = self.unfinished.iter_mut().filter(|old| old.key == job.key && old.attempt == job.attempt);
            known.for_each(|old| old.until = job.until);
        }
        self.unfinished.retain(|job| !writes.finished.contains(&(job.key.clone(), job.attempt)));
        self.unfinished.sort_by_key(|job| (job.key.clone(), job.attempt));
    }

    /// The used and reserved amounts of each counter are the sum of its rows.
    pub(crate) fn adds_up(&self) -> Result<(), String> {
        for (tenant, stored) in &self.accounts {
            for count in &stored.counts {
                let of = |row: &&Row| {
                    row.key.tenant == *tenant
                        && (&row.limit, &row.kind, &row.period, row.window, row.epoch)
                            == (&count.limit, &count.kind, &count.period, count.counter.starts, count.counter.epoch)
                };
                let sum: i64 = self.rows.iter().filter(of).map(|row| row.amount).sum();
                if sum != i64::try_from(count.counter.taken()).unwrap() {
                    return Err(format!(
                        "D4: {sum} in rows of {tenant}, {} used, {} reserved",
                        count.counter.used, count.counter.reserved
                    ));
                }
            }
        }
        let counted = |row: &&Row| !row.limit.is_empty() && row.amount != 0;
        let has = |row: &Row| {
            self.accounts.get(&row.key.tenant).is_some_and(|stored| {
                stored.counts.iter().any(|count| {
                    (&row.limit, &row.kind, &row.period, row.window, row.epoch)
                        == (&count.limit, &count.kind, &count.period, count.counter.starts, count.counter.epoch)
                })
            })
        };
        match self.rows.iter().filter(counted).find(|row| !has(row)) {
            Some(row) => Err(format!("D4: nothing counts {row:?}")),
            None => Ok(()),
        }
    }
}

/// Whether the unique index rejects one row beside the other.
pub(super) fn clashes(one: &Row, other: &Row) -> bool {
    (&one.key, &one.limit, &one.kind, one.attempt, one.part, one.entry)
        == (&other.key, &other.limit, &other.kind, other.attempt, other.part, other.entry)
}

/// Defences removed from a database, to see that the explorer notices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Without {
    pub(crate) unique_index: bool,
    pub(crate) account_lock: bool,
    /// The rows of a batch's jobs are not read.
    pub(crate) rows: bool,
    /// The jobs whose work has no recorded end are not read.
    pub(crate) unfinished: bool,
}

/// A transaction that is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Transaction {
    pub(crate) locks: Vec<Arc<str>>,
    pub(crate) writes: Writes,
}

/// A database and its connections, of which each may have one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) store: Arc<Store>,
    pub(crate) now: u64,
    pub(crate) open: Vec<Option<Transaction>>,
    /// Commits whose connection is gone.
    pub(crate) under_way: Vec<Transaction>,
    pub(crate) without: Without,
}

/// A step that waits for another transaction to end.
#[derive(Debug)]
pub(crate) struct Blocked;

/// A duplicate row: the transaction is rolled back.
#[derive(Debug)]
pub(crate) struct Clash;

impl Database {
    pub(crate) fn new(now: u64, connections: usize, without: Without) -> Self {
        Self { store: Arc::default(), now, open: vec![None; connections], under_way: Vec::new(), without }
    }

    fn others(&self, connection: usize) -> impl Iterator<Item = &Transaction> {
        let open = self.open.iter().enumerate().filter(move |(at, _)| *at != connection);
        open.filter_map(|(_, open)| open.as_ref()).chain(&self.under_way)
    }

    /// Begins, locks, and reads the committed rows.
    pub(crate) fn begin(&mut self, connection: usize, reads: &Reads) -> Result<Loaded, Blocked> {
        let locked = |tenant: &Arc<str>| self.others(connection).any(|other| other.locks.contains(tenant));
        let mut reads = reads.clone();
        let (held, free): (Vec<_>, _) = match self.without.account_lock {
            true => (Vec::new(), std::mem::take(&mut reads.tenants)),
            false => std::mem::take(&mut reads.tenants).into_iter().partition(locked),
        };
        if !held.is_empty() && !reads.skips_held {
            return Err(Blocked);
        }
        reads.tenants = free;
        let mut loaded = Loaded { held, ..self.store.load(&reads, self.now) };
        if self.without.rows {
            loaded.rows.clear();
        }
        if self.without.unfinished {
            loaded.unfinished.clear();
        }
        self.open[connection] = Some(Transaction { locks: reads.tenants, writes: Writes::default() });
        Ok(loaded)
    }

    /// Writes; waits if another open transaction has written the same row.
    pub(crate) fn write(&mut self, connection: usize, writes: &Writes) -> Result<Result<(), Clash>, Blocked> {
        if !self.without.unique_index {
            let waits = |row: &Row| {
                self.others(connection).any(|other| other.writes.rows.iter().any(|other| clashes(row, other)))
            };
            let twice = |at: usize| writes.rows[..at].iter().any(|other| clashes(&writes.rows[at], other));
            if (0..writes.rows.len()).any(|at| self.store.has(&writes.rows[at]) || twice(at)) {
                return Ok(Err(Clash));
            }
            if writes.rows.iter().any(waits) {
                return Err(Blocked);
            }
        }
        if let Some(open) = &mut self.open[connection] {
            open.writes = writes.clone();
        }
        Ok(Ok(()))
    }

    pub(crate) fn commit(&mut self, connection: usize) {
        if let Some(open) = self.open[connection].take() {
            Arc::make_mut(&mut self.store).apply(&open.writes);
        }
    }

    pub(crate) fn roll_back(&mut self, connection: usize) {
        self.open[connection] = None;
    }

    /// Drops the connection while its commit is under way.
    pub(crate) fn leave_under_way(&mut self, connection: usize) {
        self.under_way.extend(self.open[connection].take());
    }

    /// Ends a transaction that was under way.
    pub(crate) fn end(&mut self, which: usize, commits: bool) {
        let ended = self.under_way.remove(which);
        if commits {
            Arc::make_mut(&mut self.store).apply(&ended.writes);
        }
    }
}
