//! tollgate and its peers, side by side in one process, in rounds that take turns.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml                     # all rows
//! cargo bench --manifest-path benches/peers/Cargo.toml -- --quick         # short rounds
//! cargo bench --manifest-path benches/peers/Cargo.toml -- --only breakers # rows of one kind
//! benches/peers/races                                                     # default profile, then lto = "thin"
//! benches/peers/races --chart docs/performance.svg                        # also draws the README's chart
//! benches/peers/instructions                                              # counts instructions, which do not vary
//! ```
//! Nanoseconds differ from machine to machine; only the ratio in one run counts. No row fails for being slow.

mod allocations;
mod apps;
mod breakers;
mod buckets;
mod chart;
mod drive;
mod keyed;
mod keys;
mod lap;
#[cfg(feature = "ledgers")]
mod ledgers;
mod loopback;
mod memory;
mod ours;
mod peers;
mod quotas;
mod race;
mod replay;
mod report;
mod stacks;
mod threads;

use std::{path::Path, time::Duration};

use lap::Entry;
use race::Pace;
use report::Report;

#[global_allocator]
static WATCHED: allocations::Watched = allocations::Watched;

/// A kind of rows, and the function that adds them.
type Kind = (&'static str, fn(&mut Report, Pace));

const KINDS: &[Kind] = &[
    ("keyed", keyed::rows),
    ("buckets", buckets::rows),
    ("breakers", breakers::rows),
    ("quotas", quotas::rows),
    ("stacks", stacks::rows),
    ("replay", replay::rows),
    ("memory", memory::rows),
    ("loopback", loopback::rows),
    #[cfg(feature = "ledgers")]
    ("ledgers", ledgers::rows),
];

/// Contestants that a profiler runs alone, as `kind:contestant`.
const ALONE: &[(&str, &[Entry])] = &[
    ("keyed", keyed::FEW),
    ("many", keyed::MANY),
    ("hot", keyed::HOT),
    ("admitted", buckets::ADMITTED),
    ("axum", loopback::CALLED),
    ("refused", buckets::REFUSED),
    ("breaker", breakers::CLOSED),
    ("two", stacks::TWO),
    ("three", stacks::THREE),
    ("quota", quotas::ADMITTED),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    if let Some(target) = after("--count") {
        return alone(target, arguments.last().and_then(|number| number.parse().ok()).unwrap_or(10_000));
    }
    let pace = if arguments.iter().any(|argument| argument == "--quick") {
        Pace { rounds: 41, lap: Duration::from_millis(1) }
    } else {
        Pace { rounds: 101, lap: Duration::from_millis(3) }
    };
    let only = after("--only");
    let mut report = Report::begin();
    for (kind, rows) in KINDS.iter().filter(|(kind, _)| only.is_none_or(|only| only == kind)) {
        eprintln!("{kind} ...");
        rows(&mut report, pace);
    }
    report.end();
    if let Some(path) = after("--chart") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        std::fs::write(&path, chart::draw(&report)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Runs one contestant a number of times and nothing else.
fn alone(target: &str, operations: u64) {
    let names =
        || ALONE.iter().flat_map(|(kind, all)| all.iter().map(move |entry| (format!("{kind}:{}", entry.name), entry)));
    match names().find(|(name, _)| name == target) {
        Some((_, entry)) => drop((entry.make)()(operations)),
        None => {
            eprintln!("no target {target}; there are:");
            names().for_each(|(name, _)| eprintln!("  {name}"));
            std::process::exit(2);
        }
    }
}
