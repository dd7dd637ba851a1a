//! Callers that leave, and duplicates of jobs under way.

use super::*;

#[test]
fn command_cancelled_before_it_is_sent_is_not_stored() {
    let mut scene = Scene::new();
    let queued = scene.ask("ann", 2, "a", 60);
    assert_eq!(scene.writer.cancel(queued), CancelResult::Unsent);
    let begun = scene.ask("bob", 4, "b", 60);
    scene.until(|step| matches!(step, Step::Begin(_)));
    assert_eq!(scene.writer.cancel(begun), CancelResult::Unsent);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![], 0));
}

#[test]
fn admission_cancelled_during_the_write_is_voided() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.ask("ann again", 4, "a", 60);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("ann again", "admitted")], 60));
    assert_eq!(scene.entries("a"), [(0, EntryKind::Charge), (0, EntryKind::Void), (1, EntryKind::Charge)]);
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Answered);
}

#[test]
fn admission_cancelled_during_a_failed_write_is_not_stored() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until(|step| matches!(step, Step::Write(..)));
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.lost();
    scene.settle_down();
    assert_eq!((scene.told(), scene.entries("a")), (vec![], vec![]));
}

#[test]
fn cancelled_caller_is_not_admitted_when_commit_fails() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.lost();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.settle_down();
    assert_eq!((scene.told(), scene.entries("a")), (vec![], vec![]));
}

#[test]
fn duplicate_is_decided_after_the_pending_void() {
    let mut scene = Scene::new();
    let ticket = scene.ask("ann", 2, "a", 60);
    scene.ask("bob", 4, "a", 60);
    scene.until_commit();
    assert_eq!(scene.writer.cancel(ticket), CancelResult::Underway);
    scene.settle_down();
    assert_eq!((scene.told(), scene.used()), (vec![("bob", "admitted")], 60));
}

#[test]
fn voided_job_is_running_until_its_id_is_free() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.until_commit();
    scene.go_on();
    scene.ask("bob", 4, "a", 60);
    scene.tell(6, "a", 0, SettleKind::Void);
    scene.settle_down();
    scene.ask("eve", 8, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "running"), ("eve", "admitted")]);
}

#[test]
fn job_is_running_until_its_end_is_durable() {
    for (end, told) in [(JobEnd::Done, "done"), (JobEnd::Interrupted, "unknown")] {
        let mut scene = Scene::new();
        scene.ask("ann", 2, "a", 60);
        scene.settle_down();
        scene.ask("bob", 4, "a", 60);
        scene.settle_down();
        scene.end(6, "b", end); // of another job
        scene.ask("cid", 8, "a", 60);
        scene.settle_down();
        scene.ask("dan", 10, "a", 60);
        scene.end(12, "a", end);
        scene.settle_down();
        scene.ask("eve", 14, "a", 60);
        scene.settle_down();
        let running = ["bob", "cid", "dan"].map(|who| (who, "running"));
        assert_eq!(scene.told(), [&[("ann", "admitted")], &running[..], &[("eve", told)]].concat());
    }
}

/// The process dies before the end is written: the next one knows that the job is charged, and no more.
#[test]
fn job_of_a_process_that_died_has_an_unknown_outcome() {
    for (end, told) in [(None, "unknown"), (Some(JobEnd::Done), "done"), (Some(JobEnd::Interrupted), "unknown")] {
        let mut scene = Scene::new();
        scene.ask("ann", 2, "a", 60);
        scene.settle_down();
        if let Some(end) = end {
            scene.end(4, "a", end);
            scene.settle_down();
        }
        scene.told();
        scene.writer = Writer::new(3, 8, false);
        scene.hear(None);
        scene.ask("bob", 6, "a", 60);
        scene.settle_down();
        assert_eq!((scene.told(), scene.used()), (vec![("bob", told)], 60), "{end:?}");
    }
}

/// The database rejects the end for good: the job no longer runs, and nothing says that it was done.
#[test]
fn job_whose_end_is_rejected_has_an_unknown_outcome() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.settle_down();
    scene.end(4, "a", JobEnd::Done);
    for _ in 0..2 {
        scene.until(|step| matches!(step, Step::Write(..)));
        scene.fails(DbError::Rejected("a check".into()));
    }
    scene.settle_down();
    scene.ask("bob", 6, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "unknown")]);
}

#[test]
fn settlement_by_an_operator_never_touches_a_running_job() {
    for outcome in [JobOutcome::Done, JobOutcome::Free] {
        let mut scene = Scene::new();
        let settle = |scene: &mut Scene, id| {
            let plan = hourly(100);
            let kind = CommandKind::SettleJob { plan, attempt: 0, since: START, outcome, running: false };
            scene.writer.submit(command(id, key("acme", "a"), kind), "op").unwrap();
        };
        scene.ask("ann", 2, "a", 60);
        settle(&mut scene, 4); // in the batch that begins the job
        scene.settle_down();
        settle(&mut scene, 6);
        scene.settle_down();
        scene.end(8, "a", JobEnd::Interrupted);
        settle(&mut scene, 10); // the end is in the same batch
        scene.settle_down();
        settle(&mut scene, 12);
        scene.settle_down();
        let states: Vec<_> = scene
            .told
            .iter()
            .filter_map(|(_, reply)| if let Reply::Job(state) = reply { *state } else { None })
            .collect();
        let running = JobState::Running;
        assert_eq!(states[..3], [running, running, running], "{outcome:?}");
        assert_eq!((states[3], scene.used()), (JobState::Unknown, if outcome == JobOutcome::Free { 0 } else { 60 }));
        assert_eq!(scene.database.store.unfinished, []);
    }
}

/// The reply to COMMIT is lost, so that the admission and the operator's settlement are decided in one batch.
#[test]
fn job_whose_commit_was_lost_is_running_for_an_operator() {
    for outcome in [JobOutcome::Done, JobOutcome::Free] {
        let mut scene = Scene::new();
        scene.ask("ann", 2, "a", 60);
        scene.until_commit();
        let kind = CommandKind::SettleJob { plan: hourly(100), attempt: 0, since: START, outcome, running: false };
        scene.writer.submit(command(4, key("acme", "a"), kind), "op").unwrap();
        scene.lost_after_commit();
        scene.settle_down();
        let running = |(_, reply): &(_, Reply)| matches!(reply, Reply::Job(Some(JobState::Running)));
        assert!(scene.told.iter().any(running), "{outcome:?}: {:?}", scene.told);
        assert_eq!((scene.told(), scene.used()), (vec![("ann", "admitted"), ("op", "settled")], 60));
        assert_eq!(scene.database.store.unfinished.len(), 1);
    }
}
