//! Amounts that no counter takes in full: refused if a caller waits, cut and reported otherwise.

use super::*;
use crate::{
    ledger::writer::batch::decide,
    quota::{MOST, account::Cut},
};

const REQUESTS: &str = "requests_per_hour";

impl Ledger {
    /// Records usage that leaves `room` in the counter.
    fn fill(&mut self, room: u64) {
        let (used, reserved) = self.of(REQUESTS);
        self.record(("requests", MOST - used - reserved - room));
    }

    /// Decides a command of job "a", and commits it.
    fn decided(&mut self, kind: CommandKind) -> (Reply, Cut) {
        let command = self.command("a", kind);
        let queue = [queued(&command, false)];
        let loaded = self.store.load(&reads(&queue), self.now);
        let (writes, mut decided) = decide(&queue, loaded);
        self.store.apply(&writes);
        self.store.adds_up().unwrap();
        self.writes = writes;
        let decided = decided.remove(0);
        (decided.reply, decided.cut)
    }

    /// Decides the commit of a reservation; `whole` if a caller waits for it.
    fn end(&mut self, held: &AdmitReply, actual: u64, whole: bool) -> (Reply, Cut) {
        let (plan, end) = (Arc::clone(&self.plan), SettleKind::Commit(("requests", actual).into()));
        let CommandKind::Settle(settle) = settle(&plan, held.attempt, held.since, end) else { unreachable!() };
        self.decided(CommandKind::Settle(SettleCommand { whole, ..settle }))
    }
}

fn cut(part: u64) -> Cut {
    let mut cut = Cut::default();
    cut.note(&crate::kind::Kind::Requests, part);
    cut
}

#[test]
fn part_that_no_counter_takes_is_in_the_decision() {
    let plan = hourly(100);
    let since = AdmittedAt { at: START, epoch: 0 };
    let CommandKind::Settle(add) = settle(&plan, 0, since, SettleKind::Add) else { unreachable!() };
    let add = CommandKind::Settle(SettleCommand { used: ("requests", 9).into(), ..add });
    let spooled = CommandKind::Spooled { admit: admit(&plan, ("requests", 9)), at: START };
    let far = CommandKind::Spooled { admit: admit(&plan, ("requests", u64::MAX)), at: START };
    for (kind, part) in [(add, 4), (spooled, 4), (far, u64::MAX - 5)] {
        let mut ledger = Ledger::new(Arc::clone(&plan));
        ledger.fill(5);
        assert_eq!(ledger.decided(kind.clone()).1, cut(part), "{kind:?}");
        assert_eq!(ledger.of(REQUESTS), (MOST, 0));
    }
    let mut ledger = Ledger::new(plan);
    let held = ledger.reserve("a", ("requests", 2));
    ledger.fill(5);
    assert_eq!(ledger.end(&held, 11, false).1, cut(4));
    assert_eq!(ledger.of(REQUESTS), (MOST, 0));
    assert_eq!(ledger.decided(CommandKind::Probe).1, Cut::default(), "it is reported once");
}

#[test]
fn commit_that_does_not_fit_is_refused_if_a_caller_waits() {
    for expires in [None, Some(false), Some(true)] {
        let mut ledger = Ledger::new(hourly(100));
        let held = ledger.reserve("a", ("requests", 2));
        if let Some(charge) = expires {
            ledger.expire("a", &held, charge);
        }
        ledger.fill(5);
        let (before, room) = (ledger.of(REQUESTS), if expires == Some(false) { 5 } else { 7 });
        for amount in [room + 1, MOST, u64::MAX] {
            let (reply, cut) = ledger.end(&held, amount, true);
            assert!(matches!(reply, Reply::TooLarge(of) if of == amount), "{reply:?}");
            assert!(cut.is_none() && ledger.writes.is_empty());
            assert_eq!(ledger.of(REQUESTS), before, "{expires:?}");
        }
        assert!(matches!(ledger.end(&held, room, true), (Reply::Settled(..), cut) if cut.is_none()));
        assert_eq!(ledger.of(REQUESTS), (MOST, 0), "{expires:?}");
        let closed = ledger.end(&held, u64::MAX, true).0;
        assert!(matches!(closed, Reply::Settled(JobStatus::Committed | JobStatus::Late, _)), "{closed:?}");
    }
}

#[test]
fn void_returns_what_counted_in_a_later_window() {
    let plan = hourly(100);
    let mut ledger = Ledger::new(Arc::clone(&plan));
    let _ = ledger.decided(CommandKind::Admit(admit(&plan, ("requests", 1))));
    ledger.now += HOUR;
    let since = AdmittedAt { at: START, epoch: 0 };
    let CommandKind::Settle(add) = settle(&plan, 0, since, SettleKind::Add) else { unreachable!() };
    let _ = ledger.decided(CommandKind::Settle(SettleCommand { used: ("requests", 4).into(), part: 1, ..add }));
    let rows = |ledger: &Ledger| ledger.writes.rows.iter().map(|row| row.amount).collect::<Vec<_>>();
    assert_eq!(rows(&ledger), [4]);
    let _ = ledger.decided(settle(&plan, 0, since, SettleKind::Void));
    assert_eq!(rows(&ledger), [-1, -4]);
}
