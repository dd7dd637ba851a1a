//! Random histories of an account, against a [book](book) that only adds up its entries.

mod book;
mod steps;

use std::{num::NonZeroU64, time::SystemTime};

use book::{Book, Entry, KIND};
use proptest::prelude::*;
use steps::{Asked, NAMES, Step, named, plan, steps};

use super::*;
use crate::quota::account::{ChargeScope, CloseResult, Stage};
use crate::quota::{Grant, GrantId};

/// An account, its book, and the time of both clocks.
struct History {
    account: Account,
    book: Book,
    plan: Arc<Plan>,
    settings: AccountSettings,
    now: Now,
    version: u64,
    granted: Vec<GrantId>,
}

fn plain(asked: [Option<u64>; 2]) -> [u64; 2] {
    asked.map(|amount| amount.unwrap_or(0))
}

/// Whether the history detaches a reservation: every second one.
fn is_detached(id: NonZeroU64) -> bool {
    id.get().is_multiple_of(2)
}

impl History {
    fn begin(charge_expired: bool) -> Self {
        let limits = [20, 60, 20, 2];
        let plan = plan(limits, 0);
        Self {
            account: Account::new(&plan),
            book: Book::new(limits),
            plan,
            settings: settings(charge_expired),
            now: Now { moment: Moment::from_nanos(HOUR), wall: START },
            version: 0,
            granted: Vec::new(),
        }
    }

    fn advance(&mut self) {
        while !self.account.advance(&self.plan, self.now, &self.settings) {}
        self.book.advance(self.now, self.settings.charge_expired);
    }

