//! Commits: replies follow them, and lost results are recovered.

use super::*;

#[test]
fn replies_are_sent_after_the_commit() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "b", 60);
    scene.until_commit();
    assert_eq!(scene.told(), []);
    scene.go_on();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "refused")]);
    assert_eq!((scene.next == Step::Rejoin, scene.used()), (true, 60));
}

#[test]
fn cut_amount_is_reported_after_the_commit() {
    let mut scene = Scene::new();
    let CommandKind::Settle(add) = settle(&hourly(100), 0, AdmittedAt { at: START, epoch: 0 }, SettleKind::Add) else {
        unreachable!()
    };
    let add = CommandKind::Settle(SettleCommand { used: ("requests", u64::MAX).into(), ..add });
    scene.writer.enqueue(command(2, key("acme", "a"), add));
    scene.until_commit();
    assert!(scene.writer.notices().is_empty());
    scene.go_on();
    let notices = scene.writer.notices();
    let mut cuts = notices.iter().filter_map(|notice| match &notice.what {
        NoticeKind::Cut(cut) => Some(cut.iter().map(|(_, part)| part).sum::<u64>()),
        _ => None,
    });
    assert_eq!((cuts.next(), cuts.next()), (Some(u64::MAX - scene.used()), None));
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
fn failure_before_the_commit_is_retried_silently() {
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
fn rows_of_a_commit_without_reply_are_recognized() {
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
fn commit_that_did_not_take_place_is_repeated() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.lost();
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("ann", "admitted")], 60));
}

#[test]
fn own_rows_are_recognized_after_a_failed_second_commit() {
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
fn commit_without_reply_counts_in_the_hour_of_its_commit() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.lost_after_commit();
    scene.database.now += HOUR;
    scene.settle_down();
    assert_eq!((scene.used(), scene.entries("a")), (0, vec![(0, EntryKind::Charge), (0, EntryKind::Void)]));
}

#[test]
fn settlement_reports_the_prior_status_after_a_lost_reply() {
    let mut scene = Scene::new();
    let reserve = AdmitCommand {
        reserve: Some(crate::ledger::writer::ReservationTerms { ttl: HOUR, charge: false }),
        ..admit(&hourly(100), ("requests", 60))
    };
    scene.writer.submit(command(2, key("acme", "a"), CommandKind::Admit(reserve)), "ann").unwrap();
    scene.settle_down();
    let expire = CommandKind::Expire { attempt: 0, since: START, charge: true };
    scene.writer.enqueue(command(4, key("acme", "a"), expire));
    scene.settle_down();
    let since = AdmittedAt { at: START, epoch: 0 };
    let late = settle(&hourly(100), 0, since, SettleKind::Commit(("requests", 20).into()));
    scene.writer.submit(command(6, key("acme", "a"), late), "bob").unwrap();
    scene.until_commit();
    scene.lost_after_commit();
    scene.settle_down();
    assert!(matches!(scene.told[..], [_, ("bob", Reply::Settled(JobStatus::Expired, _))]));
    assert_eq!(scene.used(), 20);
}

#[test]
fn sent_command_is_never_reported_as_not_stored() {
    for refused in [false, true] {
        let mut scene = Scene::new();
        scene.ask("ann", 2, "a", 60);
        scene.until_commit();
        scene.lost_after_commit();
        // The previous connection still holds its account, or it cannot be read.
        for _ in 0..3 {
            scene.until(|step| matches!(step, Step::Begin(_) | Step::Wait));
            if scene.told.is_empty() {
                scene.fails(if refused { DbError::Refused("no".into()) } else { again() });
            }
        }
        assert_eq!(scene.told(), [("ann", "indeterminate")]);
        scene.settle_down();
        assert_eq!((scene.used(), scene.entries("a").len()), (0, 2), "it has gone back");
    }
}
