//! The ledger of a spool: its records are merged into no other, whichever process wrote them and whatever was away.

use std::{
    error::Error as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tollgate::{Event, LedgerError, LedgerErrorKind, Reason, SpoolError, SpoolErrorKind};

use super::outage::BRIEF;
use crate::{support::directory::Directory, *};

on_each_database! {
    unnamed_records_are_bound_before_they_are_merged
    unnamed_records_are_bound_by_a_lazy_ledger
    lazy_ledger_refuses_records_of_another
    records_added_while_away_are_of_the_spools_ledger
    empty_spool_belongs_to_the_next_ledger
}

/// A connection that keeps all others from the tables of a ledger, until it is dropped.
pub(super) enum Away {
    Sqlite(#[allow(dead_code, reason = "held")] sqlx::SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(#[allow(dead_code, reason = "held")] sqlx::PgConnection),
}

impl Database {
    async fn away(&self) -> Away {
        use sqlx::{Connection, Executor};
        match self {
            Self::Sqlite(file) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).busy_timeout(HUNG);
                let mut held = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                held.execute("BEGIN EXCLUSIVE").await.unwrap();
                Away::Sqlite(held)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => {
                let mut held = sqlx::PgConnection::connect(url).await.unwrap();
                held.execute("BEGIN; LOCK TABLE quota_schema IN ACCESS EXCLUSIVE MODE").await.unwrap();
                Away::Postgres(held)
            }
        }
    }

    /// Opens the ledger with a spool; one that is lazy has not reached its database yet.
    pub(super) async fn with_spool(&self, spool: &Path, lazy: bool) -> Result<Ledger, LedgerError> {
        let builder = match self {
            Self::Sqlite(file) => Ledger::sqlite(file),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => Ledger::postgres(url),
        };
        let builder = builder.spool_in(spool).open_timeout(HUNG);
        let builder = if lazy { builder.lazy() } else { builder };
        Ok(builder.open().await?.deadline(PATIENT))
    }

    /// Returns what `acme` has used.
    async fn used(&self) -> u64 {
        counts(&quotas(&self.open().await, tokens(100)), &acme()).await.0
    }

    /// Writes a charge of `amount` to the spool with the database away, and ends the process.
    async fn spools(&self, spool: &Path, lazy: bool, amount: u64) {
        drop(self.open().await); // makes the tables
        let away = if lazy { Some(self.away().await) } else { None };
        let ledger = self.with_spool(spool, lazy).await.unwrap();
        let (quotas, _) = fail_open(&ledger);
        let away = match away {
            Some(away) => away,
            None => self.away_from_writer(&quotas).await,
        };
        let ledger = ledger.deadline(BRIEF);
        quotas.charge(&acme(), ("tokens", amount)).await.expect("it fails open");
        drop(quotas);
        end(ledger).await;
        drop(away);
    }

    /// Keeps a writer that is connected from its tables.
    pub(super) async fn away_from_writer(&self, quotas: &Quotas) -> Away {
        quotas.charge(&Client::named("first"), ("tokens", 1)).await.unwrap();
        match self {
            Self::Sqlite(_) => self.away().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => {
                use sqlx::{Connection, Executor};
                let mut held = sqlx::PgConnection::connect(url).await.unwrap();
                held.execute("BEGIN; LOCK TABLE quota_account IN ACCESS EXCLUSIVE MODE").await.unwrap();
                Away::Postgres(held)
            }
        }
    }
}

/// Ends the ledger before it can merge anything. All its layers must be dropped.
async fn end(ledger: Ledger) {
    ledger.shut_down(Duration::ZERO).await;
}

/// Returns a handle under fail open, and the reasons for which its store was lost.
fn fail_open(ledger: &Ledger) -> (Quotas, Arc<Mutex<Vec<String>>>) {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lost);
    let layer = QuotaLayer::new(tokens(100)).store_in(ledger, OnFailure::FailOpen).observe(move |event: &Event<'_>| {
        if let Event::StoreLost { why, .. } = event {
            told.lock().unwrap().push(why.to_string());
        }
    });
    (layer.handle(), lost)
}

/// Merges the spool into its own ledger.
async fn merge(ledger: &Ledger) {
    let _layer = quotas(ledger, tokens(100));
    until("the spool is merged", async || ledger.spool().unwrap().pending() == 0).await;
}

/// Asserts that an error names the file, both ledgers and the way out.
fn is_of_another(error: &LedgerError, path: &Path) {
    assert_eq!(error.kind(), LedgerErrorKind::Spool);
    let source = error.source().and_then(|source| source.downcast_ref::<SpoolError>()).unwrap();
    assert_eq!(source.kind(), SpoolErrorKind::OtherLedger);
    for part in [&*path.display().to_string(), "records of ledger", "nothing was merged", "move the file away"] {
        assert!(error.reason().contains(part), "{part}: {error}");
    }
}