    /// Returns the size of each limit, and the amount used beyond it.
    fn limits(&self) -> [(u64, u64); 3] {
        let usage = self.account.usage(self.now.wall);
        NAMES[..3]
            .iter()
            .map(|name| {
                usage.get(name).map_or((0, 0), |limit| {
                    let taken = limit.used + limit.reserved;
                    (limit.limit, taken.saturating_sub(limit.limit))
                })
            })
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Charge(asked) => self.admit(asked, false)?,
            Step::Reserve(asked) => self.admit(asked, true)?,
            Step::Burst(many, asked) => {
                for _ in 0..many {
                    self.admit((asked, false), true)?;
                    self.now.moment = self.now.moment + Duration::from_millis(10);
                    self.advance();
                }
            }
            Step::Commit(which, tokens) => self.close(which, Some(tokens))?,
            Step::RollBack(which) => self.close(which, None)?,
            Step::GiveBack(which) => {
                if let Some(entry) = self.book.pick(which, |entry| entry.scope.is_some()) {
                    self.account.give_back(&named((entry.estimate, false)), &entry.scope.take().unwrap());
                    entry.used = [0; 2];
                }
            }
            Step::Release(which) if !self.book.slots.is_empty() => {
                let which = which % self.book.slots.len();
                self.account.slots.as_mut().unwrap().release(self.book.slots.remove(which).0);
            }
            Step::Record(asked) => {
                let _ = self.account.record(&named((asked, false)), self.now);
                self.enter(plain(asked), [0; 2], None, asked, None);
            }
            Step::Reset(which) => {
                let there = which.is_none_or(|which| self.book.limits[which] > 0);
                prop_assert_eq!(self.account.reset(which.map(|which| NAMES[which])).is_ok(), there);
                (0..3)
                    .filter(|limit| there && which.is_none_or(|which| which == *limit))
                    .for_each(|limit| self.book.reset(limit));
            }
            Step::Plan(limits) => {
                self.plan = plan(limits, self.version);
                self.advance();
                self.book.change(limits);
            }
            Step::Fresh => {
                self.version += 1;
                self.plan = Arc::new(Plan::clone(&plan(self.book.limits, self.version)).starting_fresh());
                self.advance();
                (0..3).for_each(|limit| self.book.start(limit));
            }
            Step::Grant(of, amount, seconds) => {
                let until = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.now.wall) + Duration::from_secs(seconds);
                let id = GrantId(self.granted.len() as u64);
                let granted = self.account.grant(id, &Grant::new(NAMES[of], amount, until), self.now);
                prop_assert_eq!(granted.is_ok(), self.book.limits[of] > 0);
                self.granted.push(id);
            }
            Step::Revoke(which) if !self.granted.is_empty() => {
                self.account.grants.revoke(self.granted[which % self.granted.len()], self.now.wall);
            }
            Step::Seconds(seconds) => {
                self.now.moment = self.now.moment + Duration::from_secs(seconds);
                self.now.wall += seconds * 1_000_000_000;
            }
            Step::Clock(by) => self.now.wall = self.now.wall.saturating_add_signed(by * 1_000_000_000),
            Step::Release(_) | Step::Revoke(_) => {}
        }
        Ok(())
    }

    fn admit(&mut self, (asked, slot): Asked, reserve: bool) -> Result<(), TestCaseError> {
        let (limits, amounts) = (self.limits(), named((asked, slot)));
        let fits = |limit: usize| match asked[KIND[limit]] {
            Some(amount) if self.book.limits[limit] > 0 => {
                let (used, reserved) = self.book.sum(limit);
                amount.max(1) <= limits[limit].0.saturating_sub(used + reserved)
            }
            _ => true,
        };
        let counted = slot && self.book.limits[3] > 0;
        let fits = (0..3).all(fits) && (!counted || self.book.has_slot(self.now.moment, self.settings.max_hold));
        prop_assert_eq!(self.account.violations(&amounts, &self.account.grants, self.now).is_empty(), fits);
        let crowded = reserve && self.book.expiring() >= self.settings.max_reservations;
        match self.account.admit(&ChargeRequest { reserve, ..ask(&amounts) }, self.now, &self.settings) {
            Ok(taken) => {
                prop_assert!(fits && !crowded, "admitted {amounts:?} at {limits:?}");
                prop_assert_eq!((taken.reservation.is_some(), taken.lease.is_some()), (reserve, counted));
                let (used, reserved) = if reserve { ([0; 2], plain(asked)) } else { (plain(asked), [0; 2]) };
                let hold = taken.reservation.map(|id| (id, self.now.moment + TTL, None));
                if let Some((id, ..)) = hold.filter(|(id, ..)| is_detached(*id)) {
                    self.account.detach(id, &self.settings);
                }
                // A reservation has an estimate of the kinds that its plan counts.
                let counts = |kind: usize| (0..3).any(|limit| KIND[limit] == kind && self.book.limits[limit] > 0);
                let estimate = [0, 1].map(|kind| asked[kind].filter(|_| !reserve || counts(kind)));
                let scope = ChargeScope { epoch: taken.epoch, plan: Arc::clone(&self.account.plan) };
                self.enter(used, reserved, hold, estimate, Some(scope).filter(|_| !reserve));
                if let Some(lease) = taken.lease {
                    self.book.take_slot(lease, self.now.moment);
                }
            }
            Err(Denial::Limits(violations)) => {
                // Beyond the places, a limit may have no more room once there is one: a grant has ended.
                prop_assert!(!fits || crowded, "refused {amounts:?} at {limits:?}: {violations:?}");
                prop_assert!(!violations.is_empty());
                prop_assert!(!crowded || violations.iter().any(|violation| violation.wait.is_none()));
                let waits = violations.iter().map(|violation| violation.wait).collect::<Option<Vec<_>>>();
                if let Some(wait) = waits.and_then(|waits| waits.into_iter().max()) {
                    self.admitted_after(wait, &amounts, reserve)?;
                }
            }
            Err(Denial::Reservations(wait)) => {
                prop_assert!(crowded);
                self.admitted_after(wait, &amounts, reserve)?;
            }
            Err(no) => return Err(TestCaseError::fail(format!("{no:?}"))),
        }
        let over = self.limits().iter().zip(limits).any(|((_, after), (_, before))| *after > before);
        prop_assert!(!over, "an admission has taken more than there was");
        Ok(())
    }

    /// Checks that the refused amounts are admitted after the told time.
    fn admitted_after(&self, wait: Duration, amounts: &Amounts, reserve: bool) -> Result<(), TestCaseError> {
        let now = Now { moment: self.now.moment + wait, wall: self.now.wall + crate::time::nanos(wait) };
        // A slot may be held then.
        let mut counted = amounts.clone();
        counted.leave_out(&crate::kind::Kind::Concurrent);
        let mut later = self.account.clone();
        while !later.advance(&self.plan, now, &self.settings) {}
        let admitted = later.admit(&ChargeRequest { reserve, ..ask(&counted) }, now, &self.settings);
        prop_assert!(admitted.is_ok(), "{admitted:?} after {wait:?}");
        Ok(())
    }

    fn enter(
        &mut self,
        used: [u64; 2],
        reserved: [u64; 2],
        hold: Option<(NonZeroU64, Moment, Option<Stage>)>,
        asked: [Option<u64>; 2],
        scope: Option<ChargeScope>,
    ) {
        let counts = self.book.counts();
        self.book.begin(asked, counts, self.now.wall);
        self.book.entries.push(Entry { counts, used, reserved, hold, estimate: asked, scope });
    }

    fn close(&mut self, which: usize, commit: Option<Option<u64>>) -> Result<(), TestCaseError> {
        let Some(entry) = self.book.pick(which, |entry| entry.hold.is_some()) else { return Ok(()) };
        let (id, expires, stage) = entry.hold.unwrap();
        let said = commit.map(|tokens| tokens.map_or_else(Amounts::new, |tokens| Amounts::from(("tokens", tokens))));
        let (closed, _) = self.account.close(id, said.as_ref(), ClosedBy::Id, self.now, &self.settings);
        // A held reservation is not forgotten after its expiry.
        let may_be = stage.is_some_and(|stage| stage != Stage::Expired || is_detached(id));
        let forgotten = may_be && self.now.moment >= expires + TTL * 2;
        match (stage, closed, commit) {
            (None, CloseResult::Closed, None) => {
                entry.reserved = [0; 2];
                entry.hold = Some((id, expires, Some(Stage::RolledBack)));
            }
            (None, CloseResult::Closed, Some(tokens)) | (Some(Stage::Expired), CloseResult::Expired, Some(tokens)) => {
                // Up to what its own windows still hold; the rest is used now.
                let returned = stage.is_some() && !self.settings.charge_expired;
                let held = if returned { [0; 2] } else { plain(entry.estimate) };
                let actual = plain([entry.estimate[0], tokens.or(entry.estimate[1])]);
                entry.reserved = [0; 2];
                entry.used = [0, 1].map(|kind| actual[kind].min(held[kind]));
                entry.hold = Some((id, expires, Some(Stage::Committed)));
                let beyond = [0, 1].map(|kind| Some(actual[kind] - entry.used[kind]).filter(|rest| *rest > 0));
                self.enter(plain(beyond), [0; 2], None, beyond, None);
            }
            (Some(stage), CloseResult::AlreadyClosed(before, _), _) => prop_assert_eq!(before, stage),
            (_, CloseResult::Unknown, _) => prop_assert!(forgotten),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
        Ok(())
    }

    /// Checks the account against the sums of the book.
    fn adds_up(&self) -> Result<(), TestCaseError> {
        let usage = self.account.usage(self.now.wall);
        let known =
            |limit: &crate::quota::LimitUsage| NAMES.iter().position(|name| limit.name.as_str() == *name).unwrap();
        for limit in &usage.limits {
            let (used, reserved) = match known(limit) {
                3 => (self.book.slots.len() as u64, 0),
                counted => self.book.sum(counted),
            };
            prop_assert_eq!((limit.used, limit.reserved), (used, reserved), "{}", limit.name);
            let overrun = (used + reserved).saturating_sub(limit.limit);
            prop_assert_eq!(limit.remaining + used + reserved - overrun, limit.limit);
        }
        for granted in self.account.grants.active(self.now.wall) {
            prop_assert!(granted.used <= granted.grant.amount());
        }
        Ok(())
    }
}

fn run(steps: &[Step], charge_expired: bool) -> Result<(), TestCaseError> {
    let mut history = History::begin(charge_expired);
    for step in steps {
        history.advance();
        let before = history.limits();
        history.step(step)?;
        history.advance();
        history.adds_up()?;
        // An overrun grows by what was used beyond an estimate, by a lower limit, or by the end of a grant.
        let may_grow = matches!(
            step,
            Step::Commit(..) | Step::Record(_) | Step::Plan(_) | Step::Seconds(_) | Step::Clock(_) | Step::Revoke(_)
        );
        let grew = history.limits().iter().zip(before).any(|((_, after), (_, before))| *after > before);
        prop_assert!(may_grow || !grew, "{before:?} to {:?}", history.limits());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn account_equals_the_book(steps in steps(60, 1..2), charge_expired: bool) {
        run(&steps, charge_expired)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn account_equals_the_book_in_bursts(steps in steps(60, 60..130), charge_expired: bool) {
        run(&steps, charge_expired)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "minutes: a million histories"]
    fn account_equals_the_book_in_many_histories(steps in steps(120, 1..130), charge_expired: bool) {
        run(&steps, charge_expired)?;
    }
}
