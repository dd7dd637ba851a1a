//! Reservations end once.

use super::*;

const REQUESTS: &str = "requests_per_hour";

#[test]
fn commit_keeps_the_actual_amount_and_returns_the_rest() {
    for (actual, used) in [(20, 20), (60, 60), (90, 90)] {
        let mut ledger = Ledger::new(hourly(100));
        let held = ledger.reserve("a", ("requests", 60));
        assert_eq!((ledger.of(REQUESTS), ledger.store.holds.len()), ((0, 60), 1));
        assert_eq!(ledger.commit("a", &held, ("requests", actual)), JobStatus::Open);
        assert_eq!((ledger.of(REQUESTS), ledger.store.holds.len()), ((used, 0), 0));
        assert_eq!(ledger.commit("a", &held, ("requests", 1)), JobStatus::Committed);
        assert_eq!(ledger.settle("a", &held, SettleKind::Void), JobStatus::Committed);
        assert!(ledger.writes.is_empty() && ledger.of(REQUESTS) == (used, 0));
    }
}

#[test]
fn commit_charges_estimates_and_unforeseen_kinds() {
    let mut ledger = Ledger::of_three();
    let held = ledger.reserve("a", ("requests", 5));
    ledger.commit("a", &held, ("tokens", 300));
    assert_eq!((ledger.of(REQUESTS), ledger.of("tokens_per_hour")), ((5, 0), (300, 0)));
}

#[test]
fn commit_records_apart_from_units_reported_before() {
    for expires in [false, true] {
        let mut ledger = Ledger::of_three();
        let held = ledger.reserve("a", ("requests", 5));
        (1..=3).for_each(|part| ledger.add("a", &held, ("tokens", 10), part));
        if expires {
            ledger.expire("a", &held, true);
        }
        ledger.commit("a", &held, ("tokens", 300));
        assert_eq!(ledger.of("tokens_per_hour"), (330, 0), "expires: {expires}");
    }
}

#[test]
fn reset_of_two_epochs_writes_a_row_for_each() {
    let mut ledger = Ledger::new(hourly(100));
    let held = ledger.reserve("a", ("requests", 10));
    ledger.reset(None);
    ledger.commit("a", &held, ("requests", 4));
    ledger.record(("requests", 1));
    ledger.reset(None);
    let rows: Vec<_> = ledger.writes.rows.iter().map(|row| (row.epoch, row.part, row.amount)).collect();
    assert_eq!(rows, [(0, 0, -4), (1, 1, -1), (2, 2, 0)]);
}

#[test]
fn reservation_is_returned_once() {
    let mut ledger = Ledger::new(hourly(100));
    let held = ledger.reserve("a", ("requests", 60));
    assert_eq!(ledger.settle("a", &held, SettleKind::Void), JobStatus::Open);
    assert_eq!(ledger.settle("a", &held, SettleKind::Void), JobStatus::Voided);
    assert_eq!(ledger.commit("a", &held, ("requests", 60)), JobStatus::Voided);
    assert_eq!((ledger.of(REQUESTS), ledger.store.holds.len()), ((0, 0), 0));
}

#[test]
fn expired_reservation_is_charged_or_returned_once() {
    for (charge, stays) in [(true, 60), (false, 0)] {
        let mut ledger = Ledger::new(hourly(100));
        let held = ledger.reserve("a", ("requests", 60));
        ledger.expire("a", &held, charge);
        ledger.expire("a", &held, charge);
        assert_eq!((ledger.of(REQUESTS), ledger.store.holds.len()), ((stays, 0), 0));
        assert_eq!(ledger.settle("a", &held, SettleKind::Void), JobStatus::Expired);
        assert_eq!(ledger.of(REQUESTS), (stays, 0));
        assert!(matches!(ledger.charge("a", ("requests", 1)), Reply::Replay { .. }));
    }
}

