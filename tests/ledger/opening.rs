//! A ledger that is opened with its first use, while its server is away or unusable.

use std::sync::{Arc, Mutex};

use tollgate::{Event, Reason};

use super::*;
use crate::support::{directory::Directory, postgres::Postgres};

/// Returns a handle under fail open, and the reasons for which its store was lost.
fn open(ledger: &Ledger) -> (Quotas, Arc<Mutex<Vec<String>>>) {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lost);
    let layer = QuotaLayer::new(tokens(100)).store_in(ledger, OnFailure::FailOpen).observe(move |event: &Event<'_>| {
        if let Event::StoreLost { why, .. } = event {
            told.lock().unwrap().push(why.to_string());
        }
    });
    (layer.handle(), lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lazy_ledger_starts_while_its_server_is_away_on_a_server() {
    let (directory, server) = (Directory::new(), Postgres::start(""));
    let url = server.database();
    server.stop();
    let error = Ledger::postgres(&url).open().await.unwrap_err();
    assert_eq!(error.kind(), tollgate::LedgerErrorKind::Unreachable, "{error}");
    let ledger = Ledger::postgres(&url).spool_in(directory.0.join("quota.spool")).lazy().open().await.unwrap();
    let (quotas, _) = open(&ledger);
    quotas.charge(&acme(), ("tokens", 7)).await.expect("it fails open");
    server.again("");
    until("the spool is merged", async || ledger.spool().unwrap().pending() == 0).await;
    let ledger = ledger.deadline(PATIENT);
    assert_eq!(counts(&quotas, &acme()).await, (7, 0));
    quotas.charge(&acme(), ("tokens", 100)).await.unwrap_err();
    ledger.shut_down(HUNG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lazy_ledger_over_newer_tables_passes_none_on_a_server() {
    let (directory, database) = (Directory::new(), Database::postgres());
    let Database::Postgres(url) = &database else { unreachable!() };
    drop(database.open().await);
    database.meddle("INSERT INTO quota_schema VALUES (7)").await.unwrap();
    let ledger = Ledger::postgres(url).spool_in(directory.0.join("quota.spool")).lazy();
    let ledger = ledger.open_timeout(HUNG).open().await.unwrap().deadline(PATIENT);
    let (quotas, lost) = open(&ledger);
    for _ in 0..3 {
        assert_eq!(quotas.charge(&acme(), ("tokens", 7)).await.unwrap_err().reason(), Reason::Unavailable);
    }
    assert_eq!(ledger.spool().unwrap().pending(), 0);
    let lost = lost.lock().unwrap();
    assert!(lost.len() == 1 && lost[0].contains("a newer version has migrated them"), "{lost:?}");
}
