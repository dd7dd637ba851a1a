//! Random histories against a book that only adds up its entries.
//!
//! The book knows nothing of counters: it remembers each charge, record and reservation with the window that it was made
//! in, and sums up those of the window that is under way.

use proptest::prelude::*;

use super::{
    super::{Closed, Stage},
    *,
};
use crate::{Cost, Kind};

const KINDS: [&str; 2] = ["requests", "tokens"];

#[derive(Clone, Debug)]
enum Step {
    Charge([Option<u64>; 2]),
    Reserve([Option<u64>; 2]),
    Commit(usize, Option<u64>),
    RollBack(usize),
    GiveBack(usize),
    Record([Option<u64>; 2]),
    Pass(u64),
    Reset(Option<usize>),
    Limits([u64; 3]),
    Clock(i64),
}

fn amounts() -> impl Strategy<Value = [Option<u64>; 2]> {
    let amount = || prop_oneof![1 => Just(None), 1 => Just(Some(0)), 6 => (1..12_u64).prop_map(Some)];
    [amount(), amount()]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => amounts().prop_map(Step::Charge),
        4 => amounts().prop_map(Step::Reserve),
        3 => (any::<usize>(), prop::option::of(0..20_u64)).prop_map(|(which, actual)| Step::Commit(which, actual)),
        2 => any::<usize>().prop_map(Step::RollBack),
        2 => any::<usize>().prop_map(Step::GiveBack),
        2 => amounts().prop_map(Step::Record),
        4 => prop_oneof![Just(1), Just(TTL.as_secs()), Just(HOUR / 1_000_000_000), 1..100_000_u64].prop_map(Step::Pass),
        1 => prop::option::of(0..3_usize).prop_map(Step::Reset),
        1 => [1..40_u64, 1..80, 1..40].prop_map(Step::Limits),
        1 => prop_oneof![Just(-3_600), Just(3_600), Just(-86_400), Just(86_400)].prop_map(Step::Clock),
    ]
}

/// Requests per hour, requests per day, tokens per hour.
fn plan(limits: [u64; 3]) -> Arc<Plan> {
    Arc::new(
        Plan::new("plan")
            .limit(Quota::requests(limits[0]).per(Period::hour()))
            .limit(Quota::requests(limits[1]).per(Period::day()))
            .limit(Quota::units("tokens", limits[2]).per(Period::hour())),
    )
}

const KIND_OF: [usize; 3] = [0, 0, 1];
const LENGTH: [u64; 3] = [HOUR, DAY, HOUR];

/// What was set aside or used at one time, in the count of each limit that was under way.
#[derive(Clone, Debug)]
struct Entry {
    counts: [u64; 3],
    used: [u64; 2],
    reserved: [u64; 2],
    /// The reservation, and when it expires.
    hold: Option<(u64, Moment, Stage)>,
    estimate: [Option<u64>; 2],
    turn: u32,
}

/// The book: which count of each limit is under way, numbered, and all entries.
struct Book {
    end: [Option<u64>; 3],
    count: [u64; 3],
    entries: Vec<Entry>,
}

impl Book {
    /// Goes to another window when this one is over; never back.
    fn advance(&mut self, now: Now, charge_expired: bool) {
        for limit in 0..3 {
            let of_now = (now.wall / LENGTH[limit] + 1) * LENGTH[limit];
            match self.end[limit] {
                Some(end) if now.wall >= end => {
                    self.end[limit] = None;
                    self.count[limit] += 1;
                }
                // Too far ahead for a clock that was right.
                Some(end) if end - LENGTH[limit] > now.wall + 2 * DAY => self.end[limit] = Some(of_now),
                _ => {}
            }
        }
        for entry in &mut self.entries {
            if let Some((_, expires, stage @ Stage::Open)) = &mut entry.hold
                && now.moment >= *expires
            {
                *stage = Stage::Expired;
                if charge_expired {
                    entry.used = entry.reserved;
                }
                entry.reserved = [0; 2];
            }
        }
    }

