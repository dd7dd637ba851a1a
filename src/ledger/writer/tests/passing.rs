//! Spooled charges are stored once, whatever else is stored and however often they are sent.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{model::Store, *};
use crate::{
    ledger::writer::{AdmittedAt, EntryKind, JobRows, JobStatus, Loaded, Reply, ReservationTerms, batch},
    quota::account::Duplicate,
};

/// One transaction.
fn transact(store: &mut Store, commands: &[(Command, bool)]) -> Vec<Reply> {
    transact_at(store, commands, START + HOUR)
}

fn transact_at(store: &mut Store, commands: &[(Command, bool)], now: u64) -> Vec<Reply> {
    let queue: Vec<_> = commands.iter().map(|(command, sent)| queued(command, *sent)).collect();
    let loaded = store.load(&batch::reads(&queue), now);
    let (writes, replies) = replies_to(&queue, loaded);
    let twice = |at: usize| writes.rows[..at].iter().any(|row| index(row) == index(&writes.rows[at]));
    assert!(!(0..writes.rows.len()).any(|at| store.has(&writes.rows[at]) || twice(at)), "the index keeps it out");
    store.apply(&writes);
    store.adds_up().unwrap();
    replies
}

fn index(row: &super::super::Row) -> impl PartialEq {
    (row.key.clone(), row.limit.clone(), row.kind.clone(), row.attempt, row.part, row.entry)
}

fn pass(id: u128, job: &str, amount: u64, fingerprint: Option<u128>, reserve: bool) -> Command {
    let reserve = reserve.then_some(ReservationTerms { ttl: HOUR, charge: true });
    let admit = AdmitCommand { fingerprint, reserve, ..admit(&hourly(100), ("requests", amount)) };
    command(id, key("acme", job), CommandKind::Spooled { admit, at: START })
}

fn end(id: u128, of: u128, job: &str, end: SettleKind, used: u64) -> Command {
    let used = if used > 0 { ("requests", used).into() } else { Amounts::new() };
    let since = AdmittedAt { at: START, epoch: u64::MAX };
    let settle = SettleCommand { plan: hourly(100), attempt: 0, since, end, job: None, used, part: 1, whole: false };
    command(id, key("acme", job), CommandKind::SettleOf { of, settle })
}

fn charge(id: u128, job: &str, amount: u64) -> Command {
    command(id, key("acme", job), CommandKind::Admit(admit(&hourly(100), ("requests", amount))))
}

fn taken(store: &Store) -> i64 {
    store.rows.iter().map(|row| row.amount).sum()
}

#[test]
fn unavailable_and_indeterminate_replies_are_undecided() {
    assert!(!Reply::Unavailable("down".into()).is_decided() && !Reply::Indeterminate.is_decided());
    let decided = [Reply::Refused(Vec::new()), Reply::Conflict, Reply::Replay(Duplicate::Running), Reply::Done];
    assert!(decided.iter().all(Reply::is_decided));
}

#[test]
fn spooled_admission_stored_before_is_not_charged_again() {
    let mut store = Store::default();
    transact(&mut store, &[(charge(2, "one", 7), false)]);
    transact(&mut store, &[(pass(2, "one", 7, None, false), false), (end(4, 2, "one", SettleKind::Add, 3), false)]);
    assert_eq!(taken(&store), 10);
}

/// A charge spooled under a clock that was days ahead is counted when it is stored; its settlement looks for it days
/// ahead.
#[test]
fn void_without_a_counter_returns_the_bill() {
    let (mut store, ahead) = (Store::default(), START + 96 * HOUR);
    let (mut passed, mut void) = (pass(2, "one", 30, None, false), end(4, 2, "one", SettleKind::Void, 0));
    if let (CommandKind::Spooled { at, .. }, CommandKind::SettleOf { settle, .. }) = (&mut passed.kind, &mut void.kind)
    {
        (*at, settle.since.at) = (ahead, ahead);
    }
    transact(&mut store, &[(passed, false)]);
    assert_eq!(JobRows(&store.rows).amounts(0), ("requests", 30).into());
    transact_at(&mut store, &[(void, false)], START + 3 * HOUR);
    assert!(store.rows.iter().any(|row| row.entry == EntryKind::Void && row.limit.is_empty()), "no count was there");
    assert_eq!(JobRows(&store.rows).amounts(0), ("requests", 0).into());
}

