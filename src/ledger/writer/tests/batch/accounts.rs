//! A ledger decides like an account in memory, as far as both promise the same.

use std::{
    num::NonZeroU64,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use super::*;
use crate::ledger::writer::account_state::AccountState;
use crate::{
    quota::{
        CreditRequest, Grant, GrantId, Usage,
        account::{Account, AccountSettings, ChargeRequest, ChargeScope, CloseResult, ClosedBy, GrantState, Now},
    },
    time::Moment,
};

const TTL: Duration = Duration::from_secs(900);

#[derive(Clone, Debug)]
enum Step {
    Charge([u64; 2]),
    Reserve([u64; 2]),
    Commit(usize, u64),
    RollBack(usize),
    GiveBack(usize),
    Add(usize, u64),
    Record([u64; 2]),
    Credit(bool, u64),
    Minutes(u64),
    /// Moves the wall clock only.
    Back(u64),
    Reset(Option<usize>),
    /// Grants that do not end here: in memory an ended grant takes back what it has covered while a reservation is
    /// committed; a ledger moves it in one step.
    Grant(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amounts = || (0..60_u64, 0..600_u64).prop_map(|(requests, tokens)| [requests, tokens]);
    let which = any::<usize>;
    let step = prop_oneof![
        6 => amounts().prop_map(Step::Charge),
        5 => amounts().prop_map(Step::Reserve),
        4 => (which(), 0..700_u64).prop_map(|(which, tokens)| Step::Commit(which, tokens)),
        2 => which().prop_map(Step::RollBack),
        2 => which().prop_map(Step::GiveBack),
        2 => (which(), 1..100_u64).prop_map(|(which, tokens)| Step::Add(which, tokens)),
        2 => amounts().prop_map(Step::Record),
        2 => (any::<bool>(), 1..300_u64).prop_map(|(tokens, amount)| Step::Credit(tokens, amount)),
        4 => prop_oneof![Just(1), Just(14), Just(15), Just(60), 1..2_000_u64].prop_map(Step::Minutes),
        1 => (1..90_u64).prop_map(Step::Back),
        1 => prop::option::of(0..3_usize).prop_map(Step::Reset),
        2 => (1..100_u64, 200_000..300_000_u64).prop_map(|(amount, minutes)| Step::Grant(amount, minutes)),
    ];
    prop::collection::vec(step, 1..50)
}

fn named([requests, tokens]: [u64; 2]) -> Amounts {
    [("requests", requests), ("tokens", tokens)].into()
}

/// Amounts that both admitted.
struct Both {
    job: String,
    admitted: AdmitReply,
    scope: ChargeScope,
    amounts: Amounts,
    hold: Option<(NonZeroU64, Moment)>,
    over: bool,
    /// Set once usage was added, after which it is not given back.
    added: bool,
}

struct History {
    ledger: Ledger,
    account: Account,
    settings: AccountSettings,
    moment: Moment,
    all: Vec<Both>,
    grants: u64,
    credits: u32,
    part: u32,
}

impl History {
    fn now(&self) -> Now {
        Now { moment: self.moment, wall: self.ledger.now }
    }

    fn advance(&mut self) {
        let plan = Arc::clone(&self.ledger.plan);
        while !self.account.advance(&plan, self.now(), &self.settings) {}
        for at in 0..self.all.len() {
            let both = &self.all[at];
            if both.hold.is_some_and(|(_, expires)| self.moment >= expires) && !both.over {
                let (job, admitted) = (both.job.clone(), both.admitted.clone());
                self.ledger.expire(&job, &admitted, self.settings.charge_expired);
                self.all[at].over = true;
                // An expiry knows no plan: the amounts that grants cover are returned with the next request.
                let job = format!("look {}", self.ledger.commands);
                self.ledger.charge(&job, Amounts::new());
            }
        }
    }

    fn usage(&self) -> Usage {
        let reads = super::super::super::Reads { tenants: vec!["acme".into()], ..Default::default() };
        let stored = self.ledger.store.load(&reads, self.ledger.now).accounts.remove("acme").unwrap_or_default();
        AccountState::new(stored).view(&self.ledger.plan, self.ledger.now).usage(self.ledger.now)
    }

    /// Whether every limit counts in its present window.
    fn all_have_begun(&self) -> bool {
        let now = self.ledger.now;
        let counts = || self.ledger.store.accounts.values().flat_map(|stored| &stored.counts);
        let has_begun =
            |limit| counts().any(|count| count.is_of(limit) && count.counter.starts <= now && now < count.counter.ends);
        self.ledger.plan.counted().iter().all(has_begun)
    }

    fn pick(&self, which: usize, is: impl Fn(&Both) -> bool) -> Option<usize> {
        let all: Vec<_> = (0..self.all.len()).filter(|at| is(&self.all[*at])).collect();
        (!all.is_empty()).then(|| all[which % all.len()])
    }

    fn admit(&mut self, amounts: [u64; 2], reserve: bool) -> Result<(), TestCaseError> {
        let amounts = named(amounts);
        let ask = ChargeRequest { amounts: &amounts, each: &[], reserve, lasting: false, open: false, job: None };
        let in_memory = self.account.admit(&ask, self.now(), &self.settings);
        let job = format!("job {}", self.all.len());
        let admit = AdmitCommand {
            reserve: reserve.then_some(crate::ledger::writer::ReservationTerms { ttl: 1, charge: false }),
            wants_nearest: true,
            ..admit(&self.ledger.plan, amounts.clone())
        };
        match (self.ledger.run(&job, CommandKind::Admit(admit)), in_memory) {
            (Reply::Admitted(admitted), Ok(taken)) => {
                prop_assert_eq!(&admitted.near, &self.account.warnings(taken.marks.warned));
                prop_assert_eq!(&admitted.pending, &self.account.warnings(taken.marks.pending));
                prop_assert_eq!(admitted.nearest, self.account.nearest(self.now().wall));
                let hold = taken.reservation.map(|id| (id, self.moment + TTL));
                self.all.push(Both {
                    job,
                    admitted: *admitted,
                    scope: ChargeScope { epoch: taken.epoch, plan: Arc::clone(&self.ledger.plan) },
                    amounts,
                    hold,
                    over: false,
                    added: false,
                });
            }
            (Reply::Refused(here), Err(crate::quota::account::Denial::Limits(there))) => prop_assert_eq!(here, there),
            (here, there) => return Err(TestCaseError::fail(format!("{here:?} here, {there:?} in memory"))),
        }
        Ok(())
    }

    fn close(&mut self, which: usize, actual: Option<Amounts>) {
        let Some(at) = self.pick(which, |both| both.hold.is_some()) else { return };
        let hold = self.all[at].hold.unwrap().0;
        let (closed, _) = self.account.close(hold, actual.as_ref(), ClosedBy::Id, self.now(), &self.settings);
        self.all[at].over = true;
        if let CloseResult::Unknown = closed {
            return; // memory forgets ended windows, a ledger does not
        }
        let (job, admitted) = (self.all[at].job.clone(), self.all[at].admitted.clone());
        self.ledger.settle(&job, &admitted, actual.map_or(SettleKind::Void, SettleKind::Commit));
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Charge(amounts) => self.admit(amounts, false)?,
            Step::Reserve(amounts) => self.admit(amounts, true)?,
            Step::Commit(which, tokens) => self.close(which, Some(("tokens", tokens).into())),
            Step::RollBack(which) => self.close(which, None),
            Step::GiveBack(which) => {
                if let Some(at) = self.pick(which, |both| both.hold.is_none() && !both.over && !both.added) {
                    self.all[at].over = true;
                    let (job, admitted) = (self.all[at].job.clone(), self.all[at].admitted.clone());
                    self.account.give_back(&self.all[at].amounts, &self.all[at].scope);
                    self.ledger.settle(&job, &admitted, SettleKind::Void);
                }
            }
            Step::Add(which, tokens) => {
                if let Some(at) = self.pick(which, |both| both.hold.is_none() && !both.over) {
                    let (job, admitted) = (self.all[at].job.clone(), self.all[at].admitted.clone());
                    let used = Amounts::from(("tokens", tokens));
                    let _ = self.account.record(&used, self.now());
                    self.part += 1;
                    self.ledger.add(&job, &admitted, used.clone(), self.part);
                    self.all[at].added = true;
                }
            }
            Step::Record(amounts) => {
                let _ = self.account.record(&named(amounts), self.now());
                self.ledger.record(named(amounts));
            }
            Step::Credit(tokens, amount) => {
                let kind = crate::kind::Kind::from(if tokens { "tokens" } else { "requests" });
                self.credits += 1;
                let id = self.credits.to_string();
                let request = CreditRequest::try_new(&id, kind, amount, "history").unwrap();
                let digest = crate::identity::Digest(self.credits.into());
                let there = self.account.credit(digest, &request, self.now(), &self.settings);
                match self.ledger.credit(&request) {
                    Reply::Credited(here) => prop_assert_eq!(Ok(here), there),
                    // Nothing was written in the ledger so far.
                    Reply::UnknownAccount => prop_assert_eq!(there.map(|there| there.amount), Ok(0)),
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
            Step::Minutes(minutes) => {
                self.moment = self.moment + Duration::from_secs(minutes * 60);
                self.ledger.now += minutes * HOUR / 60;
            }
            // By then memory has forgotten the previous hour; a ledger has not.
            Step::Back(_) if !self.all_have_begun() => {}
            Step::Back(minutes) => self.ledger.now -= minutes * HOUR / 60,
            Step::Reset(which) => {
                let name = which.map(|which| ["requests_per_hour", "requests_per_day", "tokens"][which]);
                self.account.reset(name).unwrap();
                self.ledger.reset(name);
            }
            Step::Grant(amount, minutes) => {
                self.grants += 1;
                let until = self.ledger.now + minutes * HOUR / 60;
                let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(until);
                let grant = Grant::new("requests_per_hour", amount, time);
                self.account.grant(GrantId(self.grants), &grant, self.now()).unwrap();
                let state = GrantState {
                    id: self.grants,
                    limit: "requests_per_hour".into(),
                    kind: "".into(),
                    period: "".into(),
                    amount,
                    until,
                    approver: String::new(),
                    reason: String::new(),
                    before: 0,
                    current: 0,
                    window: 0,
                    epoch: 0,
                    ended: false,
                };
                let plan = Arc::clone(&self.ledger.plan);
                let job = format!("grant {}", self.grants);
                self.ledger.run(&job, CommandKind::Grant { plan, grant: Box::new(state) });
            }
        }
        Ok(())
    }
}

fn run(steps: &[Step], charge_expired: bool) -> Result<(), TestCaseError> {
    let ledger = Ledger::of_three();
    let settings = AccountSettings {
        max_hold: TTL,
        max_stall: TTL,
        ttl: TTL,
        charge_expired,
        max_reservations: 10_000,
        job_horizon: TTL,
        max_jobs: 1_000,
    };
    let account = Account::new(&ledger.plan);
    let moment = Moment::from_nanos(HOUR);
    let mut history = History { ledger, account, settings, moment, all: Vec::new(), grants: 0, credits: 0, part: 0 };
    for step in steps {
        history.advance();
        history.step(step)?;
        history.advance();
        prop_assert_eq!(history.usage(), history.account.usage(history.now().wall), "after {:?}", step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ledger_decides_like_an_account_in_memory(steps in steps(), charge_expired: bool) {
        run(&steps, charge_expired)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "minutes: a million histories"]
    fn ledger_decides_like_an_account_in_many_histories(steps in steps(), charge_expired: bool) {
        run(&steps, charge_expired)?;
    }
}
