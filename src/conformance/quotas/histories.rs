//! Random histories beside a book that only adds up its entries.

use std::fmt::Write;

use super::{HOUR, Scene};
use crate::{
    identity::Client,
    quota::{Amounts, CloseOutcome, Plan, Quota, QuotaError, QuotaLayer, Quotas, ReservationId},
    time::Period,
};

/// Name, kind and hours of each limit. Two have one name and different periods, and are never in one plan.
const LIMITS: [(&str, usize, u32); 4] =
    [("queries", 0, 12), ("queries", 0, 24), ("queries_long", 0, 24), ("rows", 1, 12)];

const KINDS: [&str; 2] = ["queries", "rows"];

/// Numbers of histories and of their steps.
const HISTORIES: u64 = 200;
const STEPS: u32 = 24;

/// Random charges, reservations, records, credits and resets, changes of plans and tiers, commits under another plan, and reads
/// in between: after each step, each limit has the sum of the amounts that belong to its counter.
///
/// A counter is that of a name, kind and period, since the last reset. A credit lowers all counters of its kind. Up to its estimate an amount belongs to the
/// counters of its reservation; every other amount belongs to those of the plan under which it arrives.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::random_histories_equal_a_book(async |layer: QuotaLayer| layer.handle()).await;
/// # });
/// ```
pub async fn random_histories_equal_a_book(make: impl AsyncFn(QuotaLayer) -> Quotas) {
    random_histories(make, HISTORIES).await;
}

/// Runs this many histories; see [`random_histories_equal_a_book`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{QuotaLayer, conformance::quotas};
/// quotas::random_histories(async |layer: QuotaLayer| layer.handle(), 1_000).await;
/// # });
/// ```
pub async fn random_histories(make: impl AsyncFn(QuotaLayer) -> Quotas, histories: u64) {
    let layer = QuotaLayer::new(plan([9, 0, 20, 9])).tier_plan("pro", plan([0, 30, 0, 0]));
    let scene = Scene::of(make, layer).await;
    for seed in 0..histories {
        let mut history = History::new(&scene.quotas, seed);
        for _ in 0..STEPS {
            history.step().await;
            history.adds_up().await;
        }
    }
}

/// A plan of these limits; 0 stands for a missing one.
fn plan(sizes: [u64; 4]) -> Plan {
    let limits = LIMITS.into_iter().zip(sizes).filter(|(_, size)| *size > 0);
    limits.fold(Plan::new("random"), |plan, ((name, kind, hours), size)| {
        plan.limit(Quota::units(KINDS[kind], size).per(Period::rolling(HOUR * hours)).named(name))
    })
}

/// Amounts that one call counted, and the counters that they are part of, each by the number of resets before it.
struct Entry {
    counters: [Option<u64>; 4],
    used: [u64; 2],
    reserved: [u64; 2],
    open: Option<ReservationId>,
}

struct History<'a> {
    quotas: &'a Quotas,
    client: Client,
    random: fastrand::Rng,
    /// Sizes of the limits in the usual plan and in that of tier `pro`.
    plans: [[u64; 4]; 2],
    /// Index of the plan under which the client was charged last.
    tier: usize,
    resets: [u64; 4],
    entries: Vec<Entry>,
    /// Limit, number of resets before it, and amount of each part of a credit.
    credits: Vec<(usize, u64, u64)>,
    /// Amount of each credit, by its id.
    credited: Vec<(usize, u64)>,
    log: String,
}

impl<'a> History<'a> {
    fn new(quotas: &'a Quotas, seed: u64) -> Self {
        let mut history = Self {
            quotas,
            client: Client::named(format!("history {seed}")),
            random: fastrand::Rng::with_seed(seed),
            plans: [[0; 4]; 2],
            tier: 0,
            resets: [0; 4],
            entries: Vec::new(),
            credits: Vec::new(),
            credited: Vec::new(),
            log: format!("history {seed}:"),
        };
        (0..2).for_each(|tier| history.change_plan(tier));
        history
    }

    fn change_plan(&mut self, tier: usize) {
        let random = &mut self.random;
        let mut sizes = [10, 30, 40, 12].map(|most| if random.u8(..4) > 0 { random.u64(1..most) } else { 0 });
        if sizes[0] > 0 {
            sizes[1] = 0;
        }
        self.plans[tier] = sizes;
        match tier {
            0 => self.quotas.set_plan(plan(sizes)),
            _ => self.quotas.set_tier_plan("pro", plan(sizes)),
        }
        .expect("a plan");
        let _ = write!(self.log, " plan {tier} {sizes:?};");
    }

