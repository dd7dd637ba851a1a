//! Corrupt and extreme rows: each counts as the nearest valid state, and every command is decided.

use super::*;
use crate::{
    ledger::writer::{AdmittedAt, Stored, account_view},
    quota::{
        MOST,
        account::{Counter, GrantState},
    },
};

const LARGEST: u64 = i64::MAX as u64;
const REQUESTS: &str = "requests_per_hour";

fn grant(id: u64, amount: u64, until: u64) -> GrantState {
    GrantState {
        id,
        limit: REQUESTS.into(),
        kind: "requests".into(),
        period: "hour".into(),
        amount,
        until,
        approver: "M. Okafor".into(),
        reason: "launch day".into(),
        before: 0,
        current: 0,
        window: START - HOUR / 2,
        epoch: 0,
        ended: false,
    }
}

fn counter(used: u64, reserved: u64, epoch: u64) -> StoredCounter {
    let (starts, ends) = (START - HOUR / 2, START + HOUR / 2);
    let counter = Counter { starts, ends, used, reserved, epoch, ..Counter::default() };
    StoredCounter { limit: REQUESTS.into(), kind: "requests".into(), period: "hour".into(), counter }
}

fn row(entry: EntryKind, amount: i64, attempt: u32, epoch: u64) -> Row {
    Row {
        key: key("acme", "a"),
        attempt,
        part: 0,
        entry,
        kind: "requests".into(),
        limit: REQUESTS.into(),
        period: "hour".into(),
        window: START - HOUR / 2,
        epoch,
        amount,
        command: 2,
        fingerprint: None,
        detail: None,
    }
}

impl Ledger {
    /// Decides a command over rows that need not add up, stores it, and asserts that a column holds each number.
    fn decide(&mut self, kind: CommandKind) -> Reply {
        let command = self.command("a", kind);
        let queue = [queued(&command, false)];
        let loaded = self.store.load(&reads(&queue), self.now);
        let (writes, mut replies) = replies_to(&queue, loaded);
        for (_, StoredCounter { counter, .. }) in &writes.counts {
            assert!(counter.used.max(counter.reserved) <= LARGEST, "{counter:?}");
        }
        for (_, grant) in &writes.grants {
            assert!(grant.amount.max(grant.before).max(grant.current) <= LARGEST, "{grant:?}");
        }
        self.store.apply(&writes);
        replies.remove(0)
    }

    /// Decides one command of each kind.
    fn decide_each(&mut self) {
        let (plan, since) = (Arc::clone(&self.plan), AdmittedAt { at: START, epoch: u64::MAX });
        let commit = |amount| SettleKind::Commit(("requests", amount).into());
        for kind in [
            CommandKind::Admit(admit(&plan, ("requests", 1))),
            CommandKind::Record { plan: Arc::clone(&plan), amounts: ("requests", MOST).into() },
            CommandKind::Expire { attempt: 0, since: START, charge: false },
            settle(&plan, 0, since, commit(MOST)),
            settle(&plan, 0, since, commit(0)),
            settle(&plan, 0, since, SettleKind::Void),
            settle(&plan, u32::MAX, since, SettleKind::Void),
            CommandKind::Admit(admit(&plan, ("requests", 1))),
            CommandKind::Revoke { grant: 1 },
            CommandKind::Reset { plan: Arc::clone(&plan), limit: None },
            CommandKind::Admit(admit(&plan, ("requests", 1))),
        ] {
            self.decide(kind);
        }
    }

    fn stored(grants: Vec<GrantState>, counts: Vec<StoredCounter>) -> Self {
        let mut ledger = Self::new(hourly(10));
        ledger.store.accounts.insert("acme".into(), Stored { counts, grants, ..Stored::default() });
        ledger
    }

    /// Limit and remainder that the account reports.
    fn reported(&self) -> (u64, u64) {
        let usage = account_view(self.store.accounts["acme"].clone(), &self.plan, self.now).usage(self.now);
        (usage.limits[0].limit, usage.limits[0].remaining)
    }
}

#[test]
fn extreme_grants_never_stop_an_account() {
    let numbers = [0, 5, MOST, MOST + 1, LARGEST];
    let ends = [0, START, START + HOUR, u64::MAX];
    for (amount, before) in numbers.iter().flat_map(|amount| numbers.map(|before| (*amount, before))) {
        for (current, until) in numbers.iter().flat_map(|current| ends.map(|until| (*current, until))) {
            for (used, ended, window) in [
                (0, false, START - HOUR / 2),
                (12, false, START - HOUR / 2),
                (12, true, START - HOUR / 2),
                (12, false, u64::MAX),
                (LARGEST, false, START - HOUR / 2),
                (LARGEST, true, 0),
            ] {
                let state = GrantState { before, current, window, ended, ..grant(1, amount, until) };
                let mut ledger = Ledger::stored(vec![state.clone()], vec![counter(used, 0, 0)]);
                let (limit, remaining) = ledger.reported();
                let left = if (1..=MOST).contains(&amount) { amount } else { 0 };
                assert!(limit <= 10 + left && remaining <= limit, "{limit}, {remaining}: {state:?}");
                ledger.decide_each();
            }
        }
    }
}

