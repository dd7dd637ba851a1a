//! Grants of one client, and the order in which they are used.

use std::sync::Arc;

use super::Counter;
use crate::{
    quota::{ActiveGrant, Grant, GrantId, Limit, MOST},
    time::{from_1970, since_1970},
};

/// A grant, and the amounts of it that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct GrantState {
    pub(crate) id: u64,
    /// Name and kind of the limit that it raises; another plan may have no such limit.
    pub(crate) limit: Arc<str>,
    pub(crate) kind: Arc<str>,
    /// Period of that limit; empty if version 1 of the ledger's tables stored the grant.
    pub(crate) period: Arc<str>,
    pub(crate) amount: u64,
    /// End, in nanoseconds since 1970.
    pub(crate) until: u64,
    pub(crate) approver: String,
    pub(crate) reason: String,
    /// Amount used in windows that have ended.
    pub(crate) before: u64,
    /// Amount used in the present window, that of the counter with `window` and `epoch`.
    pub(crate) current: u64,
    pub(crate) window: u64,
    pub(crate) epoch: u64,
    pub(crate) ended: bool,
}

impl GrantState {
    /// Creates an unused grant. `kind` and `period` are those of its limit.
    pub(crate) fn new(id: GrantId, grant: &Grant, kind: Arc<str>, period: Arc<str>) -> Self {
        Self {
            id: id.0,
            limit: grant.limit().into(),
            kind,
            period,
            amount: grant.amount(),
            until: since_1970(grant.until()),
            approver: grant.approver().to_owned(),
            reason: grant.reason().to_owned(),
            before: 0,
            current: 0,
            window: 0,
            epoch: 0,
            ended: false,
        }
    }

    /// Whether the grant raises `limit`.
    pub(crate) fn is_of(&self, limit: &Limit) -> bool {
        limit.is_named(&self.limit, &self.kind, &self.period)
    }

    /// Returns the amount by which the grant raises the limit: the amount that earlier windows left of it. After its
    /// end, the amount that the present window uses.
    fn raises(&self) -> u64 {
        if self.ended { self.current } else { self.size().saturating_sub(self.before) }
    }

    fn left(&self) -> u64 {
        if self.ended { 0 } else { self.size().saturating_sub(self.used()) }
    }

    /// Its amount; 0 if the amount is above the bound, so that no [`Grant`] was stored with it.
    fn size(&self) -> u64 {
        if self.amount <= MOST { self.amount } else { 0 }
    }

    /// The grant as a store returned it, with its used amounts within its size.
    fn bounded(mut self) -> Self {
        self.before = self.before.min(self.size());
        self.current = self.current.min(self.size() - self.before);
        self
    }

    fn used(&self) -> u64 {
        self.before.saturating_add(self.current)
    }

    /// Makes the usage of the present window final, because its counter has ended.
    pub(crate) fn close(&mut self) {
        self.before = self.used();
        self.current = 0;
    }

    /// Returns the grant as it is reported; `None` if it has ended.
    fn active(&self) -> Option<ActiveGrant> {
        let grant = Grant::try_new(&self.limit, self.amount, from_1970(self.until)).ok().filter(|_| !self.ended)?;
        let grant = grant.approved_by(self.approver.as_str()).because(self.reason.as_str());
        Some(ActiveGrant { id: GrantId(self.id), grant, used: self.used() })
    }
}

/// Grants of one client, by their ends.
///
/// Usage above the limit uses them up in this order. Usage that a grant has covered stays covered when the grant ends:
/// no other grant is charged for it. A grant that is used up is listed to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants(Vec<GrantState>);

impl Grants {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &GrantState> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut GrantState> {
        self.0.iter_mut()
    }

    /// Returns the grants that raise `limit`.
    pub(crate) fn of_mut(&mut self, limit: &Limit) -> impl DoubleEndedIterator<Item = &mut GrantState> {
        self.iter_mut().filter(|grant| grant.is_of(limit))
    }

    pub(crate) fn add(&mut self, grant: GrantState) {
        let at = self.0.partition_point(|known| known.until <= grant.until);
        self.0.insert(at, grant);
    }

    /// Ends a grant early; `None` if there is none or it has ended.
    pub(crate) fn revoke(&mut self, id: GrantId, wall: u64) -> Option<&GrantState> {
        let live = |grant: &&mut GrantState| grant.id == id.0 && !grant.ended && grant.until > wall;
        self.0.iter_mut().find(live).map(|grant| {
            grant.ended = true;
            &*grant
        })
    }

