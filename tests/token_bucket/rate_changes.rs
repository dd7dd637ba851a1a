//! Random histories of requests, reads, tiers, rates and clock steps against a book of missing tokens.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use tollgate::{Client, Cost, FakeClock, Rate, TokenBucketLayer, TokenBuckets};

const MS: u64 = 1_000_000;

/// Parts of a token in the book: every interval of these tests divides it.
const WHOLE: u128 = 3_600_000 * MS as u128;

#[derive(Clone, Debug)]
enum Step {
    /// The client with this number asks with a key of this tier, and once more after the time that it is told.
    Ask {
        client: usize,
        tier: usize,
        cost: u64,
        waits: bool,
    },
    Read {
        client: usize,
        tier: usize,
    },
    Set {
        tier: usize,
        rate: Rate,
    },
    Remove {
        tier: usize,
    },
    Pass {
        time: Duration,
    },
    SetBack {
        time: Duration,
    },
}

const TIERS: [Option<&str>; 3] = [None, Some("pro"), Some("gold")];

fn rate(initial: bool) -> impl Strategy<Value = Rate> {
    let intervals = prop::sample::select(vec![1, 3, 20, 1_000, 2_000, 60_000, 3_600_000_u64]);
    (intervals, 1_u64..12, 0_u64..12).prop_map(move |(ms, burst, tokens)| {
        let rate = Rate::every(Duration::from_millis(ms)).burst(burst);
        if initial { rate.initial_tokens(tokens.min(burst)) } else { rate }
    })
}

fn steps(initial: bool, back: u32) -> impl Strategy<Value = Vec<Step>> {
    let times = prop::sample::select(vec![1, 2, 19, 400, 1_000, 1_001, 90_000, 3_600_000_u64]);
    let times = times.prop_map(Duration::from_millis);
    prop::collection::vec(
        prop_oneof![
            8 => (0..2_usize, 0..3_usize, 0_u64..6, any::<bool>())
                .prop_map(|(client, tier, cost, waits)| Step::Ask { client, tier, cost, waits }),
            2 => (0..2_usize, 0..3_usize).prop_map(|(client, tier)| Step::Read { client, tier }),
            2 => (0..3_usize, rate(initial)).prop_map(|(tier, rate)| Step::Set { tier, rate }),
            1 => (1..3_usize).prop_map(|tier| Step::Remove { tier }),
            3 => times.clone().prop_map(|time| Step::Pass { time }),
            back => times.prop_map(|time| Step::SetBack { time }),
        ],
        1..80,
    )
}

/// Missing tokens of a bucket, in parts, and when they were counted last.
#[derive(Clone, Copy, Default)]
struct Missing {
    parts: u128,
    at: u128,
    /// Parts that the layer may have added by rounding: less than a nanosecond of each new rate since it was full.
    rounded: u128,
}

/// The book: a bucket for each client and each rate in force, without rounding.
struct Book {
    rates: HashMap<usize, Rate>,
    /// Rates that tiers had, by which their buckets go on filling.
    removed: HashMap<usize, Rate>,
    missing: HashMap<(usize, usize), Missing>,
    /// Time that has passed, without the steps back.
    now: u128,
}

impl Book {
    /// Returns the tier whose rate holds for keys of `tier`.
    fn limit(&self, tier: usize) -> usize {
        if self.rates.contains_key(&tier) { tier } else { 0 }
    }

    fn refill(&mut self, client: usize, limit: usize) -> &mut Missing {
        let (rate, now) = (self.rates.get(&limit).unwrap_or_else(|| &self.removed[&limit]), self.now);
        let missing = self.missing.entry((client, limit)).or_default();
        let came = (now - missing.at) * (WHOLE / rate.interval().as_nanos());
        *missing = match missing.parts.saturating_sub(came) {
            0 => Missing { parts: 0, at: now, rounded: 0 },
            parts => Missing { parts, at: now, ..*missing },
        };
        missing
    }

    fn set(&mut self, tier: usize, rate: Rate) {
        if self.rates.contains_key(&tier) || self.removed.contains_key(&tier) {
            (0..2).for_each(|client| self.refill(client, tier).rounded += WHOLE / rate.interval().as_nanos());
        }
        self.rates.insert(tier, rate);
        self.removed.remove(&tier);
    }

    /// Returns whether the tier had a rate.
    fn remove(&mut self, tier: usize) -> bool {
        let rate = self.rates.remove(&tier);
        self.removed.extend(rate.map(|rate| (tier, rate)));
        rate.is_some()
    }

