//! One tenant's counts and grants while a batch is decided.

use std::sync::Arc;

use super::{Row, Stored, Writes};
use crate::{
    error::ConfigError,
    quota::{
        Amounts, Limit, Plan,
        account::{AccountView, GrantState, StoredCounter, Warning, cover, raise},
        no_such_limit,
    },
    refusal::Violation,
    time::{Instant, from_1970},
};

/// One tenant's account, and what of it has changed.
#[derive(Debug, Default)]
pub(super) struct AccountState {
    counts: Vec<StoredCounter>,
    grants: Vec<GrantState>,
    changed: Vec<bool>,
    /// The grants as they were read.
    before: Vec<GrantState>,
    /// Something is to be written: that a grant has ended is not, by itself.
    writes: bool,
}

/// What one limit's count changed by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Posting {
    pub(super) limit: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) window: u64,
    pub(super) epoch: u32,
    pub(super) amount: i64,
}

/// What was taken, line by line, and whom to tell.
#[derive(Debug)]
pub(super) struct TakenCharge {
    pub(super) lines: Vec<Posting>,
    pub(super) near: Vec<Warning>,
    pub(super) untold: Vec<Warning>,
    pub(super) view: AccountView,
}

/// By what a charge is known whose settlement adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct AdmittedAt {
    /// When it was admitted.
    pub(crate) at: u64,
    /// How often the account had counted anew by then.
    pub(crate) epoch: u32,
}

/// An account as it is kept, under a plan.
pub(crate) fn account_view(stored: Stored, plan: &Arc<Plan>, wall: u64) -> AccountView {
    AccountState::new(stored).view(plan, wall)
}

/// No clock that is right is corrected by more.
const STEP: u64 = 48 * 3_600 * 1_000_000_000;

impl AccountState {
    pub(super) fn new(stored: Stored) -> Self {
        let Stored { counts, grants } = stored;
        Self { changed: vec![false; counts.len()], before: grants.clone(), counts, grants, writes: false }
    }

    /// How often it has counted anew.
    pub(super) fn epoch(&self) -> u32 {
        self.counts.iter().map(|count| count.epoch).max().unwrap_or(0)
    }

    /// Takes everything, or nothing.
    pub(super) fn take(
        &mut self,
        plan: &Arc<Plan>,
        amounts: &Amounts,
        reserve: bool,
        wall: u64,
    ) -> Result<TakenCharge, Vec<Violation>> {
        let mut view = self.view(plan, wall);
        let (near, untold) = view.take(amounts, reserve, wall)?;
        self.writes = true;
        let mut lines = Vec::new();
        for (index, limit) in plan.counted().iter().enumerate() {
            let Some(after) = view.count(index) else { continue };
            let at = self.counts.iter().position(|count| is_same(count, &after));
            let before = at.map_or(0, |at| self.counts[at].taken());
            if after.taken() > before {
                lines.push(line(&after, signed(after.taken()) - signed(before)));
            }
            self.put(at, after.clone());
            for (id, paid) in view.paid() {
                self.pay(limit, &after, id, paid);
            }
        }
        Ok(TakenCharge { lines, near, untold, view })
    }

    /// The account under a plan.
    pub(super) fn view(&mut self, plan: &Arc<Plan>, wall: u64) -> AccountView {
        for limit in plan.counted() {
            self.bring_grants_to(limit, self.present(limit, wall), wall);
        }
        let kept: Vec<_> =
            plan.counted().iter().map(|limit| self.present(limit, wall).map(|at| &self.counts[at])).collect();
        let live = |state: &&GrantState| !state.ended || state.current > 0;
        let grants: Vec<_> = self.grants.iter().filter(live).cloned().collect();
        AccountView::new(plan, &kept, &grants)
    }

    /// Notes what was used of something admitted at a time, whether there was room for it or not.
    pub(super) fn record(
        &mut self,
        plan: &Arc<Plan>,
        amounts: &Amounts,
        since: AdmittedAt,
        wall: u64,
    ) -> (Vec<Posting>, Vec<Warning>) {
        self.note(plan, amounts, false, since, wall)
    }

    /// The same, or sets it aside.
    pub(super) fn note(
        &mut self,
        plan: &Arc<Plan>,
        amounts: &Amounts,
        reserve: bool,
        since: AdmittedAt,
        wall: u64,
    ) -> (Vec<Posting>, Vec<Warning>) {
        // Nothing was admitted in a time to come, but for a clock that was corrected since: whoever says so made it up.
        let since = if since.at.saturating_sub(wall) > STEP { AdmittedAt { at: wall, ..since } } else { since };
        let (mut lines, mut near) = (Vec::new(), Vec::new());
        self.writes = true;
        for limit in plan.counted() {
            let amount = amounts.counted(limit.kind());
            if amount == 0 {
                continue;
            }
            let at = self.window_of(limit, since, wall);
            let amount = self.counts[at].room_for(amount);
            let count = &mut self.counts[at];
            *if reserve { &mut count.reserved } else { &mut count.used } += amount;
            lines.push(line(&self.counts[at], signed(amount)));
            near.extend(self.grown(at, limit, wall));
        }
        (lines, near)
    }

