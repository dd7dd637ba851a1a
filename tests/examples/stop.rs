//! Stop signals and kills under load.

use std::{
    net::TcpStream,
    thread::{self, JoinHandle},
};

use crate::{
    program::{SERVERS, Server},
    support::directory::Directory,
};

#[test]
fn idle_server_ends_on_each_stop_signal() {
    for example in SERVERS {
        for signal in ["TERM", "INT"] {
            let directory = Directory::new();
            let file = directory.0.join("quota.db");
            let mut server = Server::start(example, &[("DB", file.to_str().unwrap())]);
            // tonic waits for the first bytes of a connection, up to the grace period.
            let idle = (example != "grpc").then(|| TcpStream::connect(&server.address).unwrap());
            server.signal(signal);
            let (status, errors) = server.wait();
            assert_eq!((status.code(), errors.as_str()), (Some(0), ""), "{example} on {signal}");
            drop(idle);
        }
    }
}

/// Sends a scan that takes a while; sent again for as long as another scan has the slot.
fn slow_scan(address: &str) -> JoinHandle<Option<(u16, String)>> {
    let address = address.to_owned();
    thread::spawn(move || {
        loop {
            match Server::ask(&address, "POST /api/v2/scan?bytes=10&hold_ms=2000", "x-user: alice\r\n") {
                Some((429, _)) => {}
                answer => return answer,
            }
        }
    })
}

#[test]
fn scan_in_flight_is_answered_after_a_stop_signal() {
    let mut server = Server::start("scan_api", &[("MAX_CONCURRENT", "1")]);
    let mut scan = slow_scan(&server.address);
    // A refused scan shows that the slow one has the only slot.
    while Server::ask(&server.address, "POST /api/v2/scan", "x-user: alice\r\n")
        .is_some_and(|(status, _)| status == 200)
    {
        if scan.is_finished() {
            scan = slow_scan(&server.address); // ended unseen on a slow machine
        }
    }
    server.signal("TERM");
    assert_eq!(scan.join().unwrap(), Some((200, String::from("{\"scanned\":10}"))));
    let (status, errors) = server.wait();
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
    assert!(TcpStream::connect(&server.address).is_err(), "it listens no more");
}

#[test]
fn killed_server_starts_again_with_its_acknowledged_jobs() {
    let directory = Directory::new();
    let file = directory.0.join("quota.db");
    let variables = [("DB", file.to_str().unwrap()), ("LIMIT", "1000000")];
    let server = Server::start("billing", &variables);
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let address = server.address.clone();
            thread::spawn(move || {
                let sent = |job: &u32| {
                    let headers = format!("x-tenant: acme\r\nx-job-id: {caller}-{job}\r\n");
                    Server::ask(&address, "POST /jobs?amount=1", &headers).is_some_and(|(status, _)| status == 200)
                };
                (0_u32..).take_while(sent).count()
            })
        })
        .collect();
    while Server::ask(&server.address, "GET /usage/acme", "").is_none_or(|(_, body)| used(&body) < 20) {
        thread::yield_now();
    }
    drop(server); // kill -9
    let acknowledged: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();

    let server = Server::start("billing", &variables);
    let used = used(&Server::ask(&server.address, "GET /usage/acme", "").unwrap().1);
    assert!(used >= acknowledged, "{used} of {acknowledged} acknowledged jobs are charged");
    assert!(used <= acknowledged + 4, "at most the four jobs without an answer are charged beside them");
}

/// Returns the used amount of a usage document.
fn used(document: &str) -> usize {
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    document["used"].as_u64().unwrap().try_into().unwrap()
}
