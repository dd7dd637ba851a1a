//! One client's account: decides all limits together, and keeps the books.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    counter::Counter,
    grants::Grants,
    holds::{Closed, Hold, Holds, Stage},
    jobs::{Duplicate, Job, Jobs},
};
use crate::{
    Invalid, Moment, PolicyName,
    quota::{Amounts, Grant, GrantId, Granted, Kind, Limit, Plan, Violation, no_such_limit},
    rule::{Lease, Leases},
};

/// The time on both clocks: leases and reservations go by the one that never steps, periods by the one on the wall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) moment: Moment,
    /// Nanoseconds since 1970.
    pub(crate) wall: u64,
}

/// What holds for all accounts of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// How long a slot may be held, and for how long without progress.
    pub(crate) max_hold: Duration,
    pub(crate) max_stall: Duration,
    /// How long a reservation may be open.
    pub(crate) ttl: Duration,
    /// Whether a reservation whose time has run out is charged as it was estimated, or given back.
    pub(crate) charge_expired: bool,
    /// How long a finished job is remembered, and how many jobs of one client.
    pub(crate) job_horizon: Duration,
    pub(crate) max_jobs: usize,
}

/// One client's account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    plan: Arc<Plan>,
    /// One for each counted limit of the plan, in its order.
    counters: Box<[Counter]>,
    /// Counts the beginnings of counts: who was charged at an earlier turn than a count's first is no part of it.
    turn: u32,
    /// On the wall, while no period ends and no clock turns out to have been wrong.
    quiet: Range<u64>,
    /// Counts reservations: no id is ever given twice.
    issued: u64,
    /// Charges that are still to be settled.
    in_flight: u32,
    slots: Option<Box<Leases>>,
    rare: Option<Box<Rare>>,
}

/// What few accounts have.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    pub(super) grants: Grants,
    pub(super) holds: Holds,
    pub(super) jobs: Jobs,
}

/// What is asked of an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) amounts: &'a Amounts,
    /// Sets the amounts aside instead of charging them.
    pub(crate) reserve: bool,
    /// More is to come: the account is kept until the charge is settled.
    pub(crate) open: bool,
    pub(crate) job: Option<Job>,
}

/// What was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) turn: u32,
    pub(crate) lease: Option<Lease>,
    /// The reservation, where one was asked for.
    pub(crate) hold: Option<u64>,
    /// Another's slot was taken back for it.
    pub(crate) reclaimed: bool,
    /// The limits, one bit each, at which the client has just come where it is to be warned.
    pub(crate) warned: u64,
    /// Those of which a response must tell.
    pub(crate) untold: u64,
}

/// Why nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum No {
    Limits(Vec<Violation>),
    Job(Duplicate),
}

/// How long whoever finds no slot is told to wait: nobody knows when one comes back.
const SLOT_WAIT: Duration = Duration::from_secs(1);

impl Account {
    pub(crate) fn new(plan: &Arc<Plan>) -> Self {
        let counters = plan.counted().iter().map(|_| Counter::default()).collect();
        Self {
            plan: Arc::clone(plan),
            counters,
            turn: 0,
            quiet: ALWAYS,
            issued: 0,
            in_flight: 0,
            slots: None,
            rare: None,
        }
    }

    /// Brings the account to the present: the plan in force, periods that are over, reservations and grants that ended.
    ///
    /// To be called before everything else.
    #[inline]
    pub(crate) fn advance(&mut self, plan: &Arc<Plan>, now: Now, terms: &Terms) {
        if !Arc::ptr_eq(&self.plan, plan) {
            self.change_plan(plan, now.wall);
        }
        if !self.quiet.contains(&now.wall) {
            self.roll(now.wall);
        }
        if self.rare.is_some() {
            self.advance_rare(now, terms);
        }
    }

    /// Brings the account to the present under the plan that it has.
    pub(crate) fn advance_as_is(&mut self, now: Now, terms: &Terms) {
        let plan = Arc::clone(&self.plan);
        self.advance(&plan, now, terms);
    }