    fn amounts(&mut self) -> [Option<u64>; 2] {
        let random = &mut self.random;
        [0, 1].map(|_| if random.u8(..4) > 0 { Some(random.u64(..9)) } else { None })
    }

    /// Returns the client in this tier.
    fn in_tier(&self, tier: usize) -> Client {
        self.client.clone().with_tier(["free", "pro"][tier])
    }

    /// Returns the counters of what is counted now under the plan of a tier.
    fn counters(&self, tier: usize) -> [Option<u64>; 4] {
        std::array::from_fn(|limit| (self.plans[tier][limit] > 0).then_some(self.resets[limit]))
    }

    fn sum(&self, limit: usize) -> (u64, u64) {
        let kind = LIMITS[limit].1;
        let here = self.entries.iter().filter(|entry| entry.counters[limit] == Some(self.resets[limit]));
        let (used, reserved) =
            here.fold((0, 0), |(used, reserved), entry| (used + entry.used[kind], reserved + entry.reserved[kind]));
        let back = self.credits.iter().filter(|(of, resets, _)| (*of, *resets) == (limit, self.resets[limit]));
        (used - back.map(|(.., amount)| amount).sum::<u64>(), reserved)
    }

    /// Whether nothing is counted, so that the client may have no account.
    fn is_blank(&self) -> bool {
        (0..4).all(|limit| self.sum(limit) == (0, 0))
    }

    fn fits(&self, tier: usize, amounts: [Option<u64>; 2]) -> bool {
        (0..4).filter(|limit| self.plans[tier][*limit] > 0).all(|limit| {
            let (used, reserved) = self.sum(limit);
            amounts[LIMITS[limit].1]
                .is_none_or(|amount| amount.max(1) <= self.plans[tier][limit].saturating_sub(used + reserved))
        })
    }

    fn enter(&mut self, tier: usize, used: [u64; 2], reserved: [u64; 2], open: Option<ReservationId>) {
        let counters = self.counters(tier);
        self.entries.push(Entry { counters, used, reserved, open });
    }

    async fn step(&mut self) {
        match self.random.u8(..11) {
            0..=3 => self.charge().await,
            4 | 5 => self.close().await,
            6 => {
                let amounts = self.amounts();
                let _ = write!(self.log, " record {amounts:?};");
                self.quotas.record(&self.client, named(amounts)).await.expect("a record");
                self.enter(self.tier, amounts.map(Option::unwrap_or_default), [0; 2], None);
            }
            7 => self.reset().await,
            8 => self.credit().await,
            9 => {
                let tier = self.random.usize(..2);
                self.change_plan(tier);
            }
            _ => {
                let tier = self.random.usize(..2);
                let other = self.in_tier(tier);
                self.quotas.usage(&other).await.expect("a usage");
                let _ = self.quotas.check(&other, named([Some(1), None])).await;
                self.quotas.usage_page(None, 2).await.expect("a page");
            }
        }
    }

    /// Charges or reserves amounts, in a tier or by name alone.
    async fn charge(&mut self) {
        let (amounts, reserve) = (self.amounts(), self.random.bool());
        let tier = [0, 1, self.tier][self.random.usize(..3)];
        let client = if tier == self.tier && self.random.bool() { self.client.clone() } else { self.in_tier(tier) };
        let fits = self.fits(tier, amounts);
        let _ = write!(self.log, " charge {amounts:?} in {tier}, reserve {reserve};");
        if !fits {
            assert!(self.quotas.check(&client, named(amounts)).await.is_err(), "{}", self.log);
            return;
        }
        let plain = amounts.map(Option::unwrap_or_default);
        if reserve {
            let held = self.quotas.reserve(&client, named(amounts)).await;
            let id = held.unwrap_or_else(|refusal| panic!("{refusal}: {}", self.log)).detach();
            let counts = |kind: usize| (0..4).any(|at| LIMITS[at].1 == kind && self.plans[tier][at] > 0);
            let estimate = [0, 1].map(|kind| if counts(kind) { plain[kind] } else { 0 });
            self.enter(tier, [0; 2], estimate, Some(id));
        } else {
            self.quotas.charge(&client, named(amounts)).await.unwrap_or_else(|no| panic!("{no}: {}", self.log));
            self.enter(tier, plain, [0; 2], None);
        }
        self.tier = tier;
    }

