//! Counters and grants of one tenant while a batch is decided.

use std::sync::Arc;

use super::{
    Row, Stored, StoredCounter, Writes,
    counter::{Posting, signed},
};
use crate::{
    error::ConfigError,
    kind::Kind,
    quota::{
        Amounts, GrantId, Limit, Plan,
        account::{Account, Counter, Cut, GrantState, Grants, MAX_CLOCK_STEP, Now, Warning},
    },
    refusal::Violation,
    time::{Moment, Period, from_1970},
};

/// Account of one tenant: all its counters and grants.
#[derive(Debug, Default)]
pub(super) struct AccountState {
    counters: Vec<StoredCounter>,
    grants: Grants,
    tier: Arc<str>,
    /// The account as it was read.
    before: Stored,
    /// Set once something must be written. The end of a grant alone is not.
    writes: bool,
    /// Parts of amounts that no counter took, by the command under decision.
    cut: Cut,
}

/// A charge before it is written: its postings, its warnings, and the account after it.
#[derive(Debug)]
pub(super) struct TakenCharge {
    pub(super) postings: Vec<Posting>,
    pub(super) near: Vec<Warning>,
    pub(super) pending: Vec<Warning>,
    pub(super) view: Account,
}

/// Returns the limits of a stored account without room for these amounts.
pub(crate) fn violations(stored: Stored, plan: &Arc<Plan>, amounts: &Amounts, wall: u64) -> Vec<Violation> {
    let (view, grants) = AccountState::new(stored).view_and_stored(plan, wall);
    view.violations(amounts, &grants, wall_time(wall))
}

/// Returns a stored account as a plan sees it.
pub(crate) fn account_view(stored: Stored, plan: &Arc<Plan>, wall: u64) -> Account {
    AccountState::new(stored).view(plan, wall)
}

/// Returns the time for rules that read only the wall clock.
fn wall_time(wall: u64) -> Now {
    Now { moment: Moment::default(), wall }
}

impl AccountState {
    pub(super) fn new(stored: Stored) -> Self {
        let Stored { counts, grants, tier, closed_until } = stored;
        let grants: Grants = grants.into_iter().collect();
        let (counters, unchanged) = (counts.clone(), grants.iter().cloned().collect());
        let before = Stored { counts, grants: unchanged, tier: Arc::clone(&tier), closed_until };
        Self { counters, grants, tier, before, writes: false, cut: Cut::default() }
    }

    /// Stores the tier of the client, if it is known; empty for none.
    pub(super) fn see(&mut self, tier: Option<&Arc<str>>) {
        if let Some(tier) = tier {
            self.tier = Arc::clone(tier);
        }
    }

    /// Returns the epoch of the account, the number of resets of its counters.
    pub(super) fn epoch(&self) -> u64 {
        self.counters.iter().map(|stored| stored.counter.epoch).max().unwrap_or(0)
    }

    /// Charges all amounts, or none.
    pub(super) fn take(
        &mut self,
        plan: &Arc<Plan>,
        amounts: &Amounts,
        reserve: bool,
        wall: u64,
    ) -> Result<TakenCharge, Vec<Violation>> {
        let ((mut view, stored), now) = (self.view_and_stored(plan, wall), wall_time(wall));
        let violations = view.violations(amounts, &stored, now);
        if !violations.is_empty() {
            self.grants = stored; // a refusal writes nothing, whatever else the batch writes
            return Err(violations);
        }
        let marks = view.add(amounts, reserve, now);
        self.writes = true;
        let mut postings = Vec::new();
        for (counter, limit) in view.counted().filter(|(counter, _)| counter.has_begun()) {
            let mut after = StoredCounter::of(limit, counter.clone());
            // A counter of version 1 of the tables stays the same one, without a period.
            if let Some(at) = self.present(limit, wall)
                && self.counters[at].has_window_of(&after)
            {
                after.period = Arc::clone(&self.counters[at].period);
            }
            let known = self.counters.iter().position(|stored| stored.is_same(&after));
            let before = known.map_or(0, |at| self.counters[at].counter.taken());
            if counter.taken() > before {
                postings.push(after.posting_since(before));
            }
            let at = self.put(known, after);
            self.bring_grants_to(limit, Some(at), wall);
        }
        let (near, pending) = (view.warnings(marks.warned), view.warnings(marks.pending));
        Ok(TakenCharge { postings, near, pending, view })
    }