    /// Moves what was set aside by a row: `estimate` of it is set aside no more, `used` is used. `None` where its period is
    /// not there.
    pub(super) fn settle(
        &mut self,
        plan: Option<&Plan>,
        row: &Row,
        estimate: u64,
        used: u64,
        wall: u64,
    ) -> Option<(Posting, Option<Warning>)> {
        let at = self.count_of(row)?;
        self.writes = true;
        let count = &mut self.counts[at];
        let before = signed(count.taken());
        count.reserved = count.reserved.saturating_sub(estimate);
        count.used += count.room_for(used);
        let line = line(count, signed(count.taken()) - before);
        let limit = plan.and_then(|plan| plan.counted().iter().find(|limit| self.counts[at].is_of(limit)));
        let warning = match limit {
            Some(limit) => self.grown(at, limit, wall),
            None => {
                self.changed[at] = true;
                None
            }
        };
        Some((line, warning))
    }

    /// Gives back what is used by a row's count; says how much that was. `None` where its period is not there.
    pub(super) fn give_back(&mut self, plan: Option<&Plan>, row: &Row, amount: u64, wall: u64) -> Option<Posting> {
        let at = self.count_of(row)?;
        self.writes = true;
        let count = &mut self.counts[at];
        let back = amount.min(count.used);
        count.used -= back;
        let line = line(count, -signed(back));
        let limit = plan.and_then(|plan| plan.counted().iter().find(|limit| self.counts[at].is_of(limit)));
        match limit {
            Some(limit) => drop(self.grown(at, limit, wall)),
            None => self.changed[at] = true,
        }
        Some(line)
    }

    /// Counts the limits of this name or kind, or all, anew.
    pub(super) fn reset(&mut self, plan: &Plan, name: Option<&str>, wall: u64) -> Result<Vec<Posting>, ConfigError> {
        let meant = |limit: &str, kind: &str| name.is_none_or(|name| limit == name || kind == name);
        let known = || plan.counted().iter().map(|limit| limit.name.clone());
        if let Some(name) = name
            && !plan.counted().iter().any(|limit| meant(limit.name.as_str(), limit.kind().as_str()))
        {
            return Err(no_such_limit(name, known()));
        }
        self.writes = true;
        let (epoch, mut lines, mut anew) = (self.epoch() + 1, Vec::new(), Vec::new());
        for (count, changed) in self.counts.iter_mut().zip(&mut self.changed) {
            if !meant(&count.limit, &count.kind) || !count.is_present(wall) {
                continue;
            }
            if count.used > 0 {
                lines.push(line(count, -signed(count.used)));
                (count.used, *changed) = (0, true);
            }
            let fresh = StoredCounter {
                epoch: epoch,
                used: 0,
                reserved: 0,
                warned: false,
                warning_pending: false,
                ..count.clone()
            };
            if !anew.iter().any(|other| is_same(other, &fresh)) {
                anew.push(fresh);
            }
            for state in self.grants.iter_mut().filter(|state| state.is_of_count(count)) {
                state.close();
            }
        }
        for count in anew {
            self.put(None, count);
        }
        Ok(lines)
    }

    /// Raises a limit.
    pub(super) fn grant(&mut self, plan: &Plan, state: GrantState, wall: u64) -> Result<Posting, ConfigError> {
        let Some(limit) = plan.counted().iter().find(|limit| *limit.name.as_str() == *state.limit) else {
            return Err(no_such_limit(&state.limit, plan.counted().iter().map(|limit| limit.name.clone())));
        };
        if state.until <= wall {
            return Err(ConfigError::new("end of a grant", "lie ahead", Instant(from_1970(state.until))));
        }
        self.writes = true;
        let state = GrantState { kind: limit.kind().into(), ..state };
        let here = StoredCounter::beginning(limit, wall);
        let line = Posting { limit: here.limit, kind: here.kind, window: here.starts, epoch: here.epoch, amount: 0 };
        self.grants.push(state);
        if let Some(at) = self.present(limit, wall) {
            self.grown(at, limit, wall);
        }
        Ok(line)
    }

    /// Ends a grant before its time; gives what it was, if there was one.
    pub(super) fn revoke(&mut self, id: u64, wall: u64) -> Option<&GrantState> {
        let live = |state: &&mut GrantState| state.id == id && !state.ended && state.until > wall;
        self.grants.iter_mut().find(live).map(|state| {
            (state.ended, self.writes) = (true, true);
            &*state
        })
    }

    /// What has changed.
    pub(super) fn write(self, tenant: &Arc<str>, writes: &mut Writes) {
        let changed = self.counts.into_iter().zip(self.changed).filter(|(_, changed)| *changed);
        writes.counts.extend(changed.map(|(count, _)| (Arc::clone(tenant), count)));
        if !self.writes {
            return;
        }
        let old = |state: &GrantState| self.before.iter().any(|before| before == state);
        writes
            .grants
            .extend(self.grants.into_iter().filter(|state| !old(state)).map(|state| (Arc::clone(tenant), state)));
    }

