//! Commands that the database rejects for good: their callers get the reason, other callers are served.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use tollgate::{Event, QuotaError, Reason, ReservationError};

use crate::*;

on_each_database! {
    reset_covers_two_epochs_of_one_limit
    reset_all_while_a_response_is_under_way_repeats
    commit_after_reported_units_writes_apart
    rejected_charge_fails_alone
    rejected_calls_say_why
    rejected_settlement_is_reported_and_dropped
    rejected_commit_ends_its_reservation_at_once
    rejected_expiries_do_not_hold_up_the_others
}

/// Adds a constraint that no row of `tenant` meets, as an administrator might.
pub(super) async fn reject_rows_of(database: &Database, tenant: &str) {
    let statements = match database {
        Database::Sqlite(_) => format!(
            "CREATE TRIGGER closed_books BEFORE INSERT ON quota_consumption WHEN NEW.tenant_id = '{tenant}'
             BEGIN SELECT raise(ABORT, 'the books of {tenant} are closed'); END"
        ),
        #[cfg(feature = "postgres")]
        Database::Postgres(_) => format!(
            "ALTER TABLE quota_consumption ADD CONSTRAINT \"the books of {tenant} are closed\"
             CHECK (tenant_id <> '{tenant}') NOT VALID"
        ),
    };
    database.meddle(statements).await.unwrap();
}

/// Adds a constraint that rejects commits of `tenant`, and takes its other rows.
pub(super) async fn reject_commits_of(database: &Database, tenant: &str) {
    let statement = match database {
        Database::Sqlite(_) => format!(
            "CREATE TRIGGER no_commits BEFORE INSERT ON quota_consumption
             WHEN NEW.tenant_id = '{tenant}' AND NEW.entry = 'commit' BEGIN SELECT raise(ABORT, 'no commits'); END"
        ),
        #[cfg(feature = "postgres")]
        Database::Postgres(_) => format!(
            "ALTER TABLE quota_consumption ADD CONSTRAINT \"no commits\"
             CHECK (tenant_id <> '{tenant}' OR entry <> 'commit') NOT VALID"
        ),
    };
    database.meddle(statement).await.unwrap();
}

/// Adds a unique index that already holds the only row of `tenant`, so that it gets no other.
async fn reject_more_rows_of(database: &Database, tenant: &str) {
    let index = format!("CREATE UNIQUE INDEX one_row ON quota_consumption (tenant_id) WHERE tenant_id = '{tenant}'");
    database.meddle(index).await.unwrap();
}

