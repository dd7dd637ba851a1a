//! Plans of reports: each finds the entries of an account by their time, whatever the size of the table.

use super::*;
use crate::ledger::sql::{archive::finished, reports::BILLED};

/// Returns the plan of a statement in a session that reads no whole table if there is another way.
async fn plan(sql: &str, values: &[SqlValue<'_>]) -> Vec<String> {
    let ledger = fresh().await;
    let mut connection = ledger.pool.acquire().await.unwrap();
    connection.execute("SET enable_seqscan = off").await.unwrap();
    let rows = Postgres::fetch(&mut connection, safe(format!("EXPLAIN {sql}")), values).await.unwrap();
    rows.iter().map(|row| Postgres::text(row, 0).unwrap().unwrap().trim().to_owned()).collect()
}

/// Conditions of the scans of an index.
fn conditions(plan: &[String], index: &str) -> Vec<String> {
    let scans = plan.iter().zip(plan.iter().skip(1)).filter(|(step, _)| step.contains(index));
    scans.map(|(_, condition)| condition.clone()).collect()
}

#[tokio::test]
async fn entries_of_an_account_are_found_by_their_time() {
    let (tenant, time) = (SqlValue::Text("acme"), SqlValue::Time(1));
    let archive = plan(&finished::<Postgres>(), &[tenant, time]).await;
    let repair = plan(&PostgresDatabase::repairing(), &[tenant]).await;
    let invoice = plan(BILLED, &[tenant, time, time]).await;
    for plan in [archive, repair, invoice] {
        let by_time = conditions(&plan, "quota_consumption_by_time");
        assert!(by_time.iter().any(|condition| condition.contains("tenant_id")), "{plan:#?}");
        assert!(!plan.iter().any(|step| step.contains("Seq Scan on quota_consumption")), "{plan:#?}");
    }
}

/// A plan of the charge path may be made over small tables and outlive their size.
#[tokio::test]
async fn job_is_found_by_its_key_and_not_among_those_of_its_account() {
    let ledger = fresh().await;
    let mut connection = ledger.pool.acquire().await.unwrap();
    let prepare = format!(
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
        SET plan_cache_mode = force_generic_plan; PREPARE reading AS {}",
        super::super::super::read::READ
    );
    connection.execute(sqlx::raw_sql(safe(prepare))).await.unwrap();
    let explain = "EXPLAIN EXECUTE reading('{acme}', '{infinity}', '{acme}', '{job}', NULL)";
    let rows = connection.fetch_all(sqlx::raw_sql(explain)).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let conditions = conditions(&plan, "on quota_consumption");
    assert!(matches!(&conditions[..], [one] if one.contains("job_id")), "{plan:#?}");
    assert_eq!(self::conditions(&plan, "quota_consumption_by_time").len(), 0, "{plan:#?}");
}
