//! Random commands, in one batch and one by one.

use proptest::prelude::*;

use super::*;
use crate::quota::account::GrantState;

#[derive(Clone, Debug)]
enum Step {
    Admit { amounts: [Option<u64>; 2], fingerprint: Option<u128>, reserve: bool },
    Commit { attempt: u32, actual: Option<u64> },
    Void { attempt: u32 },
    Add { attempt: u32, tokens: u64 },
    Record { amounts: [Option<u64>; 2] },
    Expire { attempt: u32 },
    Renew { attempt: u32 },
    Reset { which: Option<usize> },
    Grant { amount: u64, hours: u64 },
    Revoke { which: usize },
}

const NAMES: [&str; 3] = ["requests_per_hour", "requests_per_day", "tokens"];

fn amounts() -> impl Strategy<Value = [Option<u64>; 2]> {
    let amount = |most: u64| prop_oneof![1 => Just(None), 1 => Just(Some(0)), 6 => (1..most).prop_map(Some)];
    [amount(50), amount(500)]
}

fn step() -> impl Strategy<Value = Step> {
    let attempt = || prop_oneof![4 => Just(0_u32), 1 => Just(1)];
    prop_oneof![
        10 => (amounts(), prop::option::of(1..3_u128), any::<bool>())
            .prop_map(|(amounts, fingerprint, reserve)| Step::Admit { amounts, fingerprint, reserve }),
        4 => (attempt(), prop::option::of(0..60_u64)).prop_map(|(attempt, actual)| Step::Commit { attempt, actual }),
        3 => attempt().prop_map(|attempt| Step::Void { attempt }),
        2 => (attempt(), 1..100_u64).prop_map(|(attempt, tokens)| Step::Add { attempt, tokens }),
        2 => amounts().prop_map(|amounts| Step::Record { amounts }),
        2 => attempt().prop_map(|attempt| Step::Expire { attempt }),
        1 => attempt().prop_map(|attempt| Step::Renew { attempt }),
        1 => prop::option::of(0..3_usize).prop_map(|which| Step::Reset { which }),
        1 => (1..50_u64, 1..5_u64).prop_map(|(amount, hours)| Step::Grant { amount, hours }),
        1 => (0..8_usize).prop_map(|which| Step::Revoke { which }),
    ]
}

fn named(amounts: [Option<u64>; 2]) -> Amounts {
    let kinds = ["requests", "tokens"].into_iter().zip(amounts);
    kinds.filter_map(|(kind, amount)| Some((crate::kind::Kind::from(kind), amount?))).collect()
}

/// A command of a tenant for a job; settlements carry the time at which their batch began.
fn made(ledger: &mut Ledger, step: &Step, tenant: usize, job: usize, charge: bool) -> Command {
    let plan = Arc::clone(&ledger.plan);
    let since = AdmittedAt { at: ledger.now, epoch: u64::MAX };
    ledger.commands += 2;
    let (id, named_job) = (ledger.commands, ["a", "b", "c", "d"][job].to_owned());
    let settle = |attempt, end, used: Amounts| {
        let part = u32::try_from(id).unwrap(); // each addition is a part of its own
        CommandKind::Settle(SettleCommand {
            plan: Arc::clone(&plan),
            attempt,
            since,
            end,
            job: None,
            used,
            part,
            whole: false,
        })
    };
    let kind = match *step {
        Step::Admit { amounts, fingerprint, reserve } => {
            let reserve = reserve.then_some(crate::ledger::writer::ReservationTerms { ttl: HOUR, charge: false });
            CommandKind::Admit(AdmitCommand {
                fingerprint,
                reserve,
                wants_nearest: true,
                usage: true,
                ..admit(&plan, named(amounts))
            })
        }
        Step::Commit { attempt, actual } => settle(attempt, SettleKind::Commit(named([actual, None])), Amounts::new()),
        Step::Void { attempt } => settle(attempt, SettleKind::Void, Amounts::new()),
        Step::Add { attempt, tokens } => settle(attempt, SettleKind::Add, ("tokens", tokens).into()),
        Step::Record { amounts } => CommandKind::Record { plan, amounts: named(amounts) },
        Step::Expire { attempt } => CommandKind::Expire { attempt, since: since.at, charge },
        Step::Renew { attempt } => CommandKind::Renew { attempt, since: since.at, ttl: HOUR },
        Step::Reset { which } => CommandKind::Reset { plan, limit: which.map(|which| NAMES[which].into()) },
        Step::Grant { amount, hours } => {
            let grant = GrantState {
                id: u64::try_from(id).unwrap(),
                limit: "requests_per_hour".into(),
                kind: "".into(),
                period: "".into(),
                amount,
                until: ledger.now + hours * HOUR,
                approver: String::new(),
                reason: String::new(),
                before: 0,
                current: 0,
                window: 0,
                epoch: 0,
                ended: false,
            };
            CommandKind::Grant { plan, grant: Box::new(grant) }
        }
        Step::Revoke { which } => {
            let known = ledger.store.accounts.values().flat_map(|stored| &stored.grants).nth(which);
            CommandKind::Revoke { grant: known.map_or(0, |grant| grant.id) }
        }
    };
    let by_hand = matches!(
        kind,
        CommandKind::Record { .. } | CommandKind::Reset { .. } | CommandKind::Grant { .. } | CommandKind::Revoke { .. }
    );
    let job = if by_hand { format!("command {id}") } else { named_job };
    command(id, key(["acme", "zenith"][tenant], &job), kind)
}

