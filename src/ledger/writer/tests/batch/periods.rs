//! Windows that end, roll or are reset, and clocks that step back.

use std::time::Duration;

use super::*;

#[test]
fn estimate_settles_in_its_own_epoch_and_the_rest_in_the_next() {
    let mut ledger = Ledger::new(hourly(100));
    let (charged, held) = (admitted(ledger.charge("a", ("requests", 10))), ledger.reserve("b", ("requests", 60)));
    assert!(matches!(ledger.reset(None), Reply::Done));
    admitted(ledger.charge("c", ("requests", 90)));
    ledger.add("a", &charged, ("requests", 5), 0);
    ledger.commit("b", &held, ("requests", 70));
    let counts: Vec<_> = ledger.counts().into_iter().map(|((_, _, epoch), count)| (epoch, count)).collect();
    assert_eq!(counts, [(0, (60, 0)), (1, (105, 0))]);
    ledger.settle("a", &charged, SettleKind::Void);
    assert_eq!(ledger.of("requests_per_hour"), (100, 0));
}

#[test]
fn amount_voided_after_a_reset_is_not_billed() {
    let mut ledger = Ledger::new(hourly(100));
    let charged = admitted(ledger.charge("job", ("requests", 30)));
    ledger.charge("other", ("requests", 5));
    ledger.reset(None);
    assert_eq!(ledger.settle("job", &charged, SettleKind::Void), JobStatus::Charged);
    let billed =
        ledger.store.rows.iter().filter(|row| row.entry != EntryKind::Reset && *row.limit == *"requests_per_hour");
    assert_eq!(billed.map(|row| row.amount).sum::<i64>(), 5, "the other's stays on the invoice");
}

#[test]
fn reset_of_an_unused_limit_writes_a_row() {
    let mut ledger = Ledger::new(hourly(100));
    assert!(matches!(ledger.reset(Some("requests_per_hour")), Reply::UnknownAccount));
    assert!(ledger.writes.is_empty());
    admitted(ledger.charge("a", Amounts::new()));
    assert!(matches!(ledger.reset(Some("requests_per_hour")), Reply::Done));
    assert!(matches!(ledger.writes.rows[..], [Row { entry: EntryKind::Reset, amount: 0, .. }]));
    assert!(matches!(ledger.reset(Some("tokens_per_hour")), Reply::Invalid(_)));
    assert!(ledger.writes.is_empty());
}

#[test]
fn reset_restarts_only_the_named_limit() {
    let mut ledger = Ledger::of_three();
    admitted(ledger.charge("a", [("requests", 10), ("tokens", 10)]));
    ledger.reset(Some("requests_per_hour"));
    let names = ["requests_per_hour", "requests_per_day", "tokens_per_hour"];
    assert_eq!(names.map(|name| ledger.of(name).0), [0, 10, 10]);
    ledger.reset(Some("requests"));
    assert_eq!(names.map(|name| ledger.of(name).0), [0, 0, 10]);
}

#[test]
fn rolling_window_begins_with_the_first_use_after_the_last_end() {
    let plan = Plan::new("rolling").limit(Quota::requests(10).per(Period::rolling(Duration::from_secs(3_600))));
    let mut ledger = Ledger::new(Arc::new(plan));
    admitted(ledger.charge("a", ("requests", 10)));
    ledger.now += HOUR - 1;
    assert_eq!(refused_by(ledger.charge("b", ("requests", 1))).len(), 1);
    ledger.now += 1 + HOUR / 2;
    admitted(ledger.charge("b", ("requests", 10)));
    let starts: Vec<_> = ledger.store.accounts["acme"].counts.iter().map(|count| count.counter.starts).collect();
    assert_eq!(starts, [START, START + HOUR + HOUR / 2]);
}

#[test]
fn usage_of_a_past_rolling_window_counts_in_the_present_one() {
    let hour = || Period::rolling(Duration::from_secs(3_600));
    let plan = Plan::new("rolling").limit(Quota::requests(10).per(hour())).limit(Quota::units("tokens", 9).per(hour()));
    let mut ledger = Ledger::new(Arc::new(plan));
    let (first, second) =
        (admitted(ledger.charge("a", ("requests", 1))), admitted(ledger.charge("b", ("requests", 1))));
    ledger.now += HOUR / 4;
    let third = admitted(ledger.charge("c", ("requests", 1)));
    ledger.add("c", &third, ("tokens", 1), 0);
    ledger.add("a", &first, ("tokens", 1), 0);
    ledger.add("b", &second, ("tokens", 1), 0);
    assert_eq!(ledger.of("tokens_per_3600s"), (3, 0));
}

