//! Quotas in a ledger, through the public API: what is charged is written, once, and nothing that was acknowledged is lost.

mod away;
mod killed;

use std::time::Duration;

use tollgate::{
    Amounts, Client, Ended, JobRun, Kind, Ledger, OnFailure, Period, Plan, Quota, QuotaLayer, Quotas, SqliteLedger,
};

fn tokens(limit: u64) -> Plan {
    Plan::new("paid").limit(Quota::units("tokens", limit).per(Period::day()))
}

fn quotas(ledger: &Ledger, plan: Plan) -> Quotas {
    QuotaLayer::new(plan).store_in(ledger, OnFailure::Closed).handle()
}

async fn fresh() -> Ledger {
    SqliteLedger::in_memory().await.unwrap()
}

fn acme() -> Client {
    Client::named("acme")
}

async fn used(quotas: &Quotas) -> (u64, u64) {
    let usage = quotas.usage(&acme()).await.unwrap();
    (usage.limits[0].used, usage.limits[0].reserved)
}

#[tokio::test]
async fn what_is_charged_is_used_and_what_is_left_is_all_there_is() {
    let quotas = quotas(&fresh().await, tokens(105));
    quotas.charge(&acme(), ("tokens", 95)).await.unwrap();
    let refusal = quotas.charge(&acme(), ("tokens", 11)).await.unwrap_err();
    assert_eq!((refusal.violations()[0].current, refusal.violations()[0].limit), (95, 105));
    quotas.charge(&acme(), ("tokens", 10)).await.unwrap();
    assert_eq!(used(&quotas).await, (105, 0));
}

#[tokio::test]
async fn a_reservation_is_settled_with_what_was_used() {
    let quotas = quotas(&fresh().await, tokens(100));
    let held = quotas.reserve(&acme(), ("tokens", 80)).await.unwrap();
    assert_eq!(used(&quotas).await, (0, 80));
    let id = held.detach();
    assert_eq!(quotas.commit(&id, ("tokens", 30)).await, Ok(Ended::Now));
    assert_eq!(quotas.commit(&id, ("tokens", 30)).await, Ok(Ended::Before));
    assert_eq!(used(&quotas).await, (30, 0));
    drop(quotas.reserve(&acme(), ("tokens", 70)).await.unwrap());
    quotas.reserve(&acme(), ("tokens", 70)).await.unwrap().commit(Amounts::none());
    assert!(quotas.charge(&acme(), ("tokens", 1)).await.is_err(), "all of it is used");
}

#[tokio::test]
async fn a_job_is_charged_once_also_after_a_restart() {
    let file = std::env::temp_dir().join(format!("tollgate-{}.db", fastrand::u64(..)));
    for expected in [JobRun::Done(1), JobRun::Replayed] {
        let ledger = SqliteLedger::open(&file).await.unwrap();
        let quotas = quotas(&ledger, tokens(100));
        assert_eq!(quotas.run_job(&acme(), "order 17", ("tokens", 60), async { 1 }).await.unwrap(), expected);
        let refusal = quotas.run_job(&acme(), "order 17", ("tokens", 61), async { 1 }).await.unwrap_err();
        assert_eq!(refusal.reason().as_str(), "job_conflict");
        assert_eq!(used(&quotas).await, (60, 0));
        ledger.shut_down(Duration::from_secs(5)).await;
    }
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn requests_at_a_time_are_held_in_the_process() {
    let plan = tokens(10).limit(Quota::concurrent(1));
    let quotas = quotas(&fresh().await, plan);
    let acme = acme();
    let held = quotas.run(&acme, ("tokens", 1), async {
        let refusal = quotas.run(&acme, ("tokens", 1), async {}).await.unwrap_err();
        assert_eq!(refusal.violations()[0].kind, Kind::Concurrent);
        quotas.usage(&acme).await.unwrap().limits[1].used
    });
    assert_eq!(held.await.unwrap(), 1);
    quotas.run(&acme, ("tokens", 1), async {}).await.unwrap();
    assert_eq!(used(&quotas).await, (2, 0));
}
