//! Jobs of clients whose charges go to an account of their own at one time and to a shared one at another.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::prelude::*;

use super::*;
use crate::quota::{
    JobOutcome, JobState,
    account::{Denial, Duplicate, Job},
    memory::reported_usage::ReportedUsage,
};

fn job(client: &Client, number: u8) -> Arc<Job> {
    let id = Digest(client.digest().0 << 8 | u128::from(number));
    Arc::new(Job { id, fingerprint: Digest(7), text: number.to_string().into() })
}

/// Another plan, whose newcomers share an account of their own.
fn pro() -> Arc<Plan> {
    Arc::new(Plan::new("pro").limit(Quota::requests(1_000).per(Period::hour())))
}

impl Scene {
    pub(super) fn under(&self, plan: &Arc<Plan>) -> Self {
        Self { plan: Arc::clone(plan), ..self.clone() }
    }

    /// The scene under another plan, whose newcomers share an account of their own.
    pub(super) fn under_pro(&self) -> Self {
        self.under(&pro())
    }

    /// Charges one request for a job.
    pub(super) fn begin(&self, client: &Client, number: u8) -> Result<AdmittedCharge, AdmitError> {
        let (amounts, job) = (Amounts::from(("requests", 1)), job(client, number));
        let mut charge =
            ChargeRequest { amounts: &amounts, each: &[], reserve: false, lasting: false, open: true, job: None };
        charge.job = Some(&job);
        let account = self.context(client);
        at_once(self.accounts.admit(&AdmitRequest { account, charge, wants_nearest: false, wants_usage: false }))
    }

    fn settle(&self, client: &Client, number: u8, outcome: JobOutcome) -> Option<JobState> {
        at_once(self.accounts.settle_job(&self.context(client), &job(client, number), outcome)).unwrap()
    }

    fn interrupted(&self, admission: &AdmittedCharge) {
        self.interrupted_after(admission, Amounts::new());
    }

    fn interrupted_after(&self, admission: &AdmittedCharge, used: impl Into<Amounts>) {
        let (none, charged) = (Amounts::new(), Amounts::from(("requests", 1)));
        let charged = PlanCharge { amounts: &charged, plan: &self.plan };
        let settlement = Settlement::Interrupted { used: &used.into(), actual: &none, charged };
        self.accounts.settle(&admission.receipt, &settlement, self.now);
    }
}

#[test]
fn job_begun_by_an_observer_of_a_full_cohort_runs_once() {
    let scene = Scene::with_room(10, 1);
    scene.admit(1, ("requests", 1)).map(|admission| scene.served(&admission)).unwrap();
    // The observer is called on the way to the shared account. An hour later there is a place.
    let (later, begun) = (scene.at(HOUR), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&begun);
    scene.accounts.listen(Arc::new(move |_| {
        count.fetch_add(usize::from(later.begin(&client(2), 7).is_ok()), Ordering::Relaxed);
    }));
    let first = scene.begin(&client(2), 7);
    assert_eq!(usize::from(first.is_ok()) + begun.load(Ordering::Relaxed), 1);
}

#[test]
fn job_of_a_shared_account_is_known_in_all_accounts() {
    let scene = Scene::new(1);
    scene.admit(1, ("requests", 1)).map(|admission| scene.served(&admission)).unwrap();
    let admission = scene.begin(&client(2), 7).unwrap();
    assert!(admission.receipt.shared);
    let later = scene.at(HOUR);
    for again in [scene.clone(), scene.under_pro(), later.clone(), later.under_pro()] {
        let refused = again.begin(&client(2), 7).unwrap_err();
        assert!(
            matches!(refused, AdmitError::Denied { denial: Denial::Job(Duplicate::Running), shared: false }),
            "{refused:?}"
        );
    }
    assert!(!later.begin(&client(2), 8).unwrap().receipt.shared, "it has a place by now");
    later.interrupted(&admission);
    assert_eq!(later.settle(&client(2), 7, JobOutcome::Free), Some(JobState::Unknown));
    assert!(!later.begin(&client(2), 7).unwrap().receipt.shared);
}