#[test]
fn clock_that_steps_back_admits_nothing_extra() {
    let mut ledger = Ledger::of_three();
    admitted(ledger.charge("a", ("requests", 90)));
    ledger.now -= HOUR;
    assert_eq!(refused_by(ledger.charge("b", ("requests", 20))), ["requests_per_hour"]);
    let late = admitted(ledger.charge("b", ("requests", 10)));
    ledger.record(("requests", 3));
    ledger.add("b", &late, [("requests", 2), ("tokens", 4)], 0);
    assert_eq!((ledger.of("requests_per_hour").0, ledger.of("tokens_per_hour").0), (105, 4));
    assert_eq!(ledger.counts().len(), 3);
}

#[test]
fn client_is_warned_once_of_each_crossing() {
    let mut ledger = Ledger::new(hourly(100));
    let near = |ledger: &mut Ledger, job: &str, amount: u64| {
        let admitted = admitted(ledger.charge(job, ("requests", amount)));
        (admitted.near.len(), admitted.pending.len())
    };
    assert_eq!(near(&mut ledger, "a", 89), (0, 0));
    assert_eq!(near(&mut ledger, "b", 1), (1, 1));
    assert_eq!(near(&mut ledger, "c", 1), (0, 0));
    ledger.reset(None);
    assert_eq!(near(&mut ledger, "d", 80), (0, 0));
    ledger.record(("requests", 15)); // no caller to warn: the next response does
    assert_eq!(near(&mut ledger, "e", 1), (0, 1));
    assert_eq!(near(&mut ledger, "f", 1), (0, 0));
}

#[test]
fn limits_of_one_name_count_apart_at_a_common_start() {
    let plan = |limit, period| Plan::new("tokens").limit(Quota::units("tokens", limit).per(period).named("tokens"));
    let (free, pro) = (Arc::new(plan(100, Period::hour())), Arc::new(plan(1_000, Period::month())));
    let mut ledger = Ledger::new(Arc::clone(&pro));
    ledger.now = 1_767_225_600_000_000_000; // the first of a month, at which both windows begin
    let held = ledger.reserve("held", ("tokens", 1_000));
    ledger.plan = Arc::clone(&free);
    admitted(ledger.charge("free", ("tokens", 100)));
    assert_eq!(refused_by(ledger.charge("more", ("tokens", 1))).len(), 1);
    ledger.plan = Arc::clone(&pro);
    assert_eq!(refused_by(ledger.charge("other", ("tokens", 1))).len(), 1, "the month goes on");
    ledger.settle("held", &held, SettleKind::Void);
    admitted(ledger.charge("pro", ("tokens", 1_000)));
    let counts = &ledger.store.accounts[&Arc::from("acme")].counts;
    let counts: Vec<_> = counts.iter().map(|count| (&*count.period, count.counter.taken())).collect();
    assert_eq!(counts, [("hour", 100), ("month", 1_000)]);
}

#[test]
fn counter_of_unknown_period_counts_for_the_limit_of_its_window() {
    let plan = |period| Plan::new("tokens").limit(Quota::units("tokens", 100).per(period).named("tokens"));
    let mut ledger = Ledger::new(Arc::new(plan(Period::hour())));
    admitted(ledger.charge("before", ("tokens", 60)));
    for count in &mut ledger.store.accounts.get_mut("acme").unwrap().counts {
        count.period = "".into(); // as version 1 of the tables stored it
    }
    ledger.store.rows.iter_mut().for_each(|row| row.period = "".into());
    assert_eq!(refused_by(ledger.charge("much", ("tokens", 41))).len(), 1);
    admitted(ledger.charge("rest", ("tokens", 40)));
    let counts = &ledger.store.accounts[&Arc::from("acme")].counts;
    assert_eq!(counts.iter().map(|count| (&*count.period, count.counter.taken())).collect::<Vec<_>>(), [("", 100)]);
    assert_eq!(ledger.store.rows.iter().map(|row| row.amount).collect::<Vec<_>>(), [60, 40]);
    ledger.plan = Arc::new(plan(Period::day()));
    admitted(ledger.charge("day", ("tokens", 100)));
}
