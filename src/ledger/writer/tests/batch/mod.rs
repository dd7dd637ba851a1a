//! What orders come to, over accounts that are locked.

mod accounts;
mod grants;
mod histories;
mod jobs;
mod periods;
mod reservations;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        Act, Admitted, Entry, JobRows, JobStatus, Row, Verdict, Writes,
        batch::{Turn, decide, reads},
    },
    model::Store,
    *,
};
use crate::ledger::writer::StoredCounter;

/// A ledger, its plan and the time.
struct Ledger {
    store: Store,
    plan: Arc<Plan>,
    now: u64,
    orders: u128,
    /// What the last batch wrote.
    writes: Writes,
}

impl Ledger {
    fn new(plan: Arc<Plan>) -> Self {
        Self { store: Store::default(), plan, now: START, orders: 0, writes: Writes::default() }
    }

    /// Of three limits: two of requests, one of tokens.
    fn of_three() -> Self {
        let plan = Plan::new("three")
            .limit(Quota::requests(100).per(Period::hour()))
            .limit(Quota::requests(150).per(Period::day()))
            .limit(Quota::units("tokens", 1_000).per(Period::hour()));
        Self::new(Arc::new(plan))
    }

    fn order(&mut self, job: &str, act: Act) -> Order {
        self.orders += 2;
        order(self.orders, key("acme", job), act)
    }

    /// Decides a batch and commits it; what is counted is then the sum of what is written.
    fn batch(&mut self, orders: &[Order]) -> Vec<Verdict> {
        let turns = || orders.iter().map(|order| Turn { order, sent: false, left: false });
        let loaded = self.store.load(&reads(turns()), self.now);
        let (writes, verdicts) = decide(turns(), loaded);
        assert!(!writes.rows.iter().any(|row| self.store.has(row)), "the unique index keeps out {writes:?}");
        self.store.apply(&writes);
        self.store.adds_up().unwrap();
        self.writes = writes;
        verdicts
    }

    fn run(&mut self, job: &str, act: Act) -> Verdict {
        let order = self.order(job, act);
        self.batch(&[order]).remove(0)
    }

    fn charge(&mut self, job: &str, amounts: impl Into<Amounts>) -> Verdict {
        let admit = admit(&self.plan, amounts);
        self.run(job, Act::Admit(admit))
    }

    fn reserve(&mut self, job: &str, amounts: impl Into<Amounts>) -> Admitted {
        let reserve = Admit {
            reserve: Some(crate::ledger::writer::Reserve { ttl: HOUR, charge: false }),
            ..admit(&self.plan, amounts)
        };
        admitted(self.run(job, Act::Admit(reserve)))
    }

    fn settle(&mut self, job: &str, admitted: &Admitted, end: End) -> JobStatus {
        let act = settle(&self.plan, admitted.attempt, admitted.since, end);
        match self.run(job, act) {
            Verdict::Settled(standing, _) => standing,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, job: &str, admitted: &Admitted, actual: impl Into<Amounts>) -> JobStatus {
        self.settle(job, admitted, End::Commit(actual.into()))
    }

    /// What was used besides.
    fn add(&mut self, job: &str, admitted: &Admitted, used: impl Into<Amounts>, part: u32) {
        let settle = Settle {
            plan: Arc::clone(&self.plan),
            attempt: admitted.attempt,
            since: admitted.since,
            end: End::Open,
            used: used.into(),
            part,
        };
        self.run(job, Act::Settle(settle));
    }

    fn expire(&mut self, job: &str, admitted: &Admitted, charge: bool) {
        self.run(job, Act::Expire { attempt: admitted.attempt, since: admitted.since.at, charge });
    }

    fn record(&mut self, amounts: impl Into<Amounts>) {
        let act = Act::Record { plan: Arc::clone(&self.plan), amounts: amounts.into() };
        let job = format!("record {}", self.orders);
        self.run(&job, act);
    }

    fn reset(&mut self, limit: Option<&str>) -> Verdict {
        let act = Act::Reset { plan: Arc::clone(&self.plan), limit: limit.map(Into::into) };
        let job = format!("reset {}", self.orders);
        self.run(&job, act)
    }

    /// Used and reserved of each count, by limit, window in hours and epoch.
    fn counts(&self) -> BTreeMap<(String, u64, u32), (u64, u64)> {
        let counts = self.store.accounts.values().flat_map(|stored| &stored.counts);
        let place = |count: &StoredCounter| (count.limit.to_string(), count.counter.starts / HOUR, count.counter.epoch);
        counts.map(|count| (place(count), (count.counter.used, count.counter.reserved))).collect()
    }

    /// Used and reserved of a limit, in the hour of the start or the day.
    fn of(&self, limit: &str) -> (u64, u64) {
        let mut all = self.store.accounts.values().flat_map(|stored| &stored.counts);
        let latest = all
            .by_ref()
            .filter(|count| *count.limit == *limit)
            .max_by_key(|count| (count.counter.starts, count.counter.epoch));
        latest.map_or((0, 0), |count| (count.counter.used, count.counter.reserved))
    }

    fn entries(&self, job: &str) -> Vec<(u32, Entry, i64)> {
        let of = self.store.rows.iter().filter(|row| *row.key.job == *job);
        of.map(|row: &Row| (row.attempt, row.entry, row.amount)).collect()
    }
}

fn admitted(verdict: Verdict) -> Admitted {
    match verdict {
        Verdict::Admitted(admitted) => *admitted,
        other => panic!("{other:?}"),
    }
}

fn refused_by(verdict: Verdict) -> Vec<String> {
    match verdict {
        Verdict::Refused(violations) => violations.iter().map(|violation| violation.name.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}
