//! Drives the writer over a database: one task, one connection, and callers that wait no longer than they said.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::writer::{
    AdmitReply, CancelResult, Command, CommandKind, Key, Loaded, Reply, SettleCommand, SettleKind, Step, StepResult,
    SubmitError, Writer, WriterNotice, after,
};
use super::{Database, DbError, Session};
use crate::quota::{Amounts, Plan};

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// A caller, for its answer.
    pub(crate) reply: Duration,
    /// The writer, for one step of a transaction: longer, and the connection is given up.
    pub(crate) step: Duration,
}

/// So many callers wait at once, and so many orders are decided in one transaction, at most.
const MOST_WAITING: usize = 16_384;
const MOST_IN_BATCH: usize = 512;

type Listener = Box<dyn Fn(&WriterNotice) + Send>;
type Callers = Writer<oneshot::Sender<Reply>>;

/// A database and the one who writes into it; callers share it.
pub(crate) struct WriterTask<D: Database> {
    pub(crate) database: D,
    step: Duration,
    /// How long a caller waits, in milliseconds.
    reply: AtomicU64,
    writer: Mutex<Callers>,
    wake: Notify,
    ended: Notify,
    working: AtomicBool,
    /// Who hears of clients that have come near their limits when nobody waits for the answer.
    listeners: Mutex<Vec<Listener>>,
}

impl<D: Database> WriterTask<D> {
    pub(crate) fn new(database: D, timeouts: Timeouts) -> Arc<Self> {
        Arc::new(Self {
            database,
            step: timeouts.step,
            reply: AtomicU64::new(millis(timeouts.reply)),
            writer: Mutex::new(Writer::new(MOST_WAITING, MOST_IN_BATCH)),
            wake: Notify::new(),
            ended: Notify::new(),
            working: AtomicBool::new(false),
            listeners: Mutex::new(Vec::new()),
        })
    }

    /// How long a caller waits for its answer.
    pub(crate) fn reply_timeout(&self) -> Duration {
        Duration::from_millis(self.reply.load(Ordering::Relaxed))
    }

    pub(crate) fn set_reply_timeout(&self, reply: Duration) {
        self.reply.store(millis(reply), Ordering::Relaxed);
    }

    /// Waits for what becomes of an order, no longer than a caller does.
    ///
    /// Dropped before it is answered, an admission comes to nothing, or is given back.
    pub(crate) async fn submit(self: &Arc<Self>, command: Command) -> Reply {
        self.ask_for(command, false).await
    }

    /// The same, but what is [`Indeterminate`](Reply::Indeterminate) is not given back where it is written: whoever asks
    /// goes on with the same id.
    pub(crate) async fn submit_and_keep(self: &Arc<Self>, command: Command) -> Reply {
        self.ask_for(command, true).await
    }

    async fn ask_for(self: &Arc<Self>, command: Command, keep: bool) -> Reply {
        let deadline = tokio::time::Instant::now() + self.reply_timeout();
        let (to, answer) = oneshot::channel();
        let asked = Asked::of(&command);
        let ticket = match self.lock().submit(command, to) {
            Ok(ticket) => ticket,
            Err((full, _)) => return Reply::Unavailable(why(full)),
        };
        self.work();
        let mut asking = Asking { writer: Arc::clone(self), ticket, answer: Some(answer), asked };
        let Some(answer) = &mut asking.answer else { return Reply::Unavailable(why(SubmitError::Shut)) };
        let reply = match tokio::time::timeout_at(deadline, answer).await {
            Ok(answered) => {
                asking.answer = None;
                answered.unwrap_or_else(|_| Reply::Unavailable(why(SubmitError::Shut)))
            }
            Err(_) => asking.leave(),
        };
        if keep && matches!(reply, Reply::Indeterminate) {
            self.lock().keep(ticket);
        }
        reply
    }

