//! The suite over a file, and what only a file can do.

use std::path::PathBuf;

use crate::store::ledger::suite;

use super::*;

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tollgate-{:032x}", uuid::Uuid::now_v7().as_u128()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(format!("{:032x}.db", uuid::Uuid::now_v7().as_u128()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_file_does_what_every_database_does() {
    let directory = Directory::new();
    suite::everything(|| async { SqliteLedger::open(directory.file()).await.unwrap() }).await;
}

#[tokio::test]
async fn a_ledger_in_memory_does_it_too() {
    suite::everything(|| async { SqliteLedger::in_memory().await.unwrap() }).await;
}

#[tokio::test]
#[ignore = "measures"]
async fn charges_a_second() {
    let directory = Directory::new();
    for tenants in [16, 2_000] {
        suite::speed::of("SQLite", &SqliteLedger::open(directory.file()).await.unwrap(), tenants).await;
    }
}
