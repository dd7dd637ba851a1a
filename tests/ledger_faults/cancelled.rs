//! Callers that are cancelled before the answer, at any moment.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use tollgate::{Client, JobRun, Ledger, OnFailure, Quota, QuotaLayer, Quotas, Reason};

use super::place::{Place, answered, audit, plan, until};

/// Polls a future a number of times, then drops it; returns its output if it was ready.
async fn polled<F: Future>(future: F, mut times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        if times == 0 {
            return Poll::Ready(None);
        }
        times -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(given) => Poll::Ready(Some(given)),
            Poll::Pending if times == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Polls a future once and drops it after a delay, so that it never learns the outcome. Returns its output if it was
/// ready in that poll, as when its thread was preempted.
async fn left_after<F: Future>(wait: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    if let Poll::Ready(given) = polled {
        return Some(given);
    }
    std::thread::sleep(wait); // the moment to leave; timers know only milliseconds
    None
}

/// A concurrency limit of one, so that a leaked slot is noticed.
fn one_at_a_time(ledger: &Ledger) -> Quotas {
    QuotaLayer::new(plan(1_000).limit(Quota::concurrent(1))).store_in(ledger, OnFailure::FailClosed).handle()
}

async fn run(quotas: &Quotas, tenant: &str, id: &str) -> Result<JobRun<()>, tollgate::Refusal> {
    quotas.run_job(&Client::named(tenant), id, [("tokens", 1), ("requests", 1)], async {}).await
}

/// The same id again: it is free, and so is the slot.
async fn as_if_nobody_had_asked(quotas: &Quotas, tenant: &str, id: &str) {
    answered(async {
        loop {
            match run(quotas, tenant, id).await {
                Ok(JobRun::Done(())) => return,
                // The charge of the cancelled caller is about to be voided.
                Err(refusal) if refusal.reason() == Reason::JobRunning => {}
                other => panic!("{tenant} {id}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

async fn cancelled_calls_leave_nothing(place: &Place) {
    let ledger = place.open().await;
    let quotas = one_at_a_time(&ledger);
    let mut jobs = 0;
    // At each poll.
    for polls in 0.. {
        let (tenant, id) = (format!("polled {polls}"), format!("job {polls}"));
        let ready = polled(run(&quotas, &tenant, &id), polls).await;
        jobs += 1;
        if let Some(answer) = ready {
            assert_eq!(answer.unwrap(), JobRun::Done(()));
            break;
        }
        as_if_nobody_had_asked(&quotas, &tenant, &id).await;
    }
    // In each phase of the transaction that it is part of, and just after.
    for micros in (0..6_000).step_by(50) {
        let (tenant, id) = (format!("timed {micros}"), format!("job {micros}"));
        jobs += 1;
        if let Some(answer) = left_after(Duration::from_micros(micros), run(&quotas, &tenant, &id)).await {
            assert_eq!(answer.unwrap(), JobRun::Done(()));
            continue;
        }
        as_if_nobody_had_asked(&quotas, &tenant, &id).await;
    }
    until("all is written", async || ledger.backlog() == 0).await;
    let charged = audit(place, &ledger, |_, _| 1_000).await;
    assert_eq!(charged.values().filter(|tokens| **tokens == 1).count(), jobs);
    assert!(charged.values().all(|tokens| [0, 1].contains(tokens)), "{charged:?}");
}

/// A cancelled reservation that is not requested again leaves neither a charge nor a pending amount.
async fn undelivered_reservation_is_rolled_back(place: &Place) {
    let ledger = place.open().await;
    let (quotas, acme) = (one_at_a_time(&ledger), Client::named("acme"));
    let mut kept = 0;
    for micros in (0..6_000).step_by(50) {
        let asked = quotas.reserve(&acme, ("tokens", 10));
        let answer = left_after(Duration::from_micros(micros), asked).await;
        drop(answer.map(Result::unwrap));
        if let Some(answer) = left_after(Duration::from_micros(micros), quotas.charge(&acme, ("tokens", 1))).await {
            answer.unwrap();
            kept += 1;
        }
    }
    until("all is written", async || ledger.backlog() == 0).await;
    until("all goes back", async || {
        let usage = quotas.usage(&acme).await.unwrap();
        let used: u64 = usage.limits.iter().map(|limit| limit.used).sum();
        used == kept && usage.limits.iter().all(|limit| limit.reserved == 0)
    })
    .await;
    audit(place, &ledger, |_, _| 1_000).await;
    assert_eq!(place.number("SELECT count(*) FROM quota_hold").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_leave_nothing_on_a_file() {
    let (place, _directory) = Place::file();
    cancelled_calls_leave_nothing(&place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undelivered_reservation_is_rolled_back_on_a_file() {
    let (place, _directory) = Place::file();
    undelivered_reservation_is_rolled_back(&place).await;
}

mod on_a_server {
    use super::*;
    use crate::support::postgres::Postgres;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cancelled_calls_leave_nothing() {
        super::cancelled_calls_leave_nothing(&Place::Server(Postgres::shared().database())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn undelivered_reservation_is_rolled_back() {
        super::undelivered_reservation_is_rolled_back(&Place::Server(Postgres::shared().database())).await;
    }
}
