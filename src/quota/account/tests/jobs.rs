//! Jobs that are forgotten in bursts: a bounded number for each call, and decisions as if all had been in time.

use super::*;
use crate::{
    identity::Digest,
    quota::{
        JobOutcome, JobState,
        account::{ChargeScope, Duplicate, Job, JobCharge, due_map::STEPS, jobs::Jobs},
    },
};

const HORIZON: Duration = Duration::from_secs(3_600);

fn job(number: usize) -> Job {
    Job { id: Digest(number as u128), fingerprint: Digest(7), text: number.to_string().into() }
}

fn after(time: Duration) -> Moment {
    Moment::from_nanos(HOUR) + time
}

/// Jobs that finish 1 ns apart.
fn finished(count: usize) -> Jobs {
    let mut jobs = Jobs::default();
    for number in 0..count {
        jobs.start(&job(number));
        jobs.end(job(number).id, None, after(Duration::from_nanos(number as u64)), HORIZON);
    }
    jobs
}

#[test]
fn call_forgets_a_bounded_number_of_jobs() {
    let (mut jobs, mut calls) = (finished(10 * STEPS), 0);
    jobs.forget(after(HORIZON - Duration::from_nanos(1)));
    assert_eq!(jobs.check(&job(0), usize::MAX, after(Duration::ZERO)), Err(Duplicate::Done));
    while !jobs.is_empty() {
        jobs.forget(after(2 * HORIZON));
        calls += 1;
    }
    assert_eq!(calls, 10);
}

#[test]
fn job_whose_time_has_come_runs_before_its_turn_to_be_forgotten() {
    let (mut jobs, last, later) = (finished(3 * STEPS), job(3 * STEPS - 1), after(2 * HORIZON));
    jobs.forget(later);
    assert_eq!(jobs.check(&last, usize::MAX, later), Ok(()));
    jobs.start(&last);
    assert_eq!(jobs.check(&last, usize::MAX, later), Err(Duplicate::Running));
    (0..3).for_each(|_| jobs.forget(later));
    assert_eq!(jobs.check(&last, usize::MAX, later), Err(Duplicate::Running), "its old end does not end it");
    jobs.end(last.id, None, later, HORIZON);
    assert_eq!(jobs.check(&last, usize::MAX, later + HORIZON), Ok(()));
}

#[test]
fn job_whose_time_has_come_has_no_outcome_to_settle() {
    let (mut jobs, later) = (Jobs::default(), after(2 * HORIZON));
    let scope = || ChargeScope { epoch: 0, plan: hourly(1) };
    let charge = || JobCharge(vec![(Amounts::from(("requests", 1)), scope())]);
    for number in 0..2 {
        jobs.start(&job(number));
        jobs.end(job(number).id, Some(charge()), after(Duration::ZERO), HORIZON);
    }
    let (state, freed) = jobs.settle(job(0).id, JobOutcome::Free, after(Duration::ZERO));
    assert_eq!((state, freed.is_some()), (Some(JobState::Unknown), true));
    let (state, freed) = jobs.settle(job(1).id, JobOutcome::Free, later);
    assert!(state.is_none() && freed.is_none());
    jobs.forget(later);
    assert!(jobs.is_empty());
}

#[test]
fn full_client_is_admitted_after_the_told_time() {
    let (mut jobs, most, new) = (finished(3 * STEPS), 3 * STEPS, job(1_000));
    let now = after(Duration::from_secs(60));
    let Err(Duplicate::Full(Some(told))) = jobs.check(&new, most, now) else { panic!("it is full") };
    let before = now + told - Duration::from_nanos(1);
    jobs.forget(before);
    assert!(jobs.check(&new, most, before).is_err());
    jobs.forget(now + told);
    assert_eq!(jobs.check(&new, most, now + told), Ok(()));
    // All are due, and one call is enough for a place.
    let mut jobs = finished(3 * STEPS);
    jobs.forget(after(2 * HORIZON));
    assert_eq!(jobs.check(&new, most, after(2 * HORIZON)), Ok(()));
}

#[test]
fn job_without_a_place_waits_for_the_limits_too() {
    let mut scene = Scene::new(hourly(4));
    let start = |scene: &mut Scene, number, amount| {
        let (job, amounts) = (Arc::new(job(number)), Amounts::from(("requests", amount)));
        let (now, settings) =
            (at(scene.wall), AccountSettings { job_horizon: Duration::from_secs(60), ..settings(false) });
        scene.account().admit(&ChargeRequest { job: Some(&job), ..ask(&amounts) }, now, &settings)?;
        scene.account.end_job(&job, None, now, &settings);
        Ok(())
    };
    (0..3).for_each(|number| start(&mut scene, number, 1).unwrap());
    let Err(Denial::Job(Duplicate::Full(Some(wait)))) = start(&mut scene, 3, 1) else { panic!("it is full") };
    assert_eq!(wait, Duration::from_secs(60), "the limits have room");
    let Err(Denial::Job(Duplicate::Full(Some(wait)))) = start(&mut scene, 3, 2) else { panic!("it is full") };
    scene.wall += crate::time::nanos(wait);
    start(&mut scene, 3, 2).unwrap();
    let Err(Denial::Limits(violations)) = start(&mut scene, 4, 5) else { panic!("it never fits") };
    assert_eq!(violations[0].wait, None);
}

#[test]
fn job_without_a_place_waits_for_its_reservation_too() {
    let mut scene = Scene::new(hourly(10));
    scene.settings.job_horizon = Duration::from_secs(60);
    scene.settings.max_reservations = 1;
    let (now, settings, one) = (at(scene.wall), scene.settings.clone(), Amounts::from(("requests", 1)));
    scene.account().admit(&ChargeRequest { reserve: true, ..ask(&one) }, now, &settings).unwrap();
    for number in 0..3 {
        let job = Arc::new(job(number));
        scene.account().admit(&ChargeRequest { job: Some(&job), ..ask(&one) }, now, &settings).unwrap();
        scene.account.end_job(&job, None, now, &settings);
    }
    for (reserve, told) in [(false, Duration::from_secs(60)), (true, TTL)] {
        let denied = scene.account().admit(
            &ChargeRequest { job: Some(&Arc::new(job(3))), reserve, ..ask(&one) },
            now,
            &settings,
        );
        let Err(Denial::Job(Duplicate::Full(Some(wait)))) = denied else { panic!("it is full") };
        assert_eq!(wait, told, "reserves: {reserve}");
    }
}
