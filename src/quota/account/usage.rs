//! Reports of an account; valid after [`advance`](Account::advance).

use std::time::Duration;

use super::{Account, AccountSettings, ChargeRequest, Counter, Denial, Duplicate, Grants, Now, counters::fits};
use crate::{
    policy_name::PolicyName,
    quota::{Amounts, Limit, LimitUsage, Usage},
    refusal::Violation,
    time::{Period, from_1970, nanos},
};

/// The limit nearest to exhaustion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nearest {
    /// Index in the order of the plan; the concurrency limit is the last.
    pub(crate) index: usize,
    pub(crate) remaining: u64,
    pub(crate) reset: Option<Duration>,
}

/// A limit that is near enough for a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) name: PolicyName,
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

/// Time from which a limit has room for an amount, `None` if it never has, and the size of the limit then.
#[derive(Clone, Copy)]
struct NextFit {
    from: Option<u64>,
    size: u64,
}

/// Retry delay when no slot is free, in nanoseconds; the release of one is unknown.
const SLOT_WAIT: u64 = 1_000_000_000;

/// A limit, and the amounts that count for it.
struct LimitState<'a> {
    limit: &'a Limit,
    /// Size of the limit, grants included.
    size: u64,
    used: u64,
    reserved: u64,
    /// `None` for a concurrency limit.
    counter: Option<&'a Counter>,
}

impl LimitState<'_> {
    fn taken(&self) -> u64 {
        self.used.saturating_add(self.reserved)
    }

    fn remaining(&self) -> u64 {
        self.size.saturating_sub(self.taken())
    }

    /// Returns the end of the window; `None` for a concurrency limit.
    fn end(&self, wall: u64) -> Option<u64> {
        Some(self.counter?.end(self.limit.quota.period()?, wall))
    }

    /// Returns the time until the window ends.
    fn wait(&self, wall: u64) -> Option<Duration> {
        self.end(wall).map(|end| Duration::from_nanos(end.saturating_sub(wall)))
    }
}

