//! The rule of the token bucket keeps its promises RL1 to RL7, exactly.

mod properties;
mod stories;

use tollgate::{
    Cost, Moment, Rate,
    rule::gcra::{self, Verdict},
};

const SECOND: u64 = 1_000_000_000;

/// A bucket as a caller keeps it: nothing for a newcomer, else the time at which it is full.
#[derive(Clone, Copy, Default)]
struct Bucket(Option<u64>);

impl Bucket {
    fn ask(&mut self, rate: &Rate, cost: Cost, now: u64) -> Verdict {
        let verdict = gcra::decide(rate, self.0, cost, at(now));
        match verdict {
            Verdict::Admitted { full_at } => self.0 = Some(full_at),
            Verdict::Refused { .. } => self.0 = Some(self.0.unwrap_or_else(|| gcra::newcomer(rate, at(now)))),
            Verdict::TooLarge => {}
        }
        verdict
    }

    fn admits(&mut self, rate: &Rate, cost: u64, now: u64) -> bool {
        matches!(self.ask(rate, units(cost), now), Verdict::Admitted { .. })
    }
}

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

fn units(cost: u64) -> Cost {
    if cost == 0 { Cost::PREFLIGHT } else { Cost::new(cost) }
}
