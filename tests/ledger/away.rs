//! Outages of the ledger: each charge that the spool admits is merged once.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use tollgate::{
    Admit, Amounts, CloseOutcome, GateLayer, JobRun, Kind, MaybeFuture, PolicyName, Principal, QuotaError, Reason,
    Refusal, RequestHead, ReservationError, Verified,
};
use tower::{Layer, ServiceExt, service_fn};

use super::{outage::Scene, *};
use crate::support::directory::Directory;

#[tokio::test]
async fn spooled_charges_merge_once_and_past_the_limit() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    quotas.charge(&acme(), ("tokens", 90)).await.unwrap();
    let away = scene.away().await;
    for _ in 0..5 {
        quotas.charge(&acme(), ("tokens", 10)).await.unwrap();
    }
    assert_eq!(spool.pending(), 5);
    drop(scene.ledger.clone().deadline(PATIENT)); // the read is answered, however slowly
    quotas.check(&acme(), ("tokens", 11)).await.unwrap_err(); // reads still work during the outage
    assert_eq!(quotas.record(&acme(), ("tokens", 1)).await, Err(QuotaError::Unavailable));
    assert_eq!(scene.told(), ["lost"]);
    drop(away);
    Scene::merged(&spool).await;
    assert_eq!(counts(&quotas, &acme()).await, (140, 0));
    assert_eq!(quotas.charge(&acme(), ("tokens", 1)).await.unwrap_err().reason(), Reason::RateLimited);
    let entries = rows(&scene.ledger, "acme").await;
    assert_eq!(entries.iter().filter(|entry| entry.passed_at.is_some() && entry.amount == 10).count(), 5);
    assert_eq!(entries.iter().filter(|entry| entry.passed_at.is_none() && entry.amount == 90).count(), 1);
    assert!(entries[1].to_string().contains(r#""passed_at":"2"#), "{}", entries[1]);
    // The number of records decides whether the ledger is called again before all are merged.
    let told =
        || ["lost", "back", "merged 5, 0 before"].map(|told| scene.told().iter().filter(|it| *it == told).count());
    until("all three are told once", async || told() == [1, 1, 1] && scene.told().len() == 3).await;
    let length = || std::fs::metadata(scene.spool_path()).unwrap().len();
    until("the spool is empty", async || length() == 16).await;
    assert_eq!(scene.ledger.reconcile().await.unwrap().drifts.len(), 0);
}

#[tokio::test]
async fn spooled_job_is_a_duplicate_during_outage_and_restart() {
    let (mut directory, mut ran) = (Directory::new(), 0);
    for _ in 0..2 {
        let scene = Scene::in_directory(directory).await;
        let away = scene.away().await;
        let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
        let acme = acme();
        let many = (0..20).map(|_| quotas.run_job(&acme, "order 17", ("tokens", 60), async {}));
        let done = futures_util::future::join_all(many).await;
        ran += done.iter().filter(|run| matches!(run, Ok(JobRun::Done(())))).count();
        assert_eq!(ran, 1, "{done:?}");
        let conflict = quotas.run_job(&acme, "order 17", ("tokens", 61), async {}).await.unwrap_err();
        assert_eq!(conflict.reason(), Reason::JobConflict);
        drop(quotas);
        scene.ledger.shut_down(Duration::ZERO).await; // before the file is free: nothing is merged
        drop(away);
        directory = scene.close(Duration::ZERO).await;
    }
    let scene = Scene::in_directory(directory).await;
    assert_eq!(scene.spool().pending(), 2, "the charge of the job and its end");
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    Scene::merged(&scene.spool()).await;
    assert_eq!(counts(&quotas, &acme()).await, (60, 0));
    let run = quotas.run_job(&acme(), "order 17", ("tokens", 60), async {}).await.unwrap();
    assert_eq!(run, JobRun::Replayed);
}

#[tokio::test]
async fn spooled_reservation_settles_with_actual_amounts() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    let away = scene.away().await;
    quotas.reserve(&acme(), ("tokens", 80)).await.unwrap().commit(("tokens", 30));
    quotas.reserve(&acme(), ("tokens", 80)).await.unwrap().commit(("tokens", 90));
    drop(quotas.reserve(&acme(), ("tokens", 70)).await.unwrap());
    let open = quotas.reserve(&acme(), ("tokens", 7)).await.unwrap();
    let named = quotas.reserve(&acme(), ("tokens", 8)).await.unwrap().detach();
    assert_eq!(quotas.commit(&named, Amounts::new()).await, Err(ReservationError::Unavailable));
    drop(away);
    Scene::merged(&spool).await;
    assert_eq!(counts(&quotas, &acme()).await, (120, 15));
    open.commit(("tokens", 5));
    let named = named.to_string().parse().unwrap();
    Scene::merged(&spool).await;
    assert_eq!(quotas.commit(&named, ("tokens", 2)).await, Ok(CloseOutcome::Closed));
    let again = CloseOutcome::AlreadyClosed { charged: ("tokens", 2).into() };
    assert_eq!(quotas.commit(&named, ("tokens", 3)).await, Ok(again));
    assert_eq!(counts(&quotas, &acme()).await, (127, 0));
}

