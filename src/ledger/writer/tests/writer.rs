//! The writer, step by step.

use proptest::prelude::*;

use super::{
    model::{Database, Without},
    *,
};
use crate::ledger::writer::{
    AdmittedAt, Answered, CancelResult, DbError, EntryKind, JobStatus, NoticeKind, Reply, Step, StepResult,
    SubmitError, Writer,
};

/// A writer, its database, and what everybody was told.
struct Scene {
    writer: Writer<&'static str>,
    database: Database,
    next: Step,
    told: Vec<(&'static str, Reply)>,
}

impl Scene {
    fn new() -> Self {
        let mut writer = Writer::new(3, 8);
        let next = writer.step(None);
        Self { writer, database: Database::new(START, 1, Without::default()), next, told: Vec::new() }
    }

    fn ask(&mut self, who: &'static str, id: u128, job: &str, amount: u64) -> u64 {
        self.try_ask(who, id, job, amount).unwrap()
    }

    fn try_ask(&mut self, who: &'static str, id: u128, job: &str, amount: u64) -> Result<u64, SubmitError> {
        let asked = command(id, key("acme", job), CommandKind::Admit(admit(&hourly(100), ("requests", amount))));
        self.writer.submit(asked, who).map_err(|(full, _)| full)
    }

    fn tell(&mut self, id: u128, job: &str, attempt: u32, end: SettleKind) {
        let since = AdmittedAt { at: START, epoch: 0 };
        self.writer.enqueue(command(id, key("acme", job), settle(&hourly(100), attempt, since, end)));
    }

    fn hear(&mut self, event: Option<StepResult>) {
        self.next = self.writer.step(event);
        let answers = self.writer.answers();
        self.told.extend(answers.into_iter().map(|Answered { to, reply }| (to, reply)));
    }

    /// Does what is asked for.
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

    /// Until there is nothing left to do.
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

    /// What everybody was told since the last time.
    fn told(&mut self) -> Vec<(&'static str, &'static str)> {
        let word = |reply: &Reply| match reply {
            Reply::Admitted(_) => "admitted",
            Reply::Replay { running: true, .. } => "running",
            Reply::Replay { running: false, .. } => "done",
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
        self.database.store.accounts.values().flat_map(|stored| &stored.counts).map(|count| count.taken()).sum()
    }

    fn entries(&self, job: &str) -> Vec<(u32, EntryKind)> {
        let of = self.database.store.rows.iter().filter(|row| *row.key.job == *job);
        of.map(|row| (row.attempt, row.entry)).collect()
    }
}

fn again() -> DbError {
    DbError::Again("in the way".into())
}

#[test]
fn a_batch_is_answered_when_it_is_committed_and_not_before() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "b", 60);
    scene.until_commit();
    assert_eq!(scene.told(), []);
    scene.go_on();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "refused")]);
    assert_eq!((scene.next == Step::Wait, scene.used()), (true, 60));
}

#[test]
fn refusals_write_nothing() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 101);
    scene.until(|step| *step == Step::RollBack);
    assert_eq!(scene.told(), [("ann", "refused")]);
    scene.settle_down();
    assert!(scene.database.store.rows.is_empty());
}

#[test]
fn what_fails_before_the_commit_is_tried_again_and_nobody_hears_of_it() {
    for step in ["begin", "write"] {
        let mut scene = Scene::new();
        scene.ask("ann", 2, "a", 60);
        scene.until(|next| match next {
            Step::Begin(_) => step == "begin",
            Step::Write(..) => step == "write",
            _ => false,
        });
        scene.lost();
        assert_eq!((scene.told(), &scene.next), (vec![], &Step::Connect));
        scene.settle_down();
        assert_eq!((scene.told(), scene.used()), (vec![("ann", "admitted")], 60));
    }
}

#[test]
fn a_commit_without_a_reply_is_looked_for_and_its_rows_are_known() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "a", 60);
    scene.until_commit();
    scene.lost_after_commit();
    assert_eq!(scene.told(), []);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "running")]);
    assert_eq!(scene.used(), 60);
}

#[test]
fn a_commit_that_never_was_is_made() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.lost();
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("ann", "admitted")], 60));
}