#[test]
fn invalid_grant_raises_nothing() {
    for amount in [0, MOST + 1, LARGEST] {
        let state = GrantState { current: 5, ended: amount == 0, ..grant(1, amount, START + HOUR) };
        let mut ledger = Ledger::stored(vec![state], vec![counter(10, 0, 0)]);
        assert_eq!(ledger.reported(), (10, 0));
        assert!(matches!(ledger.decide(CommandKind::Admit(admit(&hourly(10), ("requests", 1)))), Reply::Refused(_)));
    }
}

#[test]
fn grant_covers_no_more_than_its_amount() {
    let ended = GrantState { current: LARGEST, ended: true, ..grant(1, 5, START) };
    let mut ledger = Ledger::stored(vec![ended, grant(2, 10, START + HOUR)], vec![counter(20, 0, 0)]);
    assert_eq!(ledger.reported(), (25, 5));
    ledger.decide(CommandKind::Record { plan: hourly(10), amounts: ("requests", 1).into() });
    assert_eq!(ledger.store.accounts["acme"].grants[1].current, 6);
}

#[test]
fn counter_above_the_bound_only_changes_by_its_rows() {
    let mut ledger = Ledger::stored(Vec::new(), vec![counter(LARGEST, 0, 0)]);
    ledger.decide(CommandKind::Record { plan: hourly(10), amounts: ("requests", 1).into() });
    assert_eq!(ledger.entries("a"), [], "it is an error");
    let since = AdmittedAt { at: START, epoch: u64::MAX };
    let used = ("requests", 1).into();
    let add = SettleCommand {
        plan: hourly(10),
        attempt: 0,
        since,
        end: SettleKind::Add,
        job: None,
        used,
        part: 0,
        whole: false,
    };
    ledger.decide(CommandKind::Settle(add));
    assert_eq!(ledger.of(REQUESTS), (LARGEST, 0));
    assert_eq!(ledger.entries("a"), [(0, EntryKind::Record, 0)]);
}

#[test]
fn extreme_job_rows_never_stop_an_account() {
    use EntryKind::{Charge, Commit, Expire, Record, Reserve, Void};
    let amounts = [i64::MIN, -1, 0, 1, i64::MAX];
    for (first, second) in [Charge, Reserve, Record]
        .into_iter()
        .flat_map(|first| [Record, Expire, Commit, Void].map(|second| (first, second)))
    {
        for (one, other) in amounts.iter().flat_map(|one| amounts.map(|other| (*one, other))) {
            for (attempt, epoch, taken) in [(0, 0, (12, 3)), (u32::MAX, 0, (0, 0)), (0, LARGEST, (LARGEST, LARGEST))] {
                let mut ledger = Ledger::stored(Vec::new(), vec![counter(taken.0, taken.1, epoch)]);
                let again = Row { part: 1, command: 4, ..row(second, other, attempt, epoch) };
                let more = Row { part: 2, ..again.clone() };
                ledger.store.rows = vec![row(first, one, attempt, epoch), again, more];
                ledger.decide_each();
            }
        }
    }
}

#[test]
fn limit_reserved_twice_is_settled_in_two_rows() {
    use EntryKind::{Expire, Reserve};
    let since = AdmittedAt { at: START, epoch: u64::MAX };
    for late in [false, true] {
        for end in [SettleKind::Commit(("requests", 2).into()), SettleKind::Void] {
            let mut ledger = Ledger::stored(Vec::new(), vec![counter(0, if late { 0 } else { 10 }, 0)]);
            let reserved = row(Reserve, 5, 0, 0);
            ledger.store.rows = vec![Row { part: 1, command: 4, ..reserved.clone() }, reserved];
            if late {
                let expired = row(Expire, -5, 0, 0);
                ledger.store.rows.extend([Row { part: 1, ..expired.clone() }, expired]);
            }
            let kind = settle(&ledger.plan, 0, since, end);
            let settled = ledger.command("a", kind);
            let replies = ledger.batch(&[settled]); // checks the unique index
            assert!(matches!(replies[..], [Reply::Settled(..)]), "{replies:?}");
            assert_eq!(ledger.of(REQUESTS).1, 0, "nothing stays reserved");
        }
    }
    let mut ledger = Ledger::stored(Vec::new(), vec![counter(0, 10, 0)]);
    let reserved = row(Reserve, 5, 0, 0);
    ledger.store.rows = vec![Row { part: 1, command: 4, ..reserved.clone() }, reserved];
    let expire = ledger.command("a", CommandKind::Expire { attempt: 0, since: START, charge: true });
    ledger.batch(&[expire]);
    assert_eq!(ledger.of(REQUESTS), (10, 0));
}
