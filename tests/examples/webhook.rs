//! The webhook example as processes over one database, killed in the middle of payments.

use std::{collections::BTreeMap, thread, time::Duration};

use crate::{program::Server, support::directory::Directory};

const SECRET: &str = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58";
const KILLS: usize = 20;
const PAYMENTS: usize = 6;

type Variables<'a> = [(&'a str, &'a str); 4];

/// Sends a payment, whose content is its key; returns the answer, or `None` if the server died.
fn pay(address: &str, key: &str, ms: u64) -> Option<(u16, String)> {
    let headers = format!("x-api-key: alice-key\r\nidempotency-key: {key}\r\n");
    Server::send(address, &format!("POST /payments?ms={ms}"), &headers, key)
}

/// Sends a payment until it is made, or its outcome is unknown.
fn settled(address: &str, key: &str, ms: u64) -> (u16, String) {
    loop {
        match pay(address, key, ms) {
            Some((409, body)) if body.contains("operation_running") => thread::sleep(Duration::from_millis(50)),
            Some((503, _)) => thread::sleep(Duration::from_millis(50)), // the database is busy
            Some(answer) => return answer,
            None => panic!("the second process lives"),
        }
    }
}

/// Kills one of two processes again and again. Returns the outcome of each payment by its key.
fn kill(variables: &Variables<'_>) -> BTreeMap<String, (u16, String)> {
    let second = Server::start("webhook", variables);
    let mut outcomes = BTreeMap::new();
    let mut of_second = Vec::new();
    for round in 0..KILLS {
        let first = Server::start("webhook", variables);
        let keys: Vec<_> = (0..PAYMENTS).map(|number| format!("killed-{round}-{number}")).collect();
        let calls: Vec<_> = keys
            .iter()
            .zip(0..)
            .map(|(key, number)| {
                let (address, key) = (first.address.clone(), key.clone());
                thread::spawn(move || pay(&address, &key, number * 20))
            })
            .collect();
        let (address, key) = (second.address.clone(), format!("lives-{round}"));
        of_second.push(thread::spawn(move || {
            let answer = settled(&address, &key, 10);
            (key, answer)
        }));
        thread::sleep(Duration::from_millis(fastrand::u64(0..60)));
        drop(first); // by SIGKILL
        for call in calls {
            call.join().unwrap();
        }
        for (key, number) in keys.into_iter().zip(0..) {
            let outcome = settled(&second.address, &key, number * 20);
            outcomes.insert(key, outcome);
        }
    }
    for call in of_second {
        let (key, answer) = call.join().unwrap();
        outcomes.insert(key, answer);
    }
    let stats = Server::ask(&second.address, "GET /stats", "").unwrap();
    assert_eq!(stats.0, 200);
    outcomes
}

/// Checks the outcomes with the rows of the payments, by their content: a payment and its record agree.
fn check(outcomes: &BTreeMap<String, (u16, String)>, rows: &[String], after_lease: &str) {
    for (key, (status, body)) in outcomes {
        let made = rows.iter().filter(|row| *row == key).count();
        match status {
            201 => assert_eq!(made, 1, "{key}: {body}"),
            409 => {
                assert!(body.contains("operation_outcome_unknown") && made == 0, "{key}: made {made} times, {body}");
                assert!(key.starts_with("killed") && after_lease == "hold", "{key}");
            }
            _ => panic!("{key}: {status} {body}"),
        }
    }
    assert!(rows.iter().all(|row| outcomes.contains_key(row)));
    assert!(outcomes.values().any(|(status, _)| *status == 201));
}

fn in_a_file(after_lease: &str) {
    let folder = Directory::new();
    let path = folder.0.join("shop.db").display().to_string();
    let outcomes =
        kill(&[("DB", &path), ("TOLLGATE_SECRET", SECRET), ("LEASE_MS", "500"), ("AFTER_LEASE", after_lease)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows: Vec<String> = runtime.block_on(async {
        let pool = sqlx::SqlitePool::connect(&format!("sqlite:{path}")).await.unwrap();
        sqlx::query_scalar("SELECT amount FROM payments").fetch_all(&pool).await.unwrap()
    });
    check(&outcomes, &rows, after_lease);
}

#[cfg(feature = "postgres")]
fn on_a_server(after_lease: &str) {
    let url = crate::support::postgres::Postgres::shared().database();
    let variables =
        [("DATABASE_URL", &*url), ("TOLLGATE_SECRET", SECRET), ("LEASE_MS", "500"), ("AFTER_LEASE", after_lease)];
    let outcomes = kill(&variables);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows: Vec<String> = runtime.block_on(async {
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        sqlx::query_scalar("SELECT amount FROM payments").fetch_all(&pool).await.unwrap()
    });
    check(&outcomes, &rows, after_lease);
}

#[test]
fn killed_processes_on_a_file_make_no_payment_twice() {
    in_a_file("hold");
}

#[test]
fn payments_cut_by_a_kill_are_made_once_on_a_file() {
    in_a_file("rerun");
}

#[cfg(feature = "postgres")]
#[test]
fn killed_processes_on_a_server_make_no_payment_twice() {
    on_a_server("hold");
}

#[cfg(feature = "postgres")]
#[test]
fn payments_cut_by_a_kill_are_made_once_on_a_server() {
    on_a_server("rerun");
}
