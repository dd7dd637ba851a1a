//! Comparison of a database with its [model](super::model): random transactions on two connections of each.

use std::sync::Arc;

use super::{
    model::{Database as Model, Without},
    *,
};
use crate::ledger::writer::{
    Detail, EntryKind, Loaded, Reads, ReservationRow, Row, StoredCounter, UnfinishedJob, Writes,
};
use crate::{
    ledger::{Database, DbError, Session},
    quota::account::{Counter, GrantState},
};

const STEPS: usize = 16;

/// Number of histories of two connections, each on accounts of its own; a connection is used again unless it dies.
pub(crate) async fn agrees<D: Database>(database: &D, histories: u64) {
    let mut pair = Pair {
        database,
        sessions: [Some(database.connect().await.unwrap()), Some(database.connect().await.unwrap())],
        model: Model::new(0, 2, Without::default()),
        open: [None, None],
        random: fastrand::Rng::new(),
        history: 0,
        clashes: 0,
    };
    for history in 0..histories {
        (pair.history, pair.random) = (history, fastrand::Rng::with_seed(history));
        pair.model = Model::new(0, 2, Without::default());
        // A transaction that creates an account is waited for.
        pair.begin(0, &pair.everything()).await;
        pair.end(0, true).await;
        for _ in 0..STEPS {
            pair.step().await;
        }
        for connection in 0..2 {
            if pair.open[connection].is_some() {
                pair.end(connection, true).await;
            }
        }
        pair.begin(0, &pair.everything()).await;
        pair.end(0, false).await;
        pair.compare_holds().await;
        pair.close_holds().await;
    }
    assert!(pair.clashes * 10 > histories, "only {} rows were there already", pair.clashes);
}

struct Pair<'a, D: Database> {
    database: &'a D,
    sessions: [Option<D::Session>; 2],
    model: Model,
    /// Locks of each connection, and the time that it has read.
    open: [Option<(Vec<Arc<str>>, u64)>; 2],
    random: fastrand::Rng,
    history: u64,
    /// Number of rows that were there before.
    clashes: u64,
}

const JOBS: [&str; 3] = ["a", "b", "c"];
const ACCOUNTS: [&str; 3] = ["ann", "bob", "cid"];

