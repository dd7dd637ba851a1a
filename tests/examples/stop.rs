//! Stop signals and kills under load.

use std::{
    net::TcpStream,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    program::{SERVERS, Server},
    support::{directory::Directory, stay_within_a_day},
};

#[test]
fn idle_server_ends_on_each_stop_signal() {
    for example in SERVERS {
        for signal in ["TERM", "INT"] {
            let directory = Directory::new();
            let file = directory.0.join("quota.db");
            let secret = ("TOLLGATE_SECRET", "5d4fb7f10c3a4c2d9a86e0c1b2f37e58");
            let mut server = Server::start(example, &[("DB", file.to_str().unwrap()), secret]);
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

/// Leaves the processor to the server between two polls.
fn rest() {
    thread::sleep(Duration::from_millis(10));
}

/// Sends a request again for as long as the ledger does not answer in time, and until a job that was answered too late is
/// undone. The same job id is charged once.
fn answer(address: &str, line: &str, headers: &str) -> Option<(u16, String)> {
    loop {
        match Server::ask(address, line, headers) {
            Some((503, _)) => rest(),
            Some((409, body)) if body.contains("still running") => rest(),
            answer => return answer,
        }
    }
}

#[test]
fn killed_server_starts_again_with_its_acknowledged_jobs() {
    stay_within_a_day();
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
                    answer(&address, "POST /jobs?amount=1", &headers).is_some_and(|(status, _)| status == 200)
                };
                (0_u32..).take_while(sent).count()
            })
        })
        .collect();
    while answer(&server.address, "GET /usage/acme", "").is_none_or(|(_, body)| used(&body) < 20) {
        assert!(callers.iter().any(|caller| !caller.is_finished()), "all callers were refused");
        rest();
    }
    drop(server); // kill -9
    let acknowledged: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();

    let server = Server::start("billing", &variables);
    let used = used(&answer(&server.address, "GET /usage/acme", "").unwrap().1);
    assert!(used >= acknowledged, "{used} of {acknowledged} acknowledged jobs are charged");
    assert!(used <= acknowledged + 4, "at most the four jobs without an answer are charged beside them");
}

#[test]
fn job_cut_by_a_kill_is_unknown_until_it_is_settled() {
    stay_within_a_day();
    let directory = Directory::new();
    let file = directory.0.join("quota.db");
    let variables = [("DB", file.to_str().unwrap()), ("ADMIN_TOKEN", "s3cret")];
    let admin = "authorization: Bearer s3cret\r\n";
    let job = |address: &str, id: &str, query: &str| {
        let headers = format!("x-tenant: acme\r\nx-job-id: {id}\r\n");
        answer(address, &format!("POST /jobs?amount=7{query}"), &headers)
    };
    let server = Server::start("billing", &variables);
    let usage = |server: &Server| used(&answer(&server.address, "GET /usage/acme", "").unwrap().1);
    let cut: Vec<JoinHandle<_>> = ["one", "two"]
        .map(|id| {
            let address = server.address.clone();
            thread::spawn(move || job(&address, id, "&hold_ms=600000"))
        })
        .into();
    for (id, job) in ["one", "two"].into_iter().zip(&cut) {
        let settle = format!("POST /settle/acme?job={id}&outcome=free");
        let running = |(status, body): (u16, String)| status == 409 && body.contains("state Running");
        while !answer(&server.address, &settle, admin).is_some_and(running) {
            assert!(!job.is_finished(), "job {id} was answered before the kill");
            rest(); // it is not admitted yet
        }
    }
    drop(server); // kill -9
    assert!(cut.into_iter().all(|cut| cut.join().unwrap().is_none()));

    for restart in 0..2 {
        let server = Server::start("billing", &variables);
        for id in ["one", "two"] {
            let (status, body) = job(&server.address, id, "").unwrap();
            let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &problem["code"]), (409, &"job_outcome_unknown".into()), "restart {restart}: {body}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("was charged before, and its outcome is unknown"), "{detail}");
        }
        assert_eq!(usage(&server), 14);
    }

    let server = Server::start("billing", &variables);
    let settle = |query: &str| answer(&server.address, &format!("POST /settle/acme?{query}"), admin).unwrap();
    for (query, wanted) in [("job=one&outcome=done", 200), ("job=two&outcome=free", 200), ("job=one&outcome=free", 409)]
    {
        let (status, body) = settle(query);
        assert_eq!(status, wanted, "{query}: {body}");
    }
    assert_eq!((settle("job=two&outcome=free").0, settle("job=one&outcome=maybe").0), (404, 400));
    assert_eq!(answer(&server.address, "POST /settle/acme?job=one&outcome=free", "").unwrap().0, 401);
    assert_eq!(usage(&server), 7);
    assert_eq!(job(&server.address, "one", "").unwrap().0, 200, "replayed");
    assert_eq!(usage(&server), 7);
    assert_eq!(job(&server.address, "two", "").unwrap().0, 200, "done");
    assert_eq!(usage(&server), 14);
}

/// Returns the used amount of a usage document.
fn used(document: &str) -> usize {
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    document["used"].as_u64().unwrap().try_into().unwrap()
}
