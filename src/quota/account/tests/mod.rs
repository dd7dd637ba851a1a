mod credits;
mod due_map;
mod grants;
mod histories;
mod jobs;
mod replaced_plans;
mod reservations;
mod stories;

use std::{sync::Arc, time::Duration};

use super::{Account, AccountSettings, ChargeRequest, ChargeScope, ClosedBy, Denial, Now, Taken};
use crate::{
    quota::{Amounts, Plan, Quota},
    refusal::Violation,
    time::{Moment, Period},
};

const HOUR: u64 = 3_600_000_000_000;
const DAY: u64 = 24 * HOUR;

/// Ten o'clock of a day, at which neither an hour nor a day begins by chance.
const START: u64 = 20_000 * DAY + 10 * HOUR + HOUR / 2;

const TTL: Duration = Duration::from_secs(300);

fn settings(charge_expired: bool) -> AccountSettings {
    AccountSettings {
        max_hold: Duration::from_secs(60),
        max_stall: Duration::from_secs(10),
        ttl: TTL,
        charge_expired,
        max_reservations: 200,
        job_horizon: Duration::from_secs(3_600),
        max_jobs: 3,
    }
}

fn at(wall: u64) -> Now {
    Now { moment: Moment::from_nanos((wall + 3 * DAY).saturating_sub(START)), wall }
}

fn ask(amounts: &Amounts) -> ChargeRequest<'_> {
    ChargeRequest { amounts, each: &[], reserve: false, lasting: false, open: false, job: None }
}

fn hourly(limit: u64) -> Arc<Plan> {
    Arc::new(Plan::new("hourly").limit(Quota::requests(limit).per(Period::hour())))
}

/// An account under a plan, and the time.
struct Scene {
    account: Account,
    plan: Arc<Plan>,
    settings: AccountSettings,
    wall: u64,
}

impl Scene {
    fn new(plan: Arc<Plan>) -> Self {
        Self { account: Account::new(&plan), plan, settings: settings(false), wall: START }
    }

    fn account(&mut self) -> &mut Account {
        while !self.account.advance(&self.plan, at(self.wall), &self.settings) {}
        &mut self.account
    }

    fn take(&mut self, amounts: impl Into<Amounts>) -> Result<Taken, Vec<Violation>> {
        let (now, settings) = (at(self.wall), self.settings.clone());
        match self.account().admit(&ask(&amounts.into()), now, &settings) {
            Ok(taken) => Ok(taken),
            Err(Denial::Limits(violations)) => Err(violations),
            Err(no) => panic!("{no:?}"),
        }
    }

    /// Returns amounts of a charge under the plan that the scene had then.
    fn refund(&mut self, amounts: impl Into<Amounts>, taken: &Taken, plan: &Arc<Plan>) {
        let scope = ChargeScope { epoch: taken.epoch, plan: Arc::clone(plan) };
        self.account().give_back(&amounts.into(), &scope);
    }

    fn record(&mut self, amounts: impl Into<Amounts>) -> u64 {
        let now = at(self.wall);
        self.account().record(&amounts.into(), now).warned
    }

    /// Returns the used and the remaining amount of the first limit.
    fn first(&mut self) -> (u64, u64) {
        let now = at(self.wall);
        let usage = self.account().usage(now.wall);
        (usage.limits[0].used, usage.limits[0].remaining)
    }
}