#[test]
fn late_commit_records_in_the_hour_in_which_it_arrives() {
    // The amount that the expiry charged is corrected in its own hour; the rest is used now.
    for (charge, actual, there, here) in [
        (true, 20, 20, 0),
        (true, 60, 60, 0),
        (true, 90, 60, 30),
        (false, 20, 0, 20),
        (false, 60, 0, 60),
        (false, 90, 0, 90),
    ] {
        let mut ledger = Ledger::new(hourly(100));
        let held = ledger.reserve("a", ("requests", 60));
        ledger.now += HOUR;
        ledger.expire("a", &held, charge);
        assert_eq!(ledger.commit("a", &held, ("requests", actual)), JobStatus::Expired);
        assert_eq!(ledger.commit("a", &held, ("requests", actual)), JobStatus::Late);
        let hour = START / HOUR;
        let counted = |hour| ledger.counts().get(&(REQUESTS.to_owned(), hour, 0)).map_or(0, |count| count.0);
        assert_eq!((counted(hour), counted(hour + 1)), (there, here), "{actual}, charged: {charge}");
        assert_eq!(ledger.entries("a").last().unwrap().1, EntryKind::Record);
    }
}

#[test]
fn a_settled_one_does_not_expire() {
    let mut ledger = Ledger::new(hourly(100));
    let held = ledger.reserve("a", ("requests", 60));
    ledger.commit("a", &held, ("requests", 10));
    ledger.expire("a", &held, true);
    assert_eq!((ledger.of(REQUESTS), ledger.entries("a").len()), ((10, 0), 2));
}

#[test]
fn an_open_one_can_be_kept_open() {
    let mut ledger = Ledger::new(hourly(100));
    let held = ledger.reserve("a", ("requests", 60));
    let renew = || CommandKind::Renew { attempt: 0, since: held.since.at, ttl: 3 * HOUR };
    ledger.run("a", renew());
    assert_eq!(ledger.store.holds[0].until, START + 3 * HOUR);
    ledger.commit("a", &held, ("requests", 60));
    ledger.run("a", renew());
    assert_eq!(ledger.store.holds.len(), 0);
}

#[test]
fn usage_counts_in_the_hour_in_which_it_arrives() {
    let mut ledger = Ledger::of_three();
    let first = admitted(ledger.charge("a", ("requests", 10)));
    ledger.now += HOUR;
    admitted(ledger.charge("b", [("requests", 7), ("tokens", 1)]));
    ledger.add("a", &first, ("tokens", 30), 0);
    ledger.settle("a", &first, SettleKind::Commit(Amounts::new()));
    let hour = START / HOUR;
    let tokens = |ledger: &Ledger, hour| ledger.counts().get(&("tokens_per_hour".to_owned(), hour, 0)).copied();
    assert_eq!((tokens(&ledger, hour), tokens(&ledger, hour + 1)), (None, Some((31, 0))));
    ledger.settle("a", &first, SettleKind::Void);
    assert_eq!(
        (tokens(&ledger, hour + 1), ledger.of(REQUESTS), ledger.of("requests_per_day")),
        (Some((1, 0)), (7, 0), (7, 0)),
        "all of it goes back where it was counted"
    );
}

#[test]
fn late_commit_returns_what_a_reset_has_emptied() {
    let mut ledger = Ledger::new(hourly(100));
    let held = ledger.reserve("a", ("requests", 60));
    ledger.expire("a", &held, true);
    ledger.reset(None);
    assert_eq!(ledger.commit("a", &held, ("requests", 20)), JobStatus::Expired);
    let rows = ledger.entries("a");
    assert!(rows.contains(&(0, EntryKind::Record, -40)) && rows.contains(&(0, EntryKind::Reset, 40)), "{rows:?}");
    assert_eq!(ledger.of(REQUESTS), (0, 0));
}

/// The settlement of a charge that waited in a spool names the command that admitted it, not its attempt.
#[test]
fn lapse_makes_the_attempt_of_its_command_due() {
    let mut ledger = Ledger::of_three();
    let first = ledger.reserve("a", ("requests", 10));
    let before = ledger.commands;
    ledger.settle("a", &first, SettleKind::Void);
    let again = ledger.reserve("a", ("requests", 10));
    let (since, of) = (again.since.at, ledger.commands);
    assert_eq!((first.attempt, again.attempt), (0, 1));
    let until = |ledger: &Ledger| ledger.store.holds.iter().map(|hold| hold.until).collect::<Vec<_>>();
    for (of, due) in [(of + 100, START + HOUR), (before, START + HOUR), (of, START)] {
        let reply = ledger.run("a", CommandKind::Lapse { of: Some(of), attempt: 0, since });
        assert!(matches!(reply, Reply::Done), "{reply:?}");
        assert_eq!(until(&ledger), [due], "of {of}");
    }
}
