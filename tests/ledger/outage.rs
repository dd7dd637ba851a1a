//! A ledger in a file that a test can lock, with a spool beside it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tollgate::{Event, Spool};

use super::*;
use crate::support::directory::Directory;

/// Deadline of callers that cannot be answered, because the file is locked.
pub(super) const BRIEF: Duration = Duration::from_millis(400);

/// A ledger in a file with a spool beside it. A test can lock all others out of the file.
pub(super) struct Scene {
    pub(super) directory: Directory,
    pub(super) ledger: Ledger,
    pub(super) log: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    pub(super) async fn in_directory(directory: Directory) -> Self {
        let (file, spool) = (directory.0.join("quota.db"), directory.0.join("quota.spool"));
        let ledger = Ledger::sqlite(file).spool_in(spool).open_timeout(HUNG).open().await;
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

    pub(super) fn spool_path(&self) -> PathBuf {
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
    pub(super) async fn lock(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.directory.0.join("quota.db"));
        let mut connection = SqliteConnection::connect_with(&options.busy_timeout(HUNG)).await.unwrap();
        connection.execute("BEGIN EXCLUSIVE").await.unwrap();
        connection
    }

    /// Locks the file until the guard is dropped. Meanwhile callers have a [`BRIEF`] deadline.
    pub(super) async fn away(&self) -> Away {
        let locked = self.lock().await;
        Away { _locked: locked, ledger: self.ledger.clone().deadline(BRIEF) }
    }

    /// Waits until the spool is empty.
    pub(super) async fn merged(spool: &Spool) {
        until("the spool is merged", async || spool.pending() == 0).await;
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

/// Holds the file lock. On drop, callers are [`PATIENT`] again.
pub(super) struct Away {
    pub(super) _locked: SqliteConnection,
    pub(super) ledger: Ledger,
}

impl Drop for Away {
    fn drop(&mut self) {
        drop(self.ledger.clone().deadline(PATIENT));
    }
}
