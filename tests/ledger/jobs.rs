//! Jobs whose work is cut: what other processes and later ones know of them.

use std::{
    convert::Infallible,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{JobIdSource, JobOutcome, JobRun, JobState, Principal, Reason, Verified};
use tower::{Layer, ServiceExt, service_fn};

use super::{outage::Scene, *};
use crate::support::directory::Directory;

on_each_database! {
    cut_job_is_unknown_after_restart_and_elsewhere
    job_beyond_its_lease_has_no_retry_time
    reservation_of_a_killed_process_is_settled_with_its_job
    attempt_after_a_freed_one_is_not_ended_by_it
    freed_job_is_not_billed
}

/// Work that records its start and never ends.
async fn endless(started: &AtomicBool) {
    started.store(true, Ordering::Relaxed);
    pending().await
}

/// Polls a call until its work has started.
async fn begins(mut call: Pin<&mut impl Future>, started: &AtomicBool) {
    poll_fn(|cx| {
        assert!(call.as_mut().poll(cx).is_pending(), "its work never ends");
        if started.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The job `7` of ten tokens once more; refusals have their reason and whether there is a retry time.
async fn again(quotas: &Quotas) -> Result<JobRun<()>, (Reason, bool)> {
    let run = quotas.run_job(&acme(), "7", ("tokens", 10), async {}).await;
    run.map_err(|refusal| (refusal.reason(), refusal.retry_after().is_some()))
}

async fn is_unfinished(ledger: &Ledger) -> bool {
    ledger.job("acme", "7").await.unwrap().unwrap().unfinished
}

async fn cut_job_is_unknown_after_restart_and_elsewhere(database: Database) {
    let ledgers = [database.open().await, database.open().await];
    let [here, elsewhere] = [0, 1].map(|at| quotas(&ledgers[at], tokens(100)));
    {
        let (acme, started) = (acme(), AtomicBool::new(false));
        let mut job = pin!(here.run_job(&acme, "7", ("tokens", 10), endless(&started)));
        begins(job.as_mut(), &started).await;
        assert_eq!(again(&here).await, Err((Reason::JobRunning, true)));
        assert_eq!(again(&elsewhere).await, Err((Reason::JobOutcomeUnknown, true)), "it may be running");
        assert_eq!(here.settle_job(&acme, "7", JobOutcome::Free).await, Ok(Some(JobState::Running)));
    }
    settled(&ledgers[0]).await;
    for quotas in [&here, &elsewhere, &quotas(&database.open().await, tokens(100))] {
        assert_eq!(again(quotas).await, Err((Reason::JobOutcomeUnknown, false)));
        assert_eq!(counts(quotas, &acme()).await, (10, 0));
    }
    assert!(is_unfinished(&ledgers[0]).await);
    assert_eq!(elsewhere.settle_job(&acme(), "7", JobOutcome::Done).await, Ok(Some(JobState::Unknown)));
    assert!(!is_unfinished(&ledgers[0]).await);
    assert_eq!(here.settle_job(&acme(), "7", JobOutcome::Free).await, Ok(Some(JobState::Done)));
    assert_eq!(again(&here).await, Ok(JobRun::Replayed));
    assert_eq!(told(&rows(&ledgers[0], "acme").await), [("7", "charge", 10)]);
}

/// The process is gone before it could say anything.
async fn job_beyond_its_lease_has_no_retry_time(database: Database) {
    for (hold, may_run) in [(Duration::from_nanos(1), false), (Duration::from_secs(3_600), true)] {
        let ledger = database.open().await;
        let layer = QuotaLayer::new(tokens(100)).max_hold(hold).store_in(&ledger, OnFailure::FailClosed);
        let (quotas, acme, started) = (layer.handle(), acme(), Box::leak(Box::new(AtomicBool::new(false))));
        let job = Box::leak(Box::new((quotas.clone(), acme.clone())));
        let mut job = Box::pin(job.0.run_job(&job.1, "7", ("tokens", 10), endless(started)));
        begins(job.as_mut(), started).await;
        std::mem::forget(job);
        ledger.shut_down(HUNG).await;
        let quotas = self::quotas(&database.open().await, tokens(100));
        assert_eq!(again(&quotas).await, Err((Reason::JobOutcomeUnknown, may_run)));
        assert_eq!(quotas.settle_job(&acme, "7", JobOutcome::Free).await, Ok(Some(JobState::Unknown)));
        assert_eq!(counts(&quotas, &acme).await, (0, 0));
    }
}

#[derive(Clone)]
struct Tenant;

/// A request whose charge is shared with its handler reserves the estimate. Killed in the middle, the reservation is left
/// beside the job.
async fn reservation_of_a_killed_process_is_settled_with_its_job(database: Database) {
    let mut used = 0;
    for (id, outcome, expires) in [
        ("1", JobOutcome::Done, false),
        ("2", JobOutcome::Done, true),
        ("3", JobOutcome::Free, false),
        ("4", JobOutcome::Free, true),
    ] {
        let ledger = database.open().await;
        let ttl = if expires { Duration::from_nanos(1) } else { Duration::from_secs(3_600) };
        let tenant = Verified::from_extension(|Tenant| Some(Principal::named("acme"))).named_only();
        let layer = QuotaLayer::new(tokens(100)).identify_by(tenant).store_in(&ledger, OnFailure::FailClosed);
        let layer = layer.share_with_handler().job_ids(JobIdSource::header("x-job-id"));
        let layer = layer.cost("tokens", |_| Some(10)).reservations_last(ttl);
        let started = &*Box::leak(Box::new(AtomicBool::new(false)));
        let service = layer.layer(service_fn(move |_: Request<Full<Bytes>>| async {
            endless(started).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }));
        let request = Request::post("/").extension(Tenant).header("x-job-id", id);
        let mut call = Box::pin(service.oneshot(request.body(Full::default()).unwrap()));
        begins(call.as_mut(), started).await;
        std::mem::forget(call);
        ledger.shut_down(HUNG).await;

        let ledger = database.open().await;
        let quotas = quotas(&ledger, tokens(100));
        let left = if expires { (used + 10, 0) } else { (used, 10) };
        until("the killed request is charged or reserved", async || counts(&quotas, &acme()).await == left).await;
        assert_eq!(quotas.settle_job(&acme(), id, outcome).await, Ok(Some(JobState::Unknown)));
        used += if outcome == JobOutcome::Done { 10 } else { 0 };
        assert_eq!(counts(&quotas, &acme()).await, (used, 0), "{outcome:?}, expired: {expires}");
        let state = (outcome == JobOutcome::Done).then_some(JobState::Done);
        assert_eq!(quotas.settle_job(&acme(), id, outcome).await, Ok(state));
        assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
        ledger.shut_down(HUNG).await;
    }
}

/// The process that does the work is slower than the operator: its end belongs to the attempt that was freed.
async fn attempt_after_a_freed_one_is_not_ended_by_it(database: Database) {
    let ledgers = [database.open().await, database.open().await];
    let [here, elsewhere] = [0, 1].map(|at| quotas(&ledgers[at], tokens(100)));
    let (acme, started) = (acme(), AtomicBool::new(false));
    let mut slow = Box::pin(here.run_job(&acme, "7", ("tokens", 10), endless(&started)));
    begins(slow.as_mut(), &started).await;
    assert_eq!(elsewhere.settle_job(&acme, "7", JobOutcome::Free).await, Ok(Some(JobState::Unknown)));
    let started = AtomicBool::new(false);
    {
        let mut next = pin!(elsewhere.run_job(&acme, "7", ("tokens", 10), endless(&started)));
        begins(next.as_mut(), &started).await;
        drop(slow);
        settled(&ledgers[0]).await;
        assert_eq!(again(&here).await, Err((Reason::JobOutcomeUnknown, true)), "the second attempt may be running");
    }
    settled(&ledgers[1]).await;
    assert_eq!(again(&here).await, Err((Reason::JobOutcomeUnknown, false)));
    assert_eq!(counts(&here, &acme).await, (10, 0));
    assert_eq!(told(&rows(&ledgers[0], "acme").await), [("7", "charge", 10), ("7", "void", -10), ("7", "charge", 10)]);
}

async fn freed_job_is_not_billed(database: Database) {
    let ledger = database.open().await;
    let (quotas, acme, started) = (quotas(&ledger, tokens(100)), acme(), AtomicBool::new(false));
    {
        let mut job = pin!(quotas.run_job(&acme, "7", ("tokens", 10), endless(&started)));
        begins(job.as_mut(), &started).await;
    }
    settled(&ledger).await;
    let billed = async || {
        let until = now() + Duration::from_secs(1_000_000_000);
        let invoice = ledger.invoice("acme", SystemTime::UNIX_EPOCH, until, |_, quantity| quantity).await.unwrap();
        invoice.lines.iter().map(|line| line.quantity).sum::<i64>()
    };
    assert_eq!(billed().await, 10, "a job of unknown outcome is");
    quotas.settle_job(&acme, "7", JobOutcome::Free).await.unwrap();
    assert_eq!(billed().await, 0);
    assert_eq!(ledger.job("acme", "7").await.unwrap().unwrap().amounts, ("tokens", 0).into());
}

/// Cut while the ledger is away, before and after its charge is merged, and in a process that was killed meanwhile.
#[tokio::test]
async fn job_cut_in_an_outage_is_unknown_in_all_its_stations() {
    let unknown = Err((Reason::JobOutcomeUnknown, false));
    let scene = Scene::new().await;
    let (spool, quotas, acme) = (scene.spool(), scene.quotas(tokens(100), OnFailure::FailOpen), acme());
    let away = scene.away().await;
    {
        let started = AtomicBool::new(false);
        let mut job = pin!(quotas.run_job(&acme, "7", ("tokens", 10), endless(&started)));
        begins(job.as_mut(), &started).await;
        assert_eq!(again(&quotas).await, Err((Reason::JobRunning, true)));
    }
    assert_eq!(again(&quotas).await, unknown);
    assert_eq!(quotas.settle_job(&acme, "7", JobOutcome::Done).await, Err(tollgate::QuotaError::Unavailable));
    quotas.run_job(&acme, "8", ("tokens", 1), async {}).await.unwrap();
    drop(away);
    Scene::merged(&spool).await;
    assert_eq!(again(&quotas).await, unknown);
    let away = scene.away().await;
    assert_eq!(again(&quotas).await, unknown, "while the ledger is away again");
    assert_eq!(quotas.run_job(&acme, "8", ("tokens", 1), async {}).await, Ok(JobRun::Replayed));
    drop(away);
    Scene::merged(&spool).await;
    assert_eq!(quotas.settle_job(&acme, "7", JobOutcome::Done).await, Ok(Some(JobState::Unknown)));
    let away = scene.away().await;
    assert_eq!(again(&quotas).await, Ok(JobRun::Replayed));
    // Killed in the middle of another one, which passes without the ledger.
    let started = &*Box::leak(Box::new(AtomicBool::new(false)));
    let owned: &'static (Quotas, Client) = Box::leak(Box::new((quotas.clone(), acme.clone())));
    let mut job = Box::pin(owned.0.run_job(&owned.1, "9", ("tokens", 10), endless(started)));
    begins(job.as_mut(), started).await;
    std::mem::forget(job);
    let killed = Directory::new();
    for file in ["quota.db", "quota.db-wal", "quota.spool"] {
        std::fs::copy(scene.directory.0.join(file), killed.0.join(file)).unwrap();
    }
    drop(away);
    let scene = Scene::in_directory(killed).await;
    let (spool, quotas) = (scene.spool(), scene.quotas(tokens(100), OnFailure::FailOpen));
    let nine = async || {
        let run = quotas.run_job(&acme, "9", ("tokens", 10), async {}).await;
        run.map_err(|refusal| (refusal.reason(), refusal.retry_after().is_some()))
    };
    assert_eq!(nine().await, unknown);
    Scene::merged(&spool).await;
    assert_eq!(nine().await, unknown);
    assert_eq!(quotas.settle_job(&acme, "9", JobOutcome::Free).await, Ok(Some(JobState::Unknown)));
    assert_eq!(nine().await, Ok(JobRun::Done(())));
}

/// The ledger has admitted the job and cannot be told of its end; this process knows it.
#[tokio::test]
async fn job_that_ends_in_an_outage_is_replayed_in_it() {
    let scene = Scene::new().await;
    let (spool, quotas, acme) = (scene.spool(), scene.quotas(tokens(100), OnFailure::FailOpen), acme());
    let (started, end) = (AtomicBool::new(false), tokio::sync::Notify::new());
    let work = async {
        started.store(true, Ordering::Relaxed);
        end.notified().await;
    };
    let mut job = pin!(quotas.run_job(&acme, "7", ("tokens", 10), work));
    begins(job.as_mut(), &started).await;
    let away = scene.away().await;
    assert_eq!(again(&quotas).await, Err((Reason::JobRunning, true)));
    end.notify_one();
    assert_eq!(job.await, Ok(JobRun::Done(())));
    assert_eq!(again(&quotas).await, Ok(JobRun::Replayed));
    drop(away);
    Scene::merged(&spool).await;
    settled(&scene.ledger).await;
    assert_eq!(again(&quotas).await, Ok(JobRun::Replayed));
    assert!(!is_unfinished(&scene.ledger).await);
}

/// A layer that fails closed, as an operator's, on the ledger of one that fails open.
#[tokio::test]
async fn job_that_passed_is_known_to_all_layers_of_its_ledger() {
    let scene = Scene::new().await;
    let [open, closed] = [OnFailure::FailOpen, OnFailure::FailClosed].map(|how| scene.quotas(tokens(100), how));
    let (spool, acme, started) = (scene.spool(), acme(), AtomicBool::new(false));
    let away = scene.away().await;
    {
        let mut job = pin!(open.run_job(&acme, "7", ("tokens", 10), endless(&started)));
        begins(job.as_mut(), &started).await;
        for away in [Some(away), None] {
            assert_eq!(again(&closed).await, Err((Reason::JobRunning, true)));
            let other = closed.run_job(&acme, "7", ("tokens", 11), async {}).await.unwrap_err();
            assert_eq!(other.reason(), Reason::JobConflict);
            drop(away);
            Scene::merged(&spool).await;
        }
        assert_eq!(closed.settle_job(&acme, "7", JobOutcome::Free).await, Ok(Some(JobState::Running)));
        assert_eq!(counts(&closed, &acme).await, (10, 0));
    }
    Scene::merged(&spool).await;
    settled(&scene.ledger).await;
    assert_eq!(again(&closed).await, Err((Reason::JobOutcomeUnknown, false)));
    assert_eq!(closed.settle_job(&acme, "7", JobOutcome::Free).await, Ok(Some(JobState::Unknown)));
    assert_eq!(again(&closed).await, Ok(JobRun::Done(())));
    assert_eq!(counts(&closed, &acme).await, (10, 0));
}
