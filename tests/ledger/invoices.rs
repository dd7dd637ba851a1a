//! From usage to invoice: each row in one invoice, each kind once, and no amount billed twice.

use std::time::{Duration, SystemTime};

use tollgate::{Amounts, BillingError, Invoice, Ledger, MemoryProvider, Period, Plan, Quota, QuotaError, Quotas};

use super::{Database, acme, on_each_database, quotas, rows, tokens};

on_each_database! {
    amount_under_several_limits_is_billed_once
    replacing_a_limit_in_mid_period_changes_no_invoice
    rollback_is_credited_once_for_all_limits_of_a_kind
    credit_of_a_later_period_is_counted_once
    usage_on_a_customers_own_key_is_listed_free
    each_row_is_in_one_invoice_and_later_voids_are_credits
    reset_gives_quota_but_no_credit
    zero_sum_is_no_invoice_line
    too_large_sum_is_an_error
    period_ends_after_it_begins
    repeated_push_bills_once_even_with_a_lost_reply
    invoice_is_pushed_when_its_period_is_over
    changed_lines_under_a_billed_id_are_reported
    period_in_nanoseconds_is_compared_as_billed
    invoice_is_a_line_of_json
    closed_invoice_does_not_grow_when_the_clock_is_set_back
}

const BEGINNING: SystemTime = SystemTime::UNIX_EPOCH;

/// The end of a period that is not over.
fn future() -> SystemTime {
    BEGINNING + Duration::from_secs(8_000_000_000)
}

fn two_each(_: &str, quantity: u64) -> u64 {
    quantity.saturating_mul(2)
}

async fn invoice(ledger: &Ledger, from: SystemTime, until: SystemTime) -> Invoice {
    ledger.invoice("acme", from, until, two_each).await.unwrap()
}

fn lines(invoice: &Invoice) -> Vec<(&str, i64, i64)> {
    invoice.lines.iter().map(|line| (line.kind.as_str(), line.quantity, line.amount)).collect()
}

/// Returns a time after all rows written until now and before any later row.
async fn boundary(ledger: &Ledger) -> SystemTime {
    let written = rows(ledger, "acme").await.last().map_or(BEGINNING, |row| row.at) + Duration::from_millis(1);
    while !invoice(ledger, BEGINNING, written).await.closed {
        tokio::task::yield_now().await;
    }
    written
}

async fn charge(quotas: &Quotas, amount: u64) {
    quotas.charge(&acme(), ("tokens", amount)).await.unwrap();
}

async fn amount_under_several_limits_is_billed_once(database: Database) {
    let ledger = database.open().await;
    let both = tokens(5_000).limit(Quota::units("tokens", 1_000).per(Period::day()));
    let quotas = quotas(&ledger, both);
    charge(&quotas, 70).await;
    quotas.record(&acme(), ("tokens", 30)).await.unwrap();
    assert_eq!(rows(&ledger, "acme").await.len(), 4);
    assert_eq!(lines(&invoice(&ledger, BEGINNING, future()).await), [("tokens", 100, 200)]);
}

async fn replacing_a_limit_in_mid_period_changes_no_invoice(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    charge(&quotas, 60).await;
    let hourly = Quota::units("tokens", 500).per(Period::hour());
    quotas.set_plan(tokens(1_000).limit(hourly.clone()).numbered(2)).unwrap();
    charge(&quotas, 30).await;
    quotas.set_plan(Plan::new("paid").limit(hourly).numbered(3)).unwrap();
    charge(&quotas, 10).await;
    assert_eq!(lines(&invoice(&ledger, BEGINNING, future()).await), [("tokens", 100, 200)]);
}

/// Two limits of one kind, as in most plans.
fn two_limits() -> Plan {
    tokens(5_000).limit(Quota::units("tokens", 1_000).per(Period::day()))
}

async fn rollback_is_credited_once_for_all_limits_of_a_kind(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, two_limits());
    charge(&quotas, 10).await;
    let held = quotas.reserve(&acme(), ("tokens", 50)).await.unwrap().detach();
    quotas.roll_back(&held).await.unwrap();
    let until = boundary(&ledger).await;
    let bill = invoice(&ledger, BEGINNING, until).await;
    assert_eq!(lines(&bill), [("tokens", 10, 20)]);

    let provider = MemoryProvider::new();
    let drift = ledger.compare(&provider, "acme", BEGINNING, until).await.unwrap();
    assert_eq!((drift[0].kind.as_str(), drift[0].written, drift[0].billed), ("tokens", 10, 0));
    ledger.push(&provider, &bill).await.unwrap();
    assert_eq!(provider.invoices()[0].total, 20);
    assert_eq!(ledger.compare(&provider, "acme", BEGINNING, until).await.unwrap(), []);
}

