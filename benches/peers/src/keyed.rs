//! One decision for a text key, as a service takes it from a header: the clock is read, the text is borrowed.

use std::{
    hint::{black_box, spin_loop},
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
    thread,
    time::{Duration, Instant},
};

use tollgate::Cost;

use crate::{
    keys::{FEW_KEYS, few, key, keys, shuffled},
    lap::{Entry, Lap, timed},
    ours, peers,
    race::{Pace, of, race},
    report::{Goal, Line, Report},
};

/// Ten thousand keys in any order.
pub const FEW: &[Entry] = &[
    Entry { name: "tollgate", make: || few(ours::decide(10_000)) },
    Entry { name: "governor", make: || few(peers::governor_decide()) },
    Entry { name: "governor, given a String", make: few_owned },
    Entry { name: "tollgate, the digest alone", make: || few(ours::digest()) },
    Entry { name: "tollgate, the clock alone", make: || few(ours::clock()) },
    Entry { name: "tollgate, given a Client", make: few_known },
];

/// A million keys, one decision at a time.
pub const MANY: &[Entry] = &[
    Entry { name: "tollgate", make: || many(ours::decide(MANY_KEYS as usize)) },
    Entry { name: "governor", make: || many(peers::governor_decide()) },
];

/// One key, two threads.
pub const HOT: &[Entry] = &[
    Entry { name: "tollgate", make: || hot(ours::decide(10_000)) },
    Entry { name: "governor", make: || hot(peers::governor_decide()) },
];

const MANY_KEYS: u64 = 1_000_000;

pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(FEW, pace.longer(10)); // so that each key is visited several times
    let (own, peer) = (of(&figures, "tollgate"), of(&figures, "governor"));
    let row = "keyed decision, text key, 10k keys";
    report.line(Line::times_faster(row, own, peer, 2.0).no_allocation(own.allocations));
    report.figures(row, &figures, None);

    let figures = race(MANY, pace);
    let row = "keyed decision, 1 M keys, one at a time";
    report.line(Line::times_faster(row, of(&figures, "tollgate"), of(&figures, "governor"), 2.5));
    report.figures(row, &figures, None);

    let figures = race(HOT, pace);
    let (own, peer) = (of(&figures, "tollgate"), of(&figures, "governor"));
    let row = "keyed decision, 2 threads on one hot key";
    report.line(Line::new(row, own.nanos(), peer.nanos(), Goal::Nanos(60.0)));
    report.figures(row, &figures, None);
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

fn hot(decide: impl Fn(&str) -> bool + Send + Sync + 'static) -> Lap {
    assert!(decide("key-hot"));
    Box::new(move |operations| {
        let started = Arc::new(AtomicUsize::new(0));
        let run = || {
            started.fetch_add(1, AcqRel);
            while started.load(Acquire) < 2 {
                spin_loop();
            }
            let start = Instant::now();
            for _ in 0..operations {
                black_box(decide("key-hot"));
            }
            start.elapsed()
        };
        let both: Duration = thread::scope(|scope| {
            let both = [scope.spawn(run), scope.spawn(run)];
            both.into_iter().map(|one| one.join().expect("no panic")).sum()
        });
        both / 2
    })
}
