//! A program that charges as fast as it can until it is killed, and prints each answer once it has it.
//!
//! It is this test binary again, which runs only [`at_work`].

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use tollgate::{Client, Ledger, OnFailure, QuotaLayer, Reason};

use super::place::{HUNG, Place, plan};

const PLACE: &str = "TOLLGATE_FAULTS_PLACE";
const ROUND: &str = "TOLLGATE_FAULTS_ROUND";

/// One tenant reaches its limit, the others do not.
pub const TENANTS: [&str; 5] = ["small", "ann", "bob", "cid", "dan"];
const SMALL: u64 = 700;

/// Lifetime of the program's reservations.
pub const TTL: Duration = Duration::from_secs(1);

pub fn limit(tenant: &str, limit: &str) -> u64 {
    match limit {
        "tokens" if tenant == "small" => SMALL,
        "tokens" => 10_000_000,
        _ => 1_000_000,
    }
}

/// The meaning of an id never changes: its tenant and its cost.
pub fn tenant_of(id: &str) -> &'static str {
    TENANTS[usize::from(sum(id)) % TENANTS.len()]
}

pub fn tokens_of(id: &str) -> u64 {
    1 + u64::from(sum(id)) % 9
}

fn sum(id: &str) -> u16 {
    id.bytes().fold(7, |sum: u16, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

/// A running program, killed on drop.
pub struct Program {
    child: Child,
    reader: Option<JoinHandle<Vec<String>>>,
    told: mpsc::Receiver<()>,
}

impl Program {
    pub fn start(place: &Place, round: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "program::at_work", "--ignored", "--nocapture", "--test-threads=1"])
            .env(PLACE, place.text())
            .env(ROUND, round.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (mut output, (tell, answers)) = (BufReader::new(child.stdout.take().unwrap()), mpsc::channel());
        let reader = std::thread::spawn(move || {
            let (mut told, mut line) = (Vec::new(), String::new());
            // The last line may be cut off; then its answer was not acknowledged.
            while output.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
                if let Some((_, answer)) = line.trim_end().split_once("told: ") {
                    told.push(answer.to_owned());
                    let _ = tell.send(());
                }
                line.clear();
            }
            told
        });
        Self { child, reader: Some(reader), told: answers }
    }

    /// Waits until the program has printed a number of answers.
    pub fn was_told(&self, answers: usize) {
        for _ in 0..answers {
            self.told.recv_timeout(HUNG).expect("an answer of the program");
        }
    }

    /// Kills the program; returns the answers that it printed before.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the program that other tests kill: it does nothing by itself"]
fn at_work() {
    let (Ok(place), Ok(round)) = (std::env::var(PLACE), std::env::var(ROUND)) else { return };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(3); // the parent process has ended
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work(Place::parse(&place), round.parse().unwrap()));
}

async fn work(place: Place, round: usize) {
    let ledger = place.open().await;
    let known: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..12 {
        tasks.spawn(charge(ledger.clone(), Arc::clone(&known), format!("r{round}-{task}")));
    }
    tasks.spawn(reserve(ledger));
    while tasks.join_next().await.is_some() {}
}

/// Sends new ids, and in three of ten cases an earlier one: from this task, from another, or from before the last
/// crash.
async fn charge(ledger: Ledger, known: Arc<Mutex<Vec<String>>>, name: String) {
    let layers = TENANTS.map(|tenant| {
        let layer = QuotaLayer::new(plan(limit(tenant, "tokens"))).store_in(&ledger, OnFailure::FailClosed);
        (tenant, layer.handle())
    });
    for number in 0.. {
        let again = {
            let known = known.lock().unwrap();
            fastrand::choice(known.iter().rev().take(50)).cloned()
        };
        let id = again.filter(|_| fastrand::u8(..10) < 3).unwrap_or_else(|| format!("{name}-{number}"));
        known.lock().unwrap().push(id.clone());
        let (tenant, quotas) = &layers[TENANTS.iter().position(|tenant| *tenant == tenant_of(&id)).unwrap()];
        let amounts = [("tokens", tokens_of(&id)), ("requests", 1)];
        let answer = quotas.run_job(&Client::named(*tenant), &id, amounts, async {}).await;
        let told = match answer {
            Ok(_) => format!("done {id}"),
            Err(refusal) => match refusal.reason() {
                Reason::RateLimited => format!("refused {id}"),
                Reason::JobRunning => continue,
                Reason::JobOutcomeUnknown => format!("charged {id}"),
                other => format!("trouble {other:?}"),
            },
        };
        say(&told);
    }
}

/// Makes reservations: some are committed, some rolled back, and some left to expire.
async fn reserve(ledger: Ledger) {
    let layer = QuotaLayer::new(plan(limit("ann", "tokens"))).reservations_last(TTL);
    let (quotas, ann) = (layer.store_in(&ledger, OnFailure::FailClosed).handle(), Client::named("ann"));
    let mut kept = std::collections::VecDeque::new();
    while let Ok(reserved) = quotas.reserve(&ann, ("tokens", 5)).await {
        kept.push_back(reserved);
        if kept.len() > 10 {
            match fastrand::u8(..3) {
                0 => drop(kept.pop_front()),
                1 => kept.pop_front().unwrap().commit(("tokens", 3)),
                _ => drop(kept.pop_front().unwrap().detach()),
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    say("trouble with a reservation");
}

fn say(told: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("told: {told}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}
