//! What a ledger promises while its program, its database, the network between them and its disk fail.
//!
//! Everything here is real: programs are killed, servers are killed, connections are cut. Nothing sleeps for luck; what is
//! waited for comes before a deadline, or the test fails.
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
