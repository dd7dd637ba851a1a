//! Jobs: done and charged once for each id.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use super::{APART, LOOKS, Scene, at_once, comes_to, queries, two_limits};
use crate::{
    identity::Client,
    quota::{JobError, JobOutcome, JobRun, JobState, Quota, QuotaLayer, Quotas},
    refusal::Reason,
};

/// A job runs and is charged once. Afterwards it is replayed, even if nothing remains, and its work is not polled.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_job_is_done_once(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_job_is_done_once(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, bob } = &scene;
    let done = quotas.run_job(alice, "order 17", ("queries", 10), async { 42 }).await.unwrap();
    assert_eq!(done, JobRun::Done(42));
    replays(&scene, "order 17", 10).await;
    assert_eq!(scene.counts(alice).await, [(10, 0)]);
    let others = quotas.run_job(bob, "order 17", ("queries", 3), async {}).await.unwrap();
    assert_eq!(others, JobRun::Done(()), "ids belong to their client");
    assert_eq!(scene.counts(bob).await, [(3, 0)]);
}

/// The same id with other amounts is refused as another job. The order of the amounts does not matter.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::another_job_has_another_id(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn another_job_has_another_id(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, two_limits(10, 10)).await;
    let Scene { quotas, alice, .. } = &scene;
    quotas.run_job(alice, "7", [("queries", 2), ("rows", 1)], async {}).await.unwrap();
    for other in [[("queries", 2), ("rows", 2)], [("queries", 3), ("rows", 1)]] {
        let refusal = quotas.run_job(alice, "7", other, async { panic!("polled") }).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::JobConflict);
    }
    let again = async || {
        let again = quotas.run_job(alice, "7", [("rows", 1), ("queries", 2)], async { panic!("polled") }).await;
        again.map_err(|refusal| refusal.reason())
    };
    comes_to(again, Ok(JobRun::Replayed)).await;
    assert_eq!(scene.counts(alice).await, [(2, 0), (1, 0)]);
}

/// A duplicate of a job under way is refused with a retry time, and nothing settles the job. A job that is dropped stays
/// charged, and its outcome is unknown.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_job_under_way_is_not_begun_again(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_job_under_way_is_not_begun_again(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    {
        let started = AtomicBool::new(false);
        let mut first = pin!(quotas.run_job(alice, "7", ("queries", 4), endless(&started)));
        begins(first.as_mut(), &started).await;
        let refusal = quotas.run_job(alice, "7", ("queries", 4), async { panic!("polled") }).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::JobRunning);
        assert!(refusal.retry_after().is_some());
        assert_eq!(quotas.settle_job(alice, "7", JobOutcome::Free).await, Ok(Some(JobState::Running)));
    }
    is_unknown(&scene, "7", 4).await;
    assert_eq!(scene.counts(alice).await, [(4, 0)]);
}

/// A job that was interrupted is refused, however often it is sent, until it is settled: as done it stays charged and is
/// replayed, freed it is charged no more and runs again. Jobs in other states are not settled.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::an_interrupted_job_is_settled_once(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn an_interrupted_job_is_settled_once(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, bob } = &scene;
    for outcome in [JobOutcome::Done, JobOutcome::Free] {
        assert_eq!(quotas.settle_job(alice, "8", outcome).await, Ok(None));
    }
    for id in ["7", "8"] {
        cut(quotas, alice, id, 4).await;
        is_unknown(&scene, id, 4).await;
        let other = quotas.run_job(alice, id, ("queries", 3), async { panic!("polled") }).await.unwrap_err();
        assert_eq!(other.reason(), Reason::JobConflict);
    }
    assert_eq!(scene.counts(alice).await, [(8, 0)]);
    assert_eq!(quotas.settle_job(bob, "7", JobOutcome::Free).await, Ok(None), "ids belong to their client");
    assert_eq!(quotas.settle_job(alice, "7", JobOutcome::Done).await, Ok(Some(JobState::Unknown)));
    assert_eq!(quotas.settle_job(alice, "8", JobOutcome::Free).await, Ok(Some(JobState::Unknown)));
    assert_eq!(scene.counts(alice).await, [(4, 0)]);
    for outcome in [JobOutcome::Done, JobOutcome::Free] {
        assert_eq!(quotas.settle_job(alice, "7", outcome).await, Ok(Some(JobState::Done)));
        assert_eq!(quotas.settle_job(alice, "8", outcome).await, Ok(None));
    }
    replays(&scene, "7", 4).await;
    assert_eq!(quotas.run_job(alice, "8", ("queries", 5), async { 42 }).await.unwrap(), JobRun::Done(42));
    replays(&scene, "8", 5).await;
    assert_eq!(scene.counts(alice).await, [(9, 0)]);
    assert!(quotas.settle_job(alice, "", JobOutcome::Free).await.is_err());
}

