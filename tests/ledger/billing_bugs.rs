//! Billing bugs of other systems: duplicate charges, races, drift, outages and leaks between tenants.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tollgate::{Client, JobRun, JobStanding, Reason};

use crate::*;

on_each_database! {
    repeated_job_is_charged_once
    duplicate_is_known_after_restart_and_elsewhere
    ten_agents_at_95_of_105_do_not_end_at_195
    ten_agents_in_two_processes_do_not_end_at_195
    every_charge_has_a_row
    drifted_counter_is_found_and_repaired
    concurrent_repairs_do_not_disturb_charges
    unavailable_ledger_charges_nothing_and_reports_at_once
    exhausted_tenants_recover_after_a_reset
    tenants_are_isolated
    events_carry_the_data_of_an_alert
}

async fn repeated_job_is_charged_once(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    let runs = Arc::new(AtomicU64::new(0));
    let attempt = |_| {
        let (quotas, runs) = (quotas.clone(), runs.clone());
        tokio::spawn(async move {
            let work = async { runs.fetch_add(1, Ordering::Relaxed) };
            quotas
                .run_job(&acme(), "order 17", ("tokens", 60), work)
                .await
                .map(drop)
                .map_err(|refusal| refusal.reason())
        })
    };
    for attempt in (0..64).map(attempt).collect::<Vec<_>>() {
        assert!(matches!(attempt.await.unwrap(), Ok(()) | Err(Reason::JobRunning)));
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let again = quotas.run_job(&acme(), "order 17", ("tokens", 61), async {}).await.unwrap_err();
    assert_eq!(again.reason(), Reason::JobConflict);
    assert_eq!(counts(&quotas, &acme()).await, (60, 0));
    assert_eq!(told(&rows(&ledger, "acme").await), [("order 17", "charge", 60)]);
    let job = ledger.job("acme", "order 17").await.unwrap().unwrap();
    assert_eq!((job.standing, job.attempt, job.amounts), (JobStanding::Charged, 0, ("tokens", 60).into()));
    assert_eq!(ledger.job("acme", "order 18").await.unwrap(), None);
}

async fn duplicate_is_known_after_restart_and_elsewhere(database: Database) {
    let (first, second) = (database.open().await, database.open().await);
    let job = async |ledger: &Ledger| {
        let quotas = quotas(ledger, tokens(1_000));
        quotas.run_job(&acme(), "order 17", ("tokens", 60), async {}).await.unwrap()
    };
    assert_eq!(job(&first).await, JobRun::Done(()));
    settled(&first).await; // the end of the job is written after its answer
    assert_eq!(job(&second).await, JobRun::Replayed);
    first.shut_down(HUNG).await;
    assert_eq!(job(&database.open().await).await, JobRun::Replayed);
}

async fn ten_agents(ledgers: &[Ledger]) {
    let plan = tokens(105);
    quotas(&ledgers[0], plan.clone()).record(&acme(), ("tokens", 95)).await.unwrap();
    let agents: Vec<_> = (0..10)
        .map(|agent| {
            let quotas = quotas(&ledgers[agent % ledgers.len()], plan.clone());
            tokio::spawn(async move { quotas.charge(&acme(), ("tokens", 10)).await })
        })
        .collect();
    let mut passed = 0;
    for agent in agents {
        match agent.await.unwrap() {
            Ok(()) => passed += 1,
            Err(refusal) => {
                assert_eq!((refusal.reason(), refusal.violations()[0].current), (Reason::RateLimited, 105));
            }
        }
    }
    assert_eq!(passed, 1);
    assert_eq!(counts(&quotas(&ledgers[0], plan), &acme()).await, (105, 0));
}

async fn ten_agents_at_95_of_105_do_not_end_at_195(database: Database) {
    ten_agents(&[database.open().await]).await;
}

async fn ten_agents_in_two_processes_do_not_end_at_195(database: Database) {
    ten_agents(&[database.open().await, database.open().await]).await;
}

async fn every_charge_has_a_row(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    quotas.charge(&acme(), ("tokens", 5)).await.unwrap();
    quotas.record(&acme(), ("tokens", 7)).await.unwrap();
    quotas.reserve(&acme(), ("tokens", 100)).await.unwrap().commit(("tokens", 30));
    drop(quotas.reserve(&acme(), ("tokens", 50)).await.unwrap());
    quotas.run_job(&acme(), "j", ("tokens", 1), async {}).await.unwrap();
    settled(&ledger).await;
    let rows = rows(&ledger, "acme").await;
    let mut said: Vec<_> = rows.iter().map(|row| (row.entry.as_str(), row.amount)).collect();
    said.sort_unstable();
    let expected = [
        ("charge", 1),
        ("charge", 5),
        ("commit", -70),
        ("record", 7),
        ("reserve", 50),
        ("reserve", 100),
        ("void", -50),
    ];
    assert_eq!(said, expected);
    for row in &rows {
        assert_eq!((&*row.tenant, &*row.kind, &*row.limit), ("acme", "tokens", "tokens_per_month"));
        assert!(!row.job.is_empty() && row.at.elapsed().is_ok());
    }
    assert_eq!(counts(&quotas, &acme()).await, (43, 0));
}

async fn drifted_counter_is_found_and_repaired(database: Database) {
    let reconciled = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&reconciled);
    let observer = move |event: &tollgate::Event<'_>| {
        if let tollgate::Event::Reconciled { compared, drifts, .. } = *event {
            seen.lock().unwrap().push((compared, drifts));
        }
    };
    let ledger = database.builder().observe(observer).open().await.unwrap().deadline(PATIENT);
    let quotas = quotas(&ledger, tokens(1_000));
    quotas.charge(&acme(), ("tokens", 95)).await.unwrap();
    let held = quotas.reserve(&acme(), ("tokens", 5)).await.unwrap();
    quotas.charge(&Client::named("bob"), ("tokens", 1)).await.unwrap();
    let report = ledger.reconcile().await.unwrap();
    assert_eq!((report.compared, report.drifts.len(), report.drift()), (2, 0, 0.0));

    database.meddle("UPDATE quota_counter SET used = 3 WHERE tenant_id = 'acme'").await.unwrap();
    let report = ledger.reconcile().await.unwrap();
    assert_eq!((report.drifts.len(), report.drift()), (1, 0.5));
    assert_eq!(*reconciled.lock().unwrap(), [(2, 0), (2, 1)], "each comparison is an event");
    let drift = &report.drifts[0];
    assert_eq!(
        (&*drift.tenant, &*drift.limit, drift.counted, drift.written),
        ("acme", "tokens_per_month", Some(8), 100)
    );
    assert!(report.to_string().contains("acme: tokens_per_month"), "{report}");
    assert_eq!(ledger.repair(&report).await.unwrap(), 1);
    assert_eq!(ledger.repair(&report).await.unwrap(), 0, "it is put right once");
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
    assert_eq!(counts(&quotas, &acme()).await, (95, 5));
    held.commit(("tokens", 5));
    settled(&ledger).await;
    assert_eq!(counts(&quotas, &acme()).await, (100, 0));
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn concurrent_repairs_do_not_disturb_charges(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    let plan = tokens(1_000_000);
    quotas(&ledger, plan.clone()).charge(&acme(), ("tokens", 1)).await.unwrap();
    let charge = |n: usize| {
        let quotas = quotas(if n.is_multiple_of(2) { &ledger } else { &other }, plan.clone());
        tokio::spawn(async move { quotas.charge(&acme(), ("tokens", 1)).await.unwrap() })
    };
    let charges: Vec<_> = (0..400).map(charge).collect();
    for _ in 0..5 {
        database.meddle("UPDATE quota_counter SET used = used + 7").await.unwrap();
        let (one, two) = (ledger.reconcile().await.unwrap(), other.reconcile().await.unwrap());
        let (one, two) = tokio::join!(ledger.repair(&one), other.repair(&two));
        assert!(one.unwrap() + two.unwrap() <= 2);
    }
    for charge in charges {
        charge.await.unwrap();
    }
    ledger.repair(&ledger.reconcile().await.unwrap()).await.unwrap();
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
    assert_eq!(counts(&quotas(&other, plan), &acme()).await, (401, 0));
}