    /// Returns the account as a plan sees it, with the counters of the present windows.
    pub(super) fn view(&mut self, plan: &Arc<Plan>, wall: u64) -> Account {
        let counter = |limit| {
            let present = self.present(limit, wall);
            self.bring_grants_to(limit, present, wall);
            present.map(|at| self.counters[at].counter.clone()).unwrap_or_default()
        };
        let counters: Vec<_> = plan.counted().iter().map(counter).collect();
        Account::with_counters(plan, counters, self.grants.clone())
    }

    /// Returns the account as [`view`](Self::view) does, and its grants as they stay if that view is not stored.
    fn view_and_stored(&mut self, plan: &Arc<Plan>, wall: u64) -> (Account, Grants) {
        if self.grants.is_empty() {
            return (self.view(plan, wall), Grants::default());
        }
        for limit in plan.counted() {
            self.close_grants(limit, self.present(limit, wall), wall);
        }
        let stored = self.grants.clone();
        (self.view(plan, wall), stored)
    }

    /// Records used amounts in the windows that are open, even beyond a limit.
    pub(super) fn record(&mut self, plan: &Arc<Plan>, amounts: &Amounts, wall: u64) -> (Vec<Posting>, Vec<Warning>) {
        self.note(plan, amounts, false, wall, |account, limit| {
            account.present(limit, wall).unwrap_or_else(|| account.put(None, StoredCounter::beginning(limit, wall)))
        })
    }

    /// Checks that used amounts can be recorded: no counter exceeds 2^53 - 1.
    pub(super) fn check_record(&self, plan: &Plan, amounts: &Amounts, wall: u64) -> Result<(), ConfigError> {
        plan.counted().iter().try_for_each(|limit| match amounts.get(limit.kind()) {
            None | Some(0) => Ok(()),
            Some(amount) => limit.check_sum(self.taken(limit, wall), amount),
        })
    }

    /// Records or reserves amounts that the fallback admitted at `at`, even beyond a limit.
    pub(super) fn admit_past(
        &mut self,
        plan: &Arc<Plan>,
        amounts: &Amounts,
        reserve: bool,
        at: u64,
        wall: u64,
    ) -> (Vec<Posting>, Vec<Warning>) {
        // A time that lies too far ahead comes from a wrong clock or is forged.
        let at = if at.saturating_sub(wall) > MAX_CLOCK_STEP { wall } else { at };
        self.note(plan, amounts, reserve, wall, |account, limit| account.counter_at(limit, at, wall))
    }

    /// Adds amounts to the counters that `counter` returns, even beyond a limit.
    fn note(
        &mut self,
        plan: &Arc<Plan>,
        amounts: &Amounts,
        reserve: bool,
        wall: u64,
        counter: impl Fn(&mut Self, &Limit) -> usize,
    ) -> (Vec<Posting>, Vec<Warning>) {
        let (mut postings, mut near) = (Vec::new(), Vec::new());
        self.writes = true;
        for limit in plan.counted() {
            let amount = amounts.get(limit.kind()).unwrap_or(0);
            if amount == 0 {
                continue;
            }
            let at = counter(self, limit);
            let stored = &mut self.counters[at];
            let cut = stored.counter.take(amount, reserve);
            self.cut.note(limit.kind(), cut);
            postings.push(stored.posting(signed(amount - cut)));
            near.extend(self.grown(at, Some(limit), wall));
        }
        (postings, near)
    }

    /// Returns an amount of a commit that a counter cannot take in full, if there is one.
    pub(super) fn too_large(&self, plan: &Plan, used: &Amounts, beyond: &Amounts, wall: u64) -> Option<u64> {
        plan.counted().iter().find_map(|limit| limit.too_large(self.taken(limit, wall), used, beyond))
    }

    /// Returns the amount that is used and reserved of a limit in the window that is open.
    fn taken(&self, limit: &Limit, wall: u64) -> u64 {
        self.present(limit, wall).map_or(0, |at| self.counters[at].counter.taken())
    }

    /// Takes the parts of amounts that no counter took since the last call.
    pub(super) fn take_cut(&mut self) -> Cut {
        std::mem::take(&mut self.cut)
    }

