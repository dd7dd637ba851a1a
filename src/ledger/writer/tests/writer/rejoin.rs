//! Callers that were answered submit again, and join the next batch.

use super::*;

/// Returns the number of jobs in the batch that begins.
fn jobs_of(next: &Step) -> usize {
    match next {
        Step::Begin(reads) => reads.jobs.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn answered_callers_are_in_the_next_batch() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 1);
    scene.ask("bob", 4, "b", 1);
    scene.until_commit();
    scene.ask("cid", 6, "c", 1);
    scene.go_on();
    assert_eq!((scene.told().len(), &scene.next), (2, &Step::Rejoin), "before the batch of the third caller begins");
    scene.ask("ann", 8, "d", 1);
    assert!(scene.writer.awaits_callers(Lane::Main), "the other caller is not back");
    scene.try_ask("bob", 10, "e", 1).unwrap();
    assert!(!scene.writer.awaits_callers(Lane::Main));
    scene.go_on();
    assert_eq!(jobs_of(&scene.next), 3);
}

#[test]
fn callers_that_stay_away_are_awaited_once() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 1);
    scene.until_commit();
    scene.go_on();
    assert_eq!(scene.next, Step::Rejoin);
    scene.go_on();
    assert_eq!(scene.next, Step::Wait);
    scene.ask("bob", 4, "b", 1);
    scene.hear(None);
    assert_eq!(jobs_of(&scene.next), 1, "without a turn for the first caller");
}

#[test]
fn refusals_and_settlements_await_no_caller_twice() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 101);
    scene.until(|step| *step == Step::RollBack);
    scene.ask("ann", 4, "b", 101); // it was answered before the transaction ends
    scene.go_on();
    assert_eq!(jobs_of(&scene.next), 1);
    scene.until(|step| *step == Step::Wait);
    scene.tell(6, "c", 0, SettleKind::Void);
    scene.hear(None);
    scene.until(|step| *step == Step::RollBack);
    scene.go_on();
    assert_eq!(scene.next, Step::Wait, "no caller was answered");
}

#[test]
fn closed_writer_awaits_no_caller() {
    let mut scene = Scene::new();
    scene.ask("ann", 2, "a", 1);
    scene.until_commit();
    scene.writer.close();
    scene.go_on();
    assert_eq!(scene.next, Step::End);
}