    /// Ends the grants whose time has come, and drops those without effect.
    pub(super) fn expire(&mut self, wall: u64) {
        for grant in self.0.iter_mut().take_while(|grant| grant.until <= wall) {
            grant.ended = true;
        }
        self.0.retain(|grant| !grant.ended || grant.current > 0);
    }

    /// Returns the amount by which the grants raise a limit.
    #[inline]
    pub(crate) fn raise(&self, limit: &Limit) -> u64 {
        if self.is_empty() { 0 } else { self.raise_some(limit) }
    }

    #[inline(never)]
    fn raise_some(&self, limit: &Limit) -> u64 {
        self.sum(limit, GrantState::raises)
    }

    /// Sums what each grant raises. No limit is raised above 2^53 - 1, which is all that a counter holds.
    fn sum(&self, limit: &Limit, raises: impl Fn(&GrantState) -> u64) -> u64 {
        let sum = self.iter().filter(|grant| grant.is_of(limit)).map(raises).fold(0, u64::saturating_add);
        sum.min(MOST.saturating_sub(limit.limit))
    }

    /// Returns the amount by which the grants will raise a limit at `wall`, if its window has not ended and nothing is
    /// used until then. A grant that ends before covers no more than it does in `stored`.
    pub(super) fn raise_at(&self, limit: &Limit, wall: u64, stored: &Self) -> u64 {
        let covered = |grant: &GrantState| {
            let stored = stored.iter().find(|other| other.id == grant.id);
            stored.map_or(0, |stored| stored.current.min(grant.current))
        };
        self.sum(limit, |grant| if grant.until > wall { grant.raises() } else { covered(grant) })
    }

    /// Returns the amount by which the grants will raise a limit in a window that begins at `wall`.
    pub(super) fn raise_after(&self, limit: &Limit, wall: u64) -> u64 {
        self.sum(limit, |grant| if grant.until > wall { grant.left() } else { 0 })
    }

    /// Covers the usage of a counter above its limit with grants, or returns to them the amount that it does not need
    /// any more.
    #[inline]
    pub(crate) fn cover(&mut self, limit: &Limit, counter: &Counter) {
        if !self.is_empty() {
            self.cover_some(limit, counter);
        }
    }

    fn cover_some(&mut self, limit: &Limit, counter: &Counter) {
        let past = counter.taken().saturating_sub(limit.limit);
        let covered = self.of_mut(limit).map(|grant| grant.current).fold(0, u64::saturating_add);
        let (mut more, mut less) = (past.saturating_sub(covered), covered.saturating_sub(past));
        for grant in self.of_mut(limit) {
            let part = more.min(grant.left());
            grant.current += part;
            more -= part;
        }
        // The grant that was used last is the first to get usage back.
        for grant in self.of_mut(limit).rev() {
            let part = less.min(grant.current);
            grant.current -= part;
            less -= part;
        }
        for grant in self.of_mut(limit).filter(|grant| grant.current > 0) {
            (grant.window, grant.epoch) = (counter.starts, counter.epoch);
        }
    }

    /// Makes the usage of grants by a counter final, because its window has ended or it was reset.
    pub(super) fn close(&mut self, limit: &Limit) {
        self.of_mut(limit).for_each(GrantState::close);
    }

    /// Returns whether a grant has not ended at `wall`.
    pub(super) fn any_active(&self, wall: u64) -> bool {
        self.iter().any(|grant| grant.until > wall && !grant.ended)
    }

    /// Returns the grants that have not ended at `wall`.
    pub(crate) fn active(&self, wall: u64) -> Vec<ActiveGrant> {
        self.iter().filter(|grant| grant.until > wall).filter_map(GrantState::active).collect()
    }
}

impl FromIterator<GrantState> for Grants {
    /// Sorts stored grants by their end, then by id. Rows of a store may hold any numbers: they count as the nearest
    /// valid ones.
    fn from_iter<T: IntoIterator<Item = GrantState>>(grants: T) -> Self {
        let mut all = Self(grants.into_iter().map(GrantState::bounded).collect());
        all.0.sort_by_key(|grant| (grant.until, grant.id));
        all
    }
}