async fn credit_of_a_later_period_is_counted_once(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, two_limits());
    let held = quotas.reserve(&acme(), ("tokens", 50)).await.unwrap().detach();
    let first = boundary(&ledger).await;
    quotas.roll_back(&held).await.unwrap();
    charge(&quotas, 10).await;
    assert_eq!(lines(&invoice(&ledger, BEGINNING, first).await), [("tokens", 50, 100)]);
    assert_eq!(lines(&invoice(&ledger, first, future()).await), [("tokens", -40, -80)]);
}

async fn usage_on_a_customers_own_key_is_listed_free(database: Database) {
    let ledger = database.open().await;
    let own_key = Quota::units("own_key_tokens", (1 << 53) - 1).per(Period::month());
    let quotas = quotas(&ledger, tokens(1_000).limit(own_key));
    charge(&quotas, 5).await;
    quotas.record(&acme(), ("own_key_tokens", 900)).await.unwrap();
    let price = |kind: &str, quantity| if kind == "own_key_tokens" { 0 } else { two_each(kind, quantity) };
    let invoice = ledger.invoice("acme", BEGINNING, future(), price).await.unwrap();
    assert_eq!(lines(&invoice), [("own_key_tokens", 900, 0), ("tokens", 5, 10)]);
    assert_eq!(invoice.total, 10);
}

