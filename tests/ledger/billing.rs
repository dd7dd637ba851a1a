//! The example `billing` over real sockets, in a child process that is killed and restarted.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::support::{directory::Directory, stay_within_a_day};

#[allow(dead_code, reason = "the start of the program is for its main")]
#[path = "../../examples/billing/server/mod.rs"]
mod server;

/// Marks a process as the server that a test started.
const SERVES: &str = "TOLLGATE_BILLING_SERVES";

/// Serves in the child process; does nothing in any other.
#[test]
fn serve() {
    if std::env::var_os(SERVES).is_none() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let setup = server::Setup::from_env().unwrap();
        let ledger = setup.open().await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = server::support::stop_signal().unwrap();
        println!(); // ends the harness's line
        setup.introduce(listener.local_addr().unwrap());
        server::serve(listener, ledger, &setup, stop).await.unwrap();
    });
}

struct Server {
    process: Child,
    address: String,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn replayed(&self) -> bool {
        self.head.contains("idempotent-replayed: true")
    }

    fn outcome_unknown(&self) -> bool {
        self.status == 409 && self.json()["code"] == "job_outcome_unknown"
    }
}

impl Server {
    /// Starts a server on the ledger of this directory, with a daily limit of 100 units.
    fn start(directory: &Directory, admin_token: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "billing::serve", "--nocapture"]).env_remove("DATABASE_URL").env_remove("ADMIN_TOKEN");
        command
            .env(SERVES, "1")
            .env("DB", directory.0.join("quota.db"))
            .env("LIMIT", "100")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(token) = admin_token {
            command.env("ADMIN_TOKEN", token);
        }
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("listening on http://").map(String::from)).unwrap();
        thread::spawn(move || lines.for_each(drop)); // a full pipe would block the server
        Self { process, address }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Returns the answer; `None` if the connection ends before it.
    fn try_ask(address: &str, request: &str, headers: &[(&str, &str)]) -> Option<Answer> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let chunked = head.contains("transfer-encoding: chunked");
        let body = if chunked { dechunked(body)? } else { body.to_owned() };
        Some(Answer { status, head: head.to_owned(), body })
    }

    fn ask(&self, request: &str, headers: &[(&str, &str)]) -> Answer {
        Self::try_ask(&self.address, request, headers).expect("an answer")
    }

    fn job(&self, tenant: &str, id: &str, query: &str) -> Answer {
        self.ask(&format!("POST /jobs?{query}"), &[("x-tenant", tenant), ("x-job-id", id)])
    }

    fn admin(&self, request: &str, token: &str) -> Answer {
        self.ask(&format!("POST {request}"), &[("authorization", &format!("Bearer {token}"))])
    }

    fn used(&self, tenant: &str) -> u64 {
        self.ask(&format!("GET /usage/{tenant}"), &[]).json()["used"].as_u64().unwrap()
    }

    /// Returns job, entry and amount of each row.
    fn rows(&self, tenant: &str) -> Vec<(String, String, i64)> {
        let rows = self.ask(&format!("GET /ledger/{tenant}"), &[]).body;
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rows.map(|row| (text(&row["job"]), text(&row["entry"]), row["amount"].as_i64().unwrap())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Decodes a chunked body up to its last chunk.
fn dechunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

#[test]
fn job_is_charged_once_and_each_answer_reports_it() {
    stay_within_a_day();
    let directory = Directory::new();
    let server = Server::start(&directory, None);
    let first = server.job("acme", "order 17", "amount=20");
    assert_eq!((first.status, first.replayed()), (200, false));
    assert_eq!(first.json(), serde_json::json!({ "tenant": "acme", "job": "order 17", "charged": 20 }));
    let again = server.job("acme", "order 17", "amount=20");
    assert_eq!((again.status, again.replayed(), again.body), (200, true, first.body));
    assert_eq!(server.job("acme", "order 17", "amount=21").status, 422);
    assert_eq!(server.job("other", "order 17", "amount=21").status, 200, "ids belong to their tenant");

    let refused = server.job("acme", "order 18", "amount=81");
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("content-type: application/problem+json") && refused.head.contains("retry-after: "));
    assert_eq!((refused.json()["current"].as_u64(), refused.json()["limit"].as_u64()), (Some(20), Some(100)));
    let never = server.job("acme", "order 18", "amount=101");
    assert!(never.status == 413 && !never.head.contains("retry-after"));
    assert_eq!(server.job("acme", "order 18", "amount=80").status, 200, "a refusal takes no id");

    assert_eq!(server.used("acme"), 100);
    let charge = |job: &str, amount| (job.to_owned(), String::from("charge"), amount);
    assert_eq!(server.rows("acme"), [charge("order 17", 20), charge("order 18", 80)]);
    let invoice = server.ask("GET /invoice/acme", &[]).json();
    assert_eq!((invoice["lines"][0]["quantity"].as_u64(), invoice["total"].as_u64()), (Some(100), Some(200)));
}

#[test]
fn duplicate_of_a_running_job_is_a_conflict() {
    stay_within_a_day();
    let directory = Directory::new();
    let server = Server::start(&directory, None);
    let first = {
        let address = server.address.clone();
        let headers = [("x-tenant", "acme"), ("x-job-id", "slow")];
        thread::spawn(move || Server::try_ask(&address, "POST /jobs?amount=5&hold_ms=1500", &headers).unwrap())
    };
    while server.used("acme") == 0 {
        thread::yield_now();
    }
    let running = server.job("acme", "slow", "amount=5&hold_ms=1500");
    assert!(running.status == 409 && running.head.contains("retry-after: 1"));
    assert_eq!(server.job("acme", "slow", "amount=6").status, 422);
    assert_eq!(first.join().unwrap().status, 200);
    assert!(server.job("acme", "slow", "amount=5").replayed());
    assert_eq!(server.used("acme"), 5);
}

#[test]
fn invalid_requests_get_a_reason_and_charge_nothing() {
    let directory = Directory::new();
    let server = Server::start(&directory, None);
    let amounts = [
        "",
        "amount=",
        "amount=0",
        "amount=-1",
        "amount=%2B1",
        "amount=1.5",
        "amount=1e2",
        "amount=NaN",
        "amount=%201",
        "amount=9007199254740992",
        "amount=18446744073709551617",
        "amount=1&amount=1",
        "amonut=1",
        "amount=1&hold_ms=-1",
    ];
    for query in amounts {
        let answer = server.job("acme", "job", query);
        let problem = answer.json();
        assert_eq!((answer.status, problem["status"].as_u64()), (400, Some(400)), "{query}");
        assert!(problem["detail"].as_str().unwrap().contains("must"), "{query}: {problem}");
    }
    assert_eq!(server.job("acme", "job", "amount=9007199254740991").status, 413);
    let long = "a".repeat(256);
    let requests: [&[(&str, &str)]; 9] = [
        &[],
        &[("x-job-id", "job")],
        &[("x-tenant", "acme")],
        &[("x-tenant", ""), ("x-job-id", "job")],
        &[("x-tenant", "acme"), ("x-job-id", "")],
        &[("x-tenant", "acme"), ("x-job-id", &long)],
        &[("x-tenant", &long), ("x-job-id", "job")],
        &[("x-tenant", "acme"), ("x-tenant", "other"), ("x-job-id", "job")],
        &[("x-tenant", "acme"), ("x-job-id", "a"), ("x-job-id", "b")],
    ];
    for headers in requests {
        assert_eq!(server.ask("POST /jobs?amount=1", headers).status, 400, "{headers:?}");
    }
    assert_eq!(server.rows("acme"), []);
}

#[test]
fn unwritable_ledger_refuses_and_later_charges_once() {
    let directory = Directory::new();
    let server = Server::start(&directory, None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut other = runtime.block_on(async {
        use sqlx::{ConnectOptions, Executor};
        let file = sqlx::sqlite::SqliteConnectOptions::new().filename(directory.0.join("quota.db"));
        let mut other = file.connect().await.unwrap();
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        other
    });
    let refused = server.job("acme", "order 17", "amount=20");
    assert!(refused.status == 503 && refused.head.contains("retry-after: "), "{}", refused.head);
    assert_eq!(server.used("acme"), 0, "it can still be read");
    runtime.block_on(async {
        use sqlx::Executor;
        other.execute("ROLLBACK").await.unwrap();
    });
    while server.job("acme", "order 17", "amount=20").status != 200 {}
    assert_eq!(server.rows("acme").len(), 1);
}

#[test]
fn administration_needs_the_token_and_leaves_a_row() {
    stay_within_a_day();
    let directory = Directory::new();
    let grant = "/grants/acme?amount=50&approver=Ada&reason=launch%20day";
    let server = Server::start(&directory, None);
    assert_eq!(server.admin(grant, "s3cret").status, 403, "it is off");
    drop(server);
    let server = Server::start(&directory, Some("s3cret"));
    for token in ["", "s3cre", "s3cret0", "S3cret"] {
        assert_eq!(server.admin(grant, token).status, 401);
        assert_eq!(server.admin("/reconcile", token).status, 401);
    }
    assert_eq!(server.ask(&format!("POST {grant}"), &[]).status, 401);
    assert_eq!(server.admin("/grants/acme?amount=50&approver=Ada", "s3cret").status, 400, "a reason is missing");
    assert_eq!(server.rows("acme"), []);
    assert_eq!(server.admin(grant, "s3cret").status, 200);
    assert_eq!(server.job("acme", "order 17", "amount=150").status, 200);
    assert_eq!(server.job("acme", "order 18", "amount=151").status, 413);
    let rows = server.ask("GET /ledger/acme", &[]).body;
    assert!(rows.contains(r#""granted":50,"#) && rows.contains(r#""approver":"Ada","reason":"launch day""#), "{rows}");
    assert_eq!(server.admin("/reconcile", "s3cret").json()["drifts"], serde_json::json!([]));
}

#[test]
fn acknowledged_jobs_survive_a_kill_once() {
    stay_within_a_day();
    let directory = Directory::new();
    let server = Server::start(&directory, Some("s3cret"));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let address = server.address.clone();
            thread::spawn(move || {
                let mut acknowledged = Vec::new();
                // Two callers each send the same jobs: each job has a duplicate.
                for job in (0..).map(|at| format!("{}-{at}", caller / 2)) {
                    let headers = [("x-tenant", "acme"), ("x-job-id", job.as_str())];
                    match Server::try_ask(&address, "POST /jobs?amount=1", &headers) {
                        Some(answer) if answer.status == 200 => acknowledged.push(job),
                        Some(answer) if answer.status == 429 => return acknowledged,
                        Some(_) => {}
                        None => return acknowledged,
                    }
                }
                acknowledged
            })
        })
        .collect();
    let held = {
        let address = server.address.clone();
        let headers = [("x-tenant", "held"), ("x-job-id", "slow")];
        thread::spawn(move || Server::try_ask(&address, "POST /jobs?amount=9&hold_ms=60000", &headers).is_some())
    };
    while server.used("held") == 0 || server.used("acme") < 20 {
        thread::yield_now();
    }
    server.kill();
    let mut acknowledged: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    acknowledged.sort();
    acknowledged.dedup();
    assert!(!held.join().unwrap(), "it was killed at work");

    let server = Server::start(&directory, Some("s3cret"));
    let rows = server.rows("acme");
    let mut jobs: Vec<_> = rows.iter().map(|(job, ..)| job).collect();
    jobs.sort();
    jobs.dedup();
    assert_eq!(jobs.len(), rows.len(), "none is there twice");
    assert!(acknowledged.iter().all(|job| jobs.binary_search(&job).is_ok()));
    assert_eq!(server.used("acme"), rows.len() as u64);
    assert!(
        server.job("held", "slow", "amount=9&hold_ms=60000").outcome_unknown(),
        "it was cut, and is not begun again"
    );
    assert_eq!(server.used("held"), 9);
    for job in acknowledged {
        // The end of a job is written after its answer, so that it may be lost with the process.
        let again = server.job("acme", &job, "amount=1");
        assert!(again.replayed() || again.outcome_unknown(), "{}: {}", again.head, again.body);
    }
    assert_eq!(server.used("acme"), rows.len() as u64, "nothing is charged again");
    assert_eq!(server.admin("/reconcile", "s3cret").json()["drifts"], serde_json::json!([]));
}