    /// Changes the counter of a row by `change`, which returns the part of an amount that is cut. Returns `None` if the
    /// counter is unknown.
    pub(super) fn change(
        &mut self,
        plan: Option<&Plan>,
        row: &Row,
        wall: u64,
        change: impl FnOnce(&mut StoredCounter) -> u64,
    ) -> Option<(Posting, Option<Warning>)> {
        let is_of_row =
            |stored: &StoredCounter| stored.is_at([&row.limit, &row.kind, &row.period], row.window, row.epoch);
        let at = self.counters.iter().position(is_of_row)?;
        self.writes = true;
        let stored = &mut self.counters[at];
        let before = stored.counter.taken();
        let cut = change(stored);
        let posting = stored.posting_since(before);
        if let Ok(kind) = Kind::try_units(&row.kind) {
            self.cut.note(&kind, cut);
        }
        let limit = plan.and_then(|plan| plan.counted().iter().find(|limit| self.counters[at].is_of(limit)));
        Some((posting, self.grown(at, limit, wall)))
    }

    /// Returns at most `amount` of the used amount of each counter of a kind whose window is open, also of those that the
    /// plan does not have; returns a posting for each that gave something back, the largest first.
    pub(super) fn take_back(&mut self, plan: &Plan, kind: &Kind, amount: u64, wall: u64) -> Vec<Posting> {
        let mut postings = Vec::new();
        for at in 0..self.counters.len() {
            let stored = &self.counters[at];
            if *stored.kind != *kind.as_str() || stored.counter.is_over(wall) {
                continue;
            }
            let limit = plan.counted().iter().find(|limit| stored.is_of(limit));
            let is_present = match limit {
                Some(limit) => self.present(limit, wall) == Some(at),
                None => !self.counters.iter().any(|other| other.follows(stored) && !other.counter.is_over(wall)),
            };
            let returned = if is_present { self.counters[at].counter.give_back(amount) } else { 0 };
            if returned > 0 {
                postings.push(self.counters[at].posting(-signed(returned)));
                limit.into_iter().for_each(|limit| self.bring_grants_to(limit, Some(at), wall));
            }
        }
        postings.sort_by_key(|posting| posting.amount);
        self.writes = true;
        postings
    }

    /// Resets the counters of this limit name or kind, or all, to zero. Returns a posting for each old counter with a
    /// used amount, and for each new one.
    pub(super) fn reset(&mut self, plan: &Plan, name: Option<&str>, wall: u64) -> Result<Vec<Posting>, ConfigError> {
        plan.check_name(name)?;
        self.writes = true;
        let is_meant = |stored: &StoredCounter| name.is_none_or(|name| *stored.limit == *name || *stored.kind == *name);
        let epoch = self.epoch().saturating_add(1).min(i64::MAX.cast_unsigned()); // as large as a column holds
        let (mut postings, mut restarted) = (Vec::new(), Vec::<StoredCounter>::new());
        for stored in &mut self.counters {
            if !is_meant(stored) || stored.counter.is_over(wall) {
                continue;
            }
            if stored.counter.used > 0 {
                postings.push(stored.posting(-signed(stored.counter.used)));
                stored.counter.used = 0;
            }
            let mut fresh = stored.clone();
            fresh.counter.reset(epoch);
            if !restarted.iter().any(|other| other.is_same(&fresh)) {
                restarted.push(fresh);
            }
            let raises = |grant: &&mut GrantState| {
                let period = grant.period.is_empty() || stored.period.is_empty() || grant.period == stored.period;
                period && grant.limit == stored.limit && grant.kind == stored.kind
            };
            self.grants.iter_mut().filter(raises).for_each(GrantState::close);
        }
        for stored in restarted {
            postings.push(stored.posting(0)); // its row tells when the epoch began
            let known = self.counters.iter().position(|other| other.is_same(&stored)); // at the last epoch only
            self.put(known, stored);
        }
        Ok(postings)
    }

    /// Raises a limit.
    pub(super) fn grant(&mut self, plan: &Plan, grant: GrantState, wall: u64) -> Result<Posting, ConfigError> {
        let limit = plan.grantable(&grant.limit, from_1970(grant.until), wall)?;
        self.writes = true;
        let period = Arc::clone(&limit.period_key);
        self.grants.add(GrantState { kind: limit.kind().into(), period, ..grant });
        if let Some(at) = self.present(limit, wall) {
            self.grown(at, Some(limit), wall);
        }
        Ok(StoredCounter::beginning(limit, wall).posting(0))
    }

    /// Ends a grant early, and returns it.
    pub(super) fn revoke(&mut self, id: u64, wall: u64) -> Option<&GrantState> {
        let revoked = self.grants.revoke(GrantId(id), wall);
        self.writes |= revoked.is_some();
        revoked
    }