#[test]
fn void_after_a_reset_and_a_correction_returns_only_the_job() {
    let mut store = Store::default();
    let mut other = pass(4, "one", 7, Some(2), false);
    if let CommandKind::Spooled { at, .. } = &mut other.kind {
        *at = START + HOUR; // in the period that is reset
    }
    let reset = command(6, key("acme", "reset"), CommandKind::Reset { plan: hourly(100), limit: None });
    let mut job = charge(2, "one", 10);
    if let CommandKind::Admit(admit) = &mut job.kind {
        admit.fingerprint = Some(1);
    }
    let settled = [end(8, 4, "one", SettleKind::Void, 0), end(10, 2, "one", SettleKind::Void, 0)];
    for command in [job, other, reset].into_iter().chain(settled) {
        transact(&mut store, &[(command, false)]);
    }
    let of = |entry| store.rows.iter().filter(move |row| row.entry == entry).map(|row| row.amount).sum::<i64>();
    assert_eq!([EntryKind::Charge, EntryKind::Record, EntryKind::Void].map(of), [10, 0, -10]);
    assert_eq!(taken(&store), 0);
}

#[test]
fn spooled_charge_is_stored_after_its_admission_was_voided() {
    let mut store = Store::default();
    transact(&mut store, &[(charge(2, "one", 7), false)]);
    let back = settle(&hourly(100), 0, AdmittedAt { at: START + HOUR, epoch: 0 }, SettleKind::Void);
    transact(&mut store, &[(command(2 ^ 1, key("acme", "one"), back), true), (pass(2, "one", 7, None, false), true)]);
    assert_eq!(taken(&store), 7);
    transact(&mut store, &[(pass(2, "one", 7, None, false), true), (end(4, 2, "one", SettleKind::Void, 0), false)]);
    assert_eq!(taken(&store), 0);
    transact(&mut store, &[(pass(2, "one", 7, None, false), false), (end(4, 2, "one", SettleKind::Void, 0), false)]);
    assert_eq!(taken(&store), 0);
}

#[test]
fn spooled_duplicate_is_skipped_and_other_work_is_recorded() {
    let mut store = Store::default();
    let charged = CommandKind::Admit(AdmitCommand { fingerprint: Some(1), ..admit(&hourly(100), ("requests", 7)) });
    transact(&mut store, &[(command(2, key("acme", "one"), charged), false)]);
    let same = transact(&mut store, &[(pass(4, "one", 7, Some(1), false), false)]);
    assert!(matches!(same[0], Reply::Replay { .. }));
    let commands = [(pass(6, "one", 9, Some(2), false), false), (pass(8, "one", 200, Some(3), false), false)];
    for _ in 0..2 {
        assert!(matches!(transact(&mut store, &commands)[..], [Reply::Done, Reply::Done]));
        assert_eq!(taken(&store), 216, "past the limit of 100");
    }
}

#[test]
fn settlement_of_other_work_leaves_the_job_unchanged() {
    let other = |how: SettleKind| {
        let mut store = Store::default();
        let reserve = Some(ReservationTerms { ttl: HOUR, charge: true });
        let reserved =
            CommandKind::Admit(AdmitCommand { fingerprint: Some(1), reserve, ..admit(&hourly(100), ("requests", 40)) });
        transact(&mut store, &[(command(2, key("acme", "one"), reserved), false)]);
        let (passed, ends) = (pass(4, "one", 9, Some(2), true), end(6, 4, "one", how, 0));
        for _ in 0..2 {
            transact(&mut store, &[(passed.clone(), false), (ends.clone(), false)]);
        }
        let standing = JobRows(&store.rows).status(0);
        assert_eq!((standing, store.holds.len()), (JobStatus::Open, 1), "the job itself is not settled");
        taken(&store)
    };
    assert_eq!(other(SettleKind::Void), 40);
    assert_eq!(other(SettleKind::Commit(("requests", 5).into())), 45);
    assert_eq!(other(SettleKind::Commit(("requests", 12).into())), 52);
    assert_eq!(other(SettleKind::Commit(Amounts::new())), 49);
    assert_eq!(other(SettleKind::Add), 49);
}

/// The job was cut in another process, and a duplicate passed while the ledger was away.
#[test]
fn duplicate_that_passed_ends_a_job_that_was_cut() {
    for (how, ends_it) in [(Some(JobEnd::Done), true), (Some(JobEnd::Interrupted), false), (None, false)] {
        let mut store = Store::default();
        let cut = AdmitCommand { job_lease: Some(0), ..admit(&hourly(100), ("requests", 7)) };
        transact(&mut store, &[(command(2, key("acme", "one"), CommandKind::Admit(cut)), false)]);
        let mut ended = end(6, 4, "one", SettleKind::Add, 0);
        if let (CommandKind::SettleOf { settle, .. }, Some(how)) = (&mut ended.kind, how) {
            settle.job = Some(how);
        }
        let replies = transact(&mut store, &[(pass(4, "one", 7, None, false), false), (ended, false)]);
        assert!(matches!(replies[0], Reply::Replay(Duplicate::Unknown { may_run: false })), "{replies:?}");
        assert_eq!((taken(&store), store.unfinished.is_empty()), (7, ends_it), "{how:?}");
    }
}

