//! Jobs around any async function: done and charged once for each id.

use std::{
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tollgate::{JobError, JobOutcome, JobRun, JobState};

use super::*;

/// Work that is ready at poll number `0` and records how often it was polled.
struct Work<'a>(u32, &'a Cell<u32>);

impl Future for Work<'_> {
    type Output = &'static str;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<&'static str> {
        self.1.set(self.1.get() + 1);
        if self.1.get() < self.0 { Poll::Pending } else { Poll::Ready("rows") }
    }
}

fn two_at_a_time() -> Scene {
    Scene::new(queries(100).limit(Quota::concurrent(2)))
}

/// Returns the queries of the hour and the concurrency slots that alice has used.
async fn used(scene: &Scene) -> (u64, u64) {
    let usage = scene.quotas.usage(&alice()).await.unwrap();
    (usage.limits[0].used, usage.limits[1].used)
}

fn reason<T: std::fmt::Debug>(ran: Result<JobRun<T>, Refusal>) -> Reason {
    ran.unwrap_err().reason()
}

#[tokio::test]
async fn same_id_with_other_amounts_conflicts_in_any_order() {
    let scene = two_at_a_time();
    let others = Plan::new("others").limit(Quota::units("rows", 1).per(Period::hour()));
    scene.quotas.set_tier_plan("others", others.limit(Quota::units("tokens", 1).per(Period::hour()))).unwrap();
    let alice = alice();
    let run = |amounts: tollgate::Amounts| scene.quotas.run_job(&alice, "7", amounts, async {});
    run([("queries", 2), ("rows", 5)].into()).await.unwrap();
    assert_eq!(run([("rows", 5), ("queries", 2)].into()).await.unwrap(), JobRun::Replayed);
    assert_eq!(run([("rows", 5), ("queries", 2), ("tokens", 0)].into()).await.unwrap(), JobRun::Replayed);
    for other in [("queries", 2), ("rows", 5), ("queries", 3)] {
        assert_eq!(reason(run(other.into()).await), Reason::JobConflict);
    }
    assert_eq!(used(&scene).await, (2, 0));
    scene.quotas.run_job(&bob(), "7", ("queries", 1), async {}).await.unwrap();
    assert_eq!(scene.limit(&bob(), "queries_per_hour").await.used, 1, "ids belong to their client");
}

#[tokio::test]
async fn invalid_job_id_is_refused() {
    let scene = two_at_a_time();
    let (longest, longer) = ("x".repeat(255), "x".repeat(256));
    for id in ["", " ", "a\tb", "\u{fc}", "\n", &longer] {
        assert_eq!(reason(scene.quotas.run_job(&alice(), id, ("queries", 1), async {}).await), Reason::InvalidJobId);
    }
    scene.quotas.run_job(&alice(), &longest, ("queries", 1), async {}).await.unwrap();
    assert_eq!(used(&scene).await, (1, 0));
}

#[tokio::test]
async fn job_takes_a_concurrency_slot() {
    let scene = two_at_a_time();
    let alice = alice();
    let mut held = Vec::new();
    for id in ["1", "2"] {
        let work = std::future::pending::<()>();
        held.push(Box::pin(scene.quotas.run_job(&alice, id, ("queries", 1), work)));
        assert!(futures_util::poll!(held.last_mut().unwrap()).is_pending());
    }
    let refusal = scene.quotas.run_job(&alice, "3", ("queries", 1), async {}).await.unwrap_err();
    assert_eq!(violated(&refusal), (Kind::Concurrent, 2, 2));
    held.pop();
    assert_eq!(scene.quotas.run_job(&alice, "3", ("queries", 1), async {}).await.unwrap(), JobRun::Done(()));
}

