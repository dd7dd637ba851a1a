//! While the ledger is away: what passes without it is in it afterwards, once.

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tollgate::{
    Admit, Amounts, CloseOutcome, Event, GateLayer, JobRun, Kind, MaybeFuture, PolicyName, Principal, QuotaError,
    Reason, Refusal, RequestHead, ReservationError, Spool, Verified,
};
use tower::{Layer, ServiceExt, service_fn};

use super::*;

/// Deadline of callers that cannot be answered, because the file is locked.
const BRIEF: Duration = Duration::from_millis(400);

/// A ledger in a file with a spool beside it. A test can lock all others out of the file.
pub(super) struct Scene {
    directory: Directory,
    pub(super) ledger: Ledger,
    log: Arc<Mutex<Vec<String>>>,
}

/// Removed when it is dropped.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tollgate-{:032x}", fastrand::u128(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Scene {
    pub(super) async fn in_directory(directory: Directory) -> Self {
        let (file, spool) = (directory.0.join("quota.db"), directory.0.join("quota.spool"));
        let ledger = Ledger::sqlite(file).spool_in(spool).open().await;
        Self { directory, ledger: ledger.unwrap().deadline(PATIENT), log: Arc::default() }
    }

    pub(super) async fn new() -> Self {
        Self::in_directory(Directory::new()).await
    }

    /// Ends the ledger, so that the next one can open the spool: all layers and spools must be dropped.
    pub(super) async fn close(self, patience: Duration) -> Directory {
        self.ledger.shut_down(patience).await;
        self.directory
    }

    pub(super) fn spool(&self) -> Spool {
        self.ledger.spool().unwrap().clone()
    }

    fn spool_path(&self) -> PathBuf {
        self.directory.0.join("quota.spool")
    }

    pub(super) fn quotas(&self, plan: Plan, on_failure: OnFailure) -> Quotas {
        let log = Arc::clone(&self.log);
        let layer = QuotaLayer::new(plan).store_in(&self.ledger, on_failure).observe(move |event: &Event<'_>| {
            let told = match event {
                Event::StoreLost { .. } => "lost".into(),
                Event::StoreBack { .. } => "back".into(),
                Event::SpoolFull { .. } => "full".into(),
                Event::SpoolMerged { records, duplicates, .. } => format!("merged {records}, {duplicates} before"),
                _ => return,
            };
            log.lock().unwrap().push(told);
        });
        layer.handle()
    }

    /// Locks the file against all other connections until it is dropped.
    async fn lock(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.directory.0.join("quota.db"));
        let mut connection = SqliteConnection::connect_with(&options.busy_timeout(HUNG)).await.unwrap();
        connection.execute("BEGIN EXCLUSIVE").await.unwrap();
        connection
    }

    /// Locks the file until it is dropped. Meanwhile callers do not wait for long.
    pub(super) async fn away(&self) -> Away {
        let locked = self.lock().await;
        Away { _locked: locked, ledger: self.ledger.clone().deadline(BRIEF) }
    }

    /// Waits until nothing waits for the ledger.
    pub(super) async fn merged(spool: &Spool) {
        until("the spool is merged", async || spool.pending() == 0).await;
    }

    fn told(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

/// Holds the file; callers are [`PATIENT`] again when it is dropped.
pub(super) struct Away {
    _locked: SqliteConnection,
    ledger: Ledger,
}

impl Drop for Away {
    fn drop(&mut self) {
        drop(self.ledger.clone().deadline(PATIENT));
    }
}

#[tokio::test]
async fn what_passes_without_the_ledger_is_charged_once_it_is_back_also_past_the_limit() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    quotas.charge(&acme(), ("tokens", 90)).await.unwrap();
    let away = scene.away().await;
    for _ in 0..5 {
        quotas.charge(&acme(), ("tokens", 10)).await.unwrap();
    }
    assert_eq!(spool.pending(), 5);
    quotas.check(&acme(), ("tokens", 11)).await.unwrap_err(); // it can still be read here, and says what it knows
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
    // Whether it is asked again before all is there depends on how much that is.
    let told =
        || ["lost", "back", "merged 5, 0 before"].map(|told| scene.told().iter().filter(|it| *it == told).count());
    until("all three are told once", async || told() == [1, 1, 1] && scene.told().len() == 3).await;
    let length = || std::fs::metadata(scene.spool_path()).unwrap().len();
    until("the spool is empty", async || length() == 16).await;
    assert_eq!(scene.ledger.reconcile().await.unwrap().drifts.len(), 0);
}

#[tokio::test]
async fn job_that_passed_is_a_duplicate_also_after_a_restart() {
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
    assert_eq!(scene.spool().pending(), 1);
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    Scene::merged(&scene.spool()).await;
    assert_eq!(counts(&quotas, &acme()).await, (60, 0));
    let run = quotas.run_job(&acme(), "order 17", ("tokens", 60), async {}).await.unwrap();
    assert_eq!(run, JobRun::Replayed);
}