    /// The name of the plan that it has.
    pub(crate) fn plan_name(&self) -> &PolicyName {
        self.plan.name()
    }

    #[cold]
    fn roll(&mut self, wall: u64) {
        for (index, (counter, limit)) in self.counters.iter_mut().zip(self.plan.counted()).enumerate() {
            if let (true, Some(period)) = (counter.is_over(wall), limit.quota.period()) {
                self.turn += 1;
                counter.roll(period, wall, self.turn);
                if let Some(rare) = &mut self.rare {
                    rare.grants.close(index);
                }
            }
        }
        self.quiet = self.counters.iter().map(Counter::quiet).fold(ALWAYS, both);
    }

    #[cold]
    fn advance_rare(&mut self, now: Now, terms: &Terms) {
        let Some(rare) = &mut self.rare else { return };
        let (counters, plan) = (&mut self.counters, &self.plan);
        let Rare { grants, holds, jobs } = &mut **rare;
        grants.end(now.wall);
        holds.expire(now.moment, terms.ttl, |hold| {
            let actual = if terms.charge_expired { Some(&hold.amounts) } else { None };
            settle(counters, plan, hold, actual);
        });
        jobs.forget(now.moment);
        for (index, (counter, limit)) in counters.iter().zip(plan.counted()).enumerate() {
            grants.cover(index, counter, limit.limit);
        }
        if rare.grants.is_empty() && rare.holds.is_empty() && rare.jobs.is_empty() {
            self.rare = None;
        }
    }

    /// Another plan: limits of the same name go on counting.
    #[cold]
    fn change_plan(&mut self, plan: &Arc<Plan>, wall: u64) {
        let old = std::mem::replace(&mut self.plan, Arc::clone(plan));
        let mut counters = std::mem::take(&mut self.counters);
        self.turn += 1;
        let mut kept = |limit: &Limit| {
            let same = |known: &Limit| known.name == limit.name && known.kind() == limit.kind();
            let index = old.counted().iter().position(same).filter(|_| !plan.starts_fresh())?;
            let mut counter = std::mem::take(&mut counters[index]);
            if let (true, Some(period)) = (counter.has_begun(), limit.quota.period())
                && old.counted()[index].quota.period() != Some(period)
            {
                counter.begin(period, wall); // with what was used in the one before
            }
            Some(counter)
        };
        let fresh = || Counter::born_at(self.turn);
        self.counters = plan.counted().iter().map(|limit| kept(limit).unwrap_or_else(fresh)).collect();
        self.quiet = NEVER;
        if let (Some(slots), Some(limit)) = (&mut self.slots, plan.concurrent()) {
            slots.resize(usize::try_from(limit.limit).unwrap_or(usize::MAX));
        }
        if let Some(rare) = &mut self.rare {
            rare.grants.rename(|name| plan.counted().iter().position(|limit| limit.name.as_str() == name));
        }
    }

    /// Takes everything that is asked for, or nothing.
    #[inline]
    pub(crate) fn admit(&mut self, ask: &Ask<'_>, now: Now, terms: &Terms) -> Result<Taken, No> {
        if let Some(job) = &ask.job {
            self.rare().jobs.ask(job, terms.max_jobs).map_err(No::Job)?;
        }
        if !self.fits(ask.amounts) {
            return Err(No::Limits(self.violations(ask.amounts, now)));
        }
        let mut taken = Taken::default();
        if let (Some(limit), Some(asked)) = (self.plan.concurrent(), ask.amounts.of(&Kind::Concurrent)) {
            match asked {
                0 if self.held() < limit.limit => {}
                1 => match self.slots(terms).acquire_unwatched(now.moment) {
                    Some(acquired) => {
                        taken.lease = Some(acquired.lease);
                        taken.reclaimed = acquired.reclaimed;
                    }
                    None => return Err(No::Limits(self.violations(ask.amounts, now))),
                },
                _ => return Err(No::Limits(self.violations(ask.amounts, now))),
            }
        }
        self.add(ask.amounts, now.wall, u32::MAX, ask.reserve, &mut taken);
        taken.turn = self.turn;
        self.in_flight = self.in_flight.saturating_add(u32::from(ask.open));
        if ask.reserve {
            let (turn, amounts) = (self.turn, ask.amounts.clone());
            self.issued += 1;
            let id = self.issued;
            self.rare().holds.open(id, turn, amounts, now.moment + terms.ttl);
            taken.hold = Some(id);
        }
        if let Some(job) = &ask.job {
            self.rare().jobs.start(job);
        }
        Ok(taken)
    }

