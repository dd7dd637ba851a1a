mod bursts;
#[cfg(not(tollgate_loom))]
mod cohorts;
mod forgetting;
#[cfg(tollgate_loom)]
mod interleavings;
mod jobs;
mod reads;

use std::{sync::Arc, time::Duration};

use super::{Accounts, RoomSettings};
use crate::{
    gate::MaybeFuture,
    identity::{Client, Digest},
    quota::{
        Amounts, Plan, Quota, Usage,
        account::{AccountSettings, ChargeRequest, Now},
        store::{AccountContext, AdmitError, AdmitRequest, AdmittedCharge, PlanCharge, QuotaBackend, Settlement},
    },
    time::{Moment, Period},
};

const START: u64 = 1_767_225_600_000_000_000;
const HOUR: u64 = 3_600_000_000_000;

fn settings() -> AccountSettings {
    AccountSettings {
        max_hold: Duration::from_secs(3_600),
        max_stall: Duration::from_secs(60),
        ttl: Duration::from_secs(300),
        charge_expired: false,
        max_reservations: 1_000,
        job_horizon: Duration::from_secs(3_600),
        max_jobs: 10,
    }
}

/// Accounts, one plan, and a time.
#[derive(Clone)]
struct Scene {
    accounts: Arc<Accounts>,
    plan: Arc<Plan>,
    now: Now,
}

fn now(after: u64) -> Now {
    Now { moment: Moment::from_nanos(HOUR + after), wall: START + after }
}

fn client(number: u8) -> Client {
    Client::from_digest(Digest(u128::from(number) << 64 | u128::from(number)))
}

impl Scene {
    fn new(most: usize) -> Self {
        Self::with_room(most, most)
    }

    /// Room for `most` clients, and for `most_of_cohort` of each cohort: 10 requests an hour, 5 tokens a day, one request at
    /// a time.
    fn with_room(most: usize, most_of_cohort: usize) -> Self {
        let plan = Plan::new("plan")
            .limit(Quota::requests(10).per(Period::hour()))
            .limit(Quota::units("tokens", 5).per(Period::day()))
            .limit(Quota::concurrent(1));
        let room = RoomSettings { most, most_of_cohort, bounds_claimed: true, overflow: None };
        let accounts = Accounts::new(room, settings());
        Self { accounts, plan: Arc::new(plan), now: now(0) }
    }

    fn at(&self, after: u64) -> Self {
        Self { now: now(after), ..self.clone() }
    }

    /// Returns the scene at a time of the monotonic clock, and another of the wall clock.
    fn at_wall(&self, after: u64, wall: u64) -> Self {
        Self { now: Now { wall: START + wall, ..now(after) }, ..self.clone() }
    }

    fn context<'a>(&'a self, client: &'a Client) -> AccountContext<'a> {
        AccountContext { client, plan: &self.plan, now: self.now }
    }

    fn admit(&self, number: u8, amounts: impl Into<Amounts>) -> Result<AdmittedCharge, AdmitError> {
        self.admit_client(&client(number), amounts)
    }

    fn admit_client(&self, client: &Client, amounts: impl Into<Amounts>) -> Result<AdmittedCharge, AdmitError> {
        let amounts = amounts.into();
        let ask = ChargeRequest { amounts: &amounts, each: &[], reserve: false, lasting: false, open: true, job: None };
        at_once(self.accounts.admit(&AdmitRequest {
            account: self.context(client),
            charge: ask,
            wants_nearest: false,
            wants_usage: false,
        }))
    }

    fn void(&self, admission: &AdmittedCharge, amounts: impl Into<Amounts>) {
        let amounts = amounts.into();
        let charged = PlanCharge { amounts: &amounts, plan: &self.plan };
        self.accounts.settle(&admission.receipt, &Settlement::Void(Some(charged)), self.now);
    }

    fn served(&self, admission: &AdmittedCharge) {
        let none = Amounts::new();
        self.accounts.settle(&admission.receipt, &Settlement::Served { used: &none, actual: &none }, self.now);
    }

    fn usage(&self, number: u8) -> Usage {
        at_once(self.accounts.usage(&self.context(&client(number)))).unwrap()
    }

    /// Used amount of each limit.
    fn used(&self, number: u8) -> Vec<u64> {
        self.usage(number).limits.iter().map(|limit| limit.used).collect()
    }

    /// Visits all accounts.
    fn sweep(&self) {
        let mut from = Some(0);
        while let Some(at) = from {
            from = self.accounts.forget_idle(at, self.now);
        }
    }

    fn population(&self) -> usize {
        self.accounts.population().0
    }
}

fn at_once<T>(answer: MaybeFuture<T>) -> T {
    match answer {
        MaybeFuture::Ready(value) => value,
        MaybeFuture::Future(_) => panic!("accounts in memory answer at once"),
    }
}
