//! States of jobs in random histories, beside a book that keeps one entry for each id.

use proptest::prelude::*;

use super::*;
use crate::{
    ledger::writer::{JobEnd, ReservationTerms, UnfinishedJob},
    quota::{JobOutcome, JobState, account::Duplicate},
};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Charges or reserves ten, under a lease in ticks.
    Admit {
        fingerprint: u128,
        reserve: bool,
        lease: u64,
    },
    /// As the fallback did, while the ledger was away.
    Pass {
        lease: u64,
    },
    Ends {
        attempt: u32,
        end: JobEnd,
    },
    Void {
        attempt: u32,
    },
    Expire {
        attempt: u32,
        charge: bool,
    },
    Settle {
        outcome: JobOutcome,
    },
    Ticks(u64),
}

/// The latest attempt of a job that holds its id.
#[derive(Clone, Copy, Debug)]
struct Entry {
    attempt: u32,
    fingerprint: Option<u128>,
    /// Reserved, expired with its estimate returned, or charged.
    reserved: bool,
    returned: bool,
    /// Time until which the work may be under way; `None` once it is done.
    until: Option<u64>,
}

impl Entry {
    fn duplicate(&self, now: u64) -> Duplicate {
        self.until.map_or(Duplicate::Done, |until| Duplicate::Unknown { may_run: until > now })
    }
}

const JOBS: [&str; 2] = ["a", "b"];
const TICK: u64 = HOUR / 1_200;

fn steps() -> impl Strategy<Value = (usize, Step)> {
    let attempt = || 0..3_u32;
    let step = prop_oneof![
        4 => (0..2_u128, any::<bool>(), 0..30_u64)
            .prop_map(|(fingerprint, reserve, lease)| Step::Admit { fingerprint, reserve, lease }),
        1 => (0..30_u64).prop_map(|lease| Step::Pass { lease }),
        3 => (attempt(), any::<bool>()).prop_map(|(attempt, done)| {
            Step::Ends { attempt, end: if done { JobEnd::Done } else { JobEnd::Interrupted } }
        }),
        1 => attempt().prop_map(|attempt| Step::Void { attempt }),
        1 => (attempt(), any::<bool>()).prop_map(|(attempt, charge)| Step::Expire { attempt, charge }),
        3 => any::<bool>().prop_map(|done| {
            Step::Settle { outcome: if done { JobOutcome::Done } else { JobOutcome::Free } }
        }),
        1 => (1..20_u64).prop_map(Step::Ticks),
    ];
    (0..JOBS.len(), step)
}