type Batch = (u64, Vec<(Step, usize, usize)>);

/// Histories whose expiries return the estimate have no grants. An expiry knows no plan, so that amounts that grants
/// cover return with the next request that is decided.
fn run(batches: &[Batch], charge: bool) -> Result<(), TestCaseError> {
    let (mut together, mut apart) = (Ledger::of_three(), Ledger::of_three());
    for (minutes, steps) in batches {
        together.now += minutes * HOUR / 60;
        apart.now = together.now;
        let happens = |step: &Step| charge || !matches!(step, Step::Grant { .. });
        let steps = steps.iter().filter(|(step, ..)| happens(step));
        let commands: Vec<_> =
            steps.map(|(step, tenant, job)| made(&mut together, step, *tenant, *job, charge)).collect();
        let at_once = together.batch(&commands);
        for (command, reply) in commands.iter().zip(at_once) {
            let before = overruns(&apart);
            let alone = apart.batch(std::slice::from_ref(command)).remove(0);
            prop_assert_eq!(told(&alone), told(&reply), "{:?}", command);
            if let Reply::Refused(_) | Reply::Replay { .. } | Reply::Conflict | Reply::Invalid(_) = alone {
                prop_assert!(apart.writes.is_empty(), "{reply:?} writes {:?}", apart.writes);
            }
            if let CommandKind::Admit(_) = command.kind {
                let grew = overruns(&apart).into_iter().find(|(count, over)| *over > *before.get(count).unwrap_or(&0));
                prop_assert!(grew.is_none(), "R1: an admission takes {grew:?}");
            }
        }
        prop_assert_eq!(kept(&together), kept(&apart));
    }
    Ok(())
}

/// Stored state. The end of a grant, and of the hour in which it covered an amount, may be written with whatever
/// comes next.
fn kept(ledger: &Ledger) -> Store {
    let mut store = ledger.store.clone();
    for grant in store.accounts.values_mut().flat_map(|stored| &mut stored.grants) {
        grant.ended |= grant.until <= ledger.now;
        grant.close();
        (grant.window, grant.epoch) = (0, 0);
    }
    store
}

/// Returns a reply as text; a database returns rows in any order.
fn told(reply: &Reply) -> String {
    match reply {
        Reply::Settled(standing, near) => {
            let mut sorted: Vec<_> = near.iter().map(|warning| format!("{warning:?}")).collect();
            sorted.sort();
            format!("Settled {standing:?} {sorted:?}")
        }
        other => format!("{other:?}"),
    }
}

/// Amount beyond each limit in the current counter, grants included.
fn overruns(ledger: &Ledger) -> BTreeMap<(Arc<str>, Arc<str>, u64, u64), u64> {
    let mut overruns = BTreeMap::new();
    for (tenant, stored) in &ledger.store.accounts {
        let mut grants = stored.grants.clone();
        grants.iter_mut().for_each(|grant| grant.ended |= grant.until <= ledger.now);
        let grants: crate::quota::account::Grants = grants.into_iter().collect();
        for limit in ledger.plan.counted() {
            let counts = stored.counts.iter().filter(|count| count.is_of(limit) && count.counter.ends > ledger.now);
            if let Some(count) = counts.max_by_key(|count| (count.counter.starts, count.counter.epoch)) {
                let there = limit.limit + grants.raise(limit);
                let place = (Arc::clone(tenant), Arc::clone(&count.limit), count.counter.starts, count.counter.epoch);
                overruns.insert(place, count.counter.taken().saturating_sub(there));
            }
        }
    }
    overruns
}

fn batches(most: usize) -> impl Strategy<Value = Vec<Batch>> {
    let one = (step(), 0..2_usize, 0..4_usize);
    let minutes = prop_oneof![6 => Just(0), 3 => 1..30_u64, 1 => 30..400_u64];
    prop::collection::vec((minutes, prop::collection::vec(one, 1..6)), 1..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Replies, rows and counters are the same, and each counter is the sum of its rows after each batch.
    #[test]
    fn batch_of_many_equals_batches_of_one(batches in batches(14), charge: bool) {
        run(&batches, charge)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "a minute: many histories"]
    fn batch_of_many_equals_batches_of_one_in_many_histories(batches in batches(30), charge: bool) {
        run(&batches, charge)?;
    }
}