/// Random jobs that are done, fail, are cut, sent again with the same or another amount, and settled: each has the state
/// and the charge of a book that keeps one entry for each id.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::job_histories_equal_a_book(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn job_histories_equal_a_book(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(LIMIT)).await;
    for seed in 0..HISTORIES {
        let client = Client::named(format!("jobs {seed}"));
        let (mut random, mut book) = (fastrand::Rng::with_seed(seed), [None; 3]);
        for step in 0..STEPS {
            let (job, amount) = (random.usize(..book.len()), random.u64(3..5));
            let deed =
                [Deed::Done, Deed::Fails, Deed::Cut, Deed::Settled(JobOutcome::Done), Deed::Settled(JobOutcome::Free)]
                    [random.usize(..5)];
            let expected = enter(&mut book, job, amount, deed);
            let act = async || act(&scene.quotas, &client, &job.to_string(), amount, deed).await;
            let context = format!("history {seed}, step {step}: {deed:?} of {amount} by job {job}");
            // The end of the job before may take time to reach the store.
            let mut answer = act().await;
            for _ in 0..LOOKS {
                if !matches!(answer, JobAnswer::Refused(Reason::JobRunning) | JobAnswer::State(Some(JobState::Running)))
                {
                    break;
                }
                tokio::time::sleep(APART).await;
                answer = act().await;
            }
            assert_eq!(answer, expected, "{context}");
            let used = book.iter().flatten().map(|(amount, _)| amount).sum();
            scene.comes_to(&client, &[(used, 0)]).await;
        }
    }
}

const LIMIT: u64 = 10;
const HISTORIES: u64 = 40;
const STEPS: u32 = 20;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Done,
    Fails,
    Cut,
    Settled(JobOutcome),
}

#[derive(Debug, PartialEq, Eq)]
enum JobAnswer {
    /// The work was begun.
    Ran,
    Replayed,
    Refused(Reason),
    State(Option<JobState>),
}

/// Amount of each job that is charged, and its state.
type Book = [Option<(u64, JobState)>; 3];

/// Enters a deed, and returns the answer to it.
fn enter(book: &mut Book, job: usize, amount: u64, deed: Deed) -> JobAnswer {
    let used: u64 = book.iter().flatten().map(|(amount, _)| amount).sum();
    let known = book[job];
    if let Deed::Settled(outcome) = deed {
        if let Some((amount, JobState::Unknown)) = known {
            book[job] = (outcome == JobOutcome::Done).then_some((amount, JobState::Done));
        }
        return JobAnswer::State(known.map(|(_, state)| state));
    }
    match known {
        Some((charged, _)) if charged != amount => return JobAnswer::Refused(Reason::JobConflict),
        Some((_, JobState::Done)) => return JobAnswer::Replayed,
        Some(_) => return JobAnswer::Refused(Reason::JobOutcomeUnknown),
        None if used + amount > LIMIT => return JobAnswer::Refused(Reason::RateLimited),
        None => {}
    }
    book[job] = match deed {
        Deed::Done => Some((amount, JobState::Done)),
        Deed::Cut => Some((amount, JobState::Unknown)),
        _ => None,
    };
    JobAnswer::Ran
}

async fn act(quotas: &Quotas, client: &Client, id: &str, amount: u64, deed: Deed) -> JobAnswer {
    let started = AtomicBool::new(false);
    let work = async {
        started.store(true, Ordering::Relaxed);
        match deed {
            Deed::Cut => pending().await,
            Deed::Fails => Err(()),
            _ => Ok(()),
        }
    };
    if let Deed::Settled(outcome) = deed {
        return JobAnswer::State(quotas.settle_job(client, id, outcome).await.expect("a settlement"));
    }
    let mut job = pin!(quotas.try_run_job(client, id, ("queries", amount), work));
    let ended = poll_fn(|cx| match job.as_mut().poll(cx) {
        Poll::Pending if started.load(Ordering::Relaxed) => Poll::Ready(None),
        polled => polled.map(Some),
    });
    match ended.await {
        Some(Ok(JobRun::Replayed)) => JobAnswer::Replayed,
        Some(Err(JobError::Refused(refusal))) => JobAnswer::Refused(refusal.reason()),
        None | Some(Ok(JobRun::Done(())) | Err(JobError::Failed(()))) => JobAnswer::Ran,
    }
}

/// A job that was refused, or never polled, is not charged, and its id is free.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_job_that_was_not_begun_leaves_its_id_free(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_job_that_was_not_begun_leaves_its_id_free(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    drop(quotas.run_job(alice, "7", ("queries", 4), pending::<()>()));
    scene.record(alice, ("queries", 10)).await;
    let refusal = quotas.run_job(alice, "7", ("queries", 4), async { panic!("polled") }).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::RateLimited);
    quotas.reset(alice, "queries").await.unwrap();
    assert_eq!(quotas.run_job(alice, "7", ("queries", 4), async {}).await.unwrap(), JobRun::Done(()));
    assert_eq!(scene.counts(alice).await, [(4, 0)]);
}