    /// Whether all limits have room for these amounts, but for that of requests at a time.
    #[inline]
    fn fits(&self, amounts: &Amounts) -> bool {
        self.counters.iter().zip(self.plan.counted()).enumerate().all(|(index, (counter, limit))| {
            match amounts.of(limit.kind()) {
                None => true,
                Some(amount) => {
                    let free = self.limit(index, limit).saturating_sub(counter.taken());
                    amount.max(1) <= free // nothing is asked for, and refused, when nothing is left
                }
            }
        })
    }

    /// Adds amounts to the counts that charges of `turn` are part of.
    fn add(&mut self, amounts: &Amounts, wall: u64, turn: u32, reserve: bool, taken: &mut Taken) {
        for (index, (counter, limit)) in self.counters.iter_mut().zip(self.plan.counted()).enumerate() {
            if !counter.holds(turn) || amounts.of(limit.kind()).is_none() {
                continue;
            }
            let amount = amounts.counted(limit.kind());
            if let (false, Some(period)) = (counter.has_begun(), limit.quota.period())
                && (amount > 0 || period.is_calendar())
            {
                counter.begin(period, wall);
                self.quiet = both(self.quiet.clone(), counter.quiet());
            }
            if amount > 0 {
                let sum = if reserve { &mut counter.reserved } else { &mut counter.used };
                *sum = sum.saturating_add(amount).min(MOST_TAKEN);
                if let Some(rare) = &mut self.rare {
                    rare.grants.cover(index, counter, limit.limit);
                }
                if counter.warns(limit) {
                    taken.warned |= 1 << index;
                    counter.untold = true;
                }
            }
            if std::mem::take(&mut counter.untold) {
                taken.untold |= 1 << index;
            }
        }
    }

