//! What people change in an account: resets, and grants.

use super::{Account, Now};
use crate::{
    error::ConfigError,
    quota::{ActiveGrant, Grant, GrantId},
    time::{Instant, from_1970},
};

impl Account {
    /// Counts the limits of this name or kind, or all, from zero.
    pub(crate) fn reset(&mut self, name: Option<&str>) -> Result<(), ConfigError> {
        self.counts.reset(name)
    }

    /// Raises a limit.
    pub(crate) fn grant(&mut self, id: GrantId, grant: Grant, now: Now) -> Result<(), ConfigError> {
        let counts = &mut self.counts;
        let Some(limit) = counts.plan.counted().iter().find(|limit| limit.name.as_str() == grant.limit()) else {
            return Err(counts.no_such_limit(grant.limit()));
        };
        if grant.until() <= from_1970(now.wall) {
            return Err(ConfigError::new("end of a grant", "lie ahead", Instant(grant.until())));
        }
        counts.grants.add(id, grant, limit);
        counts.cover();
        Ok(())
    }

    /// Ends a grant before its time.
    pub(crate) fn revoke(&mut self, id: GrantId) -> bool {
        self.counts.grants.revoke(id)
    }

    /// The grants that have not ended.
    pub(crate) fn grants(&self) -> Vec<ActiveGrant> {
        self.counts.grants.list()
    }
}
