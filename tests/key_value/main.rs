//! Key-value stores where something fails: no room, locks, a server that dies, rows changed by hand.

mod dropped;
mod executor;
#[path = "../support/faulty_store.rs"]
mod faulty;
mod guarded;
mod memory;
mod postgres_server;
mod records;
mod sqlite_file;
#[path = "../support/mod.rs"]
mod support;
