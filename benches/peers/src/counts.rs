//! Contestants of this crate alone, whose instructions are counted. No peer is compiled for them.
//!
//! ```text
//! counts --rows                        # lists the rows, each with its base or `-`
//! counts --count 'gate alone' 1024     # performs 1,024 operations of one row or base
//! ```

#![allow(dead_code, reason = "the races use the rest of these modules")]

mod allocations;
mod apps;
mod drive;
mod keys;
mod lap;
mod ours;

use std::process::ExitCode;

use apps::behind;
use axum::body::Body;
use drive::{bare, serve};
use http::StatusCode;
use keys::few;
use lap::Entry;
use tower::{Layer, layer::util::Identity};

#[global_allocator]
static WATCHED: allocations::Watched = allocations::Watched;

/// Services without a layer of this crate. The count of a row is what its layer adds to one of them.
const BASES: &[Entry] = &[
    Entry { name: BARE, make: || serve(bare::<Body>(), OK) },
    Entry { name: AXUM, make: || serve(behind(Identity::new()), OK) },
];

const BARE: &str = "bare service";
const AXUM: &str = "axum app behind Identity";

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;

/// The rows, each with the name of its base.
const ROWS: &[(Entry, Option<&str>)] = &[
    (Entry { name: "gate alone", make: || serve(ours::gate().layer(bare::<Body>()), OK) }, Some(BARE)),
    (Entry { name: "keyed decision", make: || few(ours::decide()) }, None),
    (Entry { name: "admitted", make: || serve(ours::plenty().layer(bare::<Body>()), OK) }, Some(BARE)),
    (
        Entry { name: "admitted, RateLimit fields", make: || serve(ours::plenty_told().layer(bare::<Body>()), OK) },
        Some(BARE),
    ),
    (Entry { name: "refused", make: || serve(ours::scarce().layer(bare::<Body>()), REFUSED) }, Some(BARE)),
    (
        Entry { name: "refused, RateLimit fields", make: || serve(ours::scarce_told().layer(bare::<Body>()), REFUSED) },
        Some(BARE),
    ),
    (Entry { name: "breaker, last 100", make: || serve(ours::last_calls().layer(bare::<Body>()), OK) }, Some(BARE)),
    (Entry { name: "breaker, last 10 s", make: || serve(ours::last_seconds().layer(bare::<Body>()), OK) }, Some(BARE)),
    (
        Entry { name: "quota of four limits", make: || serve(ours::four_counted().layer(bare::<Body>()), OK) },
        Some(BARE),
    ),
    (
        Entry { name: "bucket and breaker, nested", make: || serve(ours::nested_two().layer(bare::<Body>()), OK) },
        Some(BARE),
    ),
    (
        Entry {
            name: "bucket, quota and breaker, nested",
            make: || serve(ours::nested_three().layer(bare::<Body>()), OK),
        },
        Some(BARE),
    ),
    (
        Entry { name: "bucket and breaker, one gate", make: || serve(ours::gates_two().layer(bare::<Body>()), OK) },
        Some(BARE),
    ),
    (
        Entry {
            name: "bucket, quota and breaker, one gate",
            make: || serve(ours::gates_three().layer(bare::<Body>()), OK),
        },
        Some(BARE),
    ),
    (Entry { name: "axum, admitted", make: || serve(behind(ours::plenty()), OK) }, Some(AXUM)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let entries = || ROWS.iter().map(|(entry, _)| entry).chain(BASES);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--rows"] => ROWS.iter().for_each(|(entry, base)| println!("{}\t{}", entry.name, base.unwrap_or("-"))),
        ["--count", name, operations] => match (entries().find(|entry| entry.name == name), operations.parse()) {
            (Some(entry), Ok(operations)) => drop((entry.make)()(operations)),
            _ => {
                eprintln!("counts: expected one of these names and a number, got \"{name}\" and \"{operations}\":");
                entries().for_each(|entry| eprintln!("  {}", entry.name));
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("counts: expected --rows, or --count with a name and a number of operations");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
