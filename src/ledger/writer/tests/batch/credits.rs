//! Credits under changing plans, beside a book with one amount for each limit: an account in memory and a ledger agree
//! with it.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    identity::Digest,
    kind::Kind,
    ledger::writer::account_state::AccountState,
    quota::{
        Credited, Usage,
        account::{Account, AccountSettings, Now},
    },
    time::Moment,
};

const DAY: u64 = 24 * HOUR;

/// Name, kind and hours of the period of each limit. Two have one name and one kind; no plan has both.
const LIMITS: [(&str, &str, u64); 5] = [
    ("per_model", "tokens", 1),
    ("per_model", "tokens", 24),
    ("daily", "tokens", 24),
    ("requests_per_hour", "requests", 1),
    ("requests_per_day", "requests", 24),
];

/// Indices of the limits of two plans that together have all.
const WHOLE: [&[usize]; 2] = [&[0, 2, 3, 4], &[1, 2]];

#[derive(Clone, Debug)]
enum Step {
    Plan([bool; 5]),
    Record(u64, u64),
    Credit {
        id: u64,
        tokens: bool,
        amount: u64,
    },
    Minutes(u64),
    /// Moves the wall clock only.
    Back(u64),
    /// Resets a limit of the plan, or all.
    Reset(Option<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<[bool; 5]>().prop_map(Step::Plan),
        6 => (0..9_u64, 0..90_u64).prop_map(|(requests, tokens)| Step::Record(requests, tokens)),
        4 => (0..9_u64, any::<bool>(), 1..60_u64).prop_map(|(id, tokens, amount)| Step::Credit { id, tokens, amount }),
        3 => prop_oneof![Just(15), Just(60), 1..2_000_u64].prop_map(Step::Minutes),
        1 => (1..90_u64).prop_map(Step::Back),
        1 => prop::option::of(any::<usize>()).prop_map(Step::Reset),
    ];
    prop::collection::vec(step, 1..40)
}

fn plan(limits: &[usize]) -> Arc<Plan> {
    let quota = |at: usize| {
        let (name, kind, hours) = LIMITS[at];
        let period = if hours == 1 { Period::hour() } else { Period::day() };
        Quota::units(kind, 1 << 40).per(period).named(name)
    };
    Arc::new(limits.iter().fold(Plan::new("plan"), |plan, at| plan.limit(quota(*at))))
}

/// Used amount of each limit in its window, and the end of that window.
#[derive(Default)]
struct Book {
    used: [u64; 5],
    ends: [u64; 5],
    /// Limits whose window a store may have forgotten.
    unsure: [bool; 5],
    credits: BTreeMap<u64, (bool, u64)>,
}

impl Book {
    fn advance(&mut self, now: u64) {
        for limit in 0..5 {
            if self.ends[limit] > 0 && now >= self.ends[limit] {
                (self.used[limit], self.unsure[limit]) = (0, true);
            }
        }
    }

    fn record(&mut self, plan: &[usize], requests: u64, tokens: u64, now: u64) {
        for &limit in plan {
            let amount = if LIMITS[limit].1 == "tokens" { tokens } else { requests };
            if amount > 0 && (self.ends[limit] <= now || self.unsure[limit]) {
                let length = LIMITS[limit].2 * HOUR;
                (self.ends[limit], self.unsure[limit]) = ((now / length + 1) * length, false);
            }
            self.used[limit] += amount;
        }
    }

    /// Returns the amount that stands under an id, and whether it stood before.
    fn credit(&mut self, id: u64, tokens: bool, amount: u64) -> (&'static str, u64, bool) {
        let kind = |tokens: bool| if tokens { "tokens" } else { "requests" };
        if let Some(&(tokens, amount)) = self.credits.get(&id) {
            return (kind(tokens), amount, true);
        }
        let mut most = 0;
        for limit in (0..5).filter(|limit| LIMITS[*limit].1 == kind(tokens)) {
            let part = self.used[limit].min(amount);
            self.used[limit] -= part;
            most = part.max(most);
        }
        self.credits.insert(id, (tokens, most));
        (kind(tokens), most, false)
    }

    fn reset(&mut self, plan: &[usize], which: Option<usize>) {
        let meant = |limit: usize| which.is_none_or(|which| LIMITS[limit].0 == LIMITS[which].0);
        for limit in (0..5).filter(|limit| meant(*limit)) {
            self.used[limit] = 0;
            self.unsure[limit] |= !plan.contains(&limit);
        }
    }

    /// Whether both stores count the same windows after a reset. Memory forgets a counter that the plan does not have, and
    /// with it that the window was a later one before the clock stepped back.
    fn may_reset(&self, plan: &[usize], now: u64) -> bool {
        (0..5).all(|limit| plan.contains(&limit) || now + LIMITS[limit].2 * HOUR >= self.ends[limit])
    }

    /// Whether both stores count the same windows after a step back. A window that has ended is forgotten in memory and
    /// found again in a ledger.
    fn may_step_back(&self, now: u64) -> bool {
        (0..5).all(|limit| self.ends[limit] == 0 || self.ends[limit] > now && !self.unsure[limit])
    }
}

struct History {
    ledger: Ledger,
    account: Account,
    settings: AccountSettings,
    limits: Vec<usize>,
    moment: Moment,
    book: Book,
}

