//! Waits that refusals tell, and grants, where several commands of one account are decided in one batch.

use std::time::Duration;

use super::*;
use crate::{
    ledger::writer::violations,
    quota::{Grant, GrantId, account::GrantState},
    time::from_1970,
};

const MINUTE: u64 = HOUR / 60;

/// A day of requests and an hour of one row.
fn day(requests: u64) -> Arc<Plan> {
    let day = Quota::requests(requests).per(Period::day()).named("r");
    Arc::new(Plan::new("day").limit(day).limit(Quota::units("rows", 1).per(Period::hour()).named("rows")))
}

impl Ledger {
    fn grant_until(&mut self, id: u64, amount: u64, until: u64) {
        let grant = Grant::new("r", amount, from_1970(until));
        let grant = Box::new(GrantState::new(GrantId(id), &grant, "".into(), "".into()));
        let kind = CommandKind::Grant { plan: Arc::clone(&self.plan), grant };
        assert!(matches!(self.run(&format!("grant {id}"), kind), Reply::Granted(_)));
    }

    /// Returns the used amount of each grant in the present window.
    fn covered(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<_> =
            self.store.accounts["acme"].grants.iter().map(|grant| (grant.id, grant.current)).collect();
        all.sort_unstable();
        all
    }
}

/// Returns the minutes that a refusal tells to wait.
fn told(reply: &Reply) -> u64 {
    let Reply::Refused(violations) = reply else { panic!("{reply:?}") };
    let waits = violations.iter().map(|one| one.wait.map_or(0, |wait: Duration| wait.as_secs() / 60));
    waits.max().expect("a violated limit")
}

/// The second grant covers 2; the first, which ends before, was added later.
fn with_three_grants() -> Ledger {
    let mut ledger = Ledger::new(day(10));
    ledger.grant_until(2, 5, START + 20 * MINUTE);
    ledger.grant_until(3, 3, START + 48 * HOUR);
    admitted(ledger.charge("a", [("requests", 12), ("rows", 1)]));
    ledger.grant_until(1, 5, START + 10 * MINUTE);
    assert_eq!(ledger.covered(), [(1, 0), (2, 2), (3, 0)]);
    ledger
}

#[test]
fn refusal_of_a_batch_uses_up_no_grant() {
    let mut ledger = Ledger::new(day(10));
    ledger.grant_until(1, 3, START + 48 * HOUR);
    admitted(ledger.charge("a", ("requests", 9)));
    let small = CommandKind::Admit(admit(&day(7), ("requests", 10)));
    let record = CommandKind::Record { plan: day(10), amounts: ("rows", 1).into() };
    let commands = [ledger.command("b", small.clone()), ledger.command("c", record)];
    let replies = ledger.batch(&commands);
    ledger.now += told(&replies[0]) * MINUTE;
    assert!(matches!(ledger.run("d", small), Reply::Admitted(_)));
}

#[test]
fn refusal_of_a_batch_moves_no_use_of_grants() {
    let mut alone = with_three_grants();
    admitted(alone.charge("c", ("requests", 1)));
    let mut ledger = with_three_grants();
    let first = CommandKind::Admit(admit(&day(12), ("requests", 100)));
    let second = CommandKind::Admit(admit(&day(10), ("requests", 1)));
    let commands = [ledger.command("b", first), ledger.command("c", second)];
    let replies = ledger.batch(&commands);
    assert!(matches!(&*replies, [Reply::Refused(_), Reply::Admitted(_)]), "{replies:?}");
    assert_eq!(ledger.covered(), alone.covered());
}

#[test]
fn wait_depends_on_no_earlier_refusal_of_the_batch() {
    let asked = [("requests", 3), ("rows", 1)];
    let mut alone = with_three_grants();
    let expected = told(&alone.charge("c", asked));
    let mut ledger = with_three_grants();
    let first = CommandKind::Admit(admit(&day(12), ("requests", 100)));
    let second = CommandKind::Admit(admit(&day(10), asked));
    let commands = [ledger.command("b", first), ledger.command("c", second)];
    let replies = ledger.batch(&commands);
    assert!(matches!(replies[0], Reply::Refused(_)), "{replies:?}");
    assert_eq!(told(&replies[1]), expected);
    ledger.now += expected * MINUTE;
    assert!(matches!(ledger.charge("d", asked), Reply::Admitted(_)));
}

/// Grants of the first version of the tables have no period, so that they raise the hour and the day.
#[test]
fn wait_counts_no_use_of_a_grant_in_another_window() {
    let mut ledger = Ledger::new(day(10));
    admitted(ledger.charge("a", [("requests", 8), ("rows", 1)]));
    ledger.plan = Arc::new(Plan::new("hour").limit(Quota::requests(5).per(Period::hour()).named("r")));
    ledger.grant_until(1, 5, START + 10 * MINUTE);
    ledger.grant_until(2, 5, START + 48 * HOUR);
    for grant in &mut ledger.store.accounts.get_mut("acme").expect("an account").grants {
        grant.period = "".into();
    }
    admitted(ledger.charge("b", ("requests", 7)));
    assert_eq!(ledger.covered(), [(1, 2), (2, 0)]);
    ledger.plan = day(6);
    let asked = [("requests", 5), ("rows", 1)];
    let refused = ledger.charge("c", asked);
    let stored = ledger.store.accounts["acme"].clone();
    let checked = violations(stored, &ledger.plan, &asked.into_iter().collect(), ledger.now);
    assert_eq!(told(&Reply::Refused(checked)), told(&refused), "a check tells the same");
    ledger.now += told(&refused) * MINUTE;
    assert!(matches!(ledger.charge("d", asked), Reply::Admitted(_)));
}
