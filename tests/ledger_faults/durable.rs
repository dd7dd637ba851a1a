//! An acknowledged charge is readable at once, over any connection.

use tollgate::JobRun;

use super::place::{Place, job, quotas};

async fn acknowledged_charge_is_durable(place: &Place) {
    let ledger = place.open().await;
    let quotas = quotas(&ledger, 1_000);
    let mut last = 0;
    for number in 0..100 {
        let id = format!("job {number}");
        assert_eq!(job(&quotas, "acme", &id).await.unwrap(), JobRun::Done(()));
        let rows = place.rows(last).await;
        let found: Vec<_> = rows.iter().map(|row| (&*row.job, &*row.limit, row.amount)).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(&(&id, "tokens", 1)) && found.contains(&(&id, "requests", 1)), "{found:?}");
        last = rows[1].id;
        assert!(place.counts().await.values().all(|count| *count == number + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_charge_is_durable_on_a_file() {
    let (place, _directory) = Place::file();
    acknowledged_charge_is_durable(&place).await;
}

mod on_a_server {
    use super::*;
    use crate::support::postgres::Postgres;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn acknowledged_charge_is_durable() {
        super::acknowledged_charge_is_durable(&Place::Server(Postgres::shared().database())).await;
    }
}
