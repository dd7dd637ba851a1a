//! Credits in the ledger: once for each id, an entry, and off the invoice.

use std::time::{Duration, SystemTime};

use tollgate::{Credited, Invoice, JobRun, QuotaError};

use super::outage::Scene;
use crate::*;

on_each_database! {
    credit_is_an_entry_and_off_the_invoice
    limits_of_one_kind_are_credited_once
    credit_is_given_once_by_two_processes
    id_stays_taken_after_an_archive
    job_under_the_text_of_a_credit_is_another_thing
    credit_of_a_charge_that_is_returned_stands
    invoice_is_negative_after_a_credit_and_a_return
    credit_reaches_counters_of_earlier_plans
}

async fn credit(quotas: &Quotas, id: &str, amount: u64) -> (u64, bool) {
    let Credited { amount, already, .. } =
        quotas.credit(&acme(), id, "tokens", amount, "the model was down").await.unwrap();
    (amount, already)
}

async fn invoice(ledger: &Ledger) -> Invoice {
    let (from, until) = (SystemTime::UNIX_EPOCH, now() + Duration::from_secs(3_600));
    ledger.invoice("acme", from, until, |_, quantity| quantity * 2).await.unwrap()
}

async fn total(ledger: &Ledger) -> i64 {
    invoice(ledger).await.total
}

