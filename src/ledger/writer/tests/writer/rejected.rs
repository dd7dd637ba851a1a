//! Commands that the database refuses or rejects.

use super::*;

#[test]
fn refused_command_fails_alone() {
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
fn refused_settlement_stays_queued_and_delays_no_other() {
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

/// A writer with many callers; the database rejects the commands of some, however often they are tried.
struct Crowd {
    scene: Scene,
    poison: Vec<String>,
    transactions: usize,
}

impl Crowd {
    /// One caller for each name, each with a job and a tenant of its own, in one batch.
    fn of(names: &[&'static str], poison: &[&str]) -> Self {
        let mut scene = Scene::new();
        scene.writer = Writer::new(1_000, 512, false);
        scene.next = scene.writer.step(Lane::Main, None);
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

    /// Runs until the writer waits, and rejects poison in the steps that `rejects` names.
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
    // Another program writes the job without the account lock.
    let Step::Write(writes, _) = &scene.next else { unreachable!() };
    let mut written = writes.clone();
    written.rows.iter_mut().for_each(|row| row.command = 100);
    std::sync::Arc::make_mut(&mut scene.database.store).apply(&written);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("ann", "unknown")], 60));
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
    assert_eq!(scene.told(), [("cid", "unknown")], "it stays charged, and is not running any more");
}

#[test]
fn rejected_settlement_makes_its_reservation_due() {
    for end in [SettleKind::Commit(("requests", 4).into()), SettleKind::Void] {
        let mut scene = Scene::new();
        let terms = crate::ledger::writer::ReservationTerms { ttl: HOUR, charge: false };
        let reserve = AdmitCommand { reserve: Some(terms), ..admit(&hourly(100), ("requests", 60)) };
        scene.writer.submit(command(2, key("acme", "a"), CommandKind::Admit(reserve)), "ann").unwrap();
        scene.settle_down();
        let until = |scene: &Scene| scene.database.store.holds.iter().map(|hold| hold.until).collect::<Vec<_>>();
        assert_eq!(until(&scene), [START + HOUR]);
        scene.tell(4, "a", 0, end);
        while scene.next != Step::Wait || scene.writer.backlog() > 0 {
            match &scene.next {
                Step::Write(writes, _) if !writes.rows.is_empty() => scene.fails(DbError::Rejected("a check".into())),
                _ => scene.go_on(),
            }
        }
        assert_eq!((until(&scene), scene.used()), (vec![START], 60), "the upkeep expires it next");
        let notices = scene.writer.notices();
        let [NoticeKind::Rejected(why)] = notices.iter().map(|notice| &notice.what).collect::<Vec<_>>()[..] else {
            panic!("{notices:?}")
        };
        assert!(why.starts_with("a check; its reservation"), "{why}");
    }
}

/// Its holder goes on after an addition, and a caller that is told can end it otherwise.
#[test]
fn rejected_addition_or_call_leaves_its_reservation_open() {
    let none = || settle(&hourly(100), 0, AdmittedAt { at: START, epoch: 0 }, SettleKind::Add);
    let CommandKind::Settle(add) = none() else { unreachable!() };
    let add = SettleCommand { used: ("requests", 4).into(), ..add };
    let commit = SettleCommand { end: SettleKind::Commit(("requests", 4).into()), used: Amounts::new(), ..add.clone() };
    for (settle, caller) in [(add, None), (commit, Some("bob"))] {
        stays_open(command(4, key("acme", "a"), CommandKind::Settle(settle)), caller);
    }
}

fn stays_open(rejected: Command, caller: Option<&'static str>) {
    let mut scene = Scene::new();
    let terms = crate::ledger::writer::ReservationTerms { ttl: HOUR, charge: false };
    let reserve = AdmitCommand { reserve: Some(terms), ..admit(&hourly(100), ("requests", 60)) };
    scene.writer.submit(command(2, key("acme", "a"), CommandKind::Admit(reserve)), "ann").unwrap();
    scene.settle_down();
    match caller {
        None => scene.writer.enqueue(rejected),
        Some(caller) => _ = scene.writer.submit(rejected, caller).unwrap(),
    }
    while scene.next != Step::Wait || scene.writer.backlog() > 0 {
        match &scene.next {
            Step::Write(writes, _) if !writes.rows.is_empty() => scene.fails(DbError::Rejected("a check".into())),
            _ => scene.go_on(),
        }
    }
    assert_eq!(scene.database.store.holds.iter().map(|hold| hold.until).collect::<Vec<_>>(), [START + HOUR]);
    let notices = scene.writer.notices();
    assert!(matches!(&notices[0].what, NoticeKind::Rejected(why) if **why == *"a check"), "{notices:?}");
}

/// The rows of the admission are no rows of the command that makes its reservation due.
#[test]
fn reservation_is_due_after_a_lost_commit_too() {
    let mut scene = Scene::new();
    let terms = crate::ledger::writer::ReservationTerms { ttl: HOUR, charge: false };
    let reserve = AdmitCommand { reserve: Some(terms), ..admit(&hourly(100), ("requests", 60)) };
    let asked = command(2, key("acme", "a"), CommandKind::Admit(reserve));
    let ticket = scene.writer.submit(asked, "ann").unwrap();
    scene.go_on();
    scene.until_commit();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.go_on();
    let mut lost = 0;
    while scene.next != Step::Wait || scene.writer.backlog() > 0 {
        match &scene.next {
            Step::Write(writes, _) if !writes.rows.is_empty() => scene.fails(DbError::Rejected("a check".into())),
            Step::Commit if lost == 0 => {
                lost += 1;
                scene.fails(DbError::Lost("cut".into()));
            }
            _ => scene.go_on(),
        }
    }
    assert_eq!(lost, 1, "of the command that makes it due");
    assert_eq!(scene.database.store.holds.iter().map(|hold| hold.until).collect::<Vec<_>>(), [START]);
}

/// The commit may have taken place, and its rows cannot be read: the reply must not say that nothing was stored.
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