/// Asserts that counters and rows of all accounts are consistent.
async fn adds_up(ledger: &Ledger) {
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn reset_covers_two_epochs_of_one_limit(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    let id = quotas.reserve(&acme(), ("tokens", 10)).await.unwrap().detach();
    quotas.reset(&acme(), "tokens").await.unwrap();
    quotas.commit(&id, ("tokens", 4)).await.unwrap();
    quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    for _ in 0..3 {
        quotas.reset(&acme(), "tokens").await.unwrap();
        assert_eq!(counts(&quotas, &acme()).await, (0, 0));
    }
    let rows = rows(&ledger, "acme").await;
    let resets: Vec<_> = rows.iter().filter(|row| row.entry == EntryKind::Reset).map(|row| row.amount).collect();
    assert_eq!(resets, [0, -4, -1, 0, 0, 0]);
    adds_up(&ledger).await;
}

async fn reset_all_while_a_response_is_under_way_repeats(database: Database) {
    let ledger = database.open().await;
    let (quotas, acme, other) = (quotas(&ledger, tokens(100)), acme(), Client::named("zenith"));
    for round in 0..4 {
        let held = quotas.reserve(&acme, ("tokens", 10)).await.unwrap();
        quotas.charge(&acme, ("tokens", 1)).await.unwrap();
        let (reset, charged) = tokio::join!(quotas.reset_all(&acme), quotas.charge(&other, ("tokens", 1)));
        reset.unwrap();
        charged.unwrap();
        held.commit(("tokens", 4));
        settled(&ledger).await;
        assert_eq!(counts(&quotas, &acme).await, (0, 0), "round {round}");
    }
    assert_eq!(counts(&quotas, &other).await, (4, 0));
    adds_up(&ledger).await;
}

/// Units of a kind that was not reserved: reported during the work, then named by its commit.
async fn commit_after_reported_units_writes_apart(database: Database) {
    let ledger = database.open().await;
    let plan = tokens(100).limit(Quota::units("rows", 100).per(MONTH));
    let quotas = quotas(&ledger, plan);
    let id = quotas.reserve(&acme(), ("tokens", 10)).await.unwrap().detach();
    assert!(quotas.commit(&id, [("tokens", 4), ("rows", 7)]).await.is_ok());
    assert_eq!(quotas.usage(&acme()).await.unwrap().limits[1].used, 7);
    adds_up(&ledger).await;
}

async fn rejected_charge_fails_alone(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000_000));
    let [mallory, trudy] = ["mallory", "trudy"].map(Client::named);
    quotas.charge(&trudy, ("tokens", 1)).await.unwrap();
    reject_rows_of(&database, "mallory").await;
    reject_more_rows_of(&database, "trudy").await;
    let neighbours: Vec<_> = (0..40).map(|at| Client::named(format!("tenant {at}"))).collect();
    for round in 0..5 {
        let rejected = join_all([&mallory, &trudy].map(|client| quotas.charge(client, ("tokens", 1))));
        let served = join_all(neighbours.iter().map(|client| quotas.charge(client, ("tokens", 1))));
        let (rejected, served) = tokio::join!(rejected, served);
        for refusal in rejected {
            assert_eq!(refusal.unwrap_err().reason(), Reason::Rejected, "round {round}");
        }
        for answer in served {
            answer.unwrap();
        }
    }
    assert_eq!(ledger.backlog(), 0, "nothing is left to try");
    assert_eq!((rows(&ledger, "mallory").await.len(), rows(&ledger, "trudy").await.len()), (0, 1));
    assert_eq!((counts(&quotas, &mallory).await, counts(&quotas, &trudy).await), ((0, 0), (1, 0)));
    assert_eq!(counts(&quotas, &neighbours[7]).await, (5, 0));
    adds_up(&ledger).await;
}

async fn rejected_calls_say_why(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    let mallory = Client::named("mallory");
    quotas.charge(&mallory, ("tokens", 10)).await.unwrap();
    let id = quotas.reserve(&mallory, ("tokens", 10)).await.unwrap().detach();
    reject_rows_of(&database, "mallory").await;
    let grant = tollgate::Grant::new("tokens_per_month", 5, now() + Duration::from_secs(3_600));
    for error in [
        quotas.reset(&mallory, "tokens").await.unwrap_err(),
        quotas.record(&mallory, ("tokens", 1)).await.unwrap_err(),
        quotas.grant(&mallory, grant).await.map(drop).unwrap_err(),
    ] {
        let QuotaError::Rejected(why) = &error else { panic!("{error:?}") };
        assert!(why.contains("the books of mallory are closed"), "{why}");
        assert!(error.to_string().contains("nothing was written"), "{error}");
    }
    assert_eq!(quotas.commit(&id, ("tokens", 1)).await, Err(ReservationError::Rejected));
    assert_eq!(counts(&quotas, &mallory).await, (10, 10));
    quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    adds_up(&ledger).await;
}