async fn unavailable_ledger_charges_nothing_and_reports_at_once(database: Database) {
    let ledger = database.open().await;
    let plan = tokens(1_000);
    let quotas = quotas(&ledger, plan.clone());
    quotas.charge(&acme(), ("tokens", 5)).await.unwrap();
    ledger.shut_down(HUNG).await;
    let refusal = quotas.charge(&acme(), ("tokens", 5)).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Unavailable);
    assert!(refusal.retry_after().is_some());
    assert_eq!(counts(&crate::quotas(&database.open().await, plan), &acme()).await, (5, 0));
}

async fn exhausted_tenants_recover_after_a_reset(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    let tenants: Vec<_> = (0..50).map(|n| Client::named(format!("tenant {n}"))).collect();
    let exhaust = |client: &Client| {
        let (quotas, client) = (quotas.clone(), client.clone());
        tokio::spawn(async move {
            for _ in 0..5 {
                quotas.charge(&client, ("tokens", 2)).await.unwrap();
            }
            assert!(quotas.charge(&client, ("tokens", 1)).await.is_err());
        })
    };
    for tenant in tenants.iter().map(exhaust).collect::<Vec<_>>() {
        tenant.await.unwrap();
    }
    for tenant in &tenants {
        assert_eq!(counts(&quotas, tenant).await, (10, 0));
        quotas.reset(tenant, "tokens").await.unwrap();
        quotas.charge(tenant, ("tokens", 10)).await.unwrap();
    }
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
    let rows = rows(&ledger, "tenant 7").await;
    let resets: Vec<_> = rows.iter().filter(|row| row.entry == EntryKind::Reset).map(|row| row.amount).collect();
    assert_eq!(resets, [-10, 0], "what was forgiven stands in the ledger, and the count that began");
}

