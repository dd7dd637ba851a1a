//! One job, one charge.

use super::*;
use crate::ledger::writer::AdmittedAt;

/// Whether the reply is a replay, and the job `a` has this amount.
fn is_replay(ledger: &Ledger, reply: &Reply, of: u64) -> bool {
    matches!(reply, Reply::Replay { .. }) && ledger.amounts_of("a") == ("requests", of).into()
}

#[test]
fn duplicate_is_not_charged_in_the_same_batch_or_later() {
    let mut ledger = Ledger::new(hourly(100));
    let charge = |ledger: &mut Ledger, job: &str| {
        let kind = CommandKind::Admit(admit(&ledger.plan, ("requests", 60)));
        ledger.command(job, kind)
    };
    let commands = [charge(&mut ledger, "a"), charge(&mut ledger, "a"), charge(&mut ledger, "b")];
    let replies = ledger.batch(&commands);
    assert!(matches!(replies[0], Reply::Admitted(_)) && is_replay(&ledger, &replies[1], 60));
    assert!(matches!(replies[2], Reply::Refused(_)));
    let again = ledger.charge("a", ("requests", 60));
    assert!(is_replay(&ledger, &again, 60));
    assert_eq!(ledger.entries("a"), [(0, EntryKind::Charge, 60)]);
}

#[test]
fn same_id_with_another_fingerprint_is_a_conflict() {
    let mut ledger = Ledger::new(hourly(100));
    let about =
        |ledger: &Ledger, what| AdmitCommand { fingerprint: Some(what), ..admit(&ledger.plan, ("requests", 10)) };
    let (first, other) = (about(&ledger, 1), about(&ledger, 2));
    admitted(ledger.run("a", CommandKind::Admit(first.clone())));
    assert!(matches!(ledger.run("a", CommandKind::Admit(other)), Reply::Conflict));
    assert!(ledger.writes.is_empty());
    let again = ledger.run("a", CommandKind::Admit(first));
    assert!(is_replay(&ledger, &again, 10));
}

#[test]
fn refusal_writes_nothing_and_may_be_retried() {
    let mut ledger = Ledger::new(hourly(100));
    admitted(ledger.charge("a", ("requests", 60)));
    assert_eq!(refused_by(ledger.charge("b", ("requests", 60))), ["requests_per_hour"]);
    assert!(ledger.writes.is_empty());
    ledger.now += HOUR;
    admitted(ledger.charge("b", ("requests", 60)));
}

#[test]
fn all_limits_are_charged_or_none() {
    let mut ledger = Ledger::of_three();
    assert_eq!(refused_by(ledger.charge("a", [("requests", 10), ("tokens", 1_001)])), ["tokens_per_hour"]);
    assert!(ledger.writes.is_empty() && ledger.counts().is_empty());
    admitted(ledger.charge("a", [("requests", 100), ("tokens", 1_000)]));
    let names = ["requests_per_hour", "requests_per_day", "tokens_per_hour"];
    assert_eq!(names.map(|name| ledger.of(name).0), [100, 100, 1_000]);
    assert_eq!(refused_by(ledger.charge("b", [("requests", 60), ("tokens", 1)])), names);
}

#[test]
fn voided_job_id_is_free_again() {
    let mut ledger = Ledger::new(hourly(100));
    let first = admitted(ledger.charge("a", ("requests", 60)));
    assert_eq!(ledger.settle("a", &first, SettleKind::Void), JobStatus::Charged);
    assert_eq!(ledger.settle("a", &first, SettleKind::Void), JobStatus::Voided);
    let second = admitted(ledger.charge("a", ("requests", 60)));
    assert_eq!((first.attempt, second.attempt, ledger.of("requests_per_hour")), (0, 1, (60, 0)));
    // The void of the previous attempt does not change this one.
    assert_eq!(ledger.settle("a", &first, SettleKind::Void), JobStatus::Voided);
    assert_eq!(ledger.of("requests_per_hour"), (60, 0));
}

