//! Jobs that are charged exactly once, in a ledger that survives the process: from the request to the invoice.
//!
//! ```text
//! cargo run --example billing --features sqlite                # on 127.0.0.1:3000, the ledger in ./billing.db
//! DB=/var/lib/shop/quota.db LIMIT=500 ADMIN_TOKEN=s3cret PORT=8080 cargo run --example billing --features sqlite
//! DATABASE_URL=postgres://shop@localhost/quota cargo run --example billing --features sqlite,postgres # for a fleet
//! ```
//!
//! `POST /jobs?amount=N` with the headers `x-tenant` and `x-job-id` charges a job of N units and works on it, which takes
//! `hold_ms` milliseconds where the query says so:
//!
//! | answer | when |
//! |---|---|
//! | 200 | the job was admitted, is charged, and was worked on |
//! | 200 with `Idempotent-Replayed: true` | it was charged before: the ledger says so, nobody works on it again |
//! | 400 | the amount is no whole number from 1 to 2^53 - 1, or a header is missing: nothing is charged, as with all below |
//! | 409 | the same job is being worked on |
//! | 413 | it takes more than the tenant's limit and all its grants |
//! | 422 | the tenant has another job of this id: one with another amount |
//! | 429 | too little is left of the tenant's day |
//! | 503 | the ledger cannot be reached, or did not say in time whether it charged: the same id again is charged once |
//!
//! A client that hangs up ends the work; what was charged for it stays charged, and its id is taken. The same holds for a
//! job that was worked on when the process died.
//!
//! `GET /usage/{tenant}` is the tenant's day, `GET /ledger/{tenant}` its rows as lines of JSON, `GET /invoice/{tenant}` its
//! month until now. With `Authorization: Bearer` and the `ADMIN_TOKEN`, `POST /grants/{tenant}?amount=N&approver=A&reason=R`
//! raises the limit until the UTC day ends, or `until` an RFC 3339 time, and `POST /reconcile` compares the counts with the
//! rows. A real service puts its authentication in front: here everybody is who they say.

mod server;
#[path = "../support/mod.rs"]
mod support;

use server::Setup;

#[tokio::main]
async fn main() -> Result<(), support::Ended> {
    let setup = Setup::from_env()?;
    let ledger = setup.open().await?;
    let (listener, _) = support::listen(3000).await?;
    setup.introduce(listener.local_addr()?);
    Ok(server::serve(listener, ledger, &setup, server::stopped()).await?)
}
