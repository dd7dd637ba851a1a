//! The layer that replays answers: keys, outcomes, duplicates at once, clients that hang up, stores that fail.

mod aborts;
mod bounds;
#[path = "../support/faulty_store.rs"]
mod faulty;
mod hang_up;
mod keys;
#[allow(dead_code, unreachable_pub, reason = "the ledger's tests use more of it")]
#[path = "../ledger_faults/line.rs"]
mod line;
mod lost_commit;
mod no_transactions;
mod outcomes;
mod panics;
mod place;
mod resets;
mod running;
mod sockets;
mod store_away;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
mod with_quota;