    /// Brings orders in their order; gives the verdicts of the first so many that were taken.
    pub(crate) async fn submit_all(self: &Arc<Self>, commands: Vec<Command>) -> Vec<Reply> {
        let deadline = tokio::time::Instant::now() + self.reply_timeout() + self.step;
        let mut answers = Vec::with_capacity(commands.len());
        {
            let mut writer = self.lock();
            for command in commands {
                let (to, answer) = oneshot::channel();
                let Ok(ticket) = writer.submit(command, to) else { break };
                answers.push(Asking { writer: Arc::clone(self), ticket, answer: Some(answer), asked: None });
            }
        }
        self.work();
        let mut replies = Vec::with_capacity(answers.len());
        for mut asking in answers {
            let Some(answer) = &mut asking.answer else { break };
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(reply)) if after(&reply).is_none() && !matches!(reply, Reply::Rejected(_)) => {
                    asking.answer = None;
                    replies.push(reply);
                }
                _ => break, // those that follow may depend on it
            }
        }
        replies
    }

    /// Whether the work of a named job is under way in this process.
    pub(crate) fn is_running(&self, key: &Key) -> bool {
        self.lock().is_running(key)
    }

    /// Whether it takes no more orders.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Leaves an order that nobody waits for.
    pub(crate) fn enqueue(self: &Arc<Self>, command: Command) {
        self.lock().enqueue(command);
        self.work();
    }

    /// The work of a named job is over.
    pub(crate) fn finish(&self, key: &Key, command: u128) {
        self.lock().finish(key, command);
    }

    /// How many orders are not settled yet.
    pub(crate) fn backlog(&self) -> usize {
        self.lock().backlog()
    }

    /// Takes no more orders; what is there is still settled.
    pub(crate) fn close(self: &Arc<Self>) {
        self.lock().close();
        self.work();
    }

    /// Takes no more orders, waits until all are settled, and closes the database; answers whoever still waits after `most`.
    pub(crate) async fn shut_down(self: &Arc<Self>, most: Duration) {
        self.close();
        let settled = async {
            loop {
                let ended = self.ended.notified();
                if self.lock().backlog() == 0 && !self.working.load(Ordering::Acquire) {
                    break;
                }
                ended.await;
            }
            self.database.close().await;
        };
        if timeout(most, settled).await.is_err() {
            let mut writer = self.lock();
            writer.give_up(&why(SubmitError::Shut));
            give(&mut writer);
        }
    }

    /// Tells `listener` of clients that came near their limits while nobody waited.
    pub(crate) fn listen(&self, listener: impl Fn(&WriterNotice) + Send + 'static) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Box::new(listener));
    }

    /// Sees to it that somebody works: a task of its own, which a runtime that ends takes with it.
    fn work(self: &Arc<Self>) {
        self.wake.notify_one();
        if self.working.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.working.swap(true, Ordering::AcqRel) {
            let working = Working(Arc::clone(self));
            runtime.spawn(async move { working.0.run().await });
        }
    }

    async fn run(&self) {
        let (mut session, mut event) = (None::<D::Session>, None);
        loop {
            let (step, notices) = {
                let mut writer = self.lock();
                let step = writer.step(event.take());
                give(&mut writer);
                (step, writer.notices())
            };
            self.tell_listeners(&notices);
            event = match step {
                Step::Wait => {
                    self.ended.notify_waiters();
                    self.wake.notified().await;
                    None
                }
                Step::End => {
                    if let Some(session) = session.take() {
                        let _ = timeout(self.step, session.close()).await;
                    }
                    return;
                }
                Step::Rest(rest) => {
                    drop(session.take());
                    tokio::time::sleep(rest.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
                    Some(StepResult::Rested)
                }
                Step::Connect => {
                    drop(session.take());
                    let connected = self.in_time(self.database.connect()).await;
                    Some(match connected {
                        Ok(connected) => {
                            session = Some(connected);
                            StepResult::Connected
                        }
                        Err(failure) => StepResult::Failed(failure),
                    })
                }
                step => Some(self.perform(&mut session, step).await),
            };
        }
    }

    /// A step of a transaction. Whatever it may have left the connection in, a connection that is lost is dropped.
    async fn perform(&self, session: &mut Option<D::Session>, step: Step) -> StepResult {
        let Some(mut taken) = session.take() else { return StepResult::Failed(DbError::Lost("no connection".into())) };
        let done: Result<StepResult, DbError> = match &step {
            Step::Begin(reads) => {
                self.in_time(taken.begin(reads)).await.map(|loaded: Loaded| StepResult::Loaded(loaded))
            }
            Step::Write(writes, now) => self.in_time(taken.write(writes, *now)).await.map(|()| StepResult::Wrote),
            Step::Commit => self.in_time(taken.commit()).await.map(|()| StepResult::Committed),
            _ => self.in_time(taken.roll_back()).await.map(|()| StepResult::RolledBack),
        };
        match done {
            Ok(event) => {
                *session = Some(taken);
                event
            }
            Err(error @ DbError::Lost(_)) => StepResult::Failed(error),
            Err(failure) => {
                *session = Some(taken);
                StepResult::Failed(failure)
            }
        }
    }

    async fn in_time<T>(&self, step: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
        timeout(self.step, step).await.unwrap_or_else(|_| Err(DbError::Lost(format!("no answer in {:?}", self.step))))
    }

    fn tell_listeners(&self, notices: &[WriterNotice]) {
        if notices.is_empty() {
            return;
        }
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for notice in notices {
            listeners.iter().for_each(|listener| listener(notice));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Callers> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever works; when it ends, another may.
struct Working<D: Database>(Arc<WriterTask<D>>);

impl<D: Database> Drop for Working<D> {
    fn drop(&mut self) {
        self.0.working.store(false, Ordering::Release);
        self.0.ended.notify_waiters();
    }
}

/// A caller that waits.
struct Asking<D: Database> {
    writer: Arc<WriterTask<D>>,
    ticket: u64,
    /// `None` once it has been received.
    answer: Option<oneshot::Receiver<Reply>>,
    asked: Option<Asked>,
}

/// What has to be known of an admission to give it back.
struct Asked {
    key: Key,
    plan: Arc<Plan>,
    origin: u32,
}

impl Asked {
    fn of(command: &Command) -> Option<Self> {
        let CommandKind::Admit(admit) = &command.kind else { return None };
        Some(Self { key: command.key.clone(), plan: Arc::clone(&admit.plan), origin: command.origin })
    }
}

impl<D: Database> Asking<D> {
    /// The deadline has passed.
    fn leave(mut self) -> Reply {
        let answer = self.answer.take();
        match self.writer.lock().time_out(self.ticket) {
            CancelResult::Unsent => Reply::Unavailable("no answer in time".into()),
            CancelResult::Underway => Reply::Indeterminate,
            CancelResult::Answered => answer
                .and_then(|mut answer| answer.try_recv().ok())
                .unwrap_or_else(|| Reply::Unavailable(why(SubmitError::Shut))),
        }
    }
}

impl<D: Database> Drop for Asking<D> {
    fn drop(&mut self) {
        let Some(mut answer) = self.answer.take() else { return };
        let left = self.writer.lock().cancel(self.ticket);
        if left == CancelResult::Answered
            && let (Ok(Reply::Admitted(admitted)), Some(asked)) = (answer.try_recv(), self.asked.take())
        {
            self.writer.take_back(asked, &admitted);
        }
    }
}

impl<D: Database> WriterTask<D> {
    /// What was admitted for somebody who has gone: nothing was worked on.
    fn take_back(self: &Arc<Self>, asked: Asked, admitted: &AdmitReply) {
        let settle = SettleCommand {
            plan: asked.plan,
            attempt: admitted.attempt,
            since: admitted.since,
            end: SettleKind::Void,
            used: Amounts::new(),
            part: 0,
        };
        self.enqueue(Command {
            key: asked.key,
            id: new_id(),
            own: false,
            origin: asked.origin,
            kind: CommandKind::Settle(settle),
        });
    }
}

/// An id that no other order has, and that nobody can guess, for it is part of the ids of reservations: even, because a writer
/// makes odd ones of its own.
pub(crate) fn new_id() -> u128 {
    uuid::Uuid::new_v4().as_u128() & !1
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().max(1)).unwrap_or(u64::MAX >> 1)
}

/// Gives everybody their answers while the writer is held: whoever leaves afterwards finds theirs there, and whoever left
/// before is known to have gone.
fn give(writer: &mut Callers) {
    for answered in writer.answers() {
        let _ = answered.to.send(answered.reply); // nobody is there any more: they have taken it back
    }
}

fn why(full: SubmitError) -> Arc<str> {
    match full {
        SubmitError::Queue => "too many are waiting for the ledger",
        SubmitError::Down => "the ledger cannot be reached",
        SubmitError::Shut => "the ledger is shut",
    }
    .into()
}