#[test]
fn own_rows_are_known_even_after_another_commit_has_come_to_nothing() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.lost_after_commit();
    scene.ask("bob", 4, "b", 10);
    scene.until_commit();
    scene.fails(again());
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "admitted")]);
    assert_eq!(scene.used(), 70);
}

#[test]
fn whoever_leaves_before_anything_is_sent_is_never_written() {
    let mut scene = Scene::new();
    let queued = scene.ask("ann", 2, "a", 60);
    assert_eq!(scene.writer.cancel(queued), CancelResult::Unsent);
    let begun = scene.ask("bob", 4, "b", 60);
    scene.until(|step| matches!(step, Step::Begin(_)));
    assert_eq!(scene.writer.cancel(begun), CancelResult::Unsent);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![], 0));
}

#[test]
fn whoever_leaves_while_it_is_written_is_given_back_and_the_id_is_free_again() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.ask("ann again", 4, "a", 60);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("ann again", "admitted")], 60));
    assert_eq!(scene.entries("a"), [(0, EntryKind::Charge), (0, EntryKind::Void), (1, EntryKind::Charge)]);
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Answered);
}

#[test]
fn whoever_leaves_while_it_is_written_is_not_written_where_the_transaction_comes_to_nothing() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until(|step| matches!(step, Step::Write(..)));
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.lost();
    scene.settle_down();
    assert_eq!((scene.told(), scene.entries("a")), (vec![], vec![]));
}

#[test]
fn whoever_leaves_after_a_commit_that_never_was_is_not_admitted_for_nobody() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.lost();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.settle_down();
    assert_eq!((scene.told(), scene.entries("a")), (vec![], vec![]));
}

#[test]
fn nobody_is_told_that_a_job_was_done_whose_charge_is_about_to_go_back() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "a", 60);
    scene.until_commit();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("bob", "admitted")], 60));
}

#[test]
fn a_job_that_came_to_nothing_is_running_until_its_id_is_free() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.go_on();
    scene.ask("bob", 4, "a", 60);
    scene.tell(6, "a", 0, SettleKind::Void);
    scene.writer.finish(&key("acme", "a"), 2);
    scene.settle_down();
    scene.ask("eve", 8, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "running"), ("eve", "admitted")]);
}

#[test]
fn a_job_that_was_said_to_be_over_and_then_came_to_nothing_is_not_told_done() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.settle_down();
    scene.writer.finish(&key("acme", "a"), 2);
    scene.ask("bob", 4, "a", 60);
    scene.tell(6, "a", 0, SettleKind::Void);
    scene.settle_down();
    scene.ask("eve", 8, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "running"), ("eve", "admitted")]);
}

#[test]
fn duplicates_are_told_that_a_job_is_running_until_it_is_finished() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.settle_down();
    scene.ask("bob", 4, "a", 60);
    scene.settle_down();
    scene.writer.finish(&key("acme", "a"), 4); // not his
    scene.ask("cid", 6, "a", 60);
    scene.settle_down();
    scene.writer.finish(&key("acme", "a"), 2);
    scene.ask("dan", 8, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "running"), ("cid", "running"), ("dan", "done")]);
}

#[test]
fn what_was_committed_without_a_reply_belongs_to_the_hour_in_which_it_was() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.lost_after_commit();
    scene.database.now += HOUR;
    scene.settle_down();
    assert_eq!((scene.used(), scene.entries("a")), (0, vec![(0, EntryKind::Charge), (0, EntryKind::Void)]));
}

#[test]
fn when_it_is_over_everybody_is_told_as_much_as_is_known() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.ask("bob", 4, "b", 10);
    scene.writer.give_up(&"over".into());
    scene.hear(None);
    assert_eq!((scene.told(), &scene.next), (vec![("ann", "indeterminate"), ("bob", "unavailable")], &Step::End));
}

