//! Driver of the writer: a task with a connection for each lane, and callers that wait at most their time-out.

/// Yields once, behind the tasks that are ready.
///
/// Not by `yield_now` of tokio: on several threads that keeps the task for the present thread, where a caller that was just
/// answered may compute for long, while other threads are free.
async fn pass_turn() {
    let mut has_passed = false;
    poll_fn(|cx| {
        if mem::replace(&mut has_passed, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
mod waiter;

use std::{
    future::{Future, poll_fn},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use waiter::Waiter;

use super::writer::{Command, Lane, Reply, Step, StepResult, SubmitError, Writer, WriterNotice};
use super::{Database, DbError, Session};
use crate::gate::{Event, Observers};

/// Time-outs of a ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Longest wait of a caller for its reply.
    pub(crate) reply: Duration,
    /// Longest duration of one step of a transaction, after which the connection is given up.
    pub(crate) step: Duration,
}

/// Largest number of callers that wait at once.
const MAX_WAITING: usize = 16_384;
/// Largest number of commands that one transaction decides.
const MAX_BATCH: usize = 512;

/// Time without use after which the connection to a server is pinged before a transaction: a firewall or an address
/// translator on the way may have forgotten it.
const IDLE: Duration = Duration::from_secs(60);
/// Shortest time for a server to begin a transaction, longer than it waits for locks: under a lock of a whole table it waits
/// twice, for half a second each.
const SHORTEST_STEP: Duration = Duration::from_millis(1_500);

/// Number of times that the writer yields to callers that it has answered, before it begins a batch without them. The
/// turns give a thread that has taken a part of the run queue the time to run it.
const REJOIN_TURNS: usize = 4;

type NoticeListener = Box<dyn Fn(&WriterNotice) + Send>;
pub(super) type ReplyWriter = Writer<oneshot::Sender<Reply>>;

/// A database and the tasks that write to it; callers share it.
pub(crate) struct WriterTask<D: Database> {
    pub(crate) database: D,
    step_timeout: Duration,
    /// Reply time-out, in milliseconds.
    reply_timeout: AtomicU64,
    writer: Mutex<ReplyWriter>,
    lanes: [LaneTask; 2],
    /// Notified when a lane has nothing to do, and when its task ends.
    ended: Notify,
    /// Listeners to notices for which no caller waits.
    listeners: Mutex<Vec<NoticeListener>>,
    /// Observers of the ledger itself.
    pub(super) observers: Observers,
}

/// The task of a lane.
#[derive(Default)]
struct LaneTask {
    wake: Notify,
    working: AtomicBool,
}

impl<D: Database> WriterTask<D> {
    pub(crate) fn new(database: D, timeouts: Timeouts, observers: Observers) -> Arc<Self> {
        Arc::new(Self {
            database,
            step_timeout: timeouts.step,
            reply_timeout: AtomicU64::new(millis(timeouts.reply)),
            writer: Mutex::new(Writer::new(MAX_WAITING, MAX_BATCH, D::IS_SERVER)),
            lanes: Default::default(),
            ended: Notify::new(),
            listeners: Mutex::new(Vec::new()),
            observers,
        })
    }

    /// Returns the longest wait of a caller for its reply.
    pub(crate) fn reply_timeout(&self) -> Duration {
        Duration::from_millis(self.reply_timeout.load(Ordering::Relaxed))
    }

    pub(crate) fn set_reply_timeout(&self, reply: Duration) {
        self.reply_timeout.store(millis(reply), Ordering::Relaxed);
    }

    /// Submits a command and returns its reply within the time-out.
    ///
    /// # Cancel safety
    /// An admission that is dropped before its reply is not stored, or is voided.
    pub(crate) async fn submit(self: &Arc<Self>, command: Command) -> Reply {
        let deadline = Instant::now() + self.reply_timeout();
        let waiter = self.waiter(&mut self.lock(), command);
        self.work();
        Self::reply(waiter, deadline).await
    }

    /// Returns the reply to a command, or why it was not accepted.
    async fn reply(waiter: Result<Waiter<D>, SubmitError>, deadline: Instant) -> Reply {
        match waiter {
            Ok(mut waiter) => match waiter.reply(deadline).await {
                Some(reply) => reply,
                None => waiter.time_out(),
            },
            Err(SubmitError::Held) => Reply::Held,
            Err(error) => Reply::Unavailable(error.reason()),
        }
    }

    /// Submits commands in their order and returns a reply to each.
    pub(crate) async fn submit_all(self: &Arc<Self>, commands: Vec<Command>) -> Vec<Reply> {
        let deadline = Instant::now() + self.reply_timeout() + self.step_timeout;
        let waiters: Vec<_> = {
            let mut writer = self.lock();
            commands.into_iter().map(|command| self.waiter(&mut writer, command)).collect()
        };
        self.work();
        let mut replies = Vec::with_capacity(waiters.len());
        for waiter in waiters {
            replies.push(Self::reply(waiter, deadline).await);
        }
        replies
    }

    fn waiter(self: &Arc<Self>, writer: &mut ReplyWriter, command: Command) -> Result<Waiter<D>, SubmitError> {
        let (to, receiver) = oneshot::channel();
        let ticket = writer.submit(command.clone(), to)?;
        Ok(Waiter { task: Arc::clone(self), ticket, receiver: Some(receiver), command })
    }

    /// Enqueues a command without a caller.
    pub(crate) fn enqueue(self: &Arc<Self>, command: Command) {
        self.lock().enqueue(command);
        self.work();
    }

    /// Accepts no more commands; those in the queue are still settled.
    pub(crate) fn close(self: &Arc<Self>) {
        self.lock().close();
        self.work();
    }

    /// Accepts no more commands, waits until all are settled, and closes the database. After `limit` it replies to all
    /// callers that still wait.
    pub(crate) async fn shut_down(self: &Arc<Self>, limit: Duration) {
        self.close();
        let settled = async {
            loop {
                let ended = self.ended.notified();
                let working = |lane: &LaneTask| lane.working.load(Ordering::Acquire);
                if self.lock().backlog() == 0 && !self.lanes.iter().any(working) {
                    break;
                }
                ended.await;
            }
            self.database.close().await;
        };
        if timeout(limit, settled).await.is_err() {
            let mut writer = self.lock();
            writer.give_up(&SubmitError::Shut.reason());
            send_replies(&mut writer);
        }
    }

    /// Waits until no command is left.
    pub(crate) async fn flush(&self) {
        loop {
            let rested = self.ended.notified();
            if self.lock().backlog() == 0 {
                return;
            }
            rested.await;
        }
    }

    /// Calls `listener` with each notice.
    pub(crate) fn listen(&self, listener: impl Fn(&WriterNotice) + Send + 'static) {
        self.listeners().push(Box::new(listener));
    }

    /// Wakes the tasks of the lanes.
    fn work(self: &Arc<Self>) {
        self.work_on(Lane::Main);
        if D::IS_SERVER && self.lock().backlog_of(Lane::Second) > 0 {
            self.work_on(Lane::Second);
        }
    }

    /// Wakes the task of a lane, and spawns it if it does not run. A runtime that shuts down takes the task with it.
    fn work_on(self: &Arc<Self>, lane: Lane) {
        let LaneTask { wake, working } = &self.lanes[lane as usize];
        wake.notify_one();
        if working.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !working.swap(true, Ordering::AcqRel) {
            let running = RunGuard(Arc::clone(self), lane);
            runtime.spawn(async move { running.0.run(lane).await });
        }
    }

    async fn run(self: &Arc<Self>, lane: Lane) {
        let (mut session, mut result) = (None::<(D::Session, Instant)>, None);
        loop {
            let (step, notices, others) = {
                let mut writer = self.lock();
                let step = writer.step(lane, result.take());
                send_replies(&mut writer);
                (step, writer.notices(), writer.backlog_of(lane.other()) > 0)
            };
            if others {
                self.work_on(lane.other()); // accounts may have moved to it
            }
            for notice in &notices {
                self.listeners().iter().for_each(|listener| listener(notice));
            }
            result = match step {
                Step::Wait => {
                    self.ended.notify_waiters();
                    self.lanes[lane as usize].wake.notified().await;
                    None
                }
                Step::End => {
                    self.lanes[lane.other() as usize].wake.notify_one(); // it ends too
                    if let Some((session, _)) = session.take() {
                        let _ = timeout(self.step_timeout, session.close()).await;
                    }
                    return;
                }
                Step::Rest(rest) => {
                    drop(session.take());
                    tokio::time::sleep(rest.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
                    Some(StepResult::Rested)
                }
                Step::Rejoin => {
                    self.rejoin(lane).await;
                    Some(StepResult::Rejoined)
                }
                step => Some(self.observed(&mut session, step).await.unwrap_or_else(StepResult::Failed)),
            };
        }
    }

    /// Runs the tasks of callers that were answered, so that their next commands are in the next batch and not in the
    /// one after it.
    async fn rejoin(&self, lane: Lane) {
        for _ in 0..REJOIN_TURNS {
            pass_turn().await;
            if !self.lock().awaits_callers(lane) {
                return;
            }
        }
    }

    /// Performs a step, and emits its time. The clock is that of the step's deadline, and is not read without an observer.
    async fn observed(
        &self,
        connection: &mut Option<(D::Session, Instant)>,
        step: Step,
    ) -> Result<StepResult, DbError> {
        if self.observers.is_empty() {
            return self.perform(connection, step).await;
        }
        let operation = match step {
            Step::Connect => "connect",
            Step::Begin(_) => "begin",
            Step::Write(..) => "write",
            Step::Commit => "commit",
            _ => "roll_back",
        };
        let begun = Instant::now();
        let result = self.perform(connection, step).await;
        let (took, failed) = (begun.elapsed(), result.is_err());
        self.observers.emit(&Event::StoreStep { store: D::STORE, operation, took, failed });
        result
    }

    /// Connects, or performs a step of a transaction. Drops a connection that is lost, whatever state it is in. Each
    /// connection has the time at which it was last used.
    async fn perform(&self, connection: &mut Option<(D::Session, Instant)>, step: Step) -> Result<StepResult, DbError> {
        let session = connection.take();
        if step == Step::Connect {
            drop(session);
            let session = in_time(self.step_timeout, self.database.connect()).await?;
            *connection = Some((session, Instant::now()));
            return Ok(StepResult::Connected);
        }
        let (mut session, used_at) = session.ok_or_else(|| DbError::Lost("no connection".into()))?;
        let limit = self.step_timeout;
        // A caller waits for the locks and the rows, and nothing is lost with the connection.
        let short = if D::IS_SERVER { self.reply_timeout().clamp(SHORTEST_STEP.min(limit), limit) } else { limit };
        let result = match &step {
            Step::Begin(reads) => {
                if D::IS_SERVER && used_at.elapsed() >= IDLE && in_time(short / 4, session.ping()).await.is_err() {
                    session = in_time(short, self.database.connect()).await?;
                }
                in_time(short, session.begin(reads)).await.map(StepResult::Loaded)
            }
            Step::Write(writes, now) => in_time(limit, session.write(writes, *now)).await.map(|()| StepResult::Wrote),
            Step::Commit => in_time(limit, session.commit()).await.map(|()| StepResult::Committed),
            _ => in_time(limit, session.roll_back()).await.map(|()| StepResult::RolledBack),
        };
        let lost = matches!(result, Err(DbError::Lost(_)));
        *connection = (!lost).then(|| (session, Instant::now()));
        result
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<NoticeListener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the writer's state, for moments only.
    pub(super) fn lock(&self) -> MutexGuard<'_, ReplyWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn in_time<T>(limit: Duration, step: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    timeout(limit, step).await.unwrap_or_else(|_| Err(DbError::Lost(format!("no answer in {limit:?}"))))
}

/// Marks the task of a lane as running; after its end another one may be spawned.
struct RunGuard<D: Database>(Arc<WriterTask<D>>, Lane);

impl<D: Database> Drop for RunGuard<D> {
    fn drop(&mut self) {
        self.0.lanes[self.1 as usize].working.store(false, Ordering::Release);
        self.0.ended.notify_waiters();
    }
}

/// Generates a command id. It cannot be guessed, because it is part of reservation ids; it is even, because the writer
/// derives odd ids from it.
pub(crate) fn new_id() -> u128 {
    uuid::Uuid::new_v4().as_u128() & !1
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().max(1)).unwrap_or(u64::MAX >> 1)
}

/// Sends all replies while the writer is locked: a concurrent cancellation finds its reply, or was recorded before.
fn send_replies(writer: &mut ReplyWriter) {
    for (to, reply) in writer.replies() {
        let _ = to.send(reply); // a caller that has left has cancelled its command
    }
}
