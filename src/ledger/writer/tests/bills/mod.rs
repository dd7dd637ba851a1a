//! Property: an invoice is the sum of a naive book.
//!
//! Random histories run through the batch rule, here over the [model](super::model) and in `ledger/suite/bills.rs`
//! over each database. The [book](book) is kept beside them and shares no code with the rules.
//!
//! Left out: amounts near 2^53, where counters are full, and other work that passes under the id of a job.

mod book;
mod case;

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::{
    super::{CREDIT, Loaded, Reads, Reply, ReservationTerms, Row, Writes, batch, billed},
    model::Store,
    *,
};
use crate::quota::{CreditRequest, Credited};
use book::Book;
use case::{BEGINNING, CALENDAR, KINDS, Kinds, LIMITS, MINUTE, Step};
pub(crate) use case::{Case, cases};

/// A running history and its book.
#[derive(Debug)]
pub(crate) struct History {
    tenant: Arc<str>,
    plain: bool,
    /// The limits of the plan in force, by their places.
    limits: Vec<usize>,
    plan: Arc<Plan>,
    pub(crate) now: u64,
    commands: u128,
    /// Orders that admit or pass, and their jobs.
    admitting: Vec<(u128, Arc<str>, u64)>,
    /// The attempts that were admitted, by their commands.
    attempts: BTreeMap<u128, u32>,
    book: Book,
    /// Every row in the order in which it was written, with its time.
    log: Vec<(u64, Row)>,
    times: Vec<u64>,
    /// Ids of credits, with kinds and amounts.
    credits: BTreeMap<usize, (usize, u64)>,
}

/// Orders of one batch, with the entries that the book makes once they are decided.
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    told: Vec<(u128, Told)>,
}

/// A decided command, as the book enters it.
enum Told {
    Admit(Kinds, bool, [Vec<usize>; 2], u64),
    Commit(u128, Kinds, Kinds, [Vec<usize>; 2]),
    Void(u128),
    Add(u128, Kinds, [Vec<usize>; 2]),
    Expire(u128, bool),
    Record(Kinds, [Vec<usize>; 2]),
    /// Id, kind and amount of a credit.
    Credit(usize, usize, u64),
    Reset,
}

fn named(amounts: Kinds) -> Amounts {
    KINDS.into_iter().zip(amounts).filter_map(|(kind, amount)| Some((crate::kind::Kind::from(kind), amount?))).collect()
}

