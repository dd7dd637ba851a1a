//! Decisions of batches over locked accounts.

mod accounts;
mod corrupt;
mod credits;
mod cuts;
mod grants;
mod histories;
mod job_states;
mod jobs;
mod periods;
mod reservations;
mod told_waits;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{AdmitReply, CREDIT, CommandKind, EntryKind, JobRows, JobStatus, Reply, Row, Writes, batch::reads},
    model::{Store, clashes},
    *,
};
use crate::{ledger::writer::StoredCounter, quota::CreditRequest};

/// A ledger, its plan and the time.
struct Ledger {
    store: Store,
    plan: Arc<Plan>,
    now: u64,
    commands: u128,
    /// Writes of the last batch.
    writes: Writes,
}

impl Ledger {
    fn new(plan: Arc<Plan>) -> Self {
        Self { store: Store::default(), plan, now: START, commands: 0, writes: Writes::default() }
    }

    /// A plan of three limits: two of requests, one of tokens.
    fn of_three() -> Self {
        let plan = Plan::new("three")
            .limit(Quota::requests(100).per(Period::hour()))
            .limit(Quota::requests(150).per(Period::day()))
            .limit(Quota::units("tokens", 1_000).per(Period::hour()));
        Self::new(Arc::new(plan))
    }

    fn command(&mut self, job: &str, kind: CommandKind) -> Command {
        self.commands += 2;
        command(self.commands, key("acme", job), kind)
    }

    /// Decides a batch and commits it, and checks that each counter is the sum of its rows.
    fn batch(&mut self, commands: &[Command]) -> Vec<Reply> {
        let queue: Vec<_> = commands.iter().map(|command| queued(command, false)).collect();
        let loaded = self.store.load(&reads(&queue), self.now);
        let (writes, replies) = replies_to(&queue, loaded);
        let twice = |at: usize| writes.rows[..at].iter().any(|other| clashes(&writes.rows[at], other));
        let rejected = (0..writes.rows.len()).any(|at| self.store.has(&writes.rows[at]) || twice(at));
        assert!(!rejected, "the unique index keeps out {writes:?}");
        self.store.apply(&writes);
        self.store.adds_up().unwrap();
        self.writes = writes;
        replies
    }

    fn run(&mut self, job: &str, kind: CommandKind) -> Reply {
        let command = self.command(job, kind);
        self.batch(&[command]).remove(0)
    }

    fn charge(&mut self, job: &str, amounts: impl Into<Amounts>) -> Reply {
        let admit = admit(&self.plan, amounts);
        self.run(job, CommandKind::Admit(admit))
    }

    fn reserve(&mut self, job: &str, amounts: impl Into<Amounts>) -> AdmitReply {
        let reserve = AdmitCommand {
            reserve: Some(crate::ledger::writer::ReservationTerms { ttl: HOUR, charge: false }),
            ..admit(&self.plan, amounts)
        };
        admitted(self.run(job, CommandKind::Admit(reserve)))
    }

    fn settle(&mut self, job: &str, admitted: &AdmitReply, end: SettleKind) -> JobStatus {
        let kind = settle(&self.plan, admitted.attempt, admitted.since, end);
        match self.run(job, kind) {
            Reply::Settled(standing, _) => standing,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, job: &str, admitted: &AdmitReply, actual: impl Into<Amounts>) -> JobStatus {
        self.settle(job, admitted, SettleKind::Commit(actual.into()))
    }

    /// Adds usage to an attempt.
    fn add(&mut self, job: &str, admitted: &AdmitReply, used: impl Into<Amounts>, part: u32) {
        let settle = SettleCommand {
            plan: Arc::clone(&self.plan),
            attempt: admitted.attempt,
            since: admitted.since,
            end: SettleKind::Add,
            job: None,
            used: used.into(),
            part,
            whole: false,
        };
        self.run(job, CommandKind::Settle(settle));
    }

    fn expire(&mut self, job: &str, admitted: &AdmitReply, charge: bool) {
        self.run(job, CommandKind::Expire { attempt: admitted.attempt, since: admitted.since.at, charge });
    }

    fn record(&mut self, amounts: impl Into<Amounts>) {
        let kind = CommandKind::Record { plan: Arc::clone(&self.plan), amounts: amounts.into() };
        let job = format!("record {}", self.commands);
        self.run(&job, kind);
    }

    fn credit(&mut self, request: &CreditRequest) -> Reply {
        let kind = CommandKind::Credit { plan: Arc::clone(&self.plan), request: Box::new(request.clone()) };
        self.run(&format!("{CREDIT}{}", request.id), kind)
    }

    fn reset(&mut self, limit: Option<&str>) -> Reply {
        let kind = CommandKind::Reset { plan: Arc::clone(&self.plan), limit: limit.map(Into::into) };
        let job = format!("reset {}", self.commands);
        self.run(&job, kind)
    }

    /// Returns the used and reserved amount of each counter, by limit, window in hours and epoch.
    fn counts(&self) -> BTreeMap<(String, u64, u64), (u64, u64)> {
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

    /// Billed amounts of the latest attempt of a job.
    fn amounts_of(&self, job: &str) -> Amounts {
        let rows: Vec<_> = self.store.rows.iter().filter(|row| *row.key.job == *job).cloned().collect();
        JobRows(&rows).amounts(JobRows(&rows).latest().unwrap())
    }

    fn entries(&self, job: &str) -> Vec<(u32, EntryKind, i64)> {
        let of = self.store.rows.iter().filter(|row| *row.key.job == *job);
        of.map(|row: &Row| (row.attempt, row.entry, row.amount)).collect()
    }
}

fn admitted(reply: Reply) -> AdmitReply {
    match reply {
        Reply::Admitted(admitted) => *admitted,
        other => panic!("{other:?}"),
    }
}

fn refused_by(reply: Reply) -> Vec<String> {
    match reply {
        Reply::Refused(violations) => violations.iter().map(|violation| violation.name.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}