/// Dropped at each poll, and settled either way. An unpolled job has no effect; any other is charged, and its id is taken
/// until it is settled.
#[tokio::test]
async fn job_cancelled_at_any_poll_is_charged_once_or_not_begun() {
    const READY_AT: u32 = 4;
    let cases = (0..=READY_AT).flat_map(|polls| [JobOutcome::Done, JobOutcome::Free].map(|outcome| (polls, outcome)));
    for (cancelled_after, outcome) in cases {
        let scene = two_at_a_time();
        let polled = Cell::new(0);
        {
            let alice = alice();
            let mut job = pin!(scene.quotas.run_job(&alice, "7", ("queries", 5), Work(READY_AT, &polled)));
            for poll in 1..=cancelled_after {
                let ready = job.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
                assert_eq!(ready, poll == READY_AT);
                assert_eq!(used(&scene).await, (5, u64::from(!ready)));
            }
        }
        let begun = cancelled_after > 0;
        assert_eq!((polled.get(), used(&scene).await), (cancelled_after, (5 * u64::from(begun), 0)));
        let run = async || scene.quotas.run_job(&alice(), "7", ("queries", 5), async { "rows" }).await;
        let cut = begun && cancelled_after < READY_AT;
        if cut {
            let refusal = run().await.unwrap_err();
            assert_eq!((refusal.reason(), refusal.retry_after()), (Reason::JobOutcomeUnknown, None));
        }
        let state = begun.then_some(if cut { JobState::Unknown } else { JobState::Done });
        assert_eq!(scene.quotas.settle_job(&alice(), "7", outcome).await, Ok(state));
        let free = !begun || cut && outcome == JobOutcome::Free;
        assert_eq!(used(&scene).await, (if free { 0 } else { 5 }, 0));
        assert_eq!(run().await.unwrap(), if free { JobRun::Done("rows") } else { JobRun::Replayed });
        assert_eq!(scene.quotas.settle_job(&alice(), "7", outcome).await, Ok(Some(JobState::Done)));
        assert_eq!(used(&scene).await, (5, 0), "once in the end, cancelled after {cancelled_after}");
    }
}

#[tokio::test]
async fn panicked_job_stays_charged_and_keeps_its_id() {
    let scene = two_at_a_time();
    for polls in 0..3 {
        let (quotas, id) = (scene.quotas.clone(), format!("job {polls}"));
        let work = async move {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
            panic!("mid-way")
        };
        let of = id.clone();
        let task = tokio::spawn(async move { quotas.run_job(&alice(), &of, ("queries", 5), work).await.map(drop) });
        assert!(task.await.unwrap_err().is_panic());
        let again = scene.quotas.run_job(&alice(), &id, ("queries", 5), async {}).await;
        assert_eq!(reason(again), Reason::JobOutcomeUnknown);
    }
    assert_eq!(used(&scene).await, (15, 0));
}

#[tokio::test]
async fn failed_work_frees_its_id_and_returns_its_charge() {
    let scene = two_at_a_time();
    let (quotas, alice) = (&scene.quotas, alice());
    for error in ["no printer", "no paper"] {
        let failed = quotas.try_run_job(&alice, "7", ("queries", 5), async { Err::<(), _>(error) }).await;
        assert_eq!(failed, Err(JobError::Failed(error)));
        assert_eq!(used(&scene).await, (0, 0));
    }
    let printed = async { Ok::<_, &str>("page") };
    assert_eq!(quotas.try_run_job(&alice, "7", ("queries", 5), printed).await, Ok(JobRun::Done("page")));
    let again = async { panic!("polled") };
    assert_eq!(
        quotas.try_run_job(&alice, "7", ("queries", 5), again).await,
        Ok::<_, JobError<&str>>(JobRun::<()>::Replayed)
    );
    assert_eq!(used(&scene).await, (5, 0));
    let refused = quotas.try_run_job(&alice, "8", ("queries", 96), async { Err::<(), _>("polled") }).await.unwrap_err();
    assert!(matches!(&refused, JobError::Refused(refusal) if refusal.reason() == Reason::RateLimited));
    assert_eq!(refused.to_string(), "policy \"quota\": too little left of the limit of 100, retry in 3600s");
}

#[tokio::test]
async fn unfinished_work_is_undone_when_configured() {
    let scene = Scene::of(QuotaLayer::new(queries(100).limit(Quota::concurrent(2))).free_unfinished());
    let (quotas, alice) = (&scene.quotas, alice());
    {
        let mut job = pin!(quotas.run_job(&alice, "7", ("queries", 5), std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut job).is_pending());
        assert_eq!(used(&scene).await, (5, 1));
    }
    assert_eq!(used(&scene).await, (0, 0));
    let (spawned, panics) = (quotas.clone(), async { panic!("mid-way") });
    let task =
        tokio::spawn(async move { spawned.run_job(&self::alice(), "7", ("queries", 5), panics).await.map(drop) });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(used(&scene).await, (0, 0));
    assert_eq!(quotas.run_job(&alice, "7", ("queries", 5), async { 42 }).await.unwrap(), JobRun::Done(42));
    assert_eq!(used(&scene).await, (5, 0));
}