#[test]
fn whoever_settles_hears_how_it_stood_even_where_the_reply_was_lost() {
    let mut scene = Scene::new();
    let reserve = AdmitCommand {
        reserve: Some(crate::ledger::writer::ReservationTerms { ttl: HOUR, charge: false }),
        ..admit(&hourly(100), ("requests", 60))
    };
    scene.writer.submit(command(2, key("acme", "a"), CommandKind::Admit(reserve)), "ann").unwrap();
    scene.settle_down();
    let expire = CommandKind::Expire { attempt: 0, since: START, charge: true };
    scene.writer.enqueue(command(4, key("acme", "a"), expire));
    scene.settle_down();
    let since = AdmittedAt { at: START, epoch: 0 };
    let late = settle(&hourly(100), 0, since, SettleKind::Commit(("requests", 20).into()));
    scene.writer.submit(command(6, key("acme", "a"), late), "bob").unwrap();
    scene.until_commit();
    scene.lost_after_commit();
    scene.settle_down();
    assert!(matches!(scene.told[..], [_, ("bob", Reply::Settled(JobStatus::Expired, _))]));
    assert_eq!(scene.used(), 20);
}

#[test]
fn no_more_wait_than_there_is_room_for() {
    let mut scene = Scene::new();
    ["ann", "bob", "cid"].into_iter().for_each(|who| assert!(scene.try_ask(who, 2, who, 1).is_ok()));
    assert_eq!(scene.try_ask("dan", 8, "d", 1), Err(SubmitError::Queue));
    scene.tell(10, "x", 0, SettleKind::Void); // what settles always is taken
    scene.settle_down();
    assert!(scene.try_ask("dan", 8, "d", 1).is_ok());
}

#[test]
fn after_three_failures_nobody_waits_and_it_recovers_without_anybody_asking() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.go_on();
    for failures in 1..=3 {
        scene.until(|step| *step == Step::Connect);
        assert_eq!(scene.told(), [], "after {failures}");
        scene.lost();
    }
    assert_eq!((scene.told(), scene.writer.is_down()), (vec![("ann", "unavailable")], true));
    assert_eq!(scene.try_ask("bob", 4, "b", 60), Err(SubmitError::Down));
    scene.until(|step| *step == Step::Wait);
    assert!(!scene.writer.is_down() && scene.try_ask("bob", 4, "b", 60).is_ok());
}

#[test]
fn whoever_was_sent_when_the_database_went_is_told_that_nobody_knows_and_is_given_back() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.lost_after_commit();
    for _ in 0..2 {
        scene.until(|step| *step == Step::Connect);
        scene.lost();
    }
    assert_eq!(scene.told(), [("ann", "indeterminate")]);
    scene.settle_down();
    assert_eq!(scene.used(), 0);
    scene.ask("ann", 4, "a", 60);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("ann", "admitted")], 60));
}

#[test]
fn an_order_that_the_database_refuses_does_not_take_its_neighbours_with_it() {
    let mut scene = Scene::new();
    ["ann", "bob", "cid"]
        .into_iter()
        .zip([2, 4, 6])
        .for_each(|(who, id)| assert!(scene.try_ask(who, id, who, 1).is_ok()));
    let mut writes = 0;
    while scene.next != Step::Wait || writes == 0 {
        match &scene.next {
            Step::Write(poison, _) if poison.rows.iter().any(|row| *row.key.job == *"bob") => {
                scene.fails(DbError::Refused("no".into()));
            }
            _ => scene.go_on(),
        }
        writes += 1;
    }
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "unavailable"), ("cid", "admitted")]);
}

#[test]
fn what_settles_is_never_dropped_and_does_not_keep_others_from_passing() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.settle_down();
    scene.tell(4, "a", 0, SettleKind::Void);
    scene.go_on();
    let (mut refused, mut together) = (0, 0);
    while refused < 20 {
        match &scene.next {
            Step::Write(writes, _) if writes.rows.iter().any(|row| row.command == 4) => {
                together += usize::from(writes.rows.iter().any(|row| row.command != 4));
                refused += 1;
                scene.fails(DbError::Refused("full".into()));
                if refused % 5 == 0 {
                    let who = ["", "bob", "cid", "dan", "eve"][refused / 5];
                    scene.ask(who, 100 + refused as u128 * 2, who, 1);
                }
            }
            _ => scene.go_on(),
        }
    }
    assert_eq!(together, 0, "what the database refuses is tried apart");
    scene.settle_down();
    assert_eq!((scene.told().len(), scene.used(), scene.entries("a").len()), (5, 4, 2));
}