    /// Commits an open reservation with less or more than its estimate, or rolls it back.
    async fn close(&mut self) {
        let open: Vec<_> = (0..self.entries.len()).filter(|at| self.entries[*at].open.is_some()).collect();
        let Some(at) = self.random.choice(open) else { return };
        let commit = self.random.u8(..3) > 0;
        // A kind that is not named is charged as estimated.
        let actual = self.amounts();
        let (tier, entry) = (self.tier, &mut self.entries[at]);
        let (id, estimate) = (entry.open.take().expect("it is open"), std::mem::take(&mut entry.reserved));
        let _ = write!(self.log, " close {estimate:?} by {:?};", commit.then_some(actual));
        if !commit {
            assert_eq!(self.quotas.roll_back(&id).await, Ok(CloseOutcome::Closed), "{}", self.log);
            return;
        }
        let used: [u64; 2] = std::array::from_fn(|kind| actual[kind].unwrap_or(estimate[kind]));
        entry.used = std::array::from_fn(|kind| used[kind].min(estimate[kind]));
        let beyond = std::array::from_fn(|kind| used[kind].saturating_sub(estimate[kind]));
        assert_eq!(self.quotas.commit(&id, named(actual)).await, Ok(CloseOutcome::Closed), "{}", self.log);
        self.enter(tier, beyond, [0; 2], None);
    }

    /// Gives back an amount of a kind, at times once more under the same id.
    async fn credit(&mut self) {
        let (kind, asked) = (self.random.usize(..2), self.random.u64(1..12));
        let again = self.random.u8(..3) == 0 && !self.credited.is_empty();
        let id = if again { self.random.usize(..self.credited.len()) } else { self.credited.len() };
        let _ = write!(self.log, " credit {id} of {asked} {};", KINDS[kind]);
        let credited = self.quotas.credit(&self.client, &id.to_string(), KINDS[kind], asked, "history").await;
        if credited == Err(QuotaError::UnknownAccount) && !again && self.is_blank() {
            return;
        }
        let credited = credited.unwrap_or_else(|error| panic!("{error}: {}", self.log));
        let stands = if again {
            self.credited[id]
        } else {
            let of_kind = |limit: &usize| LIMITS[*limit].1 == kind; // whichever plan has the limit
            let parts = (0..4).filter(of_kind).map(|limit| (limit, self.resets[limit], asked.min(self.sum(limit).0)));
            let parts: Vec<_> = parts.collect();
            let most = parts.iter().map(|(.., amount)| *amount).max().unwrap_or(0);
            self.credits.extend(parts);
            self.credited.push((kind, most));
            (kind, most)
        };
        let told = (credited.kind.as_str(), credited.amount, credited.already);
        assert_eq!(told, (KINDS[stands.0], stands.1, again), "{}", self.log);
    }

    /// Resets the limits of one name or kind of the present plan, or all.
    async fn reset(&mut self) {
        let there: Vec<_> = (0..4).filter(|limit| self.plans[self.tier][*limit] > 0).collect();
        let word = self.random.choice(there).filter(|_| self.random.u8(..4) > 0).map(|limit| LIMITS[limit].0);
        let _ = write!(self.log, " reset {word:?};");
        let reset = match word {
            Some(word) => self.quotas.reset(&self.client, word).await,
            None => self.quotas.reset_all(&self.client).await,
        };
        let unknown = reset == Err(QuotaError::UnknownAccount) && self.is_blank();
        assert!(reset.is_ok() || unknown, "{reset:?}: {}", self.log);
        for (limit, (name, kind, _)) in LIMITS.into_iter().enumerate() {
            if word.is_none_or(|word| word == name || word == KINDS[kind]) {
                self.resets[limit] += 1;
            }
        }
    }

    /// Checks each limit of the present plan against the book.
    async fn adds_up(&self) {
        let usage = self.quotas.usage(&self.client).await.expect("a usage");
        let counted: Vec<_> = usage.limits.iter().map(|limit| (limit.limit, limit.used, limit.reserved)).collect();
        let sums = (0..4).filter(|limit| self.plans[self.tier][*limit] > 0).map(|limit| {
            let (used, reserved) = self.sum(limit);
            (self.plans[self.tier][limit], used, reserved)
        });
        assert_eq!(counted, sums.collect::<Vec<_>>(), "{}", self.log);
    }
}

fn named(amounts: [Option<u64>; 2]) -> Amounts {
    KINDS.into_iter().zip(amounts).filter_map(|(kind, amount)| Some((kind, amount?))).collect()
}
