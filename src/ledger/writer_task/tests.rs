//! Connections that are gone without a word.

mod rejoin;

use std::{future::pending, sync::atomic::AtomicUsize};

use super::*;
use crate::ledger::{
    Session,
    writer::{CommandKind, Key, Loaded, Reads, ReservationRow, Stored, Writes},
};

/// A server behind an address translator. Connections made before the present generation are forgotten.
#[derive(Clone, Default)]
struct Server {
    generation: Arc<AtomicUsize>,
    connects: Arc<AtomicUsize>,
    /// Another session holds the account `held`, and the server accepts one connection only.
    is_held: bool,
    /// Time that a transaction takes to begin.
    begins_in: Duration,
}

struct Line {
    server: Server,
    made: usize,
}

impl Line {
    async fn pass<T>(&self, value: T) -> Result<T, DbError> {
        if self.server.generation.load(Ordering::Relaxed) != self.made {
            pending::<()>().await;
        }
        Ok(value)
    }
}

impl Database for Server {
    type Session = Line;

    const STORE: &'static str = "test";
    const IS_SERVER: bool = true;

    async fn connect(&self) -> Result<Line, DbError> {
        if self.connects.fetch_add(1, Ordering::Relaxed) > 0 && self.is_held {
            return Err(DbError::Lost("too many connections".into()));
        }
        Ok(Line { server: self.clone(), made: self.generation.load(Ordering::Relaxed) })
    }

    async fn account(&self, _: &str) -> Result<(u64, Stored), DbError> {
        pending().await
    }

    async fn tenants(&self, _: Option<&str>, _: usize) -> Result<Vec<Arc<str>>, DbError> {
        pending().await
    }

    async fn job(&self, _: &str, _: &str) -> Result<Loaded, DbError> {
        pending().await
    }

    async fn due(&self, _: usize, _: usize) -> Result<Vec<ReservationRow>, DbError> {
        pending().await
    }
}

impl Session for Line {
    async fn begin(&mut self, reads: &Reads) -> Result<Loaded, DbError> {
        tokio::time::sleep(self.server.begins_in).await;
        let held = reads.tenants.iter().filter(|tenant| self.server.is_held && ***tenant == *"held").cloned().collect();
        self.pass(Loaded { held, ..Loaded::default() }).await
    }

    async fn write(&mut self, _: &Writes, _: u64) -> Result<(), DbError> {
        self.pass(()).await
    }

    async fn commit(&mut self) -> Result<(), DbError> {
        self.pass(()).await
    }

    async fn roll_back(&mut self) -> Result<(), DbError> {
        self.pass(()).await
    }

    async fn ping(&mut self) -> Result<(), DbError> {
        self.pass(()).await
    }
}

/// A command that writes nothing.
fn renewal() -> Command {
    renewal_of("acme")
}

fn renewal_of(tenant: &str) -> Command {
    let kind = CommandKind::Renew { attempt: 0, since: u64::MAX, ttl: 0 };
    Command { key: Key { tenant: tenant.into(), job: "one".into() }, id: new_id(), own: false, origin: 0, kind }
}

#[tokio::test(start_paused = true)]
async fn connection_forgotten_while_idle_is_replaced_in_time() {
    let server = Server::default();
    let timeouts = Timeouts { reply: Duration::from_secs(2), step: Duration::from_secs(5) };
    let task = WriterTask::new(server.clone(), timeouts, Observers::default());
    for round in 1..4 {
        let reply = task.submit(renewal()).await;
        assert!(matches!(reply, Reply::Done), "round {round}: {reply:?}");
        assert_eq!(server.connects.load(Ordering::Relaxed), round);
        tokio::time::sleep(IDLE).await;
        server.generation.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn transaction_that_does_not_begin_is_given_up_by_the_deadline() {
    let server = Server::default();
    let timeouts = Timeouts { reply: Duration::from_secs(2), step: Duration::from_secs(5) };
    let task = WriterTask::new(server.clone(), timeouts, Observers::default());
    assert!(matches!(task.submit(renewal()).await, Reply::Done));
    server.generation.fetch_add(1, Ordering::Relaxed); // without a rest, so that nothing is pinged
    let begun = Instant::now();
    assert!(matches!(task.submit(renewal()).await, Reply::Unavailable(_)));
    assert!(matches!(task.submit(renewal()).await, Reply::Done));
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn refused_command_of_a_held_account_stops_no_later_one() {
    let timeouts = Timeouts { reply: Duration::from_secs(60), step: Duration::from_secs(5) };
    let task = WriterTask::new(Server { is_held: true, ..Server::default() }, timeouts, Observers::default());
    assert!(matches!(task.submit(renewal_of("held")).await, Reply::Held));
    let replies = task.submit_all(vec![renewal_of("held"), renewal_of("free")]).await;
    assert!(matches!(replies[..], [Reply::Held, Reply::Done]), "{replies:?}");
}

#[tokio::test(start_paused = true)]
async fn steps_are_reported_with_the_time_that_they_took() {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let observers = Observers::default().and(move |event: &Event<'_>| {
        if let Event::StoreStep { store: "test", operation, took, failed } = *event {
            seen.lock().unwrap().push((operation, took, failed));
        }
    });
    let (reply, begins_in) = (Duration::from_secs(2), Duration::from_millis(7));
    let timeouts = Timeouts { reply, step: Duration::from_secs(5) };
    let server = Server { begins_in, ..Server::default() };
    let task = WriterTask::new(server.clone(), timeouts, observers);
    let first = |number: usize| {
        let steps = Arc::clone(&steps);
        async move {
            while steps.lock().unwrap().len() < number {
                tokio::task::yield_now().await;
            }
            std::mem::take(&mut *steps.lock().unwrap())
        }
    };
    assert!(matches!(task.submit(renewal()).await, Reply::Done));
    let none = Duration::ZERO;
    assert_eq!(first(3).await, [("connect", none, false), ("begin", begins_in, false), ("roll_back", none, false)]);
    server.generation.fetch_add(1, Ordering::Relaxed);
    assert!(matches!(task.submit(renewal()).await, Reply::Unavailable(_)));
    assert_eq!(first(1).await, [("begin", reply, true)], "a step that never ends is reported with its deadline");
}
