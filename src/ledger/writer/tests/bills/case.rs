//! Cases: histories at random.

use proptest::prelude::*;

use super::super::*;

/// Amounts of requests and of tokens.
pub(crate) type Kinds = [Option<u64>; 2];

pub(super) const KINDS: [&str; 2] = ["requests", "tokens"];
pub(super) const MINUTE: u64 = HOUR / 60;

/// Half past ten on 1997-05-20: long ago for the clock of every database.
pub(super) const BEGINNING: u64 = 10_000 * 24 * HOUR + 10 * HOUR + HOUR / 2;

/// Name, kind, period and limit.
pub(super) type LimitOf = (&'static str, usize, fn() -> Period, u64);

/// Every limit that a plan may have: several of one kind, and two of one name with another period.
pub(super) const LIMITS: [LimitOf; 9] = [
    ("tokens_per_hour", 1, Period::hour, 400),
    ("tokens_per_day", 1, Period::day, 2_000),
    ("tokens_per_month", 1, Period::month, 9_000),
    ("other_tokens_per_day", 1, Period::day, 9_000),
    ("requests_per_hour", 0, Period::hour, 9_000),
    ("requests_per_month", 0, Period::month, 9_000),
    ("shared", 1, Period::day, 9_000),
    ("shared", 1, Period::month, 9_000),
    ("rolling", 1, || Period::rolling(std::time::Duration::from_secs(3 * 3_600)), 9_000),
];

/// The number of limits whose period follows from the time alone; they come first.
pub(super) const CALENDAR: usize = 6;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Plan(u16),
    Admit {
        job: usize,
        amounts: Kinds,
        reserve: Option<bool>,
    },
    /// Work that passed `minutes` ago, while the ledger was away.
    Pass {
        minutes: u64,
        amounts: Kinds,
        reserve: Option<bool>,
    },
    Commit {
        which: usize,
        actual: Kinds,
        besides: Kinds,
    },
    Void {
        which: usize,
    },
    Add {
        which: usize,
        amounts: Kinds,
    },
    Expire {
        which: usize,
    },
    Record {
        amounts: Kinds,
    },
    /// Gives back an amount, at times once more under the id of an earlier credit.
    Credit {
        id: usize,
        kind: usize,
        amount: u64,
    },
    Reset {
        which: Option<usize>,
    },
}

/// A random history.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Calendar periods only, no resets and credits, and a clock that goes forward: then past usage is in the book too.
    pub(super) plain: bool,
    pub(super) plan: u16,
    /// Batches, each with the minutes since the one before.
    pub(super) batches: Vec<(i64, Vec<Step>)>,
    /// Ends of invoice periods: the index of a batch, and the microseconds after it.
    pub(super) cuts: Vec<(usize, u64)>,
}

fn kinds() -> impl Strategy<Value = Kinds> {
    let amount = || prop_oneof![2 => Just(None), 1 => Just(Some(0)), 8 => (1..120_u64).prop_map(Some)];
    [amount(), amount()]
}

fn step() -> impl Strategy<Value = Step> {
    let (which, reserve) = (any::<usize>, || prop::option::of(any::<bool>()));
    prop_oneof![
        2 => any::<u16>().prop_map(Step::Plan),
        8 => (0..4_usize, kinds(), reserve()).prop_map(|(job, amounts, reserve)| Step::Admit { job, amounts, reserve }),
        2 => (0..3_000_u64, kinds(), reserve())
            .prop_map(|(minutes, amounts, reserve)| Step::Pass { minutes, amounts, reserve }),
        4 => (which(), kinds(), kinds())
            .prop_map(|(which, actual, besides)| Step::Commit { which, actual, besides }),
        5 => which().prop_map(|which| Step::Void { which }),
        3 => (which(), kinds()).prop_map(|(which, amounts)| Step::Add { which, amounts }),
        3 => which().prop_map(|which| Step::Expire { which }),
        2 => kinds().prop_map(|amounts| Step::Record { amounts }),
        2 => (0..9_usize, 0..2_usize, 1..200_u64).prop_map(|(id, kind, amount)| Step::Credit { id, kind, amount }),
        2 => prop::option::of(any::<usize>()).prop_map(|which| Step::Reset { which }),
    ]
}

pub(crate) fn cases(batches: usize) -> impl Strategy<Value = Case> {
    let minutes =
        prop_oneof![4 => Just(0), 4 => 1..90_i64, 2 => 90..3_000_i64, 1 => 3_000..60_000_i64, 1 => -90..0_i64];
    let batches = prop::collection::vec((minutes, prop::collection::vec(step(), 1..5)), 1..batches);
    (any::<bool>(), any::<u16>(), batches, prop::collection::vec((any::<usize>(), 0..2_u64), 0..4))
        .prop_map(|(plain, plan, batches, cuts)| Case { plain, plan, batches, cuts })
}

impl Case {
    /// Returns whether counters can be checked. In other histories they drift where a limit's period changes under its
    /// name and both periods begin together: the counters then share a key.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    pub(crate) fn batches(&self) -> &[(i64, Vec<Step>)] {
        &self.batches
    }
}