/// A writer with many callers, of whom the database rejects some whatever is tried.
struct Crowd {
    scene: Scene,
    poison: Vec<String>,
    transactions: usize,
}

impl Crowd {
    /// As many callers as there are names, each with a job and a tenant of its own, in one batch.
    fn of(names: &[&'static str], poison: &[&str]) -> Self {
        let mut scene = Scene::new();
        scene.writer = Writer::new(1_000, 512);
        scene.next = scene.writer.step(None);
        for (who, at) in names.iter().zip(1..) {
            let asked = command(at * 2, key(who, "job"), CommandKind::Admit(admit(&hourly(100), ("requests", 1))));
            scene.writer.submit(asked, who).unwrap();
        }
        scene.hear(None);
        let poison = poison.iter().map(|poison| (*poison).into()).collect();
        Self { scene, poison, transactions: 0 }
    }

    fn is_poisoned(&self, tenant: &str) -> bool {
        self.poison.iter().any(|poison| poison == tenant)
    }

    /// Until nothing is left to do, rejecting poison where `rejects` says that the database looks.
    fn run(&mut self, rejects: impl Fn(&Step) -> bool) {
        while self.scene.next != Step::Wait {
            let poisoned = match &self.scene.next {
                Step::Begin(reads) => reads.tenants.iter().any(|tenant| self.is_poisoned(tenant)),
                Step::Write(writes, _) => writes.rows.iter().any(|row| self.is_poisoned(&row.key.tenant)),
                Step::Commit => {
                    let open = self.scene.database.open[0].as_ref().unwrap();
                    open.writes.rows.iter().any(|row| self.is_poisoned(&row.key.tenant))
                }
                _ => false,
            };
            self.transactions += usize::from(matches!(self.scene.next, Step::Begin(_)));
            match poisoned && rejects(&self.scene.next) {
                true => self.scene.fails(DbError::Rejected("a check".into())),
                false => self.scene.go_on(),
            }
            assert!(!matches!(self.scene.next, Step::Rest(_)), "no caller waits for another one's poison");
        }
    }
}

/// Names of callers that live as long as the tests.
fn names(many: usize) -> Vec<&'static str> {
    (0..many).map(|at| &*Box::leak(format!("tenant {at:03}").into_boxed_str())).collect()
}

#[test]
fn rejected_command_fails_alone_at_any_step() {
    type Rejects = fn(&Step) -> bool;
    let steps: [Rejects; 3] = [
        |step| matches!(step, Step::Begin(_)),
        |step| matches!(step, Step::Write(..)),
        |step| matches!(step, Step::Commit),
    ];
    for rejects in steps {
        let names = names(100);
        let mut crowd = Crowd::of(&names, &["tenant 000", "tenant 041", "tenant 099"]);
        crowd.run(rejects);
        let (mut told, poison) = (crowd.scene.told(), crowd.poison);
        told.sort_unstable();
        for ((who, told), name) in told.iter().zip(&names) {
            let wanted = if poison.iter().any(|poison| poison == name) { "rejected" } else { "admitted" };
            assert_eq!((who, *told), (name, wanted));
        }
        assert_eq!((told.len(), crowd.scene.used()), (100, 97));
        let of_poison = |row: &&crate::ledger::writer::Row| poison.iter().any(|poison| **poison == *row.key.tenant);
        assert_eq!(crowd.scene.database.store.rows.iter().filter(of_poison).count(), 0);
        assert_eq!(crowd.scene.writer.backlog(), 0, "it is not tried for ever");
        let notices = crowd.scene.writer.notices();
        assert!(notices.iter().all(|notice| matches!(&notice.what, NoticeKind::Rejected(why) if **why == *"a check")));
        assert_eq!(notices.len(), 3);
    }
}

/// One of 512: nine halvings, the halves that go through, and the poison once more.
#[test]
fn rejected_command_costs_its_neighbours_few_transactions() {
    let names = names(512);
    let mut crowd = Crowd::of(&names, &["tenant 300"]);
    crowd.run(|step| matches!(step, Step::Write(..)));
    assert_eq!(crowd.scene.told().len(), 512);
    assert!(crowd.transactions <= 21, "{} transactions", crowd.transactions);
}

