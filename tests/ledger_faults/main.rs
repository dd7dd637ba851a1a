//! Promises of a ledger while its program, its database, the network between them or its disk fail.
//!
//! All faults are real: programs and servers are killed, connections are cut. No sleep is used as synchronisation: each
//! awaited event comes before a deadline, or the test fails.
#![allow(missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod cancelled;
mod crowd;
mod dead_server;
mod dropped;
mod durable;
mod full;
mod killed;
mod line;
mod place;
mod program;
mod stuck;
