//! The suite over a server, and what only a server can do. `bash tests/run` leaves tests of this name out where there is none.

use super::*;
use crate::{
    rule::ledger::Writes,
    store::ledger::{
        Session,
        suite::{self, charge, key, reads, transact},
    },
};

#[path = "../../../../tests/servers/mod.rs"]
mod servers;
use servers::Postgres;

async fn fresh() -> PostgresLedger {
    PostgresLedger::connect(&Postgres::shared().database()).await.unwrap()
}

#[tokio::test]
async fn a_server_does_what_every_database_does() {
    suite::everything(fresh).await;
}

#[tokio::test]
#[ignore = "measures"]
async fn charges_a_second() {
    for tenants in [16, 2_000] {
        suite::speed::of("PostgreSQL", &fresh().await, tenants).await;
    }
}