fn run(steps: &[(usize, Step)]) -> Result<(), TestCaseError> {
    let mut ledger = Ledger::new(hourly(10_000));
    let (mut book, mut made) = ([None::<Entry>; 2], [0_u32; 2]);
    for (job, step) in steps {
        let (name, entry, now) = (JOBS[*job], &mut book[*job], ledger.now);
        let since = crate::ledger::writer::AdmittedAt { at: START, epoch: u64::MAX };
        let of = |entry: &Option<Entry>, attempt: u32| entry.filter(|entry| entry.attempt == attempt).is_some();
        match *step {
            Step::Ticks(ticks) => ledger.now += ticks * TICK, // less than half an hour in all
            Step::Admit { .. } | Step::Pass { .. } => {
                let (fingerprint, reserve, lease, passes) = match *step {
                    Step::Admit { fingerprint, reserve, lease } => (Some(fingerprint), reserve, lease, false),
                    Step::Pass { lease } => (None, false, lease, true),
                    _ => continue,
                };
                let lease = lease * TICK;
                let reserve = reserve.then_some(ReservationTerms { ttl: HOUR, charge: false });
                let admit = admit(&ledger.plan, ("requests", 10));
                let admit = AdmitCommand { fingerprint, reserve, job_lease: Some(lease), ..admit };
                let kind = if passes { CommandKind::Spooled { admit, at: now } } else { CommandKind::Admit(admit) };
                let reply = ledger.run(name, kind);
                match entry {
                    Some(known) if known.fingerprint.is_some_and(|known| fingerprint.is_some_and(|of| of != known)) => {
                        prop_assert!(matches!(reply, Reply::Conflict), "{reply:?}");
                    }
                    Some(known) => {
                        let Reply::Replay(told) = reply else { panic!("{reply:?}") };
                        prop_assert_eq!(told, known.duplicate(now));
                    }
                    None => {
                        prop_assert!(matches!(reply, Reply::Admitted(_) | Reply::Done), "{reply:?}");
                        let (attempt, reserved) = (made[*job], reserve.is_some());
                        made[*job] += 1;
                        let until = Some(now + lease);
                        *entry = Some(Entry { attempt, fingerprint, reserved, returned: false, until });
                    }
                }
            }
            Step::Ends { attempt, end } => {
                let reserved = entry.filter(|entry| entry.attempt == attempt).is_some_and(|entry| entry.reserved);
                let how = if reserved { SettleKind::Commit(Amounts::new()) } else { SettleKind::Add };
                ledger.run(name, ends(settle(&ledger.plan, attempt, since, how), end));
                if let Some(entry) = entry.as_mut().filter(|entry| entry.attempt == attempt) {
                    // The estimate of an expired reservation is charged after all.
                    (entry.reserved, entry.returned) = (false, entry.returned && !reserved);
                    match end {
                        JobEnd::Done => entry.until = None,
                        JobEnd::Interrupted => entry.until = entry.until.map(|_| now),
                    }
                }
            }
            Step::Void { attempt } => {
                ledger.run(name, settle(&ledger.plan, attempt, since, SettleKind::Void));
                // A reservation that has ended is not voided by its holder.
                let rows: Vec<_> = ledger.store.rows.iter().filter(|row| *row.key.job == *name).cloned().collect();
                if of(entry, attempt) && JobRows(&rows).status(attempt) == JobStatus::Voided {
                    *entry = None;
                }
            }
            Step::Expire { attempt, charge } => {
                ledger.run(name, CommandKind::Expire { attempt, since: START, charge });
                if let Some(entry) = entry.as_mut().filter(|entry| entry.attempt == attempt && entry.reserved) {
                    (entry.reserved, entry.returned) = (false, !charge);
                }
            }
            Step::Settle { outcome } => {
                let attempt = entry.map_or(made[*job].saturating_sub(1), |entry| entry.attempt);
                let plan = Arc::clone(&ledger.plan);
                let kind = CommandKind::SettleJob { plan, attempt, since: START, outcome, running: false };
                let Reply::Job(state) = ledger.run(name, kind) else { panic!("no state") };
                let known = entry.map(|entry| if entry.until.is_some() { JobState::Unknown } else { JobState::Done });
                prop_assert_eq!(state, known);
                match (entry.as_mut(), outcome) {
                    (Some(Entry { until: None, .. }) | None, _) => {}
                    (Some(entry), JobOutcome::Done) => (entry.until, entry.reserved) = (None, false),
                    (Some(_), JobOutcome::Free) => *entry = None,
                }
            }
        }
        let kept = book.iter().flatten().filter(|entry| !entry.returned).count() as u64;
        let (used, reserved) = ledger.of("requests_per_hour");
        prop_assert_eq!(used + reserved, kept * 10, "after {:?}", step);
        let reserving = book.iter().flatten().filter(|entry| entry.reserved).count();
        prop_assert_eq!((reserved, ledger.store.holds.len()), (reserving as u64 * 10, reserving), "after {:?}", step);
        let unfinished = |(job, entry): (&str, &Option<Entry>)| {
            let Entry { attempt, until, .. } = (*entry)?;
            Some(UnfinishedJob { key: key("acme", job), attempt, until: until? })
        };
        let unfinished: Vec<_> = JOBS.into_iter().zip(&book).filter_map(unfinished).collect();
        prop_assert_eq!(&ledger.store.unfinished, &unfinished, "after {:?}", step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn each_job_has_the_state_and_the_charge_of_the_book(steps in proptest::collection::vec(steps(), 1..25)) {
        run(&steps)?;
    }
}