/// No caller waits for the end of a reservation that is committed by value.
async fn rejected_settlement_is_reported_and_dropped(database: Database) {
    let (ledger, told) = (database.open().await, Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&told);
    let observer = move |event: &Event<'_>| {
        if let Event::StoreRejected { client, why, .. } = event {
            let name = client.name().map(ToString::to_string);
            heard.lock().unwrap().push((name.unwrap_or_default(), why.to_string()));
        }
    };
    let layer = QuotaLayer::new(tokens(100)).observe(observer);
    let quotas = layer.store_in(&ledger, OnFailure::FailClosed).handle();
    let mallory = Client::named("mallory");
    let held = quotas.reserve(&mallory, ("tokens", 10)).await.unwrap();
    reject_rows_of(&database, "mallory").await;
    held.commit(("tokens", 4));
    settled(&ledger).await;
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert!(matches!(&told[..], [(name, why)] if name == "mallory" && why.contains("are closed")), "{told:?}");
    assert_eq!(counts(&quotas, &mallory).await, (0, 10));
    quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
    adds_up(&ledger).await;
}

/// The reservation would be open for 15 minutes more.
async fn rejected_commit_ends_its_reservation_at_once(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    reject_commits_of(&database, "acme").await;
    let held = quotas.reserve(&acme(), ("tokens", 10)).await.unwrap();
    held.commit(("tokens", 4));
    until("the reservation has ended", async || counts(&quotas, &acme()).await.1 == 0).await;
    assert_eq!(counts(&quotas, &acme()).await, (10, 0), "as it expires in a ledger: charged as estimated");
    adds_up(&ledger).await;
    // A caller that waits can settle it otherwise: it stays open.
    let id = quotas.reserve(&acme(), ("tokens", 10)).await.unwrap().detach();
    assert_eq!(quotas.commit(&id, ("tokens", 4)).await, Err(ReservationError::Rejected));
    assert_eq!(counts(&quotas, &acme()).await, (10, 10));
    assert_eq!(quotas.roll_back(&id).await, Ok(tollgate::CloseOutcome::Closed));
    assert_eq!(counts(&quotas, &acme()).await, (10, 0));
    adds_up(&ledger).await;
}

/// A full batch of expiries is rejected, all due before the one of another client.
async fn rejected_expiries_do_not_hold_up_the_others(database: Database) {
    let ledger = database.open().await;
    let (quotas, mallory) = (quotas(&ledger, tokens(1_000)), Client::named("mallory"));
    for held in join_all((0..256).map(|_| quotas.reserve(&mallory, ("tokens", 1)))).await {
        let _ = held.unwrap().detach();
    }
    let _ = quotas.reserve(&acme(), ("tokens", 1)).await.unwrap().detach();
    reject_rows_of(&database, "mallory").await;
    let past = match &database {
        Database::Sqlite(_) => "UPDATE quota_hold SET until = CASE tenant_id WHEN 'mallory' THEN 1 ELSE 2 END",
        #[cfg(feature = "postgres")]
        Database::Postgres(_) => "UPDATE quota_hold SET until = until - interval '1000 days'",
    };
    database.meddle(past).await.unwrap();
    until("the other client's reservation has ended", async || counts(&quotas, &acme()).await.1 == 0).await;
    assert_eq!(counts(&quotas, &mallory).await, (0, 256));
    adds_up(&ledger).await;
}

/// A server without transaction ids rejects each write with 54000, as it rejects an index row that is too large.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn settlement_survives_a_server_at_its_limit() {
    let database = Database::postgres();
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    let held = quotas.reserve(&acme(), ("tokens", 10)).await.unwrap();
    let function = "CREATE FUNCTION at_its_limit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no transaction ids are left' USING ERRCODE = 'program_limit_exceeded'; END $$";
    let trigger = "CREATE TRIGGER at_its_limit BEFORE INSERT ON quota_consumption EXECUTE FUNCTION at_its_limit()";
    for statement in [function, trigger] {
        database.meddle(statement).await.unwrap();
    }
    held.commit(("tokens", 4));
    let refusal = quotas.charge(&acme(), ("tokens", 1)).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Unavailable);
    database.meddle("DROP TRIGGER at_its_limit ON quota_consumption").await.unwrap();
    settled(&ledger).await;
    assert_eq!(counts(&quotas, &acme()).await, (4, 0));
    adds_up(&ledger).await;
}
