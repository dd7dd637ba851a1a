//! Callers that were answered rejoin before the next batch, and a lone one waits for no other.

use super::*;
use crate::quota::Plan;

/// A database that records the number of accounts in each batch. Its first transaction begins when the gate opens.
#[derive(Clone, Default)]
struct Recorder {
    batches: Arc<Mutex<Vec<usize>>>,
    gate: Arc<Notify>,
    turns: Arc<AtomicUsize>,
    /// Turn of the runtime in which the latest transaction began.
    begun: Arc<AtomicUsize>,
}

impl Database for Recorder {
    type Session = Self;

    const STORE: &'static str = "test";

    async fn connect(&self) -> Result<Self, DbError> {
        Ok(self.clone())
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

impl Session for Recorder {
    async fn begin(&mut self, reads: &Reads) -> Result<Loaded, DbError> {
        self.begun.store(self.turns.load(Ordering::Relaxed), Ordering::Relaxed);
        let number = {
            let mut batches = self.batches.lock().unwrap();
            batches.push(reads.tenants.len());
            batches.len()
        };
        if number == 1 {
            self.gate.notified().await;
        }
        Ok(Loaded { now: 1, ..Loaded::default() })
    }

    async fn write(&mut self, _: &Writes, _: u64) -> Result<(), DbError> {
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), DbError> {
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), DbError> {
        Ok(())
    }
}

fn recorder() -> (Recorder, Arc<WriterTask<Recorder>>) {
    let recorder = Recorder::default();
    let timeouts = Timeouts { reply: Duration::from_secs(60), step: Duration::from_secs(60) };
    (recorder.clone(), WriterTask::new(recorder, timeouts, Observers::default()))
}

/// A command that writes something.
fn reset_of(tenant: &str) -> Command {
    let kind = CommandKind::Reset { plan: Arc::new(Plan::new("free")), limit: None };
    Command { key: Key { tenant: tenant.into(), job: "one".into() }, id: new_id(), own: false, origin: 0, kind }
}

/// The callers of one group submit while the batch of the other is under way. Without rejoining the two take turns for
/// ever.
async fn two_groups() {
    let (recorder, task) = recorder();
    let group = |number: usize| {
        let caller = |caller: usize| {
            let (task, tenant) = (Arc::clone(&task), format!("{number} {caller}"));
            tokio::spawn(async move {
                for _ in 0..4 {
                    assert!(matches!(task.submit(reset_of(&tenant)).await, Reply::Done));
                }
            })
        };
        (0..8).map(caller).collect::<Vec<_>>()
    };
    let first = group(1);
    while recorder.batches.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = group(2);
    while task.lock().backlog() < 16 {
        tokio::task::yield_now().await;
    }
    recorder.gate.notify_one();
    for caller in first.into_iter().chain(second) {
        caller.await.unwrap();
    }
    // A worker thread runs the writer right after the task that woke it, so that the first batch has one caller there.
    let batches = recorder.batches.lock().unwrap();
    assert_eq!(batches[1..4], [16; 3], "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn answered_callers_join_the_next_batch() {
    two_groups().await;
}

#[test]
fn answered_callers_of_a_worker_thread_join_the_next_batch() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { tokio::spawn(two_groups()).await.unwrap() });
}

/// A task that does nothing else counts the turns of the runtime.
#[tokio::test(start_paused = true)]
async fn lone_caller_waits_one_turn_at_most() {
    let (recorder, task) = recorder();
    recorder.gate.notify_one();
    let counting = Arc::clone(&recorder.turns);
    let counter = tokio::spawn(async move {
        loop {
            counting.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        assert!(matches!(task.submit(reset_of("acme")).await, Reply::Done));
        let submitted = recorder.turns.load(Ordering::Relaxed);
        assert!(matches!(task.submit(reset_of("acme")).await, Reply::Done));
        let begun = recorder.begun.load(Ordering::Relaxed);
        assert!(begun <= submitted + 1, "submitted in turn {submitted}, begun in turn {begun}");
    }
    counter.abort();
}

/// The answered caller computes without a pause; another worker thread is free.
#[test]
fn caller_that_computes_delays_no_batch_of_others() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let (recorder, task) = recorder();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let submit = |name| {
            let task = Arc::clone(&task);
            async move { assert!(matches!(task.submit(reset_of(name)).await, Reply::Done)) }
        };
        let first = submit("computes");
        let computes = tokio::spawn(async move {
            first.await;
            is_done.recv_timeout(Duration::from_secs(60)).is_ok()
        });
        while recorder.batches.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let second = submit("other");
        let other = tokio::spawn(async move {
            second.await;
            let _ = done.send(());
        });
        while task.lock().backlog() < 2 {
            tokio::task::yield_now().await;
        }
        recorder.gate.notify_one();
        other.await.unwrap();
        assert!(computes.await.unwrap(), "the batch of the other caller waited for the one that computes");
    });
}
