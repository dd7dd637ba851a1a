//! Races of contestants in turn, round after round, so that a slow moment of the machine affects all of them.

use std::{hint::black_box, time::Duration};

use crate::{
    allocations,
    lap::{Entry, Lap, count_allocations, counted_allocations},
};

/// A contestant; all of a row do the same work.
pub struct Contestant {
    pub name: &'static str,
    pub lap: Lap,
}

/// Length of a race.
#[derive(Clone, Copy)]
pub struct Pace {
    pub rounds: usize,
    pub lap: Duration,
}

impl Pace {
    /// Returns a pace of fewer but longer rounds, for work that visits much memory.
    pub fn longer(self, times: u32) -> Self {
        Self { rounds: (self.rounds / times as usize).max(5), lap: self.lap * times }
    }
}

/// Measurements of one contestant.
pub struct Figure {
    pub name: &'static str,
    /// Nanoseconds per operation, one number for each round.
    pub laps: Vec<f64>,
    /// Allocations per operation; NaN if two threads allocate at once.
    pub allocations: f64,
}

impl Figure {
    /// Returns the median of all rounds, in nanoseconds per operation.
    pub fn nanos(&self) -> f64 {
        median(self.laps.clone())
    }

    /// Returns the median time beyond `bare` of the same round.
    pub fn over(&self, bare: &Self) -> f64 {
        median(self.laps.iter().zip(&bare.laps).map(|(own, bare)| own - bare).collect())
    }

    /// Returns the number of allocations beyond `bare`.
    pub fn allocations_over(&self, bare: &Self) -> f64 {
        self.allocations - bare.allocations
    }
}

/// Returns the figure of that name.
pub fn of<'a>(figures: &'a [Figure], name: &str) -> &'a Figure {
    figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("no contestant {name}"))
}

/// Races all entries of a row.
pub fn race(entries: &[Entry], pace: Pace) -> Vec<Figure> {
    let mut all: Vec<_> = entries.iter().map(|entry| Contestant { name: entry.name, lap: (entry.make)() }).collect();
    let operations: Vec<u64> = all.iter_mut().map(|contestant| operations(contestant, pace.lap)).collect();
    let mut figures: Vec<_> = all
        .iter()
        .map(|contestant| Figure { name: contestant.name, laps: Vec::new(), allocations: f64::NAN })
        .collect();
    for round in 0..pace.rounds {
        for turn in 0..all.len() {
            // Each contestant goes first in some rounds.
            let who = (turn + round) % all.len();
            let took = elsewhere(round, &mut || {
                (all[who].lap)(operations[who] / 4); // the others have been in the caches
                (all[who].lap)(operations[who])
            });
            figures[who].laps.push(took.as_nanos() as f64 / operations[who] as f64);
        }
    }
    count_allocations(true);
    for (contestant, figure) in all.iter_mut().zip(&mut figures) {
        const SOME: u64 = 1_024;
        let before = allocations::count();
        (contestant.lap)(SOME);
        if counted_allocations() {
            figure.allocations = (allocations::count() - before) as f64 / SOME as f64;
        }
    }
    count_allocations(false);
    figures
}

/// Runs a lap with the stack a little further down in each round. The alignment of moved values to cache lines changes
/// results by dozens of nanoseconds, and must favour no contestant.
fn elsewhere(round: usize, lap: &mut dyn FnMut() -> Duration) -> Duration {
    #[inline(never)]
    fn below<const BYTES: usize>(lap: &mut dyn FnMut() -> Duration) -> Duration {
        let room = black_box([0_u8; BYTES]);
        let took = lap();
        black_box(room);
        took
    }
    match round % 4 {
        0 => below::<16>(lap),
        1 => below::<32>(lap),
        2 => below::<48>(lap),
        _ => below::<64>(lap),
    }
}

/// Warms a contestant up and returns the number of operations that fill a lap.
fn operations(contestant: &mut Contestant, lap: Duration) -> u64 {
    let mut fastest = f64::MAX;
    for _ in 0..5 {
        let took = (contestant.lap)(512);
        fastest = fastest.min((took.as_nanos() as f64 / 512.0).max(1.0));
    }
    ((lap.as_nanos() as f64 / fastest) as u64).clamp(256, 1 << 20)
}

/// Returns the median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
