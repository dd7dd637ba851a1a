//! Who is told that it is charged could read it that very moment, over any connection.

use tollgate::JobRun;

use super::place::{Place, job, quotas};

async fn what_was_told_is_there(place: &Place) {
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
async fn what_was_told_is_there_on_a_file() {
    let (place, _directory) = Place::file();
    what_was_told_is_there(&place).await;
}

mod on_a_server {
    use super::*;
    use crate::support::postgres::Postgres;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_told_is_there() {
        super::what_was_told_is_there(&Place::Server(Postgres::shared().database())).await;
    }
}
