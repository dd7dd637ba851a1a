//! The writer, step by step.

use std::sync::Arc;

use super::{
    super::{Answered, Entry, Event, Fault, Full, Left, Since, Step, Verdict, Writer},
    model::{Database, Without},
    *,
};

/// A writer, its database, and what everybody was told.
struct Scene {
    writer: Writer<&'static str>,
    database: Database,
    next: Step,
    told: Vec<(&'static str, Verdict)>,
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

    fn try_ask(&mut self, who: &'static str, id: u128, job: &str, amount: u64) -> Result<u64, Full> {
        let asked = order(id, key("acme", job), Act::Admit(admit(&hourly(100), ("requests", amount))));
        self.writer.ask(asked, who).map_err(|(full, _)| full)
    }

    fn tell(&mut self, id: u128, job: &str, attempt: u32, end: End) {
        let since = Since { at: START, turn: 0 };
        self.writer.tell(order(id, key("acme", job), settle(&hourly(100), attempt, since, end)));
    }

    fn hear(&mut self, event: Option<Event>) {
        self.next = self.writer.step(event);
        let answers = self.writer.answers();
        self.told.extend(answers.into_iter().map(|Answered { to, verdict }| (to, verdict)));
    }

    /// Does what is asked for.
    fn go_on(&mut self) {
        let event = match &self.next {
            Step::Connect => Some(Event::Connected),
            Step::Begin(reads) => Some(Event::Loaded(self.database.begin(0, reads).unwrap())),
            Step::Write(writes, _) => Some(match self.database.write(0, writes).unwrap() {
                Ok(()) => Event::Wrote,
                Err(_) => Event::Failed(Fault::Again("a row is there".into())),
            }),
            Step::Commit => {
                self.database.commit(0);
                Some(Event::Committed)
            }
            Step::RollBack => {
                self.database.roll_back(0);
                Some(Event::RolledBack)
            }
            Step::Rest(_) => Some(Event::Rested),
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

    fn fails(&mut self, fault: Fault) {
        self.database.roll_back(0);
        self.hear(Some(Event::Failed(fault)));
    }

    fn lost(&mut self) {
        self.fails(Fault::Lost("gone".into()));
    }

    fn lost_after_commit(&mut self) {
        self.database.commit(0);
        self.hear(Some(Event::Failed(Fault::Lost("gone".into()))));
    }

    /// What everybody was told since the last time.
    fn told(&mut self) -> Vec<(&'static str, &'static str)> {
        let word = |verdict: &Verdict| match verdict {
            Verdict::Admitted(_) => "admitted",
            Verdict::Replay { running: true, .. } => "running",
            Verdict::Replay { running: false, .. } => "done",
            Verdict::Conflict => "conflict",
            Verdict::Refused(_) => "refused",
            Verdict::Unavailable(_) => "unavailable",
            Verdict::Indeterminate => "indeterminate",
            _ => "settled",
        };
        std::mem::take(&mut self.told).iter().map(|(who, verdict)| (*who, word(verdict))).collect()
    }

    fn used(&self) -> u64 {
        self.database.store.adds_up().unwrap();
        self.database.store.accounts.values().flat_map(|stored| &stored.counts).map(|count| count.taken()).sum()
    }

    fn entries(&self, job: &str) -> Vec<(u32, Entry)> {
        let of = self.database.store.rows.iter().filter(|row| *row.key.job == *job);
        of.map(|row| (row.attempt, row.entry)).collect()
    }
}

fn again() -> Fault {
    Fault::Again("in the way".into())
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
    assert_eq!(scene.writer.leave(queued), Left::Unsent);
    let begun = scene.ask("bob", 4, "b", 60);
    scene.until(|step| matches!(step, Step::Begin(_)));
    assert_eq!(scene.writer.leave(begun), Left::Unsent);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![], 0));
}

#[test]
fn whoever_leaves_while_it_is_written_is_given_back_and_the_id_is_free_again() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    assert_eq!(scene.writer.leave(ticket), Left::Underway);
    scene.ask("ann again", 4, "a", 60);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("ann again", "admitted")], 60));
    assert_eq!(scene.entries("a"), [(0, Entry::Charge), (0, Entry::Void), (1, Entry::Charge)]);
    assert_eq!(scene.writer.leave(ticket), Left::Answered);
}

#[test]
fn whoever_leaves_while_it_is_written_is_not_written_where_the_transaction_comes_to_nothing() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until(|step| matches!(step, Step::Write(..)));
    assert_eq!(scene.writer.leave(ticket), Left::Underway);
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
    assert_eq!(scene.writer.leave(ticket), Left::Underway);
    scene.settle_down();
    assert_eq!((scene.told(), scene.entries("a")), (vec![], vec![]));
}

#[test]
fn nobody_is_told_that_a_job_was_done_whose_charge_is_about_to_go_back() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "a", 60);
    scene.until_commit();
    assert_eq!(scene.writer.leave(ticket), Left::Underway);
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
    scene.tell(6, "a", 0, End::Void);
    scene.writer.finish(&key("acme", "a"), 2);
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