impl Account {
    /// Returns each limit; the concurrency limit is the last.
    #[inline]
    fn limits(&self) -> impl Iterator<Item = LimitState<'_>> {
        let counted = self.counted().map(|(counter, limit)| {
            let (size, Counter { used, reserved, .. }) = (self.limit(limit), counter);
            LimitState { limit, size, used: *used, reserved: *reserved, counter: Some(counter) }
        });
        let held = |limit| LimitState { limit, size: limit.limit, used: self.slots_held(), reserved: 0, counter: None };
        counted.chain(self.plan.concurrent().map(held))
    }

    /// Returns the usage of each limit.
    pub(crate) fn usage(&self, wall: u64) -> Usage {
        let usage = |state: LimitState<'_>| {
            let is_known = |period: &Period| period.is_calendar() || state.counter.is_some_and(Counter::has_begun);
            LimitUsage {
                name: state.limit.name.clone(),
                kind: state.limit.kind().clone(),
                limit: state.size,
                used: state.used,
                reserved: state.reserved,
                remaining: state.remaining(),
                resets_at: state.end(wall).filter(|_| state.limit.quota.period().is_some_and(is_known)).map(from_1970),
            }
        };
        let limits = self.limits().map(usage).collect();
        Usage { plan: self.plan.name().clone(), version: self.plan.version(), limits }
    }

    /// Returns the limit nearest to exhaustion, its remainder, and the time until its window ends; a concurrency limit
    /// has no such time.
    #[inline]
    pub(crate) fn nearest(&self, wall: u64) -> Option<Nearest> {
        // The smaller fraction: a / b < c / d where a * d < c * b.
        let product = |one: &LimitState<'_>, size| u128::from(one.remaining()) * u128::from(size);
        let fraction = |(_, one): &(usize, LimitState<'_>), (_, other): &(usize, LimitState<'_>)| {
            product(one, other.size).cmp(&product(other, one.size))
        };
        let (index, state) = self.limits().enumerate().min_by(fraction)?;
        Some(Nearest { index, remaining: state.remaining(), reset: state.wait(wall) })
    }

    /// Returns the warnings of these limits, one bit each; allocates only if there are any.
    #[inline]
    pub(crate) fn warnings(&self, which: u64) -> Vec<Warning> {
        if which == 0 { Vec::new() } else { self.some_warnings(which) }
    }

    #[cold]
    fn some_warnings(&self, which: u64) -> Vec<Warning> {
        let chosen = self.limits().enumerate().filter(|(index, _)| which & 1 << index != 0);
        let warning = |(_, state): (_, LimitState<'_>)| Warning {
            name: state.limit.name.clone(),
            used: state.taken(),
            limit: state.size,
        };
        chosen.map(warning).collect()
    }

    /// Returns the limits without room for these amounts, now or once the others have room: a grant may end until then.
    ///
    /// `stored` are the grants as they stay if this view of the account is not stored: what they have used then is final
    /// once they or the window end.
    #[cold]
    pub(crate) fn violations(&self, amounts: &Amounts, stored: &Grants, now: Now) -> Vec<Violation> {
        self.violations_from(now.wall, amounts, stored, now)
    }

    /// Returns the limits without room for these amounts at `at`, or once the others have room.
    fn violations_from(&self, mut at: u64, amounts: &Amounts, stored: &Grants, now: Now) -> Vec<Violation> {
        let limits = self.limits().filter_map(|state| Some((amounts.get(state.limit.kind())?, state)));
        let limits: Vec<_> = limits.collect();
        let mut found: Vec<Option<NextFit>> = vec![None; limits.len()];
        // Each round but the last moves `at` to the end of another window, or to the next try for a slot.
        loop {
            let mut next = at;
            for ((asked, state), found) in limits.iter().zip(&mut found) {
                let fit = self.next_fit(*asked, state, at, stored, now);
                if fit.from != Some(at) {
                    next = next.max(fit.from.unwrap_or(at));
                    *found = Some(fit);
                }
            }
            if next == at {
                break;
            }
            at = next;
        }
        let violation = |((_, state), found): (&(u64, LimitState<'_>), Option<NextFit>)| {
            let (name, kind, current) = (state.limit.name.clone(), state.limit.kind().clone(), state.taken());
            let NextFit { size, from } = found?;
            let wait = from.map(|from| Duration::from_nanos(from - now.wall));
            let (limit, free_at) = (if from.is_some() { state.size } else { size }, from.map(Duration::from_nanos));
            Some(Violation { name, kind, limit, current, wait, free_at })
        };
        limits.iter().zip(found).filter_map(violation).collect()
    }

    /// Returns the denial of a request for which there is a place after this time: `denial` of the time after which the
    /// limits have room too, or the limits if they never have.
    #[cold]
    pub(super) fn denial_until(
        &self,
        place: Duration,
        amounts: &Amounts,
        now: Now,
        denial: impl FnOnce(Duration) -> Denial,
    ) -> Denial {
        let violations = self.violations_from(now.wall.saturating_add(nanos(place)), amounts, &self.grants, now);
        match violations.iter().map(|violation| violation.wait).collect::<Option<Vec<_>>>() {
            Some(waits) => denial(waits.into_iter().fold(place, Duration::max)),
            None => Denial::Limits(violations), // no wait helps
        }
    }

    /// Returns the denial of a job. While there are too many, it tells the time after which there is a place for the job,
    /// one for its reservation, and room in the limits.
    #[cold]
    pub(super) fn denial_of_job(
        &self,
        duplicate: Duplicate,
        request: &ChargeRequest<'_>,
        now: Now,
        settings: &AccountSettings,
    ) -> Denial {
        let Duplicate::Full(Some(place)) = duplicate else { return Denial::Job(duplicate) };
        let place = self.place_of_reservation(request, now, settings).map_or(place, |other| place.max(other));
        self.denial_until(place, request.amounts, now, |wait| Denial::Job(Duplicate::Full(Some(wait))))
    }

    /// Returns when a limit has room for an amount, at `at` or later: in its present window as far as grants that have
    /// not ended raise it, or in the next one as far as the `stored` grants do.
    fn next_fit(&self, asked: u64, state: &LimitState<'_>, at: u64, stored: &Grants, now: Now) -> NextFit {
        let Some(end) = state.end(now.wall) else {
            let from = if self.has_slots(asked, now.moment) { at } else { at.max(now.wall.saturating_add(SLOT_WAIT)) };
            return NextFit { from: (asked <= 1).then_some(from), size: state.size };
        };
        let size = state.limit.limit.saturating_add(self.grants.raise_at(state.limit, at, stored));
        if at < end && fits(asked, size, state.taken()) {
            return NextFit { from: Some(at), size };
        }
        let from = at.max(end);
        let size = state.limit.limit.saturating_add(stored.raise_after(state.limit, from));
        NextFit { from: fits(asked, size, 0).then_some(from), size }
    }
}
