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
    scene.writer.finish(&key("acme", "a"), 2);
    scene.settle_down();
    scene.ask("eve", 8, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "running"), ("eve", "admitted")]);
}

#[test]
fn job_voided_after_its_finish_is_not_reported_done() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.settle_down();
    scene.writer.finish(&key("acme", "a"), 2);
    scene.ask("bob", 4, "a", 60);
    scene.tell(6, "a", 0, SettleKind::Void);
    scene.settle_down();
    scene.ask("eve", 8, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "running"), ("eve", "admitted")]);
}

#[test]
fn duplicate_is_running_until_the_job_is_finished() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 60);
    scene.settle_down();
    scene.ask("bob", 4, "a", 60);
    scene.settle_down();
    scene.writer.finish(&key("acme", "a"), 4); // of another command
    scene.ask("cid", 6, "a", 60);
    scene.settle_down();
    scene.writer.finish(&key("acme", "a"), 2);
    scene.ask("dan", 8, "a", 60);
    scene.settle_down();
    assert_eq!(scene.told(), [("ann", "admitted"), ("bob", "running"), ("cid", "running"), ("dan", "done")]);
}
