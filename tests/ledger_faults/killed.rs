//! A program that is killed while it charges.

use std::{collections::HashSet, time::Duration};

use super::{
    place::{Place, audit, quotas, until},
    program::{Program, TTL, limit, tenant_of, tokens_of},
};

async fn a_program_that_is_killed(place: &Place, rounds: usize) {
    let (mut acknowledged, mut unknown, mut troubles) = (HashSet::new(), HashSet::new(), 0);
    for round in 0..rounds {
        let program = Program::start(place, round);
        // In each fifth round the program may not have begun.
        if round % 5 > 0 {
            program.was_told(fastrand::usize(20..150));
        }
        std::thread::sleep(Duration::from_micros(fastrand::u64(..50_000))); // any moment within a transaction
        for told in program.kill() {
            match told.split_once(' ').unwrap() {
                ("done", id) => {
                    assert!(!unknown.contains(id), "{id} was cut, and is reported as done in round {round}");
                    acknowledged.insert(id.to_owned());
                }
                // It was charged before an earlier kill, and its end was not written.
                ("charged", id) => drop((acknowledged.insert(id.to_owned()), unknown.insert(id.to_owned()))),
                ("refused", id) => assert_eq!(tenant_of(id), "small", "{id} was refused"),
                _ => {
                    println!("round {round}: {told}");
                    troubles += 1;
                }
            }
        }
        place.is_left_alone().await;
        let ledger = place.open().await;
        let charged = audit(place, &ledger, limit).await;
        for id in &acknowledged {
            let tokens = charged.get(&(tenant_of(id).to_owned(), id.clone())).copied();
            assert_eq!(tokens, Some(tokens_of(id).cast_signed()), "{id} was acknowledged, in round {round}");
        }
        // No job is charged another job's amount.
        for ((tenant, id), tokens) in charged.iter().filter(|((_, id), _)| id.starts_with('r')) {
            assert!(tenant == tenant_of(id) && [0, tokens_of(id).cast_signed()].contains(tokens), "{id}: {tokens}");
        }
        ledger.shut_down(TTL).await;
    }
    println!("{} jobs acknowledged in {rounds} rounds, {} cut", acknowledged.len(), unknown.len());
    assert!(acknowledged.len() > rounds * 10, "the program was at work: {}", acknowledged.len());
    assert_eq!(troubles, 0, "nothing fails but the program");
    the_reservations_of_the_dead_end(place).await;
}

/// Reservations end by their time and stay charged: the work may have been done.
async fn the_reservations_of_the_dead_end(place: &Place) {
    let before = place.rows(0).await;
    let reserved: HashSet<_> = before.iter().filter(|row| row.entry == "reserve").map(|row| row.job.clone()).collect();
    let ledger = place.open().await;
    let _quotas = quotas(&ledger, 1);
    until("reservations end", async || place.holds().await == 0).await;
    let rows = place.rows(0).await;
    let ended: HashSet<_> = rows
        .iter()
        .filter(|row| matches!(&*row.entry, "commit" | "void" | "expire"))
        .map(|row| row.job.clone())
        .collect();
    assert_eq!(reserved.difference(&ended).count(), 0);
    let expired: Vec<_> = rows.iter().filter(|row| row.entry == "expire").collect();
    assert!(!expired.is_empty() && expired.iter().all(|row| row.amount == 0), "{expired:?}");
    audit(place, &ledger, limit).await;
    ledger.shut_down(TTL).await;
}

impl Place {
    /// Waits until the server has noticed that its client is gone; it may still commit what it was sent.
    async fn is_left_alone(&self) {
        let Self::Server(_) = self else { return };
        until("the server sees that its client is gone", async || {
            self.number(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await
                == 0
        })
        .await;
    }

    async fn holds(&self) -> i64 {
        self.number("SELECT count(*) FROM quota_hold").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_program_loses_nothing_on_a_file() {
    let (place, _directory) = Place::file();
    a_program_that_is_killed(&place, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn hundred_kills_lose_nothing_on_a_file() {
    let (place, _directory) = Place::file();
    a_program_that_is_killed(&place, 100).await;
}

mod on_a_server {
    use super::*;
    use crate::support::postgres::Postgres;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn killed_program_loses_nothing() {
        a_program_that_is_killed(&Place::Server(Postgres::shared().database()), 20).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "takes minutes"]
    async fn hundred_kills_lose_nothing() {
        a_program_that_is_killed(&Place::Server(Postgres::shared().database()), 100).await;
    }
}