impl History {
    fn now(&self) -> Now {
        Now { moment: self.moment, wall: self.ledger.now }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.book.advance(self.ledger.now);
        while !self.account.advance(&self.ledger.plan.clone(), self.now(), &self.settings) {}
        match *step {
            Step::Plan(there) => {
                self.limits = (0..5).filter(|at| there[*at] && (*at != 1 || !there[0])).collect();
                self.ledger.plan = plan(&self.limits);
            }
            Step::Record(requests, tokens) => {
                let amounts: Amounts = [("requests", requests), ("tokens", tokens)].into();
                let _ = self.account.record(&amounts, self.now());
                self.ledger.record(amounts);
                self.book.record(&self.limits, requests, tokens, self.ledger.now);
            }
            Step::Credit { id, tokens, amount } => {
                let (kind, most, already) = self.book.credit(id, tokens, amount);
                let asked = Kind::from(if tokens { "tokens" } else { "requests" });
                let request = CreditRequest::try_new(&id.to_string(), asked, amount, "history").unwrap();
                let stands = Credited { kind: kind.into(), amount: most, already };
                let there = self.account.credit(Digest(id.into()), &request, self.now(), &self.settings);
                prop_assert_eq!(there, Ok(stands.clone()));
                let reply = self.ledger.credit(&request);
                let agrees = matches!(&reply, Reply::Credited(here) if *here == stands);
                prop_assert!(agrees, "{:?} for {:?}", reply, stands);
            }
            Step::Minutes(minutes) => {
                self.moment = self.moment + Duration::from_secs(minutes * 60);
                self.ledger.now += minutes * HOUR / 60;
            }
            Step::Back(_) if !self.book.may_step_back(self.ledger.now) => {}
            Step::Back(minutes) => self.ledger.now -= minutes * HOUR / 60,
            Step::Reset(Some(_)) if self.limits.is_empty() => {}
            Step::Reset(_) if !self.book.may_reset(&self.limits, self.ledger.now) => {}
            Step::Reset(which) => {
                let which = which.map(|which| self.limits[which % self.limits.len()]);
                let name = which.map(|which| LIMITS[which].0);
                self.account.reset(name).unwrap();
                self.ledger.reset(name);
                self.book.reset(&self.limits, which);
            }
        }
        self.agrees(step)
    }

    /// Compares all limits in both stores with the book, as two plans see them that have them all.
    fn agrees(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now();
        self.book.advance(now.wall);
        let reads = super::super::super::Reads { tenants: vec!["acme".into()], ..Default::default() };
        for limits in WHOLE {
            let plan = plan(limits);
            let used = |usage: Usage| usage.limits.iter().map(|limit| limit.used).collect::<Vec<_>>();
            let expected: Vec<_> = limits.iter().map(|limit| self.book.used[*limit]).collect();
            let in_memory = self.account.look(&plan, now, |account, _| used(account.usage(now.wall)));
            prop_assert_eq!(&in_memory, &expected, "in memory, after {:?}", step);
            let stored = self.ledger.store.load(&reads, now.wall).accounts.remove("acme").unwrap_or_default();
            let stored = AccountState::new(stored).view(&plan, now.wall).usage(now.wall);
            prop_assert_eq!(&used(stored), &expected, "in the ledger, after {:?}", step);
        }
        Ok(())
    }
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let limits = WHOLE[0].to_vec();
    let ledger = Ledger::new(plan(&limits));
    let settings = AccountSettings {
        max_hold: Duration::from_secs(60),
        max_stall: Duration::from_secs(60),
        ttl: Duration::from_secs(60),
        charge_expired: false,
        max_reservations: 100,
        job_horizon: Duration::from_nanos(10_000 * DAY),
        max_jobs: 1_000,
    };
    let account = Account::new(&ledger.plan);
    let mut history =
        History { ledger, account, settings, limits, moment: Moment::from_nanos(HOUR), book: Book::default() };
    history.step(&Step::Record(1, 1))?; // so that the ledger has the account
    steps.iter().try_for_each(|step| history.step(step))
}

/// A settlement of the hour before is in the same batch, so that the counters of that hour are loaded as well.
#[test]
fn credit_leaves_the_window_of_a_late_settlement() {
    let mut ledger = Ledger::new(plan(&[0]));
    ledger.record(("tokens", 20));
    let late = ledger.reserve("a", ("tokens", 10));
    ledger.plan = plan(&[2]);
    ledger.record(("tokens", 7));
    ledger.now += HOUR;
    let end = SettleKind::Commit(("tokens", 4).into());
    let settle = settle(&ledger.plan, late.attempt, late.since, end);
    let request = Box::new(CreditRequest::try_new("7", Kind::from("tokens"), 50, "story").unwrap());
    let credit = CommandKind::Credit { plan: Arc::clone(&ledger.plan), request };
    let commands = [ledger.command("a", settle), ledger.command(&format!("{CREDIT}7"), credit)];
    let replies = ledger.batch(&commands);
    assert!(matches!(&replies[1], Reply::Credited(credited) if credited.amount == 7), "{replies:?}");
    assert_eq!((ledger.of("per_model"), ledger.of("daily")), ((24, 0), (0, 0)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn credits_equal_the_book_under_changing_plans(steps in steps()) {
        run(&steps)?;
    }
}
