//! Jobs that are charged exactly once, in a ledger that survives the process: from the request to the invoice.
//!
//! ```text
//! cargo run --example billing --features sqlite                # on 127.0.0.1:3000, the ledger in ./billing.db
//! DB=/var/lib/shop/quota.db LIMIT=500 ADMIN_TOKEN=s3cret PORT=8080 cargo run --example billing --features sqlite
//! DATABASE_URL=postgres://shop@localhost/quota cargo run --example billing --features sqlite,postgres # for a fleet
//! ```
//!
//! `POST /jobs?amount=N` with the headers `x-tenant` and `x-job-id` charges a job of N units and does its work. The
//! work takes `hold_ms` milliseconds if the query has it:
//!
//! | answer | when |
//! |---|---|
//! | 200 | the job was admitted, charged and done |
//! | 200 with `Idempotent-Replayed: true` | the job was charged and done before; its work is not done again |
//! | 400 | the amount is no whole number from 1 to 2^53 - 1, or a header is missing: nothing is charged, as below |
//! | 409 with `Retry-After` | the same job is running, or may be running in another process |
//! | 409 with the code `job_outcome_unknown` | the job was charged before, and its work was cut |
//! | 413 | the job exceeds the tenant's limit and all its grants |
//! | 422 | the tenant has another job of this id, with another amount |
//! | 429 | too little is left of the tenant's daily limit |
//! | 503 | the ledger is unavailable, or did not report in time: a retry with the same id is charged once |
//!
//! A client that hangs up ends the work. The charge stays, and the outcome of the job is unknown: its id is refused until
//! an operator settles it. The same holds for a job that was running when the process died.
//!
//! `GET /usage/{tenant}` returns the tenant's usage of the day, `GET /ledger/{tenant}` its rows as lines of JSON,
//! `GET /invoice/{tenant}` its invoice of the month until now. `POST /grants/{tenant}?amount=N&approver=A&reason=R`
//! raises the limit until the UTC day ends, or until the RFC 3339 time in `until`. `POST /reconcile` compares counters
//! with rows. `POST /settle/{tenant}?job=ID&outcome=done|free` settles a job whose outcome is unknown: it was done, or its
//! charge is returned and its id is free. All three need `Authorization: Bearer` with the `ADMIN_TOKEN`. A real service puts its authentication in front:
//! this example trusts the tenant header.

mod server;

use server::{Setup, support};

#[tokio::main]
async fn main() -> Result<(), support::ExampleError> {
    support::start(include_str!("main.rs"), None)?;
    let setup = Setup::from_env()?;
    let listener = support::bind(3000).await?; // before the ledger makes its file
    let ledger = setup.open().await?;
    let stop = support::stop_signal()?;
    setup.introduce(listener.local_addr()?);
    Ok(server::serve(listener, ledger, &setup, stop).await?)
}
