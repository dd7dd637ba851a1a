//! The pure rule of the token bucket (GCRA).

mod properties;
mod stories;

use crate::{
    cost::Cost,
    time::Moment,
    token_bucket::{
        gcra::{self, Decision},
        rate::Rate,
    },
};

const SECOND: u64 = 1_000_000_000;

/// A bucket as a caller stores it: `None` for a newcomer, else the time at which it is full.
#[derive(Clone, Copy, Default)]
struct Bucket(Option<u64>);

impl Bucket {
    fn ask(&mut self, rate: &Rate, cost: Cost, now: u64) -> Decision {
        let verdict = gcra::decide(rate, self.0, cost, at(now));
        match verdict {
            Decision::Admitted { full_at } => self.0 = Some(full_at),
            Decision::Refused { .. } => self.0 = Some(self.0.unwrap_or_else(|| gcra::newcomer(rate, at(now)))),
            Decision::TooLarge => {}
        }
        verdict
    }

    fn admits(&mut self, rate: &Rate, cost: u64, now: u64) -> bool {
        matches!(self.ask(rate, units(cost), now), Decision::Admitted { .. })
    }
}

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

fn units(cost: u64) -> Cost {
    if cost == 0 { Cost::PREFLIGHT } else { Cost::new(cost) }
}