/// The process that binds the records ends before it merges any.
async fn unnamed_records_are_bound_before_they_are_merged(database: Database) {
    let (directory, other) = (Directory::new(), database.another());
    let path = directory.0.join("quota.spool");
    database.spools(&path, true, 7).await;
    let length = || std::fs::metadata(&path).unwrap().len();
    let unnamed = length();
    let ledger = database.with_spool(&path, false).await.unwrap();
    until("the name is in the file", async || length() > unnamed).await;
    end(ledger).await;
    is_of_another(&other.with_spool(&path, false).await.unwrap_err(), &path);
    let lazy = other.with_spool(&path, true).await.unwrap();
    assert_eq!((lazy.failed_check(), lazy.spool().unwrap().pending()), (None, 1));
    let (quotas, _) = fail_open(&lazy);
    assert_eq!(quotas.charge(&acme(), ("tokens", 1)).await.unwrap_err().reason(), Reason::Unavailable);
    is_of_another(&lazy.failed_check().unwrap(), &path);
    drop(quotas);
    end(lazy).await;
    let ledger = database.with_spool(&path, false).await.unwrap();
    merge(&ledger).await;
    assert_eq!((database.used().await, other.used().await), (7, 0));
}

async fn unnamed_records_are_bound_by_a_lazy_ledger(database: Database) {
    let directory = Directory::new();
    let path = directory.0.join("quota.spool");
    database.spools(&path, true, 7).await;
    let ledger = database.with_spool(&path, true).await.unwrap();
    merge(&ledger).await;
    assert_eq!(database.used().await, 7);
    assert_eq!(ledger.failed_check(), None);
}

async fn lazy_ledger_refuses_records_of_another(database: Database) {
    let (directory, other) = (Directory::new(), database.another());
    let path = directory.0.join("quota.spool");
    database.spools(&path, false, 7).await;
    let ledger = other.with_spool(&path, true).await.unwrap();
    let (quotas, lost) = fail_open(&ledger);
    let closed = crate::quotas(&ledger, tokens(100));
    for _ in 0..3 {
        assert_eq!(quotas.charge(&acme(), ("tokens", 1)).await.unwrap_err().reason(), Reason::Unavailable);
        assert_eq!(closed.charge(&acme(), ("tokens", 1)).await.unwrap_err().reason(), Reason::Unavailable);
    }
    is_of_another(&ledger.failed_check().unwrap(), &path);
    let lost = lost.lock().unwrap().clone();
    assert!(lost.len() == 1 && lost[0] == ledger.failed_check().unwrap().reason(), "{lost:?}");
    assert_eq!(ledger.spool().unwrap().pending(), 1);
    drop((quotas, closed));
    end(ledger).await;
    assert_eq!(other.used().await, 0);
    merge(&database.with_spool(&path, true).await.unwrap()).await;
    assert_eq!(database.used().await, 7);
}

/// The other ledger is away too when a process starts with it.
async fn records_added_while_away_are_of_the_spools_ledger(database: Database) {
    let (directory, other) = (Directory::new(), database.another());
    let path = directory.0.join("quota.spool");
    database.spools(&path, false, 7).await;
    other.spools(&path, true, 20).await;
    let ledger = other.with_spool(&path, true).await.unwrap();
    let (quotas, lost) = fail_open(&ledger);
    until("the other ledger is refused", async || ledger.failed_check().is_some()).await;
    assert_eq!(quotas.charge(&acme(), ("tokens", 1)).await.unwrap_err().reason(), Reason::Unavailable);
    assert!(lost.lock().unwrap()[0].contains("with 2 records of ledger"), "{lost:?}");
    assert_eq!(ledger.spool().unwrap().pending(), 2);
    drop(quotas);
    end(ledger).await;
    merge(&database.with_spool(&path, false).await.unwrap()).await;
    assert_eq!((database.used().await, other.used().await), (27, 0));
}

async fn empty_spool_belongs_to_the_next_ledger(database: Database) {
    let (directory, other) = (Directory::new(), database.another());
    let path = directory.0.join("quota.spool");
    database.spools(&path, true, 7).await;
    let ledger = database.with_spool(&path, true).await.unwrap();
    merge(&ledger).await;
    ledger.shut_down(HUNG).await;
    drop(ledger);
    other.spools(&path, true, 20).await;
    merge(&other.with_spool(&path, true).await.unwrap()).await;
    assert_eq!((database.used().await, other.used().await), (7, 20));
}