/// A job whose work fails is not charged, and its id is free at once.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::failed_job_frees_its_id(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn failed_job_frees_its_id(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(10)).await;
    let Scene { quotas, alice, .. } = &scene;
    for error in 0..3 {
        let failed = quotas.try_run_job(alice, "7", ("queries", 10), async { Err::<(), _>(error) }).await;
        assert_eq!(failed, Err(JobError::Failed(error)));
    }
    scene.comes_to(alice, &[(0, 0)]).await;
    let done = quotas.try_run_job(alice, "7", ("queries", 10), async { Ok::<_, ()>(42) }).await;
    assert_eq!(done, Ok(JobRun::Done(42)));
    replays(&scene, "7", 10).await;
    assert_eq!(scene.counts(alice).await, [(10, 0)]);
}

/// If many callers run one job at once, one of them runs it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::many_at_once_do_a_job_once(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn many_at_once_do_a_job_once(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(1_000)).await;
    for round in 1..=10 {
        let done = at_once(10, |_| {
            let (quotas, alice, id) = (scene.quotas.clone(), scene.alice.clone(), format!("job {round}"));
            async move {
                let ran = quotas.run_job(&alice, &id, ("queries", 10), tokio::task::yield_now()).await;
                matches!(ran, Ok(JobRun::Done(())))
            }
        });
        let done = done.await;
        assert_eq!(done, 1, "in round {round}");
        assert_eq!(scene.counts(&scene.alice).await, [(10 * round, 0)]);
    }
}

/// A concurrency slot is released when the work ends, is dropped or panics.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::a_place_comes_back(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn a_place_comes_back(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    let scene = Scene::new(make, queries(100).limit(Quota::concurrent(1))).await;
    let Scene { quotas, alice, .. } = &scene;
    quotas.run(alice, ("queries", 1), async {}).await.unwrap();
    scene.comes_to(alice, &[(1, 0), (0, 0)]).await;
    {
        let started = AtomicBool::new(false);
        let mut first = pin!(quotas.run(alice, ("queries", 1), endless(&started)));
        begins(first.as_mut(), &started).await;
        scene.comes_to(alice, &[(2, 0), (1, 0)]).await;
        assert!(quotas.run(alice, ("queries", 1), async { panic!("polled") }).await.is_err(), "there is one place");
    }
    scene.comes_to(alice, &[(2, 0), (0, 0)]).await;
    let (other, client) = (quotas.clone(), alice.clone());
    let task = tokio::spawn(async move { other.run(&client, ("queries", 1), async { panic!("on purpose") }).await });
    assert!(task.await.is_err());
    scene.comes_to(alice, &[(3, 0), (0, 0)]).await;
    quotas.run_job(alice, "7", ("queries", 1), async {}).await.unwrap();
    scene.comes_to(alice, &[(4, 0), (0, 0)]).await;
}

/// Begins a job and drops it in the middle of its work.
async fn cut(quotas: &Quotas, client: &Client, id: &str, amount: u64) {
    let started = AtomicBool::new(false);
    let mut job = pin!(quotas.run_job(client, id, ("queries", amount), endless(&started)));
    begins(job.as_mut(), &started).await;
}

/// Work that records its start and never ends.
async fn endless(started: &AtomicBool) {
    started.store(true, Ordering::Relaxed);
    pending().await
}

/// Polls a job until its work starts. A visible charge is not enough: a caller that is dropped between the commit and
/// its reply has started nothing.
async fn begins(mut job: Pin<&mut impl Future>, started: &AtomicBool) {
    let polled = |cx: &mut Context<'_>| {
        assert!(job.as_mut().poll(cx).is_pending(), "its work never ends");
        if started.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    };
    poll_fn(polled).await;
}

/// Waits until a job of alice's is replayed: its end may take time to reach the store.
async fn replays(scene: &Scene, id: &str, amount: u64) {
    let again = async || {
        let again = scene.quotas.run_job(&scene.alice, id, ("queries", amount), async { panic!("polled") }).await;
        again.map_err(|refusal| refusal.reason())
    };
    comes_to(again, Ok(JobRun::Replayed)).await;
}

/// Waits until the outcome of a job of alice's is unknown, and no work of it can be under way.
async fn is_unknown(scene: &Scene, id: &str, amount: u64) {
    let again = async || {
        let again = scene.quotas.run_job(&scene.alice, id, ("queries", amount), async { panic!("polled") }).await;
        again.map_err(|refusal| (refusal.reason(), refusal.retry_after()))
    };
    comes_to(again, Err((Reason::JobOutcomeUnknown, None))).await;
}