#[tokio::test]
async fn running_job_is_not_settled() {
    let scene = two_at_a_time();
    let alice = alice();
    let mut job = pin!(scene.quotas.run_job(&alice, "7", ("queries", 5), std::future::pending::<()>()));
    assert!(futures_util::poll!(&mut job).is_pending());
    for outcome in [JobOutcome::Done, JobOutcome::Free] {
        assert_eq!(scene.quotas.settle_job(&alice, "7", outcome).await, Ok(Some(JobState::Running)));
        assert_eq!(used(&scene).await, (5, 1));
    }
    let error = scene.quotas.settle_job(&alice, "a\tb", JobOutcome::Free).await.unwrap_err();
    assert_eq!(error.to_string(), r#"id of a job must be 1 to 255 visible ASCII characters or spaces, got "a\tb""#);
}

/// The charge belongs to the window of its admission: freed in a later one, it gives no room there.
#[tokio::test]
async fn freed_job_returns_its_charge_to_its_own_window() {
    let scene = two_at_a_time();
    let alice = alice();
    drop(futures_util::poll!(pin!(scene.quotas.run_job(&alice, "7", ("queries", 5), std::future::pending::<()>()))));
    scene.clock.advance(HOUR);
    scene.quotas.charge(&alice, ("queries", 9)).await.unwrap();
    assert_eq!(scene.quotas.settle_job(&alice, "7", JobOutcome::Free).await, Ok(Some(JobState::Unknown)));
    assert_eq!(used(&scene).await, (9, 0));
}

/// A freed job that is done again is remembered for its whole retention, not for that of the freed one.
#[tokio::test]
async fn freed_job_is_remembered_anew() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).job_retention(HOUR));
    let alice = alice();
    drop(futures_util::poll!(pin!(scene.quotas.run_job(&alice, "7", ("queries", 1), std::future::pending::<()>()))));
    scene.quotas.settle_job(&alice, "7", JobOutcome::Free).await.unwrap();
    scene.clock.advance(HOUR / 2);
    let run = || scene.quotas.run_job(&alice, "7", ("queries", 1), async {});
    assert_eq!(run().await.unwrap(), JobRun::Done(()));
    scene.clock.advance(HOUR / 2);
    assert_eq!(run().await.unwrap(), JobRun::Replayed);
}

#[tokio::test]
async fn job_without_a_client_is_the_anonymous_clients() {
    let scene = two_at_a_time();
    scene.quotas.run_job(None, "7", ("queries", 4), async {}).await.unwrap();
    assert_eq!(scene.limit(&scene.quotas.anonymous(), "queries_per_hour").await.used, 4);
}

#[tokio::test]
async fn job_cap_refuses_until_jobs_are_forgotten() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).job_retention(HOUR).max_jobs_per_client(2));
    let alice = alice();
    let run = |id: &'static str| scene.quotas.run_job(&alice, id, ("queries", 1), async {});
    run("1").await.unwrap();
    scene.clock.advance(Duration::from_secs(600));
    run("2").await.unwrap();
    let refusal = run("3").await.unwrap_err();
    assert_eq!((refusal.reason(), refusal.retry_after_seconds()), (Reason::RateLimited, Some(3_000)));
    assert_eq!(run("1").await.unwrap(), JobRun::Replayed, "those that are known are not concerned");
    scene.quotas.run_job(&bob(), "3", ("queries", 1), async {}).await.unwrap();
    scene.clock.advance(Duration::from_secs(3_000));
    assert_eq!(run("3").await.unwrap(), JobRun::Done(()), "a client that waits as it is told is admitted");
}

#[test]
#[should_panic(expected = "max_jobs_per_client must be positive, got 0")]
fn job_cap_of_zero_is_rejected() {
    let _ = QuotaLayer::new(queries(1)).max_jobs_per_client(0);
}

#[tokio::test]
async fn job_is_forgotten_after_its_retention() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).job_retention(HOUR));
    let alice = alice();
    let run = || scene.quotas.run_job(&alice, "7", ("queries", 1), async {});
    run().await.unwrap();
    scene.clock.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(run().await.unwrap(), JobRun::Replayed);
    scene.clock.advance(Duration::from_nanos(1));
    assert_eq!(run().await.unwrap(), JobRun::Done(()));
}