    /// A count has changed: it may have come to where the client is to be warned, and grants pay for what is past the limit.
    fn grown(&mut self, at: usize, limit: &Limit, wall: u64) -> Option<Warning> {
        self.changed[at] = true;
        if self.present(limit, wall) != Some(at) {
            return None; // it is over: nobody can do anything about it
        }
        self.bring_grants_to(limit, Some(at), wall);
        let count = &mut self.counts[at];
        let warns = !count.warned && limit.warn_from > 0 && count.taken() >= limit.warn_from;
        if warns {
            (count.warned, count.warning_pending) = (true, true);
        }
        let there = limit.limit.saturating_add(raise(limit, &self.grants));
        warns.then(|| Warning { name: limit.name.clone(), used: self.counts[at].taken(), limit: there })
    }

    /// Ends the grants of a limit whose time has come, lets what they have paid in other counts stay paid, and has them pay
    /// for what this one has past the limit.
    fn bring_grants_to(&mut self, limit: &Limit, present: Option<usize>, wall: u64) {
        if !self.grants.iter().any(|state| state.is_of(limit)) {
            return;
        }
        let present = present.map(|at| &self.counts[at]);
        let here = present.map(|count| (count.starts, count.epoch));
        for state in self.grants.iter_mut().filter(|state| state.is_of(limit)) {
            state.ended |= state.until <= wall;
            if state.current > 0 && here != Some((state.window, state.epoch)) {
                state.close();
            }
        }
        let Some(count) = present else { return };
        cover(limit, count, &mut self.grants);
        for state in self.grants.iter_mut().filter(|state| state.is_of(limit) && state.current > 0) {
            (state.window, state.epoch) = (count.starts, count.epoch);
        }
    }

    /// When something is admitted now: where the clock has stepped back, in the periods that are under way all the same.
    pub(super) fn here(&self, plan: &Plan, wall: u64) -> u64 {
        let present = plan.counted().iter().filter_map(|limit| self.present(limit, wall));
        present.map(|at| self.counts[at].starts).fold(wall, u64::max)
    }

    /// The count of a limit whose period is under way.
    fn present(&self, limit: &Limit, wall: u64) -> Option<usize> {
        self.latest(|count| count.is_of(limit) && count.is_present(wall))
    }

    /// The count that something belongs to which was admitted at a time; it begins if there is none.
    fn window_of(&mut self, limit: &Limit, since: AdmittedAt, wall: u64) -> usize {
        let held = |count: &StoredCounter| {
            count.is_of(limit) && count.starts <= since.at && since.at < count.ends && count.epoch <= since.epoch
        };
        // A rolling period has begun since then with the use of another.
        let rolled = |at: &usize| {
            !limit.quota.period().is_some_and(crate::time::Period::is_calendar) && self.counts[*at].starts > since.at
        };
        self.latest(held).or_else(|| self.present(limit, wall).filter(rolled)).unwrap_or_else(|| {
            self.counts.push(StoredCounter::beginning(limit, since.at));
            self.changed.push(true);
            self.counts.len() - 1
        })
    }

    fn count_of(&self, row: &Row) -> Option<usize> {
        self.counts.iter().position(|count| {
            count.limit == row.limit && count.kind == row.kind && count.starts == row.window && count.epoch == row.epoch
        })
    }

    fn latest(&self, is: impl Fn(&StoredCounter) -> bool) -> Option<usize> {
        let all = self.counts.iter().enumerate().filter(|(_, count)| is(count));
        all.max_by_key(|(_, count)| (count.starts, count.epoch)).map(|(at, _)| at)
    }

    fn put(&mut self, at: Option<usize>, count: StoredCounter) {
        match at {
            Some(at) => {
                self.changed[at] |= self.counts[at] != count;
                self.counts[at] = count;
            }
            None => {
                self.counts.push(count);
                self.changed.push(true);
            }
        }
    }

    fn pay(&mut self, limit: &Limit, count: &StoredCounter, id: u64, paid: u64) {
        if let Some(state) = self.grants.iter_mut().find(|state| state.id == id && state.is_of(limit))
            && state.current != paid
        {
            (state.current, state.window, state.epoch) = (paid, count.starts, count.epoch);
        }
    }
}

fn is_same(one: &StoredCounter, other: &StoredCounter) -> bool {
    one.limit == other.limit && one.kind == other.kind && one.starts == other.starts && one.epoch == other.epoch
}

fn line(count: &StoredCounter, amount: i64) -> Posting {
    Posting {
        limit: Arc::clone(&count.limit),
        kind: Arc::clone(&count.kind),
        window: count.starts,
        epoch: count.epoch,
        amount,
    }
}

/// What is counted is never more than 2^53 - 1, and two of them never more than 2^54.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