#[tokio::test]
async fn a_reservation_that_passed_is_settled_with_what_was_used() {
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
    assert_eq!(quotas.commit(&named, ("tokens", 2)).await, Ok(CloseOutcome::AlreadyClosed));
    assert_eq!(counts(&quotas, &acme()).await, (127, 0));
}

#[tokio::test]
async fn a_request_that_passed_pays_for_the_bytes_of_its_answer_and_one_that_was_not_served_for_nothing() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let plan = Plan::new("paid").limit(Quota::bytes(1_000).per(Period::month()));
    let layer = QuotaLayer::new(plan.limit(Quota::requests(10).per(Period::month())))
        .identify_by(Verified::from_extension(|name: &&'static str| Some(Principal::named(*name))).named_only());
    let layer = layer.store_in(&scene.ledger, OnFailure::FailOpen);
    let away = scene.away().await;
    let served = layer.layer(service_fn(async |_: Request<String>| Ok::<_, ()>(Response::new("x".repeat(5_000)))));
    let answer = served.oneshot(request()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 5_000);
    let refuses =
        GateLayer::of(Nobody).layer(service_fn(async |_: Request<String>| Ok::<_, ()>(Response::new(String::new()))));
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

/// Refuses everybody, further in.
struct Nobody;

impl Admit for Nobody {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<(), Refusal>> {
        MaybeFuture::Ready(Err(Refusal::new(Reason::Capacity, PolicyName::try_new("nobody").unwrap())))
    }
}

#[tokio::test]
async fn a_process_passes_its_share_of_what_was_left_and_no_more() {
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
        // Of somebody whom nobody knows, half of all there is.
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
async fn a_full_spool_refuses_and_takes_again_when_it_is_empty() {
    let scene = Scene::new().await;
    let spool = scene.spool().at_most(1_000);
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    let away = scene.away().await;
    let mut passed = 0;
    for _ in 0..20 {
        match quotas.charge(&acme(), ("tokens", 1)).await {
            Ok(()) => passed += 1,
            Err(refusal) => assert_eq!(refusal.reason(), Reason::Unavailable),
        }
    }
    assert!((1..20).contains(&passed), "{passed}");
    assert_eq!(scene.told(), ["lost", "full"]);
    drop(away);
    Scene::merged(&spool).await;
    quotas.charge(&acme(), ("tokens", 10)).await.unwrap();
    assert_eq!(counts(&quotas, &acme()).await, (10 + passed, 0));
}

#[tokio::test]
async fn what_the_ledger_refuses_of_one_client_keeps_nobody_else_out() {
    let scene = Scene::new().await;
    let (spool, cursed) = (scene.spool(), Client::named("cursed"));
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    let options = SqliteConnectOptions::new().filename(scene.directory.0.join("quota.db"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let curse = "CREATE TRIGGER curse BEFORE INSERT ON quota_consumption WHEN NEW.tenant_id = 'cursed'
        BEGIN SELECT raise(ABORT, 'not this one'); END";
    database.execute(curse).await.unwrap();
    quotas.charge(&cursed, ("tokens", 5)).await.unwrap();
    for _ in 0..3 {
        quotas.charge(&acme(), ("tokens", 10)).await.unwrap();
    }
    until("one is kept", async || spool.pending() == 1).await;
    assert_eq!(counts(&quotas, &acme()).await, (31, 0));
    assert!(!scene.told().contains(&"lost".into()), "the ledger answers all others: {:?}", scene.told());
    database.execute("DROP TRIGGER curse").await.unwrap();
    Scene::merged(&spool).await;
    assert_eq!(counts(&quotas, &cursed).await, (5, 0));
}

#[tokio::test]
async fn requests_at_a_time_are_held_without_the_ledger_too() {
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

#[tokio::test]
async fn a_request_that_goes_away_while_it_waits_for_the_disk_is_not_charged() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    let away = scene.away().await;
    quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    for polls in 1..4 {
        let acme = acme();
        let mut job = Box::pin(quotas.run_job(&acme, "order 17", ("tokens", 10), async {}));
        for _ in 0..polls {
            if futures_util::poll!(job.as_mut()).is_ready() {
                break;
            }
        }
    }
    drop(away);
    Scene::merged(&spool).await;
    let used = counts(&quotas, &acme()).await.0;
    assert!(used == 1 || used == 11, "{used}");
    let run = quotas.run_job(&acme(), "order 17", ("tokens", 10), async {}).await.unwrap();
    assert_eq!(run == JobRun::Replayed, used == 11);
}

#[tokio::test]
async fn a_spool_belongs_to_one_process_and_one_ledger_and_says_what_is_wrong() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let error = Spool::at(scene.spool_path()).unwrap_err();
    assert!(error.reason().contains("which another has open"), "{error}");
    let error = Ledger::sqlite_in_memory().spool(spool).open().await.unwrap_err();
    assert_eq!(error.reason(), "a spool must belong to one ledger, got two");

    let path = scene.directory.0.join("other.spool");
    std::fs::write(&path, "something else entirely").unwrap();
    let error = Spool::at(&path).unwrap_err();
    assert!(error.reason().contains("at byte 0, after 0 whole records, it does not begin as a spool does"), "{error}");
    let kept = scene.directory.0.join("other.spool.damaged-1");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "something else entirely");
    assert_eq!(Spool::at(&path).unwrap().pending(), 0);
}

#[tokio::test]
async fn layer_that_falls_back_needs_a_spool() {
    let ledger = Ledger::sqlite_in_memory().open().await.unwrap();
    let of = NonZeroU32::new(3).unwrap();
    for (on_failure, name) in
        [(OnFailure::FailOpen, "FailOpen"), (OnFailure::LocalShare { of }, "LocalShare { of: 3 }")]
    {
        let layer = QuotaLayer::new(tokens(1)).store_in(&ledger, on_failure);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| layer.handle())).err().unwrap();
        let must = "must have a spool (open it with `.spool_in(path)`), got none";
        assert_eq!(*panic.downcast::<String>().unwrap(), format!("ledger under `OnFailure::{name}` {must}"));
    }
    let _fits = quotas(&ledger, tokens(1));
}

#[tokio::test]
async fn layers_of_one_ledger_share_its_spool() {
    let scene = Scene::new().await;
    let rows = Plan::new("rows").limit(Quota::units("rows", 100).per(Period::month()));
    let (tokens, rows) = (scene.quotas(tokens(100), OnFailure::FailOpen), scene.quotas(rows, OnFailure::FailOpen));
    let closed = quotas(&scene.ledger, Plan::new("closed").limit(Quota::units("jobs", 9).per(Period::month())));
    let away = scene.away().await;
    for amount in 1..=3 {
        tokens.charge(&acme(), ("tokens", amount)).await.unwrap();
        rows.reserve(&acme(), ("rows", 9)).await.unwrap().commit(("rows", amount));
    }
    let run = tokens.run_job(&acme(), "order 17", ("tokens", 10), async {}).await.unwrap();
    assert_eq!(run, JobRun::Done(()));
    let run = rows.run_job(&acme(), "order 17", ("rows", 10), async {}).await;
    assert_eq!(run.unwrap_err().reason(), Reason::JobConflict, "a ledger has one job of an id, whose layer it may be");
    assert_eq!(closed.charge(&acme(), ("jobs", 1)).await.unwrap_err().reason(), Reason::Unavailable);
    assert_eq!(scene.spool().pending(), 10);
    assert_eq!(scene.told(), ["lost", "lost"], "each layer reports it");
    drop(away);
    Scene::merged(&scene.spool()).await;
    assert_eq!((counts(&tokens, &acme()).await, counts(&rows, &acme()).await), ((16, 0), (6, 0)));
}

#[tokio::test]
async fn a_record_that_was_cut_short_is_let_go_and_damage_is_kept_aside() {
    let scene = Scene::new().await;
    let away = scene.away().await;
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    for _ in 0..3 {
        quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    }
    scene.ledger.shut_down(Duration::ZERO).await;
    let path = scene.spool_path();
    drop((quotas, away));
    let _directory = scene.close(Duration::ZERO).await;
    let pending = || Spool::at(&path).unwrap().pending();
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(pending(), 3);
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    assert_eq!(pending(), 2);
    assert_eq!(std::fs::read(&path).unwrap(), whole[..16 + (whole.len() - 16) / 3 * 2]);
    let mut altered = whole;
    altered[50] ^= 4;
    std::fs::write(&path, &altered).unwrap();
    let error = Spool::at(&path).unwrap_err();
    assert!(
        error.reason().contains("at byte 16, after 0 whole records, a record was altered; it is kept as"),
        "{error}"
    );
    assert_eq!(std::fs::read(path.with_extension("spool.damaged-1")).unwrap(), altered);
    assert_eq!(pending(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_are_charged_once_each_however_often_the_ledger_goes_away() {
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
    let mut charged: Vec<_> = rows.iter().filter(|row| row.entry == "charge").map(|row| row.job.clone()).collect();
    charged.sort();
    assert_eq!(charged, ran, "each once, and nothing else");
    assert_eq!(counts(&quotas, &acme()).await, (ran.len() as u64, 0));
    assert!(ran.len() > 10, "past the limit");
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_without_a_server_is_charged_once_it_is_back_on_a_server() {
    let url = crate::support::postgres::Postgres::shared().database();
    let path = std::env::temp_dir().join(format!("tollgate-{:032x}.spool", fastrand::u128(..)));
    let ledger = Ledger::postgres(&url).spool_in(&path).open().await.unwrap().deadline(BRIEF);
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