#[tokio::test]
async fn spooled_request_pays_body_bytes_unless_refused_inside() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let plan = Plan::new("paid").limit(Quota::bytes(1_000).per(MONTH));
    let layer = QuotaLayer::new(plan.limit(Quota::requests(10).per(MONTH)))
        .identify_by(Verified::from_extension(|name: &&'static str| Some(Principal::named(*name))).named_only());
    let layer = layer.store_in(&scene.ledger, OnFailure::FailOpen);
    let away = scene.away().await;
    let served = layer.layer(service_fn(async |_: Request<String>| Ok::<_, ()>(Response::new("x".repeat(5_000)))));
    let answer = served.oneshot(request()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 5_000);
    let refuses = GateLayer::new(RefuseAll)
        .layer(service_fn(async |_: Request<String>| Ok::<_, ()>(Response::new(String::new()))));
    let answer = layer.layer(refuses).oneshot(request()).await.unwrap();
    assert_eq!(answer.status(), 503);
    drop(away);
    Scene::merged(&spool).await;
    let usage = layer.handle().usage(&acme()).await.unwrap();
    assert_eq!((usage.limits[0].used, usage.limits[1].used), (5_000, 1));
}

fn request() -> Request<String> {
    Request::get("/").extension("acme").body(String::new()).unwrap()
}

/// Refuses each request, as an inner layer.
struct RefuseAll;

impl Admit for RefuseAll {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
        MaybeFuture::Ready(Err(Refusal::new(Reason::Capacity, PolicyName::try_new("refuse all").unwrap())))
    }
}

#[tokio::test]
async fn local_share_admits_its_part_of_what_remained() {
    let scene = Scene::new().await;
    let (of, spool) = (NonZeroU32::new(2).unwrap(), scene.spool());
    let quotas = scene.quotas(tokens(100), OnFailure::LocalShare { of });
    quotas.charge(&acme(), ("tokens", 40)).await.unwrap();
    for (round, outage) in [30, 15].into_iter().enumerate() {
        let away = scene.away().await;
        for _ in 0..outage {
            quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
        }
        let refusal = quotas.charge(&acme(), ("tokens", 1)).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::RateLimited);
        assert_eq!((refusal.violations()[0].limit, refusal.violations()[0].current), (outage, outage));
        // A client without a known remainder gets half of the whole limit.
        let refusal = quotas.charge(&Client::named(format!("{outage}")), ("tokens", 51)).await.unwrap_err();
        assert_eq!(refusal.violations()[0].limit, 50);
        drop(away);
        Scene::merged(&spool).await;
        let back = || scene.told().iter().filter(|told| *told == "back").count();
        until("the ledger is back", async || back() == round + 1).await;
        quotas.charge(&acme(), ("tokens", 0)).await.unwrap();
    }
    assert_eq!(counts(&quotas, &acme()).await, (85, 0));
}