#[test]
fn freed_job_gets_usage_of_a_later_window_back() {
    let scene = Scene::new(2);
    let admission = scene.begin(&client(1), 7).unwrap();
    let later = scene.at(HOUR);
    later.admit(1, ("requests", 2)).map(|admission| later.served(&admission)).unwrap();
    later.interrupted_after(&admission, ("requests", 4));
    assert_eq!(later.used(1)[0], 6);
    assert_eq!(later.settle(&client(1), 7, JobOutcome::Free), Some(JobState::Unknown));
    assert_eq!(later.used(1)[0], 2, "the part of the window that is over is gone with it");
}

#[test]
fn jobs_of_an_account_that_is_no_longer_used_are_forgotten() {
    let scene = Scene::new(1);
    scene.admit(1, ("requests", 1)).map(|admission| scene.served(&admission)).unwrap();
    for under in [scene.clone(), scene.under_pro()] {
        let admission = under.begin(&client(2), under.plan.name().as_str().len() as u8).unwrap();
        assert!(admission.receipt.shared);
        under.served(&admission);
    }
    let has_jobs = |scene: &Scene| scene.accounts.shared.has_jobs.load(Ordering::Relaxed);
    let later = scene.at(2 * HOUR);
    assert!(has_jobs(&later));
    // Starts of jobs that are charged to accounts of their own.
    for number in 10..13 {
        assert!(!later.begin(&client(2), number).unwrap().receipt.shared);
    }
    assert!(!has_jobs(&later));
}

/// Ends a request by a settlement that returns it: its whole, or as the job that was interrupted and is then freed.
fn give_back(scene: &Scene, admission: &AdmittedCharge, free: bool) {
    let (none, asked) = (Amounts::new(), Amounts::from(("requests", 1)));
    let charged = PlanCharge { amounts: &asked, plan: &scene.plan };
    let settlement = match free {
        true => Settlement::Interrupted { used: &none, actual: &none, charged },
        false => Settlement::Void(Some(charged)),
    };
    let _ = scene.accounts.settle(&admission.receipt, &settlement, scene.now);
    if free {
        assert_eq!(scene.settle(&client(1), 7, JobOutcome::Free), Some(JobState::Unknown));
    }
}

#[test]
fn bytes_of_a_later_window_go_back_with_their_request() {
    for free in [false, true] {
        let day = Quota::requests(1_000).per(Period::day()).named("daily");
        let hour = Quota::requests(1_000).per(Period::hour()).named("hourly");
        let scene = Scene::new(2).under(&Arc::new(Plan::new("two").limit(hour).limit(day)));
        let mut admission = scene.begin(&client(1), 7).unwrap();
        for hours in [0, 0, 1, 2, 2] {
            let later = scene.at(hours * HOUR);
            let _ = later.accounts.progress(&mut admission.receipt, &("requests", 4).into(), later.now);
        }
        let later = scene.at(2 * HOUR);
        assert_eq!(later.used(1), [8, 21]);
        assert!(ReportedUsage::of(&admission.receipt).len() <= 2, "those of both first hours count in the day alone");
        give_back(&later, &admission, free);
        assert_eq!(later.used(1), [0, 0], "free {free}");
    }
}