    /// Adds all changes to `writes`, which has the rows of the batch.
    pub(super) fn write(self, tenant: &Arc<str>, now: u64, writes: &mut Writes) {
        let before = self.before.counts.iter().map(Some).chain(std::iter::repeat(None)); // counters are only added
        let changed = self.counters.into_iter().zip(before).filter(|(stored, before)| Some(stored) != *before);
        writes.counts.extend(changed.map(|(stored, _)| (Arc::clone(tenant), stored)));
        if self.tier != self.before.tier {
            writes.tiers.push((Arc::clone(tenant), self.tier));
        }
        if self.before.closed_until > now && writes.rows.iter().any(|row| row.key.tenant == *tenant) {
            writes.floors.push((Arc::clone(tenant), self.before.closed_until));
        }
        if self.writes {
            let changed = self.grants.iter().filter(|grant| !self.before.grants.contains(grant));
            writes.grants.extend(changed.map(|grant| (Arc::clone(tenant), grant.clone())));
        }
    }

    /// Brings the grants of `limit` up to its counter after a change, if it is the present one; returns a new warning.
    fn grown(&mut self, at: usize, limit: Option<&Limit>, wall: u64) -> Option<Warning> {
        let limit = limit.filter(|limit| self.present(limit, wall) == Some(at))?;
        self.bring_grants_to(limit, Some(at), wall);
        let counter = &mut self.counters[at].counter;
        let size = limit.limit.saturating_add(self.grants.raise(limit));
        counter.warns(limit).then(|| Warning { name: limit.name.clone(), used: counter.taken(), limit: size })
    }

    /// Ends the grants of a limit whose time has come, and closes those that another counter has used. Covers the usage
    /// of the present counter above its limit with the others.
    fn bring_grants_to(&mut self, limit: &Limit, present: Option<usize>, wall: u64) {
        self.close_grants(limit, present, wall);
        if let Some(at) = present {
            self.grants.cover(limit, &self.counters[at].counter);
        }
    }

    /// Ends the grants of a limit whose time has come, and closes those that another counter has used.
    fn close_grants(&mut self, limit: &Limit, present: Option<usize>, wall: u64) {
        let here = present.map(|at| (self.counters[at].counter.starts, self.counters[at].counter.epoch));
        for grant in self.grants.of_mut(limit) {
            grant.ended |= grant.until <= wall;
            if grant.current > 0 && here != Some((grant.window, grant.epoch)) {
                grant.close();
            }
        }
    }

    /// Returns the admission time for `wall`. After the clock has stepped back, it lies in the open windows.
    pub(super) fn here(&self, plan: &Plan, wall: u64) -> u64 {
        let present = plan.counted().iter().filter_map(|limit| self.present(limit, wall));
        present.map(|at| self.counters[at].counter.starts).fold(wall, u64::max)
    }

    /// Returns the counter of a limit whose window is open.
    fn present(&self, limit: &Limit, wall: u64) -> Option<usize> {
        self.latest(limit, |counter| !counter.is_over(wall))
    }

    /// Returns the counter of the window of `at`, and begins it if there is none.
    fn counter_at(&mut self, limit: &Limit, at: u64, wall: u64) -> usize {
        // A rolling window has begun since then, with another charge.
        let rolled = |found: &usize| {
            !limit.quota.period().is_some_and(Period::is_calendar) && self.counters[*found].counter.starts > at
        };
        let known = self.latest(limit, |counter| counter.starts <= at && at < counter.ends);
        let known = known.or_else(|| self.present(limit, wall).filter(rolled));
        known.unwrap_or_else(|| self.put(None, StoredCounter::beginning(limit, at)))
    }

    fn latest(&self, limit: &Limit, is: impl Fn(&Counter) -> bool) -> Option<usize> {
        let all = self.counters.iter().enumerate().filter(|(_, stored)| stored.is_of(limit) && is(&stored.counter));
        all.max_by_key(|(_, stored)| (stored.counter.starts, stored.counter.epoch)).map(|(at, _)| at)
    }

    fn put(&mut self, at: Option<usize>, stored: StoredCounter) -> usize {
        match at {
            Some(at) => {
                self.counters[at] = stored;
                at
            }
            None => {
                self.counters.push(stored);
                self.counters.len() - 1
            }
        }
    }
}