impl<D: Database> Pair<'_, D> {
    async fn step(&mut self) {
        let connection = self.random.usize(..2);
        match (&self.open[connection], self.random.u8(..10)) {
            (None, _) => {
                let reads = self.reads();
                if self.may_begin(connection, &reads) {
                    self.begin(connection, &reads).await;
                }
            }
            (Some(_), 0..5) => self.write(connection).await,
            (Some(_), 5..8) => self.end(connection, true).await,
            (Some(_), 8) => self.end(connection, false).await,
            (Some(_), _) => {
                // The connection dies.
                self.sessions[connection] = None;
                self.sessions[connection] = Some(self.database.connect().await.unwrap());
                self.model.roll_back(connection);
                self.open[connection] = None;
            }
        }
    }

    fn session(&mut self, connection: usize) -> &mut D::Session {
        self.sessions[connection].as_mut().expect("it is there unless it dies")
    }

    /// A transaction that would wait for the other does not begin. A server locks accounts, a file is locked as a whole.
    fn may_begin(&self, connection: usize, reads: &Reads) -> bool {
        self.open[1 - connection].as_ref().is_none_or(|(locked, _)| {
            reads.skips_held || D::IS_SERVER && !reads.tenants.iter().any(|tenant| locked.contains(tenant))
        })
    }

    async fn begin(&mut self, connection: usize, reads: &Reads) {
        let loaded = self.session(connection).begin(reads).await.unwrap();
        self.model.now = loaded.now;
        let there = self.model.begin(connection, reads).unwrap();
        assert_eq!(sorted(&loaded), sorted(&there), "history {}", self.history);
        let locked = reads.tenants.iter().filter(|tenant| !loaded.held.contains(tenant));
        self.open[connection] = Some((locked.cloned().collect(), loaded.now));
    }

    async fn write(&mut self, connection: usize) {
        let Some((tenants, now)) = self.open[connection].clone() else { return };
        let before = self.model.open[connection].clone().unwrap_or_default().writes;
        let writes = self.writes(&tenants);
        let here = self.session(connection).write(&writes, now).await;
        // A transaction that writes twice has written both, and reads its own writes.
        let own = |row: &Row| before.rows.iter().any(|other| super::model::clashes(row, other));
        let clash = self.model.write(connection, &writes).unwrap().is_err() || writes.rows.iter().any(own);
        match here {
            Ok(()) if !clash => {
                let all = &mut self.model.open[connection].as_mut().unwrap().writes;
                *all = before;
                all.rows.extend(writes.rows);
                all.counts.extend(writes.counts);
                all.grants.extend(writes.grants);
                // In the order of the steps: the model ends first what was opened first.
                all.opened.extend(writes.opened);
                all.closed.extend(writes.closed);
                all.begun.extend(writes.begun);
                all.finished.extend(writes.finished);
            }
            Err(DbError::Rejected(_)) if clash => {
                self.clashes += 1;
                self.model.roll_back(connection);
                self.open[connection] = None;
            }
            here => panic!("history {}: {here:?}, clash: {clash}, for {writes:?}", self.history),
        }
    }

    async fn end(&mut self, connection: usize, commits: bool) {
        if commits {
            self.session(connection).commit().await.unwrap();
            self.model.commit(connection);
        } else {
            self.session(connection).roll_back().await.unwrap();
            self.model.roll_back(connection);
        }
        self.open[connection] = None;
    }

    async fn compare_holds(&self) {
        let ours = self.everything().tenants;
        let due = self.database.due(usize::MAX >> 2, 0).await.unwrap();
        let mut due: Vec<_> = due.into_iter().filter(|hold| ours.contains(&hold.key.tenant)).collect();
        due.sort_by_key(|hold| (hold.key.clone(), hold.attempt));
        assert_eq!(due, self.model.store.holds, "history {}", self.history);
    }

    /// Ends both transactions before the next history.
    async fn close_holds(&mut self) {
        let closed = self.model.store.holds.iter().map(|hold| (hold.key.clone(), hold.attempt)).collect();
        self.begin(0, &self.everything()).await;
        let finished = self.model.store.unfinished.iter().map(|job| (job.key.clone(), job.attempt)).collect();
        let writes = Writes { closed, finished, ..Writes::default() };
        self.session(0).write(&writes, START).await.unwrap();
        self.end(0, true).await;
    }

    fn tenant(&self, at: usize) -> Arc<str> {
        format!("{}-{}", ACCOUNTS[at], self.history).into()
    }

    fn everything(&self) -> Reads {
        let tenants: Vec<_> = (0..ACCOUNTS.len()).map(|at| self.tenant(at)).collect();
        let jobs = tenants.iter().flat_map(|tenant| JOBS.map(|job| Key { tenant: tenant.clone(), job: job.into() }));
        Reads {
            jobs: jobs.collect(),
            since: tenants.iter().map(|tenant| (tenant.clone(), 0)).collect(),
            tenants,
            ..Reads::default()
        }
    }

    fn reads(&mut self) -> Reads {
        let mut reads = self.everything();
        let random = &mut self.random;
        reads.tenants.retain(|_| random.bool());
        reads.jobs.retain(|key| reads.tenants.contains(&key.tenant) && random.bool());
        let since = reads.tenants.iter().filter_map(|tenant| {
            let since = random.bool().then(|| random.u64(..40) * HOUR);
            Some((tenant.clone(), since?))
        });
        reads.since = since.collect();
        reads.skips_held = D::IS_SERVER && random.bool();
        reads
    }

    fn writes(&mut self, tenants: &[Arc<str>]) -> Writes {
        let mut writes = Writes::default();
        if tenants.is_empty() {
            return writes;
        }
        let random = &mut self.random;
        let now_and_then = |random: &mut fastrand::Rng| random.u8(..3) == 0;
        for _ in 0..random.usize(1..4) {
            let tenant = tenants[random.usize(..tenants.len())].clone();
            let key = Key { tenant: tenant.clone(), job: JOBS[random.usize(..JOBS.len())].into() };
            let entry = if random.u8(..4) > 0 {
                EntryKind::Charge
            } else {
                EntryKind::ALL[random.usize(..EntryKind::ALL.len())]
            };
            let starts = random.u64(..30) * HOUR;
            let (limit, kind): (Arc<str>, Arc<str>) = (["x", ""][random.usize(..2)].into(), "requests".into());
            let period: Arc<str> = ["hour", "day"][random.usize(..2)].into();
            let detail = (entry == EntryKind::Grant).then(|| {
                let (granted, until) = (random.u64(1..9), random.u64(1..9) * HOUR);
                Box::new(Detail { granted, until, approver: "M. Okafor".into(), reason: "\u{e9}'\"".into() })
            });
            writes.rows.push(Row {
                key: key.clone(),
                attempt: random.u32(..2),
                part: u32::from(now_and_then(random)),
                entry,
                kind: kind.clone(),
                limit: limit.clone(),
                period: period.clone(),
                window: starts,
                epoch: random.u64(..3),
                amount: random.i64(-(1 << 53)..1 << 53),
                command: random.u128(..),
                fingerprint: now_and_then(random).then(|| random.u128(..)),
                detail,
            });
            let count = StoredCounter {
                limit: limit.clone(),
                kind: kind.clone(),
                period: period.clone(),
                counter: Counter {
                    starts,
                    ends: if now_and_then(random) { u64::MAX } else { starts + HOUR },
                    epoch: random.u64(..2),
                    used: random.u64(..1 << 53),
                    reserved: random.u64(..1 << 53),
                    warned: random.bool(),
                    warning_pending: random.bool(),
                },
            };
            let same = |other: &StoredCounter| {
                (&other.limit, &other.kind, &other.period, other.counter.starts, other.counter.epoch)
                    == (&count.limit, &count.kind, &count.period, count.counter.starts, count.counter.epoch)
            };
            if !writes.counts.iter().any(|(of, other)| *of == tenant && same(other)) {
                writes.counts.push((tenant.clone(), count));
            }
            // A grant's terms are fixed; the amount that it covers changes.
            let id = random.u64(1..4);
            let grant = GrantState {
                id,
                limit: "x".into(),
                kind,
                period: "hour".into(),
                amount: id * 10,
                until: id * HOUR,
                approver: "M. Okafor".into(),
                reason: String::new(),
                before: random.u64(..5),
                current: random.u64(..3),
                window: starts,
                epoch: random.u64(..3),
                ended: random.bool(),
            };
            if now_and_then(random) && !writes.grants.iter().any(|(of, other)| *of == tenant && other.id == id) {
                writes.grants.push((tenant, grant));
            }
            let attempt = random.u32(..2);
            let is_of = |hold: &ReservationRow| hold.key == key && hold.attempt == attempt;
            let known = writes.opened.iter().any(is_of) || self.model.store.holds.iter().any(is_of);
            let opened_before = self.model.open.iter().flatten().any(|open| open.writes.opened.iter().any(is_of));
            if !known && !opened_before {
                let (until, since, charge) = (random.u64(1..9) * HOUR, random.u64(1..9) * HOUR, random.bool());
                writes.begun.push(UnfinishedJob { key: key.clone(), attempt, until: since });
                writes.opened.push(ReservationRow { key, attempt, until, since, charge });
            } else if self.model.store.holds.iter().any(is_of) && !opened_before {
                writes.finished.push((key.clone(), attempt));
                writes.closed.push((key, attempt));
            }
        }
        writes
    }
}

