//! Tests of the writer, step by step.

mod cancelled;
mod commits;
mod lanes;
mod outages;
mod rejected;
mod rejoin;

use proptest::prelude::*;

use super::{
    model::{Database, Without},
    *,
};
use crate::{
    ledger::writer::{
        AdmittedAt, CancelResult, DbError, EntryKind, JobStatus, Lane, NoticeKind, Reply, Step, StepResult,
        SubmitError, Writer,
    },
    quota::{JobOutcome, JobState, account::Duplicate},
};

/// A writer, its database, and the replies to its callers.
struct Scene {
    writer: Writer<&'static str>,
    database: Database,
    next: Step,
    told: Vec<(&'static str, Reply)>,
}

impl Scene {
    fn new() -> Self {
        let mut writer = Writer::new(3, 8, false);
        let next = writer.step(Lane::Main, None);
        Self { writer, database: Database::new(START, 1, Without::default()), next, told: Vec::new() }
    }

    fn ask(&mut self, who: &'static str, id: u128, job: &str, amount: u64) -> u64 {
        self.try_ask(who, id, job, amount).unwrap()
    }

    fn try_ask(&mut self, who: &'static str, id: u128, job: &str, amount: u64) -> Result<u64, SubmitError> {
        let admit = AdmitCommand { job_lease: Some(HOUR), ..admit(&hourly(100), ("requests", amount)) };
        let asked = command(id, key("acme", job), CommandKind::Admit(admit));
        self.writer.submit(asked, who)
    }

    fn tell(&mut self, id: u128, job: &str, attempt: u32, end: SettleKind) {
        let since = AdmittedAt { at: START, epoch: 0 };
        self.writer.enqueue(command(id, key("acme", job), settle(&hourly(100), attempt, since, end)));
    }

    /// Ends the work of the first attempt of a job that is charged already.
    fn end(&mut self, id: u128, job: &str, end: JobEnd) {
        let since = AdmittedAt { at: START, epoch: 0 };
        let kind = ends(settle(&hourly(100), 0, since, SettleKind::Add), end);
        self.writer.enqueue(command(id, key("acme", job), kind));
    }

    fn hear(&mut self, event: Option<StepResult>) {
        self.next = self.writer.step(Lane::Main, event);
        self.told.extend(self.writer.replies());
    }

    /// Performs the next step.
    fn go_on(&mut self) {
        let event = match &self.next {
            Step::Connect => Some(StepResult::Connected),
            Step::Begin(reads) => Some(StepResult::Loaded(self.database.begin(0, reads).unwrap())),
            Step::Write(writes, _) => Some(match self.database.write(0, writes).unwrap() {
                Ok(()) => StepResult::Wrote,
                Err(_) => StepResult::Failed(DbError::Rejected("a row is there".into())),
            }),
            Step::Commit => {
                self.database.commit(0);
                Some(StepResult::Committed)
            }
            Step::RollBack => {
                self.database.roll_back(0);
                Some(StepResult::RolledBack)
            }
            Step::Rest(_) => Some(StepResult::Rested),
            Step::Rejoin => Some(StepResult::Rejoined),
            Step::Wait | Step::End => None,
        };
        self.hear(event);
    }

    fn until(&mut self, there: impl Fn(&Step) -> bool) {
        for _ in 0..100 {
            if there(&self.next) {
                return;
            }
            self.go_on();
        }
        panic!("still {:?}", self.next);
    }

    fn until_commit(&mut self) {
        self.until(|step| *step == Step::Commit);
    }

    /// Runs until the writer waits or has ended.
    fn settle_down(&mut self) {
        self.go_on();
        self.until(|step| matches!(step, Step::Wait | Step::End));
    }

    fn fails(&mut self, fault: DbError) {
        self.database.roll_back(0);
        self.hear(Some(StepResult::Failed(fault)));
    }

    fn lost(&mut self) {
        self.fails(DbError::Lost("gone".into()));
    }

    fn lost_after_commit(&mut self) {
        self.database.commit(0);
        self.hear(Some(StepResult::Failed(DbError::Lost("gone".into()))));
    }

    /// Takes the replies since the last call.
    fn told(&mut self) -> Vec<(&'static str, &'static str)> {
        let word = |reply: &Reply| match reply {
            Reply::Admitted(_) => "admitted",
            Reply::Replay(Duplicate::Running) => "running",
            Reply::Replay(Duplicate::Done) => "done",
            Reply::Replay(_) => "unknown",
            Reply::Conflict => "conflict",
            Reply::Refused(_) => "refused",
            Reply::Unavailable(_) => "unavailable",
            Reply::Indeterminate => "indeterminate",
            Reply::Rejected(_) => "rejected",
            _ => "settled",
        };
        std::mem::take(&mut self.told).iter().map(|(who, reply)| (*who, word(reply))).collect()
    }

    fn used(&self) -> u64 {
        self.database.store.adds_up().unwrap();
        self.database.store.accounts.values().flat_map(|stored| &stored.counts).map(|count| count.counter.taken()).sum()
    }

    fn entries(&self, job: &str) -> Vec<(u32, EntryKind)> {
        let of = self.database.store.rows.iter().filter(|row| *row.key.job == *job);
        of.map(|row| (row.attempt, row.entry)).collect()
    }
}

fn again() -> DbError {
    DbError::Again("in the way".into())
}