    /// A charge has been settled.
    pub(crate) fn land(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Notes what was used, whether there was room for it or not; gives the limits at which the client is to be warned.
    ///
    /// What was used for a charge of `turn` counts in the period of that charge only.
    pub(crate) fn record(&mut self, amounts: &Amounts, turn: Option<u32>, now: Now) -> u64 {
        let mut taken = Taken::default();
        self.add(amounts, now.wall, turn.unwrap_or(u32::MAX), false, &mut taken);
        self.tell_later(taken.untold);
        taken.warned
    }

    /// Gives back what was charged at `turn`.
    pub(crate) fn give_back(&mut self, amounts: &Amounts, turn: u32) {
        for (index, (counter, limit)) in self.counters.iter_mut().zip(self.plan.counted()).enumerate() {
            if counter.holds(turn) {
                counter.used = counter.used.saturating_sub(amounts.counted(limit.kind()));
                if let Some(rare) = &mut self.rare {
                    rare.grants.cover(index, counter, limit.limit);
                }
            }
        }
    }

    /// Ends a reservation: with what was really used (what is not named, as it was estimated), or with nothing. Later calls for it change nothing.
    pub(crate) fn close(
        &mut self,
        hold: u64,
        actual: Option<&Amounts>,
        forget: bool,
        now: Now,
        terms: &Terms,
    ) -> (Closed, u64) {
        let stage = if actual.is_some() { Stage::Committed } else { Stage::RolledBack };
        let closed = self.rare().holds.close(hold, stage, forget);
        match (&closed, actual) {
            (Closed::Now(held), actual) => {
                settle(&mut self.counters, &self.plan, held, None);
                let warned = actual.map_or(0, |actual| self.record(&held.amounts.with(actual), Some(held.turn), now));
                self.cover_all();
                return (closed, warned);
            }
            (Closed::TooLate(held), Some(actual)) => {
                if terms.charge_expired {
                    self.give_back(&held.amounts, held.turn);
                }
                let warned = self.record(&held.amounts.with(actual), Some(held.turn), now);
                return (closed, warned);
            }
            _ => {}
        }
        (closed, 0)
    }

    /// Ends the reservations whose time has run out.
    pub(crate) fn expire(&mut self, now: Now, terms: &Terms) {
        if self.rare.is_some() {
            self.advance_rare(now, terms);
        }
    }

    /// Puts off the end of a reservation.
    pub(crate) fn renew(&mut self, hold: u64, now: Now, terms: &Terms) {
        self.rare().holds.renew(hold, now.moment, terms.ttl);
    }

    /// Gives a slot back; a late one changes nothing.
    pub(crate) fn release(&mut self, lease: Lease) {
        if let Some(slots) = &mut self.slots {
            slots.release(lease);
        }
    }

    /// The holder of a slot has nothing more to do than to send: from now on it has to make progress.
    pub(crate) fn watch(&mut self, lease: Lease, now: Now) {
        if let Some(slots) = &mut self.slots {
            slots.watch(lease, now.moment);
        }
    }

    /// The holder of a slot has made progress.
    pub(crate) fn touch(&mut self, lease: Lease, now: Now) {
        if let Some(slots) = &mut self.slots {
            slots.touch(lease, now.moment);
        }
    }

    /// A job was worked on: nobody may do it again.
    pub(crate) fn finish(&mut self, job: &Job, now: Now, terms: &Terms) {
        self.rare().jobs.finish(job.id, now.moment, terms.job_horizon);
    }

    /// A job was not worked on: its id is free.
    pub(crate) fn free(&mut self, job: &Job) {
        self.rare().jobs.free(job.id);
    }

    /// Whether everything that is asked for could be taken.
    pub(crate) fn check(&self, amounts: &Amounts, now: Now) -> Result<(), No> {
        match self.violations(amounts, now) {
            violations if violations.is_empty() => Ok(()),
            violations => Err(No::Limits(violations)),
        }
    }

    /// Counts the limits of this name or kind, or all, from zero.
    pub(crate) fn reset(&mut self, name: Option<&str>) -> Result<(), Invalid> {
        let named = |limit: &Limit, name| limit.name.as_str() == name || limit.kind().as_str() == name;
        let meant = |limit: &Limit| name.is_none_or(|name| named(limit, name));
        if let Some(name) = name.filter(|_| !self.plan.counted().iter().any(meant)) {
            return Err(no_such_limit(name, self.plan.counted().iter().map(|limit| limit.name.clone())));
        }
        self.turn += 1;
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if meant(&self.plan.counted()[index]) {
                counter.reset(self.turn);
                if let Some(rare) = &mut self.rare {
                    rare.grants.close(index);
                }
            }
        }
        Ok(())
    }

    /// Raises a limit.
    pub(crate) fn grant(&mut self, id: GrantId, grant: Grant, now: Now) -> Result<(), Invalid> {
        let counter = self.plan.counted().iter().position(|limit| limit.name.as_str() == grant.limit());
        let Some(counter) = counter else {
            return Err(no_such_limit(grant.limit(), self.plan.counted().iter().map(|limit| limit.name.clone())));
        };
        let over = grant.until() <= SystemTime::UNIX_EPOCH + Duration::from_nanos(now.wall);
        if over {
            return Err(Invalid::new("end of a grant", "lie ahead", format_args!("{:?}", grant.until())));
        }
        self.rare().grants.add(id, grant, counter);
        self.cover_all();
        Ok(())
    }

    /// Ends a grant before its time.
    pub(crate) fn revoke(&mut self, id: GrantId) -> bool {
        self.rare.as_mut().is_some_and(|rare| rare.grants.revoke(id))
    }

    /// The grants that have not ended.
    pub(crate) fn grants(&self) -> Vec<Granted> {
        self.rare.as_ref().map(|rare| rare.grants.list()).unwrap_or_default()
    }