/// Loaded rows, sorted.
type Sorted = (u64, Vec<(Arc<str>, Vec<StoredCounter>, Vec<GrantState>)>, Vec<Row>, Vec<UnfinishedJob>, Vec<Arc<str>>);

fn sorted(loaded: &Loaded) -> Sorted {
    let mut accounts: Vec<_> = loaded
        .accounts
        .iter()
        .map(|(tenant, stored)| {
            let (mut counts, mut grants) = (stored.counts.clone(), stored.grants.clone());
            counts.sort_by_key(|count| {
                (
                    count.limit.clone(),
                    count.kind.clone(),
                    count.period.clone(),
                    count.counter.starts,
                    count.counter.epoch,
                )
            });
            grants.sort_by_key(|grant| grant.id);
            (tenant.clone(), counts, grants)
        })
        .collect();
    accounts.sort_by_key(|(tenant, ..)| tenant.clone());
    let mut rows = loaded.rows.clone();
    rows.sort_by_key(|row| (row.key.clone(), row.attempt, row.entry, row.part, row.limit.clone(), row.command));
    let mut held = loaded.held.clone();
    held.sort_unstable();
    let mut unfinished = loaded.unfinished.clone();
    unfinished.sort_by_key(|job| (job.key.clone(), job.attempt));
    (loaded.now, accounts, rows, unfinished, held)
}
