//! The spool: its limits, its owner, and its damage.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tollgate::{Event, JobRun, LedgerErrorKind, Reason, Spool};

use super::{outage::Scene, *};

#[tokio::test]
async fn full_spool_refuses_until_it_is_merged() {
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
async fn rejected_spool_record_does_not_block_other_clients() {
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
    Scene::merged(&spool).await;
    assert_eq!(counts(&quotas, &acme()).await, (31, 0));
    assert!(!scene.told().contains(&"lost".into()), "the ledger answers all others: {:?}", scene.told());
    assert_eq!(counts(&quotas, &cursed).await, (0, 0));
}

#[tokio::test]
async fn request_cancelled_during_spool_write_is_charged_or_not() {
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
async fn second_owner_and_foreign_file_are_rejected() {
    let scene = Scene::new().await;
    let spool = scene.spool();
    let error = Spool::at(scene.spool_path()).unwrap_err();
    assert!(error.reason().contains("which another has open"), "{error}");
    let error = Ledger::sqlite_in_memory().spool(spool).open().await.unwrap_err();
    assert_eq!(error.reason(), "a spool must belong to one ledger, got two; open one for each");
    assert_eq!(error.kind(), LedgerErrorKind::Spool);

    let path = scene.directory.0.join("other.spool");
    std::fs::write(&path, "something else entirely").unwrap();
    let error = Spool::at(&path).unwrap_err();
    assert!(error.reason().contains("at byte 0, after 0 whole records, it does not begin as a spool does"), "{error}");
    let kept = scene.directory.0.join("other.spool.damaged-1");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "something else entirely");
    assert_eq!(Spool::at(&path).unwrap().pending(), 0);
}

#[tokio::test]
async fn layer_with_a_fallback_needs_a_spool() {
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
    let rows = Plan::new("rows").limit(Quota::units("rows", 100).per(MONTH));
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
    assert_eq!(scene.spool().pending(), 11, "two for each reservation and each job");
    assert_eq!(scene.told(), ["lost", "lost"], "each layer reports it");
    drop(away);
    Scene::merged(&scene.spool()).await;
    assert_eq!((counts(&tokens, &acme()).await, counts(&rows, &acme()).await), ((16, 0), (6, 0)));
}

#[tokio::test]
async fn fail_closed_layer_merges_a_former_processs_records() {
    let scene = Scene::new().await;
    let away = scene.away().await;
    scene.quotas(tokens(100), OnFailure::FailOpen).charge(&acme(), ("tokens", 7)).await.unwrap();
    scene.ledger.shut_down(Duration::ZERO).await;
    drop(away);
    let scene = Scene::in_directory(scene.close(Duration::ZERO).await).await;
    assert_eq!(scene.spool().pending(), 1);
    let quotas = scene.quotas(tokens(100), OnFailure::FailClosed);
    Scene::merged(&scene.spool()).await;
    assert_eq!(counts(&quotas, &acme()).await, (7, 0));
}

#[tokio::test]
async fn spool_is_merged_into_its_own_database_only() {
    let scene = Scene::new().await;
    let away = scene.away().await;
    scene.quotas(tokens(100), OnFailure::FailOpen).charge(&acme(), ("tokens", 7)).await.unwrap();
    scene.ledger.shut_down(Duration::ZERO).await;
    drop(away);
    let path = scene.spool_path();
    let directory = scene.close(Duration::ZERO).await;
    let error = Ledger::sqlite_in_memory().spool_in(&path).open().await.unwrap_err();
    let must = "a spool must be merged into the database it was written for";
    assert!(error.reason().starts_with(must) && error.reason().contains("1 records of ledger"), "{error}");
    let scene = Scene::in_directory(directory).await;
    let quotas = scene.quotas(tokens(100), OnFailure::FailClosed);
    Scene::merged(&scene.spool()).await;
    assert_eq!(counts(&quotas, &acme()).await, (7, 0));
    // An empty one belongs to no database.
    drop(quotas);
    let _directory = scene.close(HUNG).await;
    Ledger::sqlite_in_memory().spool_in(&path).open().await.unwrap();
}

#[tokio::test]
async fn dropped_layer_hears_nothing_of_the_spool() {
    let scene = Scene::new().await;
    let kept = scene.quotas(tokens(100), OnFailure::FailOpen);
    drop(scene.quotas(tokens(100), OnFailure::FailOpen));
    let _away = scene.away().await;
    kept.charge(&acme(), ("tokens", 1)).await.unwrap();
    assert_eq!(scene.told(), ["lost"]);
}

#[tokio::test]
async fn observer_may_build_a_layer_with_a_fallback() {
    let scene = Scene::new().await;
    let (ledger, built) = (scene.ledger.clone(), Arc::new(AtomicBool::new(false)));
    let (plan, done) = (tokens(100), Arc::clone(&built));
    let layer = QuotaLayer::new(plan.clone()).store_in(&scene.ledger, OnFailure::FailOpen);
    let layer = layer.observe(move |event: &Event<'_>| {
        if matches!(event, Event::StoreLost { .. }) {
            drop(QuotaLayer::new(plan.clone()).store_in(&ledger, OnFailure::FailOpen).handle());
            done.store(true, Ordering::Relaxed);
        }
    });
    let _away = scene.away().await;
    layer.handle().charge(&acme(), ("tokens", 1)).await.unwrap();
    assert!(built.load(Ordering::Relaxed));
}

#[tokio::test]
async fn local_shares_of_two_layers_fit_the_larger_bound() {
    let (scene, of) = (Scene::new().await, NonZeroU32::new(1).unwrap());
    let share = OnFailure::LocalShare { of };
    let many = QuotaLayer::new(tokens(100)).store_in(&scene.ledger, share).max_clients(3).handle();
    let few = QuotaLayer::new(tokens(100)).store_in(&scene.ledger, share).max_clients(1).handle();
    let _away = scene.away().await;
    for name in ["one", "two"] {
        many.charge(&Client::named(name), ("tokens", 1)).await.unwrap();
    }
    few.charge(&Client::named("three"), ("tokens", 1)).await.unwrap();
    let refusal = few.charge(&Client::named("four"), ("tokens", 1)).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Unavailable);
}

#[tokio::test]
async fn truncated_record_is_dropped_and_damage_is_set_aside() {
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
        error.reason().contains("at byte 16, after 0 whole records, a record was altered; it was renamed to"),
        "{error}"
    );
    assert_eq!(std::fs::read(path.with_extension("spool.damaged-1")).unwrap(), altered);
    assert_eq!(pending(), 0);
}