async fn each_row_is_in_one_invoice_and_later_voids_are_credits(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    let held = quotas.reserve(&acme(), ("tokens", 80)).await.unwrap().detach();
    let first = boundary(&ledger).await;
    quotas.commit(&held, ("tokens", 30)).await.unwrap();
    let second = boundary(&ledger).await;
    charge(&quotas, 7).await;
    let invoices = [(BEGINNING, first), (first, second), (second, future())];
    let mut all = Vec::new();
    for (from, until) in invoices {
        all.push(invoice(&ledger, from, until).await);
    }
    assert_eq!(all.iter().map(|invoice| invoice.total).collect::<Vec<_>>(), [160, -100, 14]);
    assert_eq!(all.iter().map(|invoice| invoice.closed).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(lines(&invoice(&ledger, BEGINNING, future()).await), [("tokens", 37, 74)]);
}

async fn reset_gives_quota_but_no_credit(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    charge(&quotas, 100).await;
    quotas.reset_all(&acme()).await.unwrap();
    charge(&quotas, 40).await;
    assert_eq!(lines(&invoice(&ledger, BEGINNING, future()).await), [("tokens", 140, 280)]);
}

async fn zero_sum_is_no_invoice_line(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    let held = quotas.reserve(&acme(), ("tokens", 80)).await.unwrap().detach();
    quotas.roll_back(&held).await.unwrap();
    quotas.charge(&acme(), Amounts::new()).await.unwrap();
    assert_eq!(lines(&invoice(&ledger, BEGINNING, future()).await), []);
}

async fn too_large_sum_is_an_error(database: Database) {
    let ledger = database.open().await;
    let most = (1 << 53) - 1;
    let plan = Plan::new("paid");
    let plan = plan.limit(Quota::units("a", most).per(Period::day())).limit(Quota::units("b", most).per(Period::day()));
    let quotas = quotas(&ledger, plan);
    quotas.charge(&acme(), [("a", most), ("b", most)]).await.unwrap();
    let priced = async |price: u64| {
        let invoiced = ledger.invoice("acme", BEGINNING, future(), |_, quantity| quantity.saturating_mul(price)).await;
        invoiced.map(|invoice| invoice.total).map_err(|error| error.to_string())
    };
    assert_eq!(priced(512).await, Ok(i64::try_from(most * 1_024).unwrap()));
    let total = u128::from(most) * 1_500;
    assert_eq!(priced(750).await, Err(format!("total must be at most 2^63 - 1, got {total}")));
    assert_eq!(priced(u64::MAX).await, Err(format!("amount of a must be at most 2^63 - 1, got {}", u64::MAX)));
}

async fn period_ends_after_it_begins(database: Database) {
    let ledger = database.open().await;
    let error = ledger.invoice("acme", future(), BEGINNING, two_each).await.unwrap_err();
    assert!(matches!(error, QuotaError::Invalid(_)), "{error}");
}

async fn repeated_push_bills_once_even_with_a_lost_reply(database: Database) {
    let ledger = database.open().await;
    let provider = MemoryProvider::new();
    let quotas = quotas(&ledger, tokens(1_000));
    charge(&quotas, 30).await;
    let until = boundary(&ledger).await;
    let drift = ledger.compare(&provider, "acme", BEGINNING, until).await.unwrap();
    assert_eq!((drift[0].kind.as_str(), drift[0].written, drift[0].billed), ("tokens", 30, 0));

    let first = invoice(&ledger, BEGINNING, until).await;
    provider.lose_next_reply();
    assert!(matches!(ledger.push(&provider, &first).await, Err(BillingError::Provider(_))));
    charge(&quotas, 4).await; // belongs to the next
    let again = invoice(&ledger, BEGINNING, until).await;
    assert_eq!(again, first);
    ledger.push(&provider, &again).await.unwrap();
    ledger.push(&provider, &again).await.unwrap();
    assert_eq!(provider.invoices(), [first]);
    assert_eq!(ledger.compare(&provider, "acme", BEGINNING, until).await.unwrap(), []);
}

async fn invoice_is_pushed_when_its_period_is_over(database: Database) {
    let ledger = database.open().await;
    let provider = MemoryProvider::new();
    charge(&quotas(&ledger, tokens(1_000)), 30).await;
    let early = invoice(&ledger, BEGINNING, future()).await;
    assert!(matches!(ledger.push(&provider, &early).await, Err(BillingError::Ledger(QuotaError::Invalid(_)))));
    assert_eq!(provider.invoices(), []);
}

async fn changed_lines_under_a_billed_id_are_reported(database: Database) {
    let ledger = database.open().await;
    let provider = MemoryProvider::new();
    charge(&quotas(&ledger, tokens(1_000)), 30).await;
    let until = boundary(&ledger).await;
    ledger.push(&provider, &invoice(&ledger, BEGINNING, until).await).await.unwrap();
    let dearer = ledger.invoice("acme", BEGINNING, until, |_, quantity| quantity * 3).await.unwrap();
    let error = ledger.push(&provider, &dearer).await.unwrap_err();
    assert!(error.to_string().ends_with("was billed with other lines"), "{error}");
    assert_eq!(provider.invoices()[0].total, 60);
}

async fn invoice_is_a_line_of_json(database: Database) {
    let ledger = database.open().await;
    charge(&quotas(&ledger, tokens(1_000)), 30).await;
    let read: serde_json::Value =
        serde_json::from_str(&invoice(&ledger, BEGINNING, future()).await.to_string()).unwrap();
    assert_eq!(read["id"], "invoice-acme-0-8000000000000000");
    assert_eq!(read["lines"][0], serde_json::json!({ "kind": "tokens", "quantity": 30, "amount": 60 }));
    assert_eq!((read["closed"].as_bool(), read["total"].as_i64()), (Some(false), Some(60)));
    let name = tollgate::Client::named("a/b-1 \"x\"");
    quotas(&ledger, tokens(1_000)).charge(&name, ("tokens", 1)).await.unwrap();
    let strange = ledger.invoice("a/b-1 \"x\"", BEGINNING, future(), two_each).await.unwrap();
    assert_eq!(strange.id(), "invoice-a%2Fb-1%20%22x%22-0-8000000000000000");
}

async fn period_in_nanoseconds_is_compared_as_billed(database: Database) {
    let ledger = database.open().await;
    charge(&quotas(&ledger, tokens(1_000)), 30).await;
    let (from, until) = (BEGINNING + Duration::from_nanos(1_500), boundary(&ledger).await + Duration::from_nanos(500));
    while !invoice(&ledger, from, until).await.closed {
        tokio::task::yield_now().await;
    }
    let provider = MemoryProvider::new();
    ledger.push(&provider, &invoice(&ledger, from, until).await).await.unwrap();
    assert_eq!(ledger.compare(&provider, "acme", from, until).await.unwrap(), []);
}

async fn closed_invoice_does_not_grow_when_the_clock_is_set_back(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    charge(&quotas, 5).await;
    let until = boundary(&ledger).await;
    // As if the clock were two seconds behind what it was when the invoice was closed.
    let two_seconds = match &database {
        Database::Sqlite(_) => "2000000",
        #[cfg(feature = "postgres")]
        Database::Postgres(_) => "interval '2 s'",
    };
    let ahead = format!("UPDATE quota_account SET closed_until = closed_until + {two_seconds}");
    database.meddle(ahead).await.unwrap();
    let closed = until + Duration::from_secs(2);
    charge(&quotas, 7).await;
    assert_eq!(rows(&ledger, "acme").await.last().unwrap().at, closed);
    assert_eq!(lines(&invoice(&ledger, BEGINNING, closed).await), [("tokens", 5, 10)]);
    assert_eq!(lines(&invoice(&ledger, closed, future()).await), [("tokens", 7, 14)]);
    quotas.charge(&tollgate::Client::named("zenith"), ("tokens", 1)).await.unwrap();
    assert!(rows(&ledger, "zenith").await[0].at < closed, "it is the floor of one account");
}