impl History {
    pub(crate) fn new(case: &Case, tenant: &str) -> Self {
        let mut history = Self {
            tenant: tenant.into(),
            plain: case.plain,
            limits: Vec::new(),
            plan: Arc::new(Plan::new("none")),
            now: BEGINNING,
            commands: 0,
            admitting: Vec::new(),
            attempts: BTreeMap::new(),
            book: Book::default(),
            log: Vec::new(),
            times: Vec::new(),
            credits: BTreeMap::new(),
        };
        history.set_plan(case.plan);
        history
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    fn set_plan(&mut self, mask: u16) {
        let places = if self.plain { CALENDAR } else { LIMITS.len() };
        let mut limits: Vec<usize> = (0..places).filter(|at| mask >> at & 1 == 1).collect();
        if limits.contains(&6) {
            limits.retain(|at| *at != 7); // one of each name
        }
        let plan = limits.iter().fold(Plan::new("some"), |plan, at| {
            let (name, kind, period, limit) = LIMITS[*at];
            plan.limit(Quota::units(KINDS[kind], limit).per(period()).named(name))
        });
        (self.limits, self.plan) = (limits, Arc::new(plan));
    }

    /// Returns the limits of the plan in force that count each kind.
    fn counting(&self) -> [Vec<usize>; 2] {
        [0, 1].map(|kind| self.limits.iter().copied().filter(|at| LIMITS[*at].1 == kind).collect())
    }

    fn key(&self, job: &str) -> Key {
        Key { tenant: Arc::clone(&self.tenant), job: job.into() }
    }

    /// Returns the commands of the next batch.
    pub(crate) fn next(&mut self, (minutes, steps): &(i64, Vec<Step>)) -> Batch {
        let minutes = if self.plain { (*minutes).max(0) } else { *minutes };
        self.now = self.now.checked_add_signed(minutes * MINUTE.cast_signed()).unwrap();
        self.times.push(self.now);
        let mut batch = Batch { commands: Vec::new(), told: Vec::new() };
        for step in steps {
            self.commands += 2;
            let id = self.commands;
            if let Some((key, kind, told)) = self.asked(id, step) {
                batch.commands.push(command(id, key, kind));
                batch.told.push((id, told));
            }
        }
        batch
    }

    fn asked(&mut self, id: u128, step: &Step) -> Option<(Key, CommandKind, Told)> {
        let (now, plan, counting) = (self.now, Arc::clone(&self.plan), self.counting());
        let reservation = |charge: bool| ReservationTerms { ttl: HOUR, charge };
        let pick = |which: usize| Some(&self.admitting[which.checked_rem(self.admitting.len())?]);
        let part = u32::try_from(id).unwrap();
        let end = |since: u64, end: SettleKind, used: Kinds| SettleCommand {
            plan: Arc::clone(&plan),
            attempt: 0,
            since: AdmittedAt { at: since, epoch: u64::MAX },
            end,
            job: None,
            used: named(used),
            part,
            whole: false,
        };
        Some(match *step {
            Step::Plan(mask) => {
                self.set_plan(mask);
                return None;
            }
            Step::Admit { job, amounts, reserve } => {
                let key = self.key(["a", "b", "c", "d"][job]);
                self.admitting.push((id, Arc::clone(&key.job), now));
                let admit = AdmitCommand { reserve: reserve.map(reservation), ..admit(&plan, named(amounts)) };
                (key, CommandKind::Admit(admit), Told::Admit(amounts, reserve.is_some(), counting, now))
            }
            Step::Pass { minutes, amounts, reserve } => {
                let (key, at) = (self.key(&format!("passed {id}")), now - minutes * MINUTE);
                self.admitting.push((id, Arc::clone(&key.job), at));
                let (reserve, is_reserved) = (reserve.map(reservation), reserve.is_some());
                let admit = AdmitCommand { reserve, ..admit(&plan, named(amounts)) };
                (key, CommandKind::Spooled { admit, at }, Told::Admit(amounts, is_reserved, counting, at))
            }
            Step::Commit { which, actual, besides } => {
                let (of, job, since) = pick(which)?;
                let settle = end(*since, SettleKind::Commit(named(actual)), besides);
                (self.key(job), CommandKind::SettleOf { of: *of, settle }, Told::Commit(*of, actual, besides, counting))
            }
            Step::Void { which } => {
                let (of, job, since) = pick(which)?;
                let settle = end(*since, SettleKind::Void, [None, None]);
                (self.key(job), CommandKind::SettleOf { of: *of, settle }, Told::Void(*of))
            }
            Step::Add { which, amounts } => {
                let (of, job, since) = pick(which)?;
                (
                    self.key(job),
                    CommandKind::SettleOf { of: *of, settle: end(*since, SettleKind::Add, amounts) },
                    Told::Add(*of, amounts, counting),
                )
            }
            Step::Expire { which } => {
                let (of, job, since) = pick(which)?;
                let attempt = *self.attempts.get(of)?;
                if !self.book.is_reserved(*of) {
                    return None;
                }
                let charge = which & 1 == 0;
                (self.key(job), CommandKind::Expire { attempt, since: *since, charge }, Told::Expire(*of, charge))
            }
            Step::Record { amounts } => (
                self.key(&format!("record {id}")),
                CommandKind::Record { plan, amounts: named(amounts) },
                Told::Record(amounts, counting),
            ),
            Step::Credit { id: credit, kind, amount } => {
                if self.plain {
                    return None;
                }
                let request = CreditRequest::try_new(&credit.to_string(), KINDS[kind].into(), amount, "").unwrap();
                let key = self.key(&format!("{CREDIT}{credit}"));
                (key, CommandKind::Credit { plan, request: Box::new(request) }, Told::Credit(credit, kind, amount))
            }
            Step::Reset { which } => {
                if self.plain {
                    return None;
                }
                let limit = match which {
                    Some(which) => Some(LIMITS[self.limits[which.checked_rem(self.limits.len())?]].0.into()),
                    None => None,
                };
                (self.key(&format!("reset {id}")), CommandKind::Reset { plan, limit }, Told::Reset)
            }
        })
    }

    /// Returns the reads of a transaction, made explicit for the time of this history.
    pub(crate) fn reads(&self, commands: &[Command]) -> Reads {
        let mut reads = batch::reads(&in_queue(commands));
        for tenant in &reads.tenants {
            let since = reads.since.entry(Arc::clone(tenant)).or_insert(self.now);
            *since = self.now.min(*since);
        }
        reads
    }

    /// Decides a batch and enters it in the book.
    pub(crate) fn decide(&mut self, asked: Batch, loaded: Loaded) -> Writes {
        let (writes, replies) = replies_to(&in_queue(&asked.commands), Loaded { now: self.now, sealed: 0, ..loaded });
        self.log.extend(writes.rows.iter().map(|row| (self.now, row.clone())));
        for ((id, told), reply) in asked.told.into_iter().zip(replies) {
            self.enter(id, told, reply);
        }
        writes
    }

    fn enter(&mut self, id: u128, told: Told, reply: Reply) {
        let (now, book) = (self.now, &mut self.book);
        match told {
            Told::Admit(amounts, reserve, counting, at) => {
                match reply {
                    Reply::Admitted(admitted) => drop(self.attempts.insert(id, admitted.attempt)),
                    Reply::Done => drop(self.attempts.insert(id, 0)),
                    _ => return,
                }
                book.admit(id, amounts, reserve, counting, [now, at]);
            }
            Told::Commit(of, actual, besides, counting) => book.commit(of, actual, besides, &counting, now),
            Told::Void(of) => book.void(of, now),
            Told::Add(of, amounts, counting) => book.add(of, amounts, &counting, now),
            Told::Expire(of, charge) => book.expire(of, charge, now),
            Told::Record(amounts, counting) => book.record(id, amounts, &counting, now),
            Told::Credit(credit, kind, asked) => {
                let Reply::Credited(Credited { kind: told, amount, already, .. }) = reply else { return };
                let stands = self.credits.get(&credit).copied();
                assert_eq!(already, stands.is_some());
                assert!(amount <= asked || already);
                if stands.is_none() {
                    self.credits.insert(credit, (kind, amount));
                    book.credit(id, kind, amount, now);
                }
                assert_eq!((told.as_str(), amount), stands.map_or((KINDS[kind], amount), |it| (KINDS[it.0], it.1)));
            }
            Told::Reset => {}
        }
    }

    /// Returns consecutive periods, from before the first row to after the last.
    pub(crate) fn periods(&self, case: &Case) -> Vec<(u64, u64)> {
        let at = |(which, after): &(usize, u64)| self.times[which % self.times.len()] + after * 1_000;
        let mut ends: Vec<_> = case.cuts.iter().map(at).chain([0, u64::MAX / 2_000 * 1_000]).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.windows(2).map(|two| (two[0], two[1])).collect()
    }

    /// Returns the sums of the book in a period, without those that are 0.
    pub(crate) fn book(&self, from: u64, until: u64) -> BTreeMap<String, i128> {
        nonzero(KINDS.map(String::from).into_iter().zip(self.book.sums(from, until)))
    }

    /// Returns the sums of the billing rule over the rows.
    pub(crate) fn by_rule(&self, from: u64, until: u64) -> BTreeMap<String, i128> {
        let mut attempts: BTreeMap<(&Key, u32), Vec<(u64, &Row)>> = BTreeMap::new();
        for (at, row) in &self.log {
            attempts.entry((&row.key, row.attempt)).or_default().push((*at, row));
        }
        let items = attempts.into_values().flat_map(billed);
        let within = items.filter(|item| from <= item.at && item.at < until);
        nonzero(within.map(|item| (item.kind.to_string(), i128::from(item.amount))))
    }

    /// Returns the usage at a time by the book, limit by limit; `None` unless the history is plain.
    pub(crate) fn used(&self, at: u64) -> Option<BTreeMap<String, i128>> {
        let used = |limit: usize| self.book.used(limit, at, |other| window(limit, other) == window(limit, at));
        self.plain.then(|| nonzero((0..CALENDAR).map(|limit| (LIMITS[limit].0.to_owned(), used(limit)))))
    }

    /// Returns the usage at a time by the rows, limit by limit.
    fn used_by_rows(&self, at: u64) -> BTreeMap<String, i128> {
        let mut used = Vec::new();
        for (limit, (name, ..)) in LIMITS.iter().enumerate().take(CALENDAR) {
            let starts = |row: &Row| *row.limit == **name && window(limit, row.window) == window(limit, at);
            let rows = self.log.iter().filter(|(written, row)| *written <= at && starts(row));
            used.extend(rows.map(|(_, row)| ((*name).to_owned(), i128::from(row.amount))));
        }
        nonzero(used)
    }
}

fn in_queue(commands: &[Command]) -> Vec<Queued<()>> {
    commands.iter().map(|command| queued(command, false)).collect()
}

pub(crate) fn nonzero(amounts: impl IntoIterator<Item = (String, i128)>) -> BTreeMap<String, i128> {
    let mut sums = BTreeMap::new();
    amounts.into_iter().for_each(|(kind, amount)| *sums.entry(kind).or_default() += amount);
    sums.retain(|_, sum| *sum != 0);
    sums
}

/// Returns the calendar period of a time, by an independent calendar.
fn window(limit: usize, at: u64) -> (i16, i8, i8, i8) {
    let time = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::from_nanosecond(at.into()).unwrap());
    match LIMITS[limit].0 {
        name if name.ends_with("hour") => (time.year(), time.month(), time.day(), time.hour()),
        name if name.ends_with("day") => (time.year(), time.month(), time.day(), 0),
        _ => (time.year(), time.month(), 0, 0),
    }
}

fn run(case: &Case) -> Result<(), TestCaseError> {
    let (mut history, mut store) = (History::new(case, "acme"), Store::default());
    for batch in case.batches() {
        let asked = history.next(batch);
        let loaded = store.load(&history.reads(&asked.commands), history.now);
        let writes = history.decide(asked, loaded);
        prop_assert!(!writes.rows.iter().any(|row| store.has(row)), "the unique index keeps out {writes:?}");
        store.apply(&writes);
    }
    if case.is_plain() {
        store.adds_up().map_err(TestCaseError::fail)?;
    }
    for (from, until) in history.periods(case) {
        prop_assert_eq!(history.by_rule(from, until), history.book(from, until), "from {} until {}", from, until);
        if let Some(used) = history.used(from) {
            prop_assert_eq!(history.used_by_rows(from), used, "at {}", from);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invoices_are_the_sums_of_the_book(case in cases(10)) {
        run(&case)?;
    }
}