    /// Whether a newcomer would be the same: nothing is used, held, granted or remembered.
    pub(crate) fn is_blank(&self) -> bool {
        let nothing = |rare: &Rare| !rare.grants.any_left() && rare.holds.is_empty() && rare.jobs.is_empty();
        self.in_flight == 0
            && self.held() == 0
            && self.rare.as_deref().is_none_or(nothing)
            && self.counters.iter().all(|counter| counter.taken() == 0)
    }

    /// How much there is of a limit, grants included.
    #[inline]
    pub(super) fn limit(&self, index: usize, limit: &Limit) -> u64 {
        match &self.rare {
            None => limit.limit,
            Some(rare) => limit.limit.saturating_add(rare.grants.raise(index)),
        }
    }

    pub(super) fn parts(&self) -> (&Arc<Plan>, &[Counter], Option<&Leases>) {
        (&self.plan, &self.counters, self.slots.as_deref())
    }

    #[cold]
    fn violations(&self, amounts: &Amounts, now: Now) -> Vec<Violation> {
        let counted = self.counters.iter().zip(self.plan.counted()).enumerate();
        let mut all: Vec<_> = counted
            .filter_map(|(index, (counter, limit))| {
                let (asked, there) = (amounts.of(limit.kind())?, self.limit(index, limit));
                let current = counter.taken();
                (asked.max(1) > there.saturating_sub(current)).then(|| {
                    let end = limit.quota.period().map_or(now.wall, |period| counter.end(period, now.wall));
                    let wait = Duration::from_nanos(end.saturating_sub(now.wall));
                    violation(limit, there, current, (asked <= there).then_some(wait))
                })
            })
            .collect();
        if let (Some(limit), Some(asked)) = (self.plan.concurrent(), amounts.of(&Kind::Concurrent)) {
            let current = self.held();
            if asked > 1 || current >= limit.limit {
                all.push(violation(limit, limit.limit, current, (asked <= 1).then_some(SLOT_WAIT)));
            }
        }
        all
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn slots(&mut self, terms: &Terms) -> &mut Leases {
        let limit = self.plan.concurrent().map_or(0, |limit| usize::try_from(limit.limit).unwrap_or(usize::MAX));
        self.slots.get_or_insert_with(|| Box::new(Leases::new(limit, terms.max_hold, terms.max_stall)))
    }

    /// How many slots are held.
    fn held(&self) -> u64 {
        self.slots.as_ref().map_or(0, |slots| slots.held() as u64)
    }

    fn cover_all(&mut self) {
        let Some(rare) = &mut self.rare else { return };
        for (index, (counter, limit)) in self.counters.iter().zip(self.plan.counted()).enumerate() {
            rare.grants.cover(index, counter, limit.limit);
        }
    }

    fn tell_later(&mut self, untold: u64) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            counter.untold |= untold & 1 << index != 0;
        }
    }
}

/// Counts stop here: what memory, Lua and SQL all hold exactly.
const MOST_TAKEN: u64 = crate::quota::MOST;

const ALWAYS: Range<u64> = 0..u64::MAX;
const NEVER: Range<u64> = 0..0;

/// While both are quiet.
fn both(one: Range<u64>, other: Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}

fn violation(limit: &Limit, there: u64, current: u64, wait: Option<Duration>) -> Violation {
    Violation { name: limit.name.clone(), kind: limit.kind().clone(), limit: there, current, wait }
}

/// What was set aside is set aside no more; `actual` of it is used, in the period in which it was set aside.
fn settle(counters: &mut [Counter], plan: &Plan, hold: &Hold, actual: Option<&Amounts>) {
    for (counter, limit) in counters.iter_mut().zip(plan.counted()).filter(|(counter, _)| counter.holds(hold.turn)) {
        counter.reserved = counter.reserved.saturating_sub(hold.amounts.counted(limit.kind()));
        if let Some(actual) = actual {
            counter.used = counter.used.saturating_add(actual.counted(limit.kind())).min(MOST_TAKEN);
        }
    }
}