/// Each is voided by itself, in any order, and bills nothing then.
#[test]
fn void_returns_one_of_two_works_under_one_id() {
    for job_first in [true, false] {
        let mut store = Store::default();
        let charged = CommandKind::Admit(AdmitCommand { fingerprint: Some(1), ..admit(&hourly(100), ("requests", 7)) });
        transact(&mut store, &[(command(2, key("acme", "one"), charged.clone()), false)]);
        let others = [pass(4, "one", 20, Some(2), false), pass(6, "one", 50, Some(3), true)];
        transact(&mut store, &others.map(|other| (other, false)));
        let voids = [end(8, 2, "one", SettleKind::Void, 0), end(10, 4, "one", SettleKind::Void, 0)];
        let left = if job_first { [70, 50] } else { [57, 50] };
        for (at, left) in [usize::from(!job_first), usize::from(job_first)].into_iter().zip(left) {
            transact(&mut store, &[(voids[at].clone(), false)]);
            assert_eq!(taken(&store), left, "{job_first}");
        }
        // The id of the job is free again, and the other work stays.
        let again = transact(&mut store, &[(command(12, key("acme", "one"), charged), false)]);
        assert!(matches!(&again[0], Reply::Admitted(admitted) if admitted.attempt == 1), "{again:?}");
        transact(&mut store, &[(end(14, 6, "one", SettleKind::Commit(("requests", 40).into()), 0), false)]);
        let billed: u64 = [0, 1, u32::MAX, u32::MAX - 1]
            .into_iter()
            .map(|attempt| JobRows(&store.rows).amounts(attempt))
            .map(|amounts| amounts.iter().map(|(_, amount)| amount).sum::<u64>())
            .sum();
        assert_eq!((taken(&store), billed), (47, 47));
    }
}

#[test]
fn usage_of_other_work_is_no_part_of_the_jobs_records() {
    let mut store = Store::default();
    let charged = CommandKind::Admit(AdmitCommand { fingerprint: Some(1), ..admit(&hourly(100), ("requests", 7)) });
    transact(&mut store, &[(command(2, key("acme", "one"), charged), false)]);
    let since = AdmittedAt { at: START, epoch: u64::MAX };
    let used = ("requests", 5).into();
    let (plan, attempt) = (hourly(100), 0);
    let more = SettleCommand { plan, attempt, since, end: SettleKind::Add, job: None, used, part: 1, whole: false };
    transact(&mut store, &[(command(4, key("acme", "one"), CommandKind::Settle(more)), false)]);
    let commands = [(pass(6, "one", 9, Some(2), false), false), (end(8, 6, "one", SettleKind::Add, 3), false)];
    transact(&mut store, &commands);
    assert_eq!(taken(&store), 24);
}

#[test]
fn later_commands_see_an_own_admission_stored_after_all() {
    let own = |command: Command| Command { own: true, ..command };
    for settles in [end(4, 2, "one", SettleKind::Void, 0), own(pass(2, "one", 7, None, false))] {
        let passes = matches!(settles.kind, CommandKind::Spooled { .. });
        let mut store = Store::default();
        transact(&mut store, &[(own(charge(2, "one", 7)), true), (settles, false)]);
        assert_eq!(taken(&store), if passes { 7 } else { 0 });
    }
}

#[test]
fn spooled_settlement_reports_the_prior_status_when_repeated() {
    let mut store = Store::default();
    transact(&mut store, &[(pass(2, "one", 7, None, true), false)]);
    let ends = end(4, 2, "one", SettleKind::Commit(("requests", 3).into()), 0);
    for sent in [false, true] {
        let replies = transact(&mut store, &[(ends.clone(), sent)]);
        assert!(matches!(replies[..], [Reply::Settled(JobStatus::Open, _)]), "{replies:?}");
    }
}

/// The node comes back after the horizon, when the rows of its jobs may have been archived.
#[test]
fn spooled_record_of_a_forgotten_job_is_stale() {
    let own = |command: Command| Command { own: true, ..command };
    let commands = [
        pass(2, "order 17", 7, None, false),
        end(4, 2, "order 17", SettleKind::Add, 3),
        end(6, 2, "order 17", SettleKind::Void, 0),
        own(pass(8, "of our own", 9, None, false)),
        end(10, 8, "of our own", SettleKind::Add, 4),
    ];
    let queue: Vec<_> = commands.iter().map(|command| queued(command, false)).collect();
    let mut store = Store::default();
    let loaded = Loaded { sealed: START, ..store.load(&batch::reads(&queue), START + HOUR) };
    let (writes, replies) = replies_to(&queue, loaded);
    assert!(matches!(replies[..2], [Reply::Stale, Reply::Stale]), "{replies:?}");
    assert!(matches!(replies[2], Reply::Settled(JobStatus::Unknown, _)), "{replies:?}");
    assert!(matches!(replies[3..], [Reply::Done, Reply::Settled(JobStatus::Charged, _)]), "{replies:?}");
    store.apply(&writes);
    assert_eq!(taken(&store), 13);
}