#[test]
fn rejected_command_is_decided_by_rows_written_meanwhile() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until(|step| matches!(step, Step::Write(..)));
    // Another program writes the job without the lock of the account.
    let Step::Write(writes, _) = &scene.next else { unreachable!() };
    let mut written = writes.clone();
    written.rows.iter_mut().for_each(|row| row.command = 100);
    std::sync::Arc::make_mut(&mut scene.database.store).apply(&written);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("ann", "done")], 60));
}

#[test]
fn rejected_settlement_is_reported_once_and_dropped() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.settle_down();
    scene.tell(4, "a", 0, SettleKind::Void);
    scene.ask("bob", 6, "b", 10);
    while scene.next != Step::Wait || scene.writer.backlog() > 0 {
        match &scene.next {
            Step::Write(writes, _) if writes.rows.iter().any(|row| row.command == 4) => {
                scene.fails(DbError::Rejected("a check".into()));
            }
            _ => scene.go_on(),
        }
    }
    assert_eq!((scene.told(), scene.used()), (vec![("ann", "admitted"), ("bob", "admitted")], 70));
    let notices = scene.writer.notices();
    assert!(matches!(&notices[..], [notice] if *notice.key.job == *"a"), "{notices:?}");
    scene.ask("cid", 8, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("cid", "done")], "it stays charged, and is not running any more");
}

/// Its commit may have taken place, and its rows cannot be read: it is not told that nothing was written.
#[test]
fn unreadable_command_that_was_sent_is_indeterminate() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.lost_after_commit();
    for _ in 0..2 {
        scene.until(|step| matches!(step, Step::Begin(_)));
        scene.fails(DbError::Rejected("unknown entry".into()));
    }
    scene.settle_down();
    assert_eq!((scene.told(), scene.writer.backlog()), (vec![("ann", "indeterminate")], 0));
}

/// A file that was read-only when it was opened, a server that has become a standby: another connection may be better.
#[test]
fn refused_write_is_followed_by_a_new_connection() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "b", 10);
    scene.until(|step| matches!(step, Step::Write(..)));
    scene.fails(DbError::Refused("read-only".into()));
    assert_eq!((scene.told(), &scene.next), (vec![], &Step::RollBack));
    for who in ["ann", "bob"] {
        scene.until(|step| matches!(step, Step::Write(..)));
        scene.fails(DbError::Refused("read-only".into()));
        assert_eq!(scene.told(), [(who, "unavailable")]);
        assert_eq!(
            (&scene.next, scene.writer.is_down()),
            (if who == "ann" { &Step::Connect } else { &Step::Wait }, false)
        );
    }
    scene.ask("cid", 6, "c", 10);
    scene.hear(None);
    assert_eq!(scene.next, Step::Connect);
    scene.settle_down();
    assert_eq!(scene.told(), [("cid", "admitted")]);
}

#[test]
fn an_account_that_somebody_holds_keeps_nobody_else() {
    let mut scene = Scene::new();
    let ask = |scene: &mut Scene, who: &'static str, id: u128| {
        let asked = command(id, key(who, "a"), CommandKind::Admit(admit(&hourly(100), ("requests", 1))));
        scene.writer.submit(asked, who).unwrap();
    };
    let held =
        |step: &Step| matches!(step, Step::Begin(reads) if reads.tenants.iter().any(|tenant| **tenant == *"bob"));
    ["ann", "bob", "cid"].into_iter().zip(1..).for_each(|(who, id)| ask(&mut scene, who, id * 2));
    scene.until(held);
    scene.fails(again());
    // At most once he keeps the others, and then only until his turn is over.
    let mut turns = 0;
    while scene.told.len() < 2 {
        if held(&scene.next) {
            assert!(matches!(&scene.next, Step::Begin(reads) if reads.tenants.len() == 1), "he is decided apart");
            turns += 1;
            scene.fails(again());
        } else {
            scene.go_on();
        }
    }
    assert!(turns <= 2, "{turns}");
    scene.told.sort_by_key(|(who, _)| *who);
    assert_eq!(scene.told(), [("ann", "admitted"), ("cid", "admitted")]);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("bob", "admitted")], 3));
    ["ann", "bob", "cid"].into_iter().zip(9..).for_each(|(who, id)| ask(&mut scene, who, id * 2));
    scene.until(|step| matches!(step, Step::Begin(_)));
    assert!(matches!(&scene.next, Step::Begin(reads) if reads.tenants.len() == 3), "nobody is apart any more");
}