async fn tenants_are_isolated(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    let tenants = ["acme", "acme ", "Acme", "acm\u{e9}", "a'cme; --", "acme\0x"];
    for (n, tenant) in (1..).zip(tenants) {
        let client = Client::named(tenant);
        let amount = ("tokens", n);
        assert_eq!(quotas.run_job(&client, "the same id", amount, async {}).await.unwrap(), JobRun::Done(()));
        assert_eq!(quotas.run_job(&client, "the same id", amount, async {}).await.unwrap(), JobRun::Replayed);
    }
    for (n, tenant) in (1..).zip(tenants) {
        assert_eq!(counts(&quotas, &Client::named(tenant)).await, (n, 0), "{tenant:?}");
        assert_eq!(told(&rows(&ledger, tenant).await), [("the same id", "charge", n as i64)]);
    }
}

#[derive(Default)]
struct Counted(std::sync::Mutex<std::collections::BTreeMap<String, u64>>);

impl tollgate::Observer for Counted {
    fn observe(&self, event: &tollgate::Event<'_>) {
        let name = match event {
            tollgate::Event::Refused { refusal, .. } => refusal.reason().as_str().to_owned(),
            tollgate::Event::NearLimit { .. } => "near".into(),
            tollgate::Event::StoreLost { .. } => "lost".into(),
            _ => return,
        };
        *self.0.lock().unwrap().entry(name).or_default() += 1;
    }
}

async fn events_carry_the_data_of_an_alert(database: Database) {
    let ledger = database.open().await;
    let counted = Arc::new(Counted::default());
    let layer = QuotaLayer::new(tokens(100)).store_in(&ledger, OnFailure::FailClosed).observe(Arc::clone(&counted));
    let quotas = layer.handle();
    quotas.run_job(&acme(), "j", ("tokens", 95), async {}).await.unwrap();
    for _ in 0..3 {
        quotas.run_job(&acme(), "j", ("tokens", 96), async {}).await.unwrap_err(); // an attempt to spend twice
    }
    quotas.charge(&acme(), ("tokens", 6)).await.unwrap_err();
    settled(&ledger).await;
    let told = counted.0.lock().unwrap().clone();
    assert_eq!((told["job_conflict"], told["rate_limited"], told["near"]), (3, 1, 1), "{told:?}");
    // Drift is reported as a number, and so is the backlog of the database.
    database.meddle("UPDATE quota_counter SET used = 1").await.unwrap();
    assert!(ledger.reconcile().await.unwrap().drift() > 0.001);
    assert_eq!(ledger.backlog(), 0);
    // No row bypasses the unique index, and a ledger without it is not opened.
    let twice = "INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, entry, attempt, part,
        amount, consumed_at, order_id) SELECT tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, entry, attempt, part,
        amount, consumed_at, order_id FROM quota_consumption";
    assert!(database.meddle(twice).await.is_err(), "a violated constraint is an error");
}