    /// Returns the nanoseconds until `cost` fits, for an exact bucket and for one that was rounded at each change.
    fn wait(&mut self, client: usize, limit: usize, cost: u64) -> (u128, u128) {
        let rate = self.rates[&limit];
        let missing = *self.refill(client, limit);
        let needs = missing.parts + u128::from(cost.max(1)) * WHOLE;
        let wait = |needs: u128| {
            needs.saturating_sub(u128::from(rate.capacity()) * WHOLE).div_ceil(WHOLE / rate.interval().as_nanos())
        };
        (wait(needs), wait(needs + missing.rounded))
    }
}

/// Runs the steps on a layer and on the book. With steps back, or newcomers without all tokens, the book is only the most
/// that may pass.
fn agree(steps: Vec<Step>, usual: Rate, pro: Rate, exact: bool) {
    let clock = FakeClock::new();
    let buckets = TokenBucketLayer::new(usual).rate_for("pro", pro).clock(clock.clone()).handle();
    let rates = HashMap::from([(0, usual), (1, pro)]);
    let mut book = Book { rates, removed: HashMap::new(), missing: HashMap::new(), now: 0 };
    let names = [0, 1].map(|number| Client::named(format!("client {number}")));
    let keys = |client: usize, tier: usize| match TIERS[tier] {
        Some(tier) => names[client].clone().with_tier(tier),
        None => names[client].clone(),
    };
    let pass = |book: &mut Book, time: Duration| {
        clock.advance(time);
        book.now += time.as_nanos();
    };
    for step in steps {
        match step {
            Step::Ask { client, tier, cost, waits } => {
                let cost = Cost::try_new(cost).unwrap_or(Cost::PREFLIGHT);
                let told = ask(&buckets, &mut book, &keys(client, tier), (client, tier), cost, exact);
                if let (Some(wait), true) = (told, waits) {
                    pass(&mut book, wait);
                    let again = ask(&buckets, &mut book, &keys(client, tier), (client, tier), cost, exact);
                    assert_eq!(again, None, "a client that waited {wait:?} as told is admitted");
                }
            }
            Step::Read { client, tier } => {
                let (limit, level) = (book.limit(tier), buckets.peek(&keys(client, tier)));
                let missing = *book.refill(client, limit);
                let most = u128::from(level.limit).saturating_sub(missing.parts.div_ceil(WHOLE));
                assert!(u128::from(level.remaining) <= most, "{} of {most} are left", level.remaining);
                assert!(!exact || missing.rounded > 0 || u128::from(level.remaining) == most);
            }
            Step::Set { tier, rate } => {
                book.set(tier, rate);
                match TIERS[tier] {
                    Some(name) => buckets.set_rate_for(name, rate),
                    None => buckets.set_rate(rate),
                }
            }
            Step::Remove { tier } => {
                assert_eq!(buckets.remove_tier_rate(TIERS[tier].unwrap()), book.remove(tier));
            }
            Step::Pass { time } => pass(&mut book, time),
            Step::SetBack { time } => clock.set_back(time.min(Duration::from_nanos(clock.now().as_nanos() - 1))),
        }
    }
}

/// Asks the layer and the book. Returns the time that the client is told to wait.
fn ask(
    buckets: &TokenBuckets,
    book: &mut Book,
    client: &Client,
    (number, tier): (usize, usize),
    cost: Cost,
    exact: bool,
) -> Option<Duration> {
    let limit = book.limit(tier);
    let (least, most) = book.wait(number, limit, cost.get());
    match buckets.check(client, cost) {
        Ok(()) => {
            assert_eq!(least, 0, "the book lacks tokens for {least} ns");
            book.refill(number, limit).parts += u128::from(cost.get()) * WHOLE;
            None
        }
        Err(refusal) => {
            let Some(wait) = refusal.retry_after() else {
                assert!(cost.get() > book.rates[&limit].capacity());
                return None;
            };
            assert!(wait.as_nanos() >= least, "told {wait:?} instead of {least} ns");
            assert!(!exact || wait.as_nanos() <= most, "told {wait:?} instead of {most} ns");
            Some(wait)
        }
    }
}