#[tokio::test]
async fn concurrency_is_limited_during_an_outage() {
    let scene = Scene::new().await;
    let quotas = scene.quotas(tokens(10).limit(Quota::concurrent(1)), OnFailure::FailOpen);
    let _away = scene.away().await;
    let (acme, inner) = (acme(), quotas.clone());
    let work = async {
        let refusal = inner.run(&acme, ("tokens", 1), async {}).await.unwrap_err();
        assert_eq!(refusal.violations()[0].kind, Kind::Concurrent);
    };
    quotas.run(&acme, ("tokens", 1), work).await.unwrap();
    quotas.run(&acme, ("tokens", 1), async {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn repeated_outages_charge_each_job_once() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let ledger = scene.ledger.clone().deadline(Duration::from_millis(20));
    let quotas = QuotaLayer::new(tokens(10)).store_in(&ledger, OnFailure::FailOpen).handle();
    let jobs = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let (quotas, jobs) = (quotas.clone(), Arc::clone(&jobs));
            tokio::spawn(async move {
                for round in 0..20 {
                    let id = format!("{} of {round}", task / 2); // two at once for each
                    let ran = quotas.run_job(&acme(), &id, ("tokens", 1), async {}).await;
                    if ran == Ok(JobRun::Done(())) {
                        jobs.lock().unwrap().push(id);
                    }
                    tokio::time::sleep(Duration::from_millis(7)).await;
                }
            })
        })
        .collect();
    while !tasks.iter().all(|task| task.is_finished()) {
        let away = scene.lock().await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        drop(away);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Scene::merged(&spool).await;
    let ledger = ledger.deadline(PATIENT);
    let mut ran = jobs.lock().unwrap().clone();
    ran.sort();
    let rows = rows(&ledger, "acme").await;
    let mut charged: Vec<_> =
        rows.iter().filter(|row| row.entry == EntryKind::Charge).map(|row| row.job.clone()).collect();
    charged.sort();
    assert_eq!(charged, ran, "each once, and nothing else");
    assert_eq!(counts(&quotas, &acme()).await, (ran.len() as u64, 0));
    assert!(ran.len() > 10, "past the limit");
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spooled_charges_merge_once_on_a_server() {
    use sqlx::{Connection as _, Executor as _};
    let url = support::postgres::Postgres::shared().database();
    let path = std::env::temp_dir().join(format!("tollgate-{:032x}.spool", fastrand::u128(..)));
    let ledger = Ledger::postgres(&url).spool_in(&path).open().await.unwrap().deadline(outage::BRIEF);
    let spool = ledger.spool().unwrap().clone();
    let quotas = QuotaLayer::new(tokens(100)).store_in(&ledger, OnFailure::FailOpen).handle();
    let mut away = sqlx::PgConnection::connect(&url).await.unwrap();
    away.execute("BEGIN; LOCK TABLE quota_account IN ACCESS EXCLUSIVE MODE").await.unwrap();
    for job in ["one", "two"] {
        let run = quotas.run_job(&acme(), job, ("tokens", 60), async {}).await;
        assert_eq!(run, Ok(JobRun::Done(())));
        assert_eq!(quotas.run_job(&acme(), job, ("tokens", 60), async {}).await, Ok(JobRun::Replayed));
    }
    quotas.reserve(&acme(), ("tokens", 9)).await.unwrap().commit(("tokens", 4));
    drop(away);
    let ledger = ledger.deadline(PATIENT);
    Scene::merged(&spool).await;
    assert_eq!(counts(&quotas, &acme()).await, (124, 0));
    let rows = rows(&ledger, "acme").await;
    assert_eq!(rows.iter().filter(|row| row.passed_at.is_some()).count(), 3, "{rows:?}");
    std::fs::remove_file(path).unwrap();
}