#[test]
fn void_returns_added_usage_too() {
    let mut ledger = Ledger::of_three();
    let first = admitted(ledger.charge("a", ("requests", 1)));
    ledger.add("a", &first, ("tokens", 70), 0);
    ledger.add("a", &first, ("tokens", 30), 1);
    assert_eq!(ledger.of("tokens_per_hour"), (100, 0));
    ledger.settle("a", &first, SettleKind::Void);
    assert_eq!((ledger.of("tokens_per_hour"), ledger.of("requests_per_day")), ((0, 0), (0, 0)));
}

#[test]
fn job_that_no_limit_counts_is_known() {
    let mut ledger = Ledger::new(hourly(100));
    admitted(ledger.charge("a", ("tokens", 5)));
    assert_eq!(ledger.entries("a"), [(0, EntryKind::Charge, 0)]);
    assert!(matches!(ledger.charge("a", ("tokens", 5)), Reply::Replay { .. }));
}

#[test]
fn nothing_fits_in_a_full_counter() {
    let mut ledger = Ledger::new(hourly(100));
    admitted(ledger.charge("look", ("requests", 0)));
    admitted(ledger.charge("a", ("requests", 100)));
    assert_eq!(refused_by(ledger.charge("look again", ("requests", 0))), ["requests_per_hour"]);
}

#[test]
fn the_largest_amounts_are_counted_exactly() {
    let most = crate::quota::MOST;
    let mut ledger = Ledger::new(hourly(most));
    admitted(ledger.charge("a", ("requests", most - 1)));
    assert_eq!(refused_by(ledger.charge("b", ("requests", 2))).len(), 1);
    assert_eq!(refused_by(ledger.charge("b", ("requests", u64::MAX))).len(), 1);
    admitted(ledger.charge("b", ("requests", 1)));
    assert_eq!(ledger.of("requests_per_hour"), (most, 0));
    ledger.record(("requests", u64::MAX));
    assert_eq!(ledger.of("requests_per_hour"), (most, 0));
}

#[test]
fn accounts_are_locked_in_the_order_of_their_names() {
    let kind = || CommandKind::Admit(admit(&hourly(1), ("requests", 1)));
    let commands = ["zoe", "ann", "zoe", "mia"].map(|tenant| queued(&command(2, key(tenant, "a"), kind()), false));
    let reads = reads(&commands);
    assert_eq!(reads.tenants, ["ann", "mia", "zoe"].map(Arc::from));
}

#[test]
fn settlement_reads_past_windows_of_its_account_only() {
    let since = |at| AdmittedAt { at, epoch: 0 };
    let settles = |at| settle(&hourly(1), 0, since(at), SettleKind::Void);
    let charges = CommandKind::Admit(admit(&hourly(1), ("requests", 1)));
    let commands = [("ann", settles(7)), ("bob", charges), ("ann", settles(5)), ("cid", settles(9))];
    let commands = commands.map(|(tenant, kind)| queued(&command(2, key(tenant, "a"), kind), false));
    let expected = [("ann".into(), 5), ("cid".into(), 9)];
    assert_eq!(reads(&commands).since, expected.into());
}

#[test]
fn amount_of_a_job_sums_the_limits_of_two_plans() {
    let mut ledger = Ledger::new(hourly(100));
    let first = admitted(ledger.charge("a", ("requests", 10)));
    ledger.plan = Arc::new(Plan::new("daily").limit(Quota::requests(100).per(Period::day())));
    ledger.add("a", &first, ("requests", 5), 0);
    assert!(matches!(ledger.charge("a", ("requests", 10)), Reply::Replay { .. }), "a duplicate");
    assert_eq!(ledger.amounts_of("a"), ("requests", 15).into());
}

#[test]
fn job_voided_after_a_reset_has_no_amount() {
    let mut ledger = Ledger::new(hourly(100));
    let first = admitted(ledger.charge("a", ("requests", 30)));
    ledger.reset(None);
    ledger.settle("a", &first, SettleKind::Void);
    assert_eq!(ledger.amounts_of("a"), ("requests", 0).into());
}