/// A bucket that was converted when it was read began its new rate with each read.
#[test]
fn new_rate_holds_from_the_change_on() {
    for (from, to, wait) in [(3_600, 1, 1), (1, 3_600, 3_600)] {
        let (from, to) = (Rate::every(Duration::from_secs(from)), Rate::every(Duration::from_secs(to)));
        let clock = FakeClock::new();
        let buckets = TokenBucketLayer::new(from).clock(clock.clone()).handle();
        let (busy, idle) = (Client::named("busy"), Client::named("idle"));
        buckets.check(&busy, Cost::ONE).unwrap();
        buckets.check(&idle, Cost::ONE).unwrap();
        buckets.set_rate(to);
        for passed in 0..wait {
            let refusal = buckets.check(&busy, Cost::ONE).unwrap_err();
            assert_eq!(refusal.retry_after(), Some(Duration::from_secs(wait - passed)));
            clock.advance(Duration::from_secs(1));
            buckets.forget_idle();
        }
        buckets.check(&busy, Cost::ONE).unwrap();
        buckets.check(&idle, Cost::ONE).unwrap();
    }
}

#[test]
fn debt_above_a_new_burst_is_waited_for() {
    let clock = FakeClock::new();
    let buckets = TokenBucketLayer::new(Rate::per_second(10)).clock(clock.clone()).handle();
    let alice = Client::named("alice");
    buckets.check(&alice, Cost::new(10)).unwrap();
    buckets.set_rate(Rate::per_second(1)); // a burst of 1: ten tokens are missing
    buckets.set_rate(Rate::per_second(2));
    assert_eq!(buckets.peek(&alice).full_in, Duration::from_secs(5));
    assert_eq!(buckets.check(&alice, Cost::ONE).unwrap_err().retry_after(), Some(Duration::from_millis(4_500)));
}

#[test]
fn removed_rate_leaves_the_tier_to_the_usual_one() {
    let clock = FakeClock::new();
    let layer =
        TokenBucketLayer::new(Rate::per_second(2)).rate_for("pro", Rate::every(Duration::from_secs(10)).burst(6));
    let buckets = layer.clock(clock.clone()).handle();
    let (free, pro) = (Client::named("alice"), Client::named("alice").with_tier("pro"));
    buckets.check(&free, Cost::ONE).unwrap();
    buckets.check(&pro, Cost::new(6)).unwrap();
    let wait = buckets.check(&pro, Cost::ONE).unwrap_err().retry_after().unwrap();
    assert!(buckets.remove_tier_rate("pro"));
    assert!(!buckets.remove_tier_rate("pro"));
    assert_eq!((buckets.tier_rates(), buckets.peek(&pro)), (vec![], buckets.peek(&free)));
    clock.advance(wait);
    buckets.check(&pro, Cost::new(2)).unwrap();
    assert_eq!(buckets.peek(&free).remaining, 0, "one bucket");
    buckets.give_back(&pro, Cost::ONE);
    assert_eq!(buckets.peek(&free).remaining, 1);
}

#[test]
fn removal_refills_no_bucket_of_the_tier() {
    let clock = FakeClock::new();
    let (usual, own) = (Rate::per_second(1), Rate::every(Duration::from_secs(10)).burst(5));
    let buckets = TokenBucketLayer::new(usual).clock(clock.clone()).handle();
    let [pro, gold] = ["pro", "gold"].map(|tier| Client::named("alice").with_tier(tier));
    buckets.set_rate_for("pro", own);
    buckets.check(&pro, Cost::new(5)).unwrap();
    for remaining in 0..5 {
        assert!(buckets.remove_tier_rate("pro"));
        buckets.set_rate_for("gold", own);
        assert_eq!(buckets.peek(&gold).remaining, 5, "a bucket of its own");
        assert!(buckets.remove_tier_rate("gold"));
        buckets.set_rate_for("pro", Rate::per_second(1).burst(5));
        assert_eq!(buckets.peek(&pro).remaining, remaining);
        buckets.set_rate_for("pro", own);
        clock.advance(Duration::from_secs(10));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_agree_with_a_book(steps in steps(false, 0), usual in rate(false), pro in rate(false)) {
        agree(steps, usual, pro, true);
    }

    #[test]
    fn histories_with_steps_back_admit_no_more(steps in steps(false, 1), usual in rate(false), pro in rate(false)) {
        agree(steps, usual, pro, false);
    }

    #[test]
    fn histories_of_slow_starts_admit_no_more(steps in steps(true, 1), usual in rate(true), pro in rate(true)) {
        agree(steps, usual, pro, false);
    }
}
