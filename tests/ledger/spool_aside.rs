//! Records of the spool that the database rejects for good: they are set aside and reported, and keep up no others.

use std::{path::PathBuf, sync::Mutex};

use tollgate::Event;

use super::{
    outage::BRIEF,
    rejected::{reject_commits_of, reject_rows_of},
};
use crate::{support::directory::Directory, *};

on_each_database! {
    rejected_record_is_set_aside_and_reported
    settlement_of_a_charge_set_aside_follows_it
    settlement_follows_its_charge_in_the_same_round
    many_rejected_records_do_not_keep_the_layer_in_fallback
    rejected_commit_of_the_spool_ends_its_reservation
}

/// A ledger that rejects the rows of `mallory`, with a layer that fails open.
struct Scene {
    directory: Directory,
    ledger: Ledger,
    quotas: Quotas,
    told: std::sync::Arc<Mutex<Vec<String>>>,
}

impl Scene {
    async fn new(database: &Database) -> Self {
        let directory = Directory::new();
        let ledger = database.with_spool(&directory.0.join("quota.spool"), false).await.unwrap();
        reject_rows_of(database, "mallory").await;
        let told = std::sync::Arc::<Mutex<Vec<String>>>::default();
        let tells = std::sync::Arc::clone(&told);
        let layer = QuotaLayer::new(tokens(10_000)).store_in(&ledger, OnFailure::FailOpen);
        let layer = layer.observe(move |event: &Event<'_>| {
            let words = match event {
                Event::StoreRejected { client, why, .. } => format!("{}: {why}", client.name().unwrap()),
                Event::StoreBack { .. } => "back".into(),
                _ => return,
            };
            tells.lock().unwrap().push(words);
        });
        Self { directory, ledger, quotas: layer.handle(), told }
    }

    async fn merged(&self) {
        until("no record is pending", async || self.ledger.spool().unwrap().pending() == 0).await;
    }

    /// Returns the lines of the file of records that were set aside.
    fn aside(&self) -> Vec<serde_json::Value> {
        let path: PathBuf = self.directory.0.join("quota.spool.aside");
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

fn mallory() -> Client {
    Client::named("mallory")
}

async fn rejected_record_is_set_aside_and_reported(database: Database) {
    let scene = Scene::new(&database).await;
    scene.quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    scene.quotas.charge(&mallory(), ("tokens", 5)).await.expect("it fails open");
    scene.merged().await;
    let [line] = &scene.aside()[..] else { panic!("{:?}", scene.aside()) };
    assert_eq!((line["tenant"].as_str(), &line["amounts"]["tokens"]), (Some("mallory"), &5.into()));
    assert!(line["why"].as_str().unwrap().contains("the books of mallory are closed"), "{line}");
    // The caller of the charge was told first; then the end of its record.
    let told = scene.told();
    let moved: Vec<_> = told.iter().filter(|words| words.contains("was moved to")).collect();
    assert!(moved.len() == 1 && moved[0].contains("quota.spool.aside") && moved[0].contains("are closed"), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    scene.quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    assert_eq!(counts(&scene.quotas, &acme()).await, (2, 0));
}

async fn settlement_of_a_charge_set_aside_follows_it(database: Database) {
    let scene = Scene::new(&database).await;
    let held = scene.quotas.reserve(&mallory(), ("tokens", 10)).await.expect("it fails open");
    scene.merged().await;
    held.commit(("tokens", 4));
    scene.merged().await;
    let [charge, commit] = &scene.aside()[..] else { panic!("{:?}", scene.aside()) };
    assert_eq!((&commit["of"], commit["entry"].as_str()), (&charge["id"], Some("commit")));
    assert_eq!((&charge["amounts"]["tokens"], &commit["amounts"]["tokens"]), (&10.into(), &4.into()));
}

async fn settlement_follows_its_charge_in_the_same_round(database: Database) {
    let scene = Scene::new(&database).await;
    let away = database.away_from_writer(&scene.quotas).await;
    let ledger = scene.ledger.clone().deadline(BRIEF);
    let held = scene.quotas.reserve(&mallory(), ("tokens", 10)).await.expect("it fails open");
    held.commit(("tokens", 14));
    assert_eq!(scene.ledger.spool().unwrap().pending(), 2);
    drop(away);
    drop(ledger.deadline(PATIENT));
    scene.merged().await;
    let [charge, commit] = &scene.aside()[..] else { panic!("{:?}", scene.aside()) };
    assert_eq!((&commit["of"], &commit["amounts"]["tokens"]), (&charge["id"], &14.into()));
}

async fn many_rejected_records_do_not_keep_the_layer_in_fallback(database: Database) {
    let scene = Scene::new(&database).await;
    let away = database.away_from_writer(&scene.quotas).await;
    let ledger = scene.ledger.clone().deadline(BRIEF);
    for _ in 0..600 {
        scene.quotas.charge(&mallory(), ("tokens", 1)).await.expect("it fails open");
    }
    scene.quotas.charge(&acme(), ("tokens", 7)).await.unwrap();
    drop(away);
    drop(ledger.deadline(PATIENT));
    scene.merged().await;
    until("the ledger decides again", async || scene.told().contains(&"back".into())).await;
    assert_eq!(scene.aside().len(), 600);
    assert_eq!((counts(&scene.quotas, &acme()).await, counts(&scene.quotas, &mallory()).await), ((7, 0), (0, 0)));
}

/// The charge was merged, and the reservation would be open for 15 minutes more.
async fn rejected_commit_of_the_spool_ends_its_reservation(database: Database) {
    let scene = Scene::new(&database).await;
    reject_commits_of(&database, "acme").await;
    scene.quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    let away = database.away_from_writer(&scene.quotas).await;
    let ledger = scene.ledger.clone().deadline(BRIEF);
    let held = scene.quotas.reserve(&acme(), ("tokens", 10)).await.expect("it fails open");
    held.commit(("tokens", 4));
    drop(away);
    drop(ledger.deadline(PATIENT));
    scene.merged().await;
    let [commit] = &scene.aside()[..] else { panic!("{:?}", scene.aside()) };
    assert_eq!((commit["entry"].as_str(), &commit["amounts"]["tokens"]), (Some("commit"), &4.into()));
    let told = scene.told();
    let ends = |words: &&String| words.starts_with("acme: ") && words.contains("ends at once as if it had expired");
    assert_eq!(told.iter().filter(ends).count(), 1, "{told:?}");
    until("the reservation has ended", async || counts(&scene.quotas, &acme()).await.1 == 0).await;
    assert_eq!(counts(&scene.quotas, &acme()).await, (11, 0), "charged as estimated");
    assert_eq!(scene.ledger.reconcile().await.unwrap().drifts, []);
}
