//! Steps of an account, in any order.

use std::ops::Range;

use proptest::prelude::*;

use crate::quota::account::tests::*;

/// Amounts of requests and of tokens, and whether a slot is requested.
pub(super) type Asked = ([Option<u64>; 2], bool);

#[derive(Clone, Debug)]
pub(super) enum Step {
    Charge(Asked),
    Reserve(Asked),
    /// Reserves amounts many times, more often than one call expires.
    Burst(u8, [Option<u64>; 2]),
    /// Commits a reservation, by its number, with an amount of tokens.
    Commit(usize, Option<u64>),
    /// A cancelled task does this too. A task that crashes does nothing: its reservation expires.
    RollBack(usize),
    GiveBack(usize),
    Release(usize),
    Record([Option<u64>; 2]),
    Seconds(u64),
    Reset(Option<usize>),
    /// Changes to a plan with these limits, in the order of [`NAMES`]; 0 stands for a missing one.
    Plan([u64; 4]),
    /// Changes to the next version of the plan, which starts fresh.
    Fresh,
    /// Grants a limit an amount for a number of seconds.
    Grant(usize, u64, u64),
    Revoke(usize),
    Clock(i64),
}

pub(super) const NAMES: [&str; 4] = ["requests_per_hour", "requests_per_day", "tokens_per_hour", "concurrent_requests"];

fn amounts() -> impl Strategy<Value = [Option<u64>; 2]> {
    let amount = || prop_oneof![1 => Just(None), 1 => Just(Some(0)), 6 => (1..12_u64).prop_map(Some)];
    [amount(), amount()]
}

fn asked() -> impl Strategy<Value = Asked> {
    (amounts(), prop::bool::weighted(0.3))
}

fn limits() -> impl Strategy<Value = [u64; 4]> {
    let limit = |most: u64| prop_oneof![2 => Just(0), 8 => 1..most, 1 => 100..500_u64];
    [limit(40), limit(80), limit(40), limit(4)]
}

/// Returns steps. A burst among them has this many reservations.
pub(super) fn steps(most: usize, burst: Range<u8>) -> impl Strategy<Value = Vec<Step>> {
    let which = any::<usize>;
    let seconds = || prop_oneof![Just(1), Just(61), Just(TTL.as_secs()), Just(3_600), 1..100_000_u64];
    let step = prop_oneof![
        8 => asked().prop_map(Step::Charge),
        5 => asked().prop_map(Step::Reserve),
        2 => (burst, amounts()).prop_map(|(many, amounts)| Step::Burst(many, amounts)),
        4 => (which(), prop::option::of(0..20_u64)).prop_map(|(which, actual)| Step::Commit(which, actual)),
        3 => which().prop_map(Step::RollBack),
        3 => which().prop_map(Step::GiveBack),
        3 => which().prop_map(Step::Release),
        3 => amounts().prop_map(Step::Record),
        6 => seconds().prop_map(Step::Seconds),
        1 => prop::option::of(0..3_usize).prop_map(Step::Reset),
        2 => limits().prop_map(Step::Plan),
        1 => Just(Step::Fresh),
        2 => (0..3_usize, 1..20_u64, seconds()).prop_map(|(of, amount, until)| Step::Grant(of, amount, until)),
        1 => which().prop_map(Step::Revoke),
        1 => prop_oneof![Just(-3_600), Just(3_600), Just(-86_400), Just(86_400)].prop_map(Step::Clock),
    ];
    prop::collection::vec(step, 1..most)
}

pub(super) fn named((amounts, slot): Asked) -> Amounts {
    let kinds = ["requests", "tokens"].iter().zip(amounts);
    let named: Amounts = kinds.filter_map(|(kind, amount)| Some((crate::kind::Kind::from(*kind), amount?))).collect();
    if slot { named.with("concurrent_requests", 1) } else { named }
}

pub(super) fn plan(limits: [u64; 4], version: u64) -> Arc<Plan> {
    let all = [
        Quota::requests(limits[0].max(1)).per(Period::hour()),
        Quota::requests(limits[1].max(1)).per(Period::day()),
        Quota::units("tokens", limits[2].max(1)).per(Period::hour()),
        Quota::concurrent(limits[3].max(1)),
    ];
    let there = all.into_iter().zip(limits).filter(|(_, limit)| *limit > 0);
    Arc::new(there.fold(Plan::new("plan").numbered(version), |plan, (quota, _)| plan.limit(quota)))
}
