//! Accounts that newcomers share while there is no room for their own.

use std::sync::Arc;

use super::LOOK_AT;
use crate::{
    identity::Cohort,
    quota::{
        Plan,
        account::{Account, AccountSettings, Duplicate, Job, Now},
    },
};

/// Greatest number of accounts that newcomers of a cohort share. At most 64 cohorts have their part of the accounts at
/// once; accounts of those that had it before are replaced once they are blank.
const MOST_OF_COHORTS: usize = 256;

/// One account for each plan, for the newcomers of each cohort that has its part of the accounts, and for all others
/// while all accounts are taken.
#[derive(Default)]
pub(super) struct SharedAccounts {
    accounts: Vec<SharedAccount>,
    /// Number of accounts of cohorts among them.
    of_cohorts: usize,
    hand: usize,
    /// Number of starts of jobs, each of which visits the next account.
    visits: usize,
}

struct SharedAccount {
    /// `None` for the clients of all cohorts.
    cohort: Option<Cohort>,
    generation: u32,
    account: Account,
}

impl SharedAccounts {
    /// Returns the account that the newcomers of a cohort with this plan share, its number and its generation.
    ///
    /// It is that of all newcomers if too many cohorts share accounts already.
    pub(super) fn of(
        &mut self,
        cohort: Option<Cohort>,
        plan: &Arc<Plan>,
        now: Now,
        settings: &AccountSettings,
    ) -> (&mut Account, u32, u32) {
        let slot = match cohort.and_then(|cohort| self.of_cohort(cohort, plan, now, settings)) {
            Some(slot) => slot,
            None => self.find(None, plan).unwrap_or_else(|| self.push(None, plan)),
        };
        let SharedAccount { generation, account, .. } = &mut self.accounts[slot];
        (account, u32::try_from(slot).expect("there are few shared accounts"), *generation)
    }

    /// Returns the account in a slot, if the generation is still the same.
    pub(super) fn get_mut(&mut self, slot: u32, generation: u32) -> Option<&mut Account> {
        let shared = self.accounts.get_mut(slot as usize).filter(|shared| shared.generation == generation)?;
        Some(&mut shared.account)
    }

    /// Returns the reason why a job that was begun in one of the accounts may not begin again, and whether any of them
    /// has a job. Expires what is due in one of them, so that jobs are forgotten in time where no request comes any more.
    pub(super) fn begun_job(&mut self, job: &Job, now: Now, settings: &AccountSettings) -> (Option<Duplicate>, bool) {
        self.visits = self.visits.wrapping_add(1);
        if let Some(next) = self.visits.checked_rem(self.accounts.len()) {
            let _ = self.accounts[next].account.expire(now, settings); // some at a time
        }
        let mut with_jobs = self.accounts.iter().map(|shared| &shared.account).filter(|account| account.has_jobs());
        let begun = with_jobs.clone().find_map(|account| account.begun_job(job, now));
        (begun, with_jobs.next().is_some())
    }

    /// Returns all accounts.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Account> {
        self.accounts.iter_mut().map(|shared| &mut shared.account)
    }

    fn of_cohort(&mut self, cohort: Cohort, plan: &Arc<Plan>, now: Now, settings: &AccountSettings) -> Option<usize> {
        if let Some(slot) = self.find(Some(cohort), plan) {
            return Some(slot);
        }
        if self.of_cohorts < MOST_OF_COHORTS {
            self.of_cohorts += 1;
            return Some(self.push(Some(cohort), plan));
        }
        (0..LOOK_AT).find_map(|_| self.replace_one(cohort, plan, now, settings))
    }

    fn find(&self, cohort: Option<Cohort>, plan: &Plan) -> Option<usize> {
        self.accounts.iter().position(|shared| shared.cohort == cohort && shared.account.plan.name() == plan.name())
    }

    fn push(&mut self, cohort: Option<Cohort>, plan: &Arc<Plan>) -> usize {
        self.accounts.push(SharedAccount { cohort, generation: 0, account: Account::new(plan) });
        self.accounts.len() - 1
    }

    /// Moves the hand to the next account, and replaces it if it is that of a cohort and blank.
    fn replace_one(&mut self, cohort: Cohort, plan: &Arc<Plan>, now: Now, settings: &AccountSettings) -> Option<usize> {
        self.hand = (self.hand + 1) % self.accounts.len();
        let shared = &mut self.accounts[self.hand];
        shared.cohort?;
        let is_over = shared.account.expire(now, settings)
            && shared.account.is_blank(now.wall)
            && shared.account.is_stale(now.moment);
        if !is_over {
            return None;
        }
        let generation = shared.generation.wrapping_add(1);
        *shared = SharedAccount { cohort: Some(cohort), generation, account: Account::new(plan) };
        Some(self.hand)
    }
}
