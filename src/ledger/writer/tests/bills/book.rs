//! Bookkeeping of an accountant: charges, returns and records with their times. It shares no code with the rules.

use std::collections::BTreeMap;

use super::Kinds;

/// Index of a limit among all limits.
pub(super) type Limit = usize;

/// One line of the book.
#[derive(Clone, Debug)]
struct Line {
    /// When it was entered.
    at: u64,
    /// The time by which periods count it.
    counts_at: u64,
    job: u128,
    kind: usize,
    amount: i128,
    limits: Vec<Limit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Charged,
    Reserved,
    Committed,
    Expired,
    Voided,
}

/// Work admitted by one order.
#[derive(Clone, Debug)]
struct Work {
    admitted_at: u64,
    state: State,
    /// The estimate of each kind, and the part of it that is charged now.
    estimate: Kinds,
    stands: [i128; 2],
    limits: [Vec<Limit>; 2],
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    lines: Vec<Line>,
    works: BTreeMap<u128, Work>,
}

impl Book {
    /// Enters an admission. `limits` count each kind; a kind that no limit counts is not entered.
    pub(super) fn admit(
        &mut self,
        command: u128,
        amounts: Kinds,
        reserve: bool,
        limits: [Vec<Limit>; 2],
        at: [u64; 2],
    ) {
        let [now, counts_at] = at;
        let state = if reserve { State::Reserved } else { State::Charged };
        let estimate = [0, 1].map(|kind| amounts[kind].filter(|amount| *amount > 0 && !limits[kind].is_empty()));
        let stands = estimate.map(|amount| i128::from(amount.unwrap_or(0)));
        for kind in 0..2 {
            self.enter(now, counts_at, command, kind, stands[kind], &limits[kind]);
        }
        self.works.insert(command, Work { admitted_at: counts_at, state, estimate, stands, limits });
    }

    /// Enters usage beyond the admitted amounts, whatever the state of the work.
    pub(super) fn add(&mut self, command: u128, amounts: Kinds, limits: &[Vec<Limit>; 2], now: u64) {
        if self.works.contains_key(&command) {
            self.record(command, amounts, limits, now);
        }
    }

    /// Enters the actual usage of a reservation; a kind that is not named was used as estimated.
    pub(super) fn commit(&mut self, command: u128, actual: Kinds, besides: Kinds, limits: &[Vec<Limit>; 2], now: u64) {
        let Some(work) = self.works.get_mut(&command) else { return };
        let is_open = matches!(work.state, State::Reserved | State::Expired);
        if is_open {
            work.state = State::Committed;
            let Work { admitted_at, estimate, stands, limits: reserved_of, .. } = work.clone();
            for kind in 0..2 {
                // Up to what stands of the estimate, at the time of the admission; the rest is used now.
                let used = i128::from(actual[kind].or(estimate[kind]).unwrap_or(0));
                let within = used.min(stands[kind]);
                self.enter(now, admitted_at, command, kind, within - stands[kind], &reserved_of[kind]);
                self.enter(now, now, command, kind, used - within, &limits[kind]);
            }
        }
        if self.works[&command].state != State::Voided {
            self.add(command, besides, limits, now);
        }
    }

    /// Enters the return of everything that was entered for the work.
    pub(super) fn void(&mut self, command: u128, now: u64) {
        let Some(work) = self.works.get_mut(&command) else { return };
        if !matches!(work.state, State::Reserved | State::Charged) {
            return;
        }
        work.state = State::Voided;
        let all: Vec<_> = self.lines.iter().filter(|line| line.job == command).cloned().collect();
        self.lines.extend(all.into_iter().map(|line| Line { at: now, amount: -line.amount, ..line }));
    }

    /// Enters the expiry of a reservation.
    pub(super) fn expire(&mut self, command: u128, stays_charged: bool, now: u64) {
        let Some(work) = self.works.get_mut(&command).filter(|work| work.state == State::Reserved) else { return };
        work.state = State::Expired;
        if stays_charged {
            return;
        }
        let Work { admitted_at, stands, limits, .. } = work.clone();
        work.stands = [0, 0];
        for kind in 0..2 {
            self.enter(now, admitted_at, command, kind, -stands[kind], &limits[kind]);
        }
    }

    /// Enters usage without an admission.
    pub(super) fn record(&mut self, command: u128, amounts: Kinds, limits: &[Vec<Limit>; 2], now: u64) {
        for kind in 0..2 {
            self.enter(now, now, command, kind, i128::from(amounts[kind].unwrap_or(0)), &limits[kind]);
        }
    }

    /// Enters a credit, which belongs to no work.
    pub(super) fn credit(&mut self, command: u128, kind: usize, amount: u64, now: u64) {
        self.lines.push(Line {
            at: now,
            counts_at: now,
            job: command,
            kind,
            amount: -i128::from(amount),
            limits: vec![],
        });
    }

    fn enter(&mut self, at: u64, counts_at: u64, job: u128, kind: usize, amount: i128, limits: &[Limit]) {
        if amount != 0 && !limits.is_empty() {
            self.lines.push(Line { at, counts_at, job, kind, amount, limits: limits.to_vec() });
        }
    }

    /// Returns whether a reservation is open.
    pub(super) fn is_reserved(&self, command: u128) -> bool {
        self.works.get(&command).is_some_and(|work| work.state == State::Reserved)
    }

    /// Sums each kind from `from` on and before `until`.
    pub(super) fn sums(&self, from: u64, until: u64) -> [i128; 2] {
        let within = |line: &&Line| from <= line.at && line.at < until;
        [0, 1]
            .map(|kind| self.lines.iter().filter(within).filter(|line| line.kind == kind).map(|line| line.amount).sum())
    }

    /// Returns the usage of a limit at `at`; `counts` decides whether a time lies in the period of `at`.
    pub(super) fn used(&self, limit: Limit, at: u64, counts: impl Fn(u64) -> bool) -> i128 {
        let lines = self.lines.iter().filter(|line| line.at <= at && line.limits.contains(&limit));
        lines.filter(|line| counts(line.counts_at)).map(|line| line.amount).sum()
    }
}