#[test]
fn whoever_was_sent_is_never_told_that_nothing_was_done() {
    for refused in [false, true] {
        let mut scene = Scene::new();
        scene.ask("ann", 2, "a", 60);
        scene.until_commit();
        scene.lost_after_commit();
        // Its account is still held by the connection from before, or it cannot even be read.
        for _ in 0..3 {
            scene.until(|step| matches!(step, Step::Begin(_) | Step::Wait));
            if scene.told.is_empty() {
                scene.fails(if refused { DbError::Refused("no".into()) } else { again() });
            }
        }
        assert_eq!(scene.told(), [("ann", "indeterminate")]);
        scene.settle_down();
        assert_eq!((scene.used(), scene.entries("a").len()), (0, 2), "it has gone back");
    }
}

#[test]
fn nobody_waits_for_a_connection_that_somebody_has_waited_for_in_vain() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until(|step| *step == Step::Connect);
    assert_eq!(scene.writer.time_out(ticket), CancelResult::Unsent);
    assert_eq!(scene.try_ask("bob", 4, "b", 60), Err(SubmitError::Down));
    scene.settle_down();
    assert!(scene.try_ask("bob", 4, "b", 60).is_ok());
}

#[test]
fn it_looks_whether_the_database_is_there_with_nothing_in_its_hands() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "b", 10);
    scene.until(|step| matches!(step, Step::Write(..)));
    scene.fails(DbError::Refused("no".into())); // each is to be tried alone
    for _ in 0..3 {
        scene.until(|step| matches!(step, Step::Begin(_) | Step::Connect));
        scene.lost();
    }
    assert_eq!(scene.told(), [("ann", "unavailable"), ("bob", "unavailable")]);
    scene.until(|step| *step == Step::Wait);
    assert!(!scene.writer.is_down());
}

#[test]
fn whoever_shuts_it_waits_until_everybody_is_answered() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.writer.close();
    assert_eq!(scene.try_ask("bob", 4, "b", 60), Err(SubmitError::Shut));
    scene.settle_down();
    assert_eq!((scene.told(), &scene.next), (vec![("ann", "admitted")], &Step::End));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No sequence of failures keeps it busy without a rest, unless everything was rejected and nothing is left to do.
    #[test]
    fn where_nothing_succeeds_it_rests(
        faults in prop::collection::vec((0..5_u8, 0..4_u8), 400),
        asked in 0..3_usize,
        told in 1..3_usize,
    ) {
        let mut scene = Scene::new();
        ["ann", "bob", "cid"].into_iter().zip(10..).take(asked).for_each(|(who, id)| {
            scene.ask(who, id * 2, who, 1);
        });
        for at in 0..told as u128 {
            let record = CommandKind::Record { plan: hourly(100), amounts: ("requests", 1).into() };
            scene.writer.enqueue(command(100 + at * 2, key("acme", "d"), record));
        }
        scene.hear(None);
        let (mut busy, mut longest) = (0, 0);
        for (fault, how_far) in faults {
            // Connections come back, and whatever else does: no commit ever succeeds.
            let fails = match scene.next {
                Step::Commit => true,
                Step::Begin(_) | Step::Write(..) | Step::Connect => how_far == 0,
                _ => false,
            };
            busy = if let Step::Rest(_) | Step::Wait = scene.next { 0 } else { busy + 1 };
            longest = longest.max(busy);
            match fault {
                _ if !fails => scene.go_on(),
                0 => scene.lost(),
                1 | 2 => scene.fails(again()),
                3 => scene.fails(DbError::Rejected("a check".into())),
                _ => scene.fails(DbError::Refused("no".into())),
            }
        }
        prop_assert!(longest < 150, "{longest} steps without a rest");
    }
}