    /// Begins the windows of these kinds that are not under way, in which an entry of these counts is made.
    fn begin(&mut self, asked: [Option<u64>; 2], counts: [u64; 3], wall: u64) {
        for limit in 0..3 {
            if asked[KIND_OF[limit]].is_some() && counts[limit] == self.count[limit] {
                self.end[limit].get_or_insert((wall / LENGTH[limit] + 1) * LENGTH[limit]);
            }
        }
    }

    fn sum(&self, limit: usize) -> (u64, u64) {
        let here = self.entries.iter().filter(|entry| entry.counts[limit] == self.count[limit]);
        here.fold((0, 0), |(used, reserved), entry| {
            (used + entry.used[KIND_OF[limit]], reserved + entry.reserved[KIND_OF[limit]])
        })
    }
}

fn named(asked: [Option<u64>; 2]) -> Amounts {
    KINDS.iter().zip(asked).filter_map(|(kind, amount)| Some((Kind::from(*kind), amount?))).collect()
}

fn plain(asked: [Option<u64>; 2]) -> [u64; 2] {
    asked.map(|amount| amount.unwrap_or(0))
}

fn run(steps: Vec<Step>, charge_expired: bool) -> Result<(), TestCaseError> {
    let terms = terms(charge_expired);
    let mut limits = [20, 60, 20];
    let mut in_force = plan(limits);
    let mut account = Account::new(&in_force);
    let (mut wall, mut passed) = (START, HOUR);
    let mut book = Book { end: [None; 3], count: [0; 3], entries: Vec::new() };
    for step in steps {
        let now = Now { moment: Moment::from_nanos(passed), wall };
        account.advance(&in_force, now, &terms);
        book.advance(now, charge_expired);
        let before: Vec<_> = (0..3).map(|limit| book.sum(limit)).collect();
        let entry =
            |used, reserved, hold, estimate, turn, count| Entry { counts: count, used, reserved, hold, estimate, turn };
        match step {
            Step::Charge(asked) | Step::Reserve(asked) => {
                let reserve = matches!(step, Step::Reserve(_));
                let amounts = named(asked);
                let fits = (0..3).all(|limit| match asked[KIND_OF[limit]] {
                    None => true,
                    Some(amount) => amount.max(1) <= limits[limit].saturating_sub(before[limit].0 + before[limit].1),
                });
                match account.admit(&Ask { reserve, ..ask(&amounts) }, now, &terms) {
                    Ok(taken) => {
                        prop_assert!(fits, "admitted {asked:?} at {before:?} of {limits:?}");
                        let (used, reserved) = if reserve { ([0; 2], plain(asked)) } else { (plain(asked), [0; 2]) };
                        let hold = taken.hold.map(|id| (id, now.moment + TTL, Stage::Open));
                        prop_assert_eq!(hold.is_some(), reserve);
                        book.begin(asked, book.count, wall);
                        book.entries.push(entry(used, reserved, hold, asked, taken.turn, book.count));
                    }
                    Err(No::Limits(violations)) => {
                        prop_assert!(!fits, "refused {asked:?} at {before:?} of {limits:?}");
                        prop_assert!(!violations.is_empty());
                    }
                    Err(no) => return Err(TestCaseError::fail(format!("{no:?}"))),
                }
            }
            Step::Commit(which, actual) => {
                let held: Vec<_> = (0..book.entries.len()).filter(|&at| book.entries[at].hold.is_some()).collect();
                if held.is_empty() {
                    continue;
                }
                let entry = &mut book.entries[held[which % held.len()]];
                let (id, expires, stage) = entry.hold.unwrap();
                let said = actual.map_or_else(Amounts::none, |actual| Amounts::from(("tokens", actual)));
                let (closed, _) = account.close(id, Some(&said), false, now, &terms);
                let forgotten = stage != Stage::Open && now.moment >= expires + TTL * 2;
                match (stage, closed) {
                    (Stage::Open, Closed::Now(_)) | (Stage::Expired, Closed::TooLate(_)) => {
                        entry.reserved = [0; 2];
                        entry.used = plain(entry.estimate);
                        entry.used[1] = actual.unwrap_or(entry.used[1]);
                        entry.hold = Some((id, expires, Stage::Committed));
                        let named = [entry.estimate[0], actual.or(entry.estimate[1])];
                        let counts = entry.counts;
                        book.begin(named, counts, wall);
                    }
                    (Stage::Committed | Stage::RolledBack, Closed::Before(before)) => prop_assert_eq!(before, stage),
                    (_, Closed::Unknown) => prop_assert!(forgotten),
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
            Step::RollBack(which) => {
                let held: Vec<_> = (0..book.entries.len()).filter(|&at| book.entries[at].hold.is_some()).collect();
                if held.is_empty() {
                    continue;
                }
                let entry = &mut book.entries[held[which % held.len()]];
                let (id, expires, stage) = entry.hold.unwrap();
                let (closed, _) = account.close(id, None, false, now, &terms);
                match (stage, closed) {
                    (Stage::Open, Closed::Now(_)) => {
                        entry.reserved = [0; 2];
                        entry.hold = Some((id, expires, Stage::RolledBack));
                    }
                    (_, Closed::Before(before)) => prop_assert_eq!(before, stage),
                    (_, Closed::Unknown) => prop_assert!(stage != Stage::Open && now.moment >= expires + TTL * 2),
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
            Step::GiveBack(which) => {
                let charged: Vec<_> = (0..book.entries.len())
                    .filter(|&at| book.entries[at].hold.is_none() && book.entries[at].turn < u32::MAX)
                    .collect();
                if charged.is_empty() {
                    continue;
                }
                let entry = &mut book.entries[charged[which % charged.len()]];
                account.give_back(&named(entry.estimate), entry.turn);
                entry.used = [0; 2];
                entry.turn = u32::MAX; // a charge is given back once
            }
            Step::Record(asked) => {
                account.record(&named(asked), None, now);
                book.begin(asked, book.count, wall);
                book.entries.push(entry(plain(asked), [0; 2], None, asked, u32::MAX, book.count));
            }
            Step::Pass(seconds) => {
                passed += seconds * 1_000_000_000;
                wall += seconds * 1_000_000_000;
            }
            Step::Reset(which) => {
                let names = ["requests_per_hour", "requests_per_day", "tokens_per_hour"];
                account.reset(which.map(|which| names[which])).unwrap();
                for limit in 0..3 {
                    book.count[limit] += u64::from(which.is_none_or(|which| which == limit));
                }
            }
            Step::Limits(new) => {
                limits = new;
                in_force = plan(new);
            }
            Step::Clock(by) => wall = wall.saturating_add_signed(by * 1_000_000_000),
        }
        let now = Now { moment: Moment::from_nanos(passed), wall };
        account.advance(&in_force, now, &terms);
        book.advance(now, charge_expired);
        for (limit, usage) in account.usage(now).limits.iter().enumerate() {
            let (used, reserved) = book.sum(limit);
            prop_assert_eq!((usage.used, usage.reserved), (used, reserved), "{}", usage.name);
            // R1: what is left, used and reserved make the limit, but for the overrun.
            let overrun = (used + reserved).saturating_sub(usage.limit);
            prop_assert_eq!(usage.remaining + used + reserved - overrun, usage.limit);
            prop_assert!(used <= Cost::MAX.get());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_account_adds_up_as_the_book_does(steps in prop::collection::vec(step(), 1..60), charge_expired: bool) {
        run(steps, charge_expired)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "a minute: many histories"]
    fn the_account_adds_up_as_the_book_does_in_many_histories(steps in prop::collection::vec(step(), 1..120), charge_expired: bool) {
        run(steps, charge_expired)?;
    }
}
