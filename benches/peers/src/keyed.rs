//! One decision for a text key, as a service takes it from a header: the clock is read, the text is borrowed.

use std::{hint::black_box, sync::LazyLock};

use tollgate::Cost;

use crate::{
    keys::{FEW_KEYS, few, key, keys, shuffled},
    lap::{Entry, Lap, timed},
    ours, peers,
    race::{Pace, of, race},
    report::{Goal, Line, Report},
    threads::decisions_on,
};

/// Ten thousand keys in any order.
pub const FEW: &[Entry] = &[
    Entry { name: "tollgate", make: || few(ours::decide()) },
    Entry { name: "governor", make: || few(peers::governor_decide()) },
    Entry { name: "governor, given a String", make: few_owned },
    Entry { name: "tollgate, the digest alone", make: || few(ours::digest()) },
    Entry { name: "tollgate, the clock alone", make: || few(ours::clock()) },
    Entry { name: "tollgate, given a Client", make: few_known },
];

/// A million keys, one decision at a time.
pub const MANY: &[Entry] = &[
    Entry { name: "tollgate", make: || many(ours::decide_million()) },
    Entry { name: "governor", make: || many(peers::governor_decide_million()) },
];

/// Decisions for one key on 1, 2 and 4 threads.
pub const HOT: &[Entry] = &[
    Entry { name: "tollgate, 1 thread", make: || hot(1, ours::decide()) },
    Entry { name: "governor, 1 thread", make: || hot(1, peers::governor_decide()) },
    Entry { name: "tollgate, 2 threads", make: || hot(2, ours::decide()) },
    Entry { name: "governor, 2 threads", make: || hot(2, peers::governor_decide()) },
    Entry { name: "tollgate, 4 threads", make: || hot(4, ours::decide()) },
    Entry { name: "governor, 4 threads", make: || hot(4, peers::governor_decide()) },
];

/// Decisions for ten thousand keys in any order on 1, 2 and 4 threads.
const SPREAD: &[Entry] = &[
    Entry { name: "tollgate, 1 thread", make: || spread(1, ours::decide()) },
    Entry { name: "governor, 1 thread", make: || spread(1, peers::governor_decide()) },
    Entry { name: "tollgate, 2 threads", make: || spread(2, ours::decide()) },
    Entry { name: "governor, 2 threads", make: || spread(2, peers::governor_decide()) },
    Entry { name: "tollgate, 4 threads", make: || spread(4, ours::decide()) },
    Entry { name: "governor, 4 threads", make: || spread(4, peers::governor_decide()) },
];

const MANY_KEYS: u64 = 1_000_000;

pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(FEW, pace.longer(10)); // so that each key is visited several times
    let (own, peer) = (of(&figures, "tollgate"), of(&figures, "governor"));
    let row = "keyed decision, text key, 10k keys";
    report.line(Line::new(row, own.nanos(), peer.nanos(), Goal::AtMost(0.85)).no_allocation(own.allocations));
    report.figures(row, &figures, None);

    let figures = race(MANY, pace);
    let row = "keyed decision, 1 M keys, one at a time";
    let (own, peer) = (of(&figures, "tollgate"), of(&figures, "governor"));
    report.line(Line::new(row, own.nanos(), peer.nanos(), Goal::AtMost(0.45)));
    report.figures(row, &figures, None);

    for (entries, row) in [(HOT, "keyed decision, one hot key"), (SPREAD, "keyed decision, 10k keys in any order")] {
        let figures = race(entries, pace);
        for threads in ["1 thread", "2 threads", "4 threads"] {
            let of = |name| of(&figures, &format!("{name}, {threads}")).nanos();
            report.line(Line::new(&format!("{row}, {threads}"), of("tollgate"), of("governor"), Goal::None));
        }
        report.figures(row, &figures, None);
    }
}

fn few_owned() -> Lap {
    let (keys, limiter) = (keys(FEW_KEYS), peers::governor());
    assert!(keys.iter().all(|key| limiter.check_key(key).is_ok()));
    let mut next = shuffled(FEW_KEYS);
    Box::new(move |operations| {
        timed(|| {
            for _ in 0..operations {
                black_box(limiter.check_key(&keys[next() as usize]).is_ok());
            }
        })
    })
}

fn few_known() -> Lap {
    let buckets = ours::plenty().max_clients(FEW_KEYS as usize).handle();
    let clients: Vec<_> = keys(FEW_KEYS).iter().map(|key| buckets.digester().secret("key", key.as_bytes())).collect();
    let mut next = shuffled(FEW_KEYS);
    Box::new(move |operations| {
        timed(|| {
            for _ in 0..operations {
                black_box(buckets.check(&clients[next() as usize], Cost::ONE).is_ok());
            }
        })
    })
}

fn many(decide: impl Fn(&str) -> bool + 'static) -> Lap {
    // The text is made when it is needed: fetching it from memory is no part of the decision.
    let mut text = [0; 20];
    assert!((0..MANY_KEYS).all(|i| decide(key(i, &mut text))));
    let mut next = shuffled(MANY_KEYS);
    Box::new(move |operations| {
        timed(|| {
            for _ in 0..operations {
                one_at_a_time();
                black_box(decide(key(next(), &mut text)));
            }
        })
    })
}

/// Waits for all started instructions. A processor would overlap the memory accesses of several decisions in a loop;
/// requests come one by one.
fn one_at_a_time() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has this instruction.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
}

fn hot(threads: usize, decide: impl Fn(&str) -> bool + Send + Sync + 'static) -> Lap {
    static HOT: LazyLock<Vec<String>> = LazyLock::new(|| keys(1));
    decisions_on(threads, &HOT, decide)
}

fn spread(threads: usize, decide: impl Fn(&str) -> bool + Send + Sync + 'static) -> Lap {
    static SPREAD: LazyLock<Vec<String>> = LazyLock::new(|| keys(FEW_KEYS));
    decisions_on(threads, &SPREAD, decide)
}
