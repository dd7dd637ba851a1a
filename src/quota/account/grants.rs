//! What is allowed on top, and which of it is used up first.

use crate::{
    quota::{ActiveGrant, Grant, GrantId, Limit},
    time::since_1970,
};

/// The grants of one client, those whose end is nearest first.
///
/// A grant is used up by what goes retired the limit. What one has paid for stays paid when it ends: the others are not
/// charged for it once more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants {
    all: Vec<Given>,
}

#[derive(Clone, Debug)]
struct Given {
    id: GrantId,
    grant: Grant,
    until: u64,
    /// What it raises, as the plan had it: another plan may have no such limit.
    limit: Limit,
    /// Used up in periods that are over, and in the one under way.
    before: u64,
    current: u64,
    ended: bool,
}

impl Given {
    /// How much higher it makes the limit: all that earlier periods have left of it; once it has ended, what it has paid.
    fn raises(&self) -> u64 {
        if self.ended { self.current } else { self.grant.amount() - self.before }
    }

    fn left(&self) -> u64 {
        if self.ended { 0 } else { self.grant.amount() - self.before - self.current }
    }
}

/// As a store keeps them: what is used up is told apart from outside.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Grants {
    /// A grant that a store has kept.
    pub(super) fn restore(&mut self, state: &super::GrantState, limit: &Limit) {
        let until = crate::time::from_1970(state.until);
        let Ok(grant) = Grant::try_new(&state.limit, state.amount, until) else { return }; // nobody granted that
        let before = state.before.min(state.amount);
        let at = self.all.partition_point(|given| given.until <= state.until);
        let given = Given {
            id: GrantId(state.id),
            grant,
            until: state.until,
            limit: limit.clone(),
            before,
            current: state.current.min(state.amount - before),
            ended: state.ended,
        };
        self.all.insert(at, given);
    }

    /// What each has paid for in the period under way.
    pub(super) fn current(&self) -> impl Iterator<Item = (u64, u64)> {
        self.all.iter().map(|given| (given.id.0, given.current))
    }
}

impl Grants {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether any is neither over nor used up.
    pub(super) fn any_left(&self) -> bool {
        self.all.iter().any(|given| given.left() > 0)
    }

    pub(super) fn add(&mut self, id: GrantId, grant: Grant, limit: &Limit) {
        let until = since_1970(grant.until());
        let at = self.all.partition_point(|given| given.until <= until);
        let given = Given { id, grant, until, limit: limit.clone(), before: 0, current: 0, ended: false };
        self.all.insert(at, given);
    }

    /// Ends one before its time; false if it was none of these or has ended.
    pub(super) fn revoke(&mut self, id: GrantId) -> bool {
        match self.all.iter_mut().find(|given| given.id == id && !given.ended) {
            Some(given) => {
                given.ended = true;
                true
            }
            None => false,
        }
    }

    /// Ends those whose time has come.
    pub(super) fn end(&mut self, wall: u64) {
        for given in self.all.iter_mut().take_while(|given| given.until <= wall) {
            given.ended = true;
        }
        self.all.retain(|given| !given.ended || given.current > 0);
    }

    /// How much higher they make a limit.
    #[inline]
    pub(super) fn raise(&self, limit: &Limit) -> u64 {
        if self.all.is_empty() { 0 } else { self.raise_some(limit) }
    }

    #[inline(never)]
    fn raise_some(&self, limit: &Limit) -> u64 {
        let raised = self.all.iter().filter(|given| given.limit.is_like(limit));
        raised.map(Given::raises).fold(0, u64::saturating_add)
    }

    /// Uses them up by what is taken retired a limit, or gives back what is not any more.
    #[inline]
    pub(super) fn cover(&mut self, limit: &Limit, taken: u64) {
        if !self.all.is_empty() {
            self.cover_some(limit, taken.saturating_sub(limit.limit));
        }
    }

    fn cover_some(&mut self, limit: &Limit, retired: u64) {
        let raised = |given: &&mut Given| given.limit.is_like(limit);
        let covered = self.all.iter_mut().filter(raised).map(|given| given.current).fold(0, u64::saturating_add);
        if retired > covered {
            let mut more = retired - covered;
            for given in self.all.iter_mut().filter(raised) {
                let part = more.min(given.left());
                given.current += part;
                more -= part;
            }
        } else {
            let mut less = covered - retired;
            // The last that was used is the first to get back.
            for given in self.all.iter_mut().rev().filter(raised) {
                let part = less.min(given.current);
                given.current -= part;
                less -= part;
            }
        }
    }

    /// A limit's period is over, or its count was reset: what was used stays used.
    pub(super) fn close(&mut self, limit: &Limit) {
        for given in self.all.iter_mut().filter(|given| given.limit.is_like(limit)) {
            given.before += given.current;
            given.current = 0;
        }
        self.all.retain(|given| given.current > 0 || given.left() > 0);
    }

    pub(super) fn list(&self) -> Vec<ActiveGrant> {
        let live = self.all.iter().filter(|given| !given.ended);
        live.map(|given| ActiveGrant { id: given.id, grant: given.grant.clone(), used: given.before + given.current })
            .collect()
    }
}