#[test]
fn returned_request_gives_back_no_more_than_was_taken() {
    let most = crate::quota::MOST;
    let hourly = Quota::requests(most).per(Period::hour());
    for free in [false, true] {
        let scene = Scene::new(2).under(&Arc::new(Plan::new("one").limit(hourly.clone())));
        let fill = Amounts::from(("requests", most - 10));
        at_once(scene.accounts.record(&scene.context(&client(1)), &fill)).unwrap();
        let mut admission = scene.begin(&client(1), 7).unwrap();
        let near = scene.accounts.progress(&mut admission.receipt, &("requests", 50).into(), scene.now);
        assert_eq!((scene.used(1)[0], near.cut.iter().map(|(_, part)| part).sum::<u64>()), (most, 41));
        give_back(&scene, &admission, free);
        assert_eq!(scene.used(1)[0], most - 10, "free {free}: other usage stays");
    }
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Begin {
        client: u8,
        job: u8,
        pro: bool,
    },
    End {
        nth: usize,
        end: End,
    },
    Settle {
        client: u8,
        job: u8,
        outcome: JobOutcome,
    },
    /// Another client takes a place, if there is one.
    Crowd {
        client: u8,
    },
    Sweep,
    Advance {
        minutes: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum End {
    Served,
    Void,
    Interrupted,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![Just(JobOutcome::Done), Just(JobOutcome::Free)];
    let end = prop_oneof![Just(End::Served), Just(End::Void), Just(End::Interrupted)];
    prop_oneof![
        8 => (0..3_u8, 0..3_u8, any::<bool>()).prop_map(|(client, job, pro)| Step::Begin { client, job, pro }),
        5 => (0..9_usize, end).prop_map(|(nth, end)| Step::End { nth, end }),
        2 => (0..3_u8, 0..3_u8, outcome).prop_map(|(client, job, outcome)| Step::Settle { client, job, outcome }),
        3 => (10..14_u8).prop_map(|client| Step::Crowd { client }),
        1 => Just(Step::Sweep),
        2 => (0..70_u64).prop_map(|minutes| Step::Advance { minutes }),
    ]
}

/// State of each job that is remembered, and the time at which it is forgotten.
type Book = HashMap<(u8, u8), (JobState, Option<Moment>)>;

fn duplicate(state: JobState) -> Duplicate {
    match state {
        JobState::Running => Duplicate::Running,
        JobState::Done => Duplicate::Done,
        JobState::Unknown => Duplicate::Unknown { may_run: false },
    }
}

proptest! {
    #[test]
    fn job_runs_once_whichever_account_is_charged(steps in prop::collection::vec(step(), 1..120)) {
        let plan = Plan::new("plan").limit(Quota::requests(1_000).per(Period::hour()));
        let mut scene = Scene { plan: Arc::new(plan), ..Scene::with_room(3, 2) };
        let (pro, horizon) = (pro(), settings().job_horizon);
        let (mut book, mut running) = (Book::new(), Vec::new());
        for step in steps {
            book.retain(|_, (_, due)| due.is_none_or(|due| scene.now.moment < due));
            match step {
                Step::Begin { client: number, job, pro: is_pro } => {
                    let under = if is_pro { scene.under(&pro) } else { scene.clone() };
                    match (book.get(&(number, job)), under.begin(&client(number), job)) {
                        (None, Ok(admission)) => {
                            book.insert((number, job), (JobState::Running, None));
                            running.push((number, job, admission));
                        }
                        (Some((state, _)), Err(AdmitError::Denied { denial: Denial::Job(why), .. })) => {
                            prop_assert_eq!(why, duplicate(*state));
                        }
                        (known, got) => prop_assert!(false, "{known:?}, got {got:?}"),
                    }
                }
                Step::End { nth, end } if nth < running.len() => {
                    let (number, job, admission) = running.swap_remove(nth);
                    let due = Some(scene.now.moment + horizon);
                    match end {
                        End::Served => {
                            scene.served(&admission);
                            book.insert((number, job), (JobState::Done, due));
                        }
                        End::Interrupted => {
                            scene.interrupted(&admission);
                            book.insert((number, job), (JobState::Unknown, due));
                        }
                        End::Void => {
                            scene.void(&admission, ("requests", 1));
                            book.remove(&(number, job));
                        }
                    }
                }
                Step::End { .. } => {}
                Step::Settle { client: number, job, outcome } => {
                    let state = book.get(&(number, job)).map(|(state, _)| *state);
                    prop_assert_eq!(scene.settle(&client(number), job, outcome), state);
                    match (state, outcome) {
                        (Some(JobState::Unknown), JobOutcome::Free) => drop(book.remove(&(number, job))),
                        (Some(JobState::Unknown), JobOutcome::Done) => {
                            book.entry((number, job)).and_modify(|(state, _)| *state = JobState::Done);
                        }
                        _ => {}
                    }
                }
                Step::Crowd { client } => drop(scene.admit(client, ("requests", 1)).map(|admission| scene.served(&admission))),
                Step::Sweep => scene.sweep(),
                Step::Advance { minutes } => {
                    let (Now { moment, wall }, span) = (scene.now, Duration::from_secs(60 * minutes));
                    scene.now = Now { moment: moment + span, wall: wall + crate::time::nanos(span) };
                }
            }
        }
    }
}
