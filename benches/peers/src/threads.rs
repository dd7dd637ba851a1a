//! Work on several threads at once. The time of a lap is that of one thread: the mean of all.

use std::{
    hint::black_box,
    sync::atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire},
    },
    thread,
    time::{Duration, Instant},
};

use axum::body::Body;
use http::Request;
use tokio::runtime::Builder;

use crate::{drive::request, keys::shuffled, lap::Lap};

/// Point that all threads reach before any of them goes on. They spin, because a thread that sleeps starts late.
struct Start<'a> {
    arrived: &'a AtomicUsize,
    threads: usize,
    passed: usize,
}

impl Start<'_> {
    fn wait(&mut self) {
        self.passed += 1;
        self.arrived.fetch_add(1, AcqRel);
        while self.arrived.load(Acquire) < self.threads * self.passed {
            thread::yield_now(); // there may be more threads than cores
        }
    }
}

/// Runs clones of `work` at once, each on a thread of its own and with its number; returns their mean time.
fn together(threads: usize, work: impl Fn(usize, Start<'_>) -> Duration + Clone + Send) -> Duration {
    let arrived = AtomicUsize::new(0);
    let all: Duration = thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|number| {
                let (work, start) = (work.clone(), Start { arrived: &arrived, threads, passed: 0 });
                scope.spawn(move || work(number, start))
            })
            .collect();
        all.into_iter().map(|one| one.join().expect("no panic")).sum()
    });
    all / u32::try_from(threads).expect("few")
}

/// Returns a loop of requests through clones of a function.
pub fn requests_on<F: Future>(threads: usize, through: impl FnMut(Request<Body>) -> F + Clone + Send + 'static) -> Lap {
    const BATCH: u64 = 1_024; // few enough not to fill the memory
    Box::new(move |operations| {
        let through = through.clone();
        together(threads, move |_, mut start| {
            let (mut through, mut took) = (through.clone(), Duration::ZERO);
            let runtime = Builder::new_current_thread().build().expect("a runtime");
            for done in (0..operations).step_by(BATCH as usize) {
                let batch: Vec<_> = (done..operations.min(done + BATCH)).map(request).collect();
                start.wait();
                let began = Instant::now();
                runtime.block_on(async {
                    for request in batch {
                        black_box(through(request).await);
                    }
                });
                took += began.elapsed();
            }
            took
        })
    })
}

/// Returns a loop of decisions, for one of `keys` in any order. Each thread has an order of its own.
pub fn decisions_on(
    threads: usize,
    keys: &'static [String],
    decide: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Lap {
    assert!(keys.iter().all(|key| decide(key)));
    Box::new(move |operations| {
        let decide = &decide;
        together(threads, move |number, mut start| {
            let mut next = shuffled(keys.len() as u64);
            (0..number * 997).for_each(|_| _ = next());
            start.wait();
            let began = Instant::now();
            for _ in 0..operations {
                black_box(decide(&keys[next() as usize]));
            }
            began.elapsed()
        })
    })
}