async fn credit_is_an_entry_and_off_the_invoice(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    quotas.charge(&acme(), ("tokens", 700)).await.unwrap();
    for already in [false, true] {
        assert_eq!(credit(&quotas, "ticket 4711", 500).await, (500, already));
    }
    assert_eq!(counts(&quotas, &acme()).await, (200, 0));
    assert_eq!(total(&ledger).await, 400);
    assert_eq!(credit(&quotas, "ticket 4712", 500).await, (200, false), "no more was used");
    assert_eq!(credit(&quotas, "ticket 4713", 500).await, (0, false));
    assert_eq!(credit(&quotas, "ticket 4713", 500).await, (0, true));
    assert_eq!((total(&ledger).await, invoice(&ledger).await.lines.len()), (0, 0));
    let rows = rows(&ledger, "acme").await;
    let credits: Vec<_> = rows.iter().filter_map(|row| Some((row.amount, row.credit.as_ref()?))).collect();
    let said: Vec<_> = credits.iter().map(|(amount, credit)| (&*credit.id, *amount)).collect();
    assert_eq!(said, [("ticket 4711", -500), ("ticket 4712", -200), ("ticket 4713", 0)]);
    assert!(credits.iter().all(|(_, credit)| credit.reason == "the model was down"));
    assert!(
        rows[1..].iter().all(|row| row.entry == EntryKind::Adjust && row.passed_at.is_none() && row.grant.is_none())
    );
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn limits_of_one_kind_are_credited_once(database: Database) {
    let ledger = database.open().await;
    let year = Quota::units("tokens", 1_000).per(Period::rolling(Duration::from_secs(365 * 86_400))).named("yearly");
    let quotas = quotas(&ledger, tokens(1_000).limit(year));
    quotas.charge(&acme(), ("tokens", 100)).await.unwrap();
    quotas.reset(&acme(), "yearly").await.unwrap();
    quotas.charge(&acme(), ("tokens", 10)).await.unwrap();
    for already in [false, true] {
        assert_eq!(credit(&quotas, "7", 40).await, (40, already));
    }
    assert_eq!(total(&ledger).await, 140);
    let used: Vec<_> = quotas.usage(&acme()).await.unwrap().limits.iter().map(|limit| limit.used).collect();
    assert_eq!(used, [70, 0]);
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn credit_is_given_once_by_two_processes(database: Database) {
    let (first, second) = (database.open().await, database.open().await);
    let both = [quotas(&first, tokens(10_000)), quotas(&second, tokens(10_000))];
    both[0].charge(&acme(), ("tokens", 1_000)).await.unwrap();
    for round in 0..10 {
        let id = format!("ticket {round}");
        let mut all = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (quotas, id) = (both[number % 2].clone(), id.clone());
            all.spawn(async move { credit(&quotas, &id, 10 + number as u64).await });
        }
        let all = all.join_all().await;
        assert_eq!(all.iter().filter(|(_, already)| !already).count(), 1, "in round {round}");
        assert!(all.iter().all(|(amount, _)| *amount == all[0].0), "in round {round}: {all:?}");
    }
    let given: i64 = rows(&first, "acme").await[1..].iter().map(|row| row.amount).sum();
    assert_eq!(total(&first).await, (1_000 + given) * 2);
    drop((first, second, both));
    let reopened = quotas(&database.open().await, tokens(10_000));
    assert!(credit(&reopened, "ticket 0", 10).await.1, "it is in the database");
}

async fn id_stays_taken_after_an_archive(database: Database) {
    const DAY: Duration = Duration::from_secs(86_400);
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    for _ in 0..3 {
        quotas.charge(&acme(), ("tokens", 100)).await.unwrap();
    }
    assert_eq!(credit(&quotas, "ticket 4711", 50).await, (50, false));
    ledger.shut_down(HUNG).await;
    database.age(100).await;
    let ledger = database.open().await.with_horizon(DAY * 30);
    let quotas = crate::quotas(&ledger, tokens(1_000));
    quotas.charge(&acme(), ("tokens", 7)).await.unwrap();
    assert_eq!(ledger.archive(now() - DAY * 40).await.unwrap().rows, 3);
    assert_eq!(credit(&quotas, "ticket 4711", 50).await, (50, true));
    assert_eq!(counts(&quotas, &acme()).await, (7, 0));
    let kept = rows(&ledger, "acme").await;
    let said: Vec<_> = kept.iter().map(|row| (row.entry.as_str(), row.amount, row.credit.is_some())).collect();
    for row in [("adjust", 300, false), ("adjust", -50, true), ("charge", 7, false)] {
        assert!(said.contains(&row) && said.len() == 3, "{said:?}");
    }
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
    assert_eq!(ledger.archive(now() - DAY * 40).await.unwrap().rows, 0, "the second time there is nothing to do");
}

async fn job_under_the_text_of_a_credit_is_another_thing(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    quotas.charge(&acme(), ("tokens", 100)).await.unwrap();
    assert_eq!(credit(&quotas, "17", 40).await, (40, false));
    for id in ["17", "credit 17", "creditb717", "archive 17"] {
        let failed = quotas.try_run_job(&acme(), id, ("tokens", 5), async { Err::<(), _>("no") }).await;
        assert!(failed.is_err());
        settled(&ledger).await;
        let done = quotas.run_job(&acme(), id, ("tokens", 5), async {}).await.unwrap();
        assert_eq!(done, JobRun::Done(()));
        assert_eq!(credit(&quotas, "17", 40).await, (40, true));
    }
    assert_eq!(counts(&quotas, &acme()).await, (80, 0));
    assert_eq!(total(&ledger).await, 160);
    assert_eq!(ledger.job("acme", "17").await.unwrap().unwrap().attempt, 1);
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn credit_of_a_charge_that_is_returned_stands(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    quotas.charge(&acme(), ("tokens", 30)).await.unwrap();
    // The charge of a job under way is credited, and then returned.
    let acme = acme();
    let failed = quotas.try_run_job(&acme, "17", ("tokens", 50), async {
        assert_eq!(credit(&quotas, "ticket 4711", 60).await, (60, false));
        Err::<(), _>("no")
    });
    assert!(failed.await.is_err());
    settled(&ledger).await;
    assert_eq!(counts(&quotas, &acme).await, (0, 0));
    assert_eq!(total(&ledger).await, (30 - 60) * 2, "charged less returned less credited");
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn invoice_is_negative_after_a_credit_and_a_return(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    let acme = acme();
    let begun = tokio::sync::Notify::new();
    let mut cut = Box::pin(quotas.run_job(&acme, "17", ("tokens", 50), async {
        begun.notify_one();
        std::future::pending::<()>().await;
    }));
    tokio::select! {
        _ = &mut cut => unreachable!(),
        () = begun.notified() => {}
    }
    assert_eq!(credit(&quotas, "ticket 4711", 20).await, (20, false));
    drop(cut);
    settled(&ledger).await;
    assert_eq!(total(&ledger).await, (50 - 20) * 2);
    let state = quotas.settle_job(&acme, "17", tollgate::JobOutcome::Free).await.unwrap();
    assert_eq!(state, Some(tollgate::JobState::Unknown));
    assert_eq!(counts(&quotas, &acme).await, (0, 0), "no counter falls below 0");
    let invoice = invoice(&ledger).await;
    let lines: Vec<_> = invoice.lines.iter().map(|line| (&*line.kind, line.quantity, line.amount)).collect();
    assert_eq!((invoice.total, lines), (-40, vec![("tokens", -20, -40)]), "charged less returned less credited");
    quotas.charge(&acme, ("tokens", 30)).await.unwrap();
    assert_eq!(total(&ledger).await, (30 - 20) * 2);
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

/// Both plans name their limit `tokens`; the periods differ.
async fn credit_reaches_counters_of_earlier_plans(database: Database) {
    let plan = |period| Plan::new("plan").limit(Quota::units("tokens", 1_000).per(period).named("tokens"));
    let periods = [50, 90].map(|days| Period::rolling(Duration::from_secs(days * 86_400)));
    let ledger = database.open().await;
    let quotas = quotas(&ledger, plan(periods[0].clone()));
    let used = async |period: &Period| {
        quotas.set_plan(plan(period.clone())).unwrap();
        counts(&quotas, &acme()).await.0
    };
    quotas.charge(&acme(), ("tokens", 100)).await.unwrap();
    assert_eq!(used(&periods[1]).await, 0);
    quotas.charge(&acme(), ("tokens", 30)).await.unwrap();
    for already in [false, true] {
        assert_eq!(credit(&quotas, "ticket 4711", 40).await, (40, already));
    }
    assert_eq!((used(&periods[0]).await, used(&periods[1]).await), (60, 0));
    assert_eq!(total(&ledger).await, (130 - 40) * 2, "billed once");
    let given: Vec<_> = rows(&ledger, "acme").await.into_iter().filter(|row| row.amount < 0).collect();
    let given: Vec<_> = given.iter().map(|row| (row.entry, row.amount, row.passed_at)).collect();
    assert_eq!(given, [(EntryKind::Adjust, -40, None), (EntryKind::Reset, -30, None)]);
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn credit_is_unavailable_while_the_ledger_is_away() {
    let scene = Scene::new().await;
    let quotas = scene.quotas(tokens(1_000), OnFailure::FailOpen);
    quotas.charge(&acme(), ("tokens", 100)).await.unwrap();
    let away = scene.away().await;
    quotas.charge(&acme(), ("tokens", 5)).await.unwrap();
    let refused = quotas.credit(&acme(), "ticket 4711", "tokens", 40, "").await;
    assert_eq!(refused, Err(QuotaError::Unavailable));
    drop(away);
    Scene::merged(&scene.spool()).await;
    assert_eq!(credit(&quotas, "ticket 4711", 40).await, (40, false));
    assert_eq!(total(&scene.ledger).await, (105 - 40) * 2);
}