#[test]
fn usage_of_an_ended_window_is_charged_in_it() {
    let mut store = Store::default();
    transact(&mut store, &[(pass(2, "one", 7, None, false), false)]);
    assert_eq!(store.rows[0].window, START - HOUR / 2);
}

/// An action on one of three jobs: the fallback admits it, settles it, or another process charges it or voids that.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Pass { amount: u64, fingerprint: Option<u128>, reserve: bool },
    End { which: usize, how: u8, used: u64 },
    Charged { amount: u64, sent: bool },
}

fn is_void(spool: &[(Command, bool)], passed: u128) -> bool {
    let void = |command: &Command| matches!(&command.kind, CommandKind::SettleOf { of, settle } if *of == passed && settle.end == SettleKind::Void);
    spool.iter().any(|(command, _)| void(command))
}

fn deeds() -> impl Strategy<Value = (usize, Deed)> {
    let deed = prop_oneof![
        (1..60_u64, proptest::option::of(0..2_u128), any::<bool>())
            .prop_map(|(amount, fingerprint, reserve)| Deed::Pass { amount, fingerprint, reserve }),
        (any::<usize>(), 0..3_u8, 0..20_u64).prop_map(|(which, how, used)| Deed::End { which, how, used }),
        (1..60_u64, any::<bool>()).prop_map(|(amount, sent)| Deed::Charged { amount, sent }),
    ];
    (0..3_usize, deed)
}

proptest! {
    #[test]
    fn spooled_charges_are_stored_once_in_any_history(deeds in proptest::collection::vec(deeds(), 1..20), cuts in proptest::collection::vec((1..5_usize, 0..4_usize), 1..20)) {
        let jobs = ["one", "two", "three"];
        let (mut store, mut spool, mut passed) = (Store::default(), Vec::new(), Vec::new());
        for (number, (job, deed)) in deeds.iter().enumerate() {
            let (id, job) = (number as u128 * 2 + 2, jobs[*job]);
            match *deed {
                // One process admits a spooled job once, unless it was voided.
                Deed::Pass { .. } if passed.iter().any(|(of, known, _)| *known == job && !is_void(&spool, *of)) => {}
                Deed::Pass { amount, fingerprint, reserve } => {
                    spool.push((pass(id, job, amount, fingerprint, reserve), false));
                    passed.push((id, job, amount));
                }
                Deed::End { which, how, used } if !passed.is_empty() => {
                    let (of, job, _) = passed[which % passed.len()];
                    let how = [SettleKind::Add, SettleKind::Void, SettleKind::Commit(("requests", used + 1).into())][how as usize].clone();
                    // A request is settled once.
                    if !spool.iter().any(|(command, _)| matches!(command.kind, CommandKind::SettleOf { of: ended, .. } if ended == of)) {
                        spool.push((end(id, of, job, how, used), false));
                    }
                }
                // Another process, or an admission whose reply was lost and which the fallback admitted then.
                Deed::Charged { amount, sent } => {
                    let id = if sent { passed.first().filter(|(_, known, _)| *known == job).map_or(id, |(of, ..)| *of) } else { id };
                    transact(&mut store, &[(charge(id, job, amount), sent)]);
                }
                Deed::End { .. } => {}
            }
        }
        // The spool is sent in parts, each of which may repeat earlier commands.
        let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
        while at < spool.len() {
            let (many, back) = cuts.next().unwrap();
            let from = at.saturating_sub(back);
            let until = (at + many).min(spool.len());
            transact(&mut store, &spool[from..until]);
            at = until;
        }
        let before = (taken(&store), store.rows.len());
        transact(&mut store, &spool);
        prop_assert_eq!(before, (taken(&store), store.rows.len()), "nothing comes of it again");

        let mut by_order = BTreeMap::new();
        for row in store.rows.iter().filter(|row| matches!(row.entry, EntryKind::Charge | EntryKind::Reserve | EntryKind::Record)) {
            if passed.iter().any(|(id, ..)| *id == row.command) {
                *by_order.entry(row.command).or_insert(0_usize) += 1;
            }
        }
        prop_assert!(by_order.values().all(|rows| *rows == 1));
        for job in jobs {
            let rows: Vec<_> = store.rows.iter().filter(|row| &*row.key.job == job).cloned().collect();
            let dossier = JobRows(&rows);
            let live = (0..30).filter(|attempt| !matches!(dossier.status(*attempt), JobStatus::Voided | JobStatus::Unknown));
            prop_assert!(live.count() <= 1, "a job is charged once");
        }
    }
}
