//! Outages, held accounts, and the end of the writer.

use super::*;

#[test]
fn giving_up_replies_what_is_known() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.ask("bob", 4, "b", 10);
    scene.writer.give_up(&"over".into());
    scene.hear(None);
    assert_eq!((scene.told(), &scene.next), (vec![("ann", "indeterminate"), ("bob", "unavailable")], &Step::End));
}

#[test]
fn full_queue_refuses_callers_but_no_settlement() {
    let mut scene = Scene::new();
    ["ann", "bob", "cid"].into_iter().for_each(|who| assert!(scene.try_ask(who, 2, who, 1).is_ok()));
    assert_eq!(scene.try_ask("dan", 8, "d", 1), Err(SubmitError::Queue));
    scene.tell(10, "x", 0, SettleKind::Void); // settlements are always accepted
    scene.settle_down();
    assert!(scene.try_ask("dan", 8, "d", 1).is_ok());
}

#[test]
fn three_failures_refuse_callers_until_recovery() {
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
fn sent_admission_is_indeterminate_in_an_outage_and_voided() {
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

/// A file may have been read-only when it was opened, a server may have become a standby: a new connection may reach
/// one that takes writes.
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
fn held_account_delays_no_other_account() {
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
    // The held account delays the others by at most one turn.
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
    assert!(matches!(&scene.next, Step::Begin(reads) if reads.tenants.len() == 3), "no account is held any more");
}

#[test]
fn callers_are_refused_after_one_timed_out_connecting() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until(|step| *step == Step::Connect);
    assert_eq!(scene.writer.time_out(ticket), CancelResult::Unsent);
    assert_eq!(scene.try_ask("bob", 4, "b", 60), Err(SubmitError::Down));
    scene.settle_down();
    assert!(scene.try_ask("bob", 4, "b", 60).is_ok());
}

#[test]
fn empty_transaction_tests_the_database_after_an_outage() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "b", 10);
    scene.until(|step| matches!(step, Step::Write(..)));
    scene.fails(DbError::Refused("no".into())); // each is tried alone then
    for _ in 0..3 {
        scene.until(|step| matches!(step, Step::Begin(_) | Step::Connect));
        scene.lost();
    }
    assert_eq!(scene.told(), [("ann", "unavailable"), ("bob", "unavailable")]);
    scene.until(|step| *step == Step::Wait);
    assert!(!scene.writer.is_down());
}

#[test]
fn closed_writer_ends_after_all_replies() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.writer.close();
    assert_eq!(scene.try_ask("bob", 4, "b", 60), Err(SubmitError::Shut));
    scene.settle_down();
    assert_eq!((scene.told(), &scene.next), (vec![("ann", "admitted")], &Step::End));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No sequence of failures keeps the writer busy without a rest, unless all commands were rejected.
    #[test]
    fn writer_rests_when_no_step_succeeds(
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
            // Connections may be restored, but no commit succeeds.
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
