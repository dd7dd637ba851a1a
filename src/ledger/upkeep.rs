//! Renews reservations of running handlers, and expires overdue ones.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use super::{
    Database, WriterTask,
    inner::within,
    new_id,
    writer::{AdmittedAt, Command, CommandKind, Key, Reply, ReservationRow},
};

/// Upkeep of the reservations of a ledger. Its task holds this only for moments, and never the ledger.
pub(crate) struct Upkeep<D: Database> {
    writer: Arc<WriterTask<D>>,
    running: AtomicBool,
    /// Reservations with work under way in this process, by the command that made them.
    active: Mutex<HashMap<u128, ActiveReservation>>,
    /// Number of the earliest overdue reservations to skip, because their expiry has just failed.
    stuck: AtomicUsize,
}

#[derive(Debug)]
struct ActiveReservation {
    key: Key,
    attempt: u32,
    since: AdmittedAt,
    ttl: Duration,
    due: Instant,
}

impl ActiveReservation {
    fn renewal(&self) -> Command {
        let kind =
            CommandKind::Renew { attempt: self.attempt, since: self.since.at, ttl: crate::time::nanos(self.ttl) };
        Command { key: self.key.clone(), id: new_id(), own: false, origin: 0, kind }
    }
}

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(1);

/// Number of reservations that are renewed or expired at once.
const AT_ONCE: usize = 256;

impl<D: Database> Upkeep<D> {
    pub(super) fn new(writer: &Arc<WriterTask<D>>) -> Arc<Self> {
        Arc::new(Self {
            writer: Arc::clone(writer),
            running: AtomicBool::new(false),
            active: Mutex::default(),
            stuck: AtomicUsize::new(0),
        })
    }

    /// Renews a reservation until it is [removed](Self::remove), because a handler works on it.
    pub(super) fn add(&self, command: u128, key: &Key, attempt: u32, since: AdmittedAt, ttl: Duration) {
        let active = ActiveReservation { key: key.clone(), attempt, since, ttl, due: Instant::now() + ttl / 3 };
        self.active().insert(command, active);
    }

    pub(super) fn remove(&self, command: u128) {
        self.active().remove(&command);
    }

    /// Starts the task, unless it runs or there is no runtime for it.
    pub(super) fn start(self: &Arc<Self>) {
        if self.running.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let task = UpkeepTask(Arc::downgrade(self));
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(upkeep) = task.0.upgrade() else { return };
                upkeep.renew().await;
                upkeep.expire().await;
            }
        });
    }

    /// Renews the reservations that are due and awaits the replies. A renewal that fails is retried in the next round,
    /// so that no queue grows.
    async fn renew(&self) {
        let now = Instant::now();
        let due = self
            .active()
            .iter()
            .filter(|(_, active)| active.due <= now)
            .map(|(of, it)| (*of, it.renewal()))
            .collect::<Vec<_>>();
        for some in due.chunks(AT_ONCE) {
            let mut replies = self.submit_all(some.to_vec()).await;
            replies.retain(|(_, reply)| reply.is_decided());
            if replies.is_empty() {
                return;
            }
            let mut active = self.active();
            for (of, _) in replies {
                if let Some(active) = active.get_mut(&of) {
                    active.due = now + active.ttl / 3;
                }
            }
        }
    }

    /// Submits commands at once, and returns the replies with the numbers of the commands.
    async fn submit_all(&self, commands: Vec<(u128, Command)>) -> Vec<(u128, Reply)> {
        let mut submitted = JoinSet::new();
        for (of, command) in commands {
            let writer = Arc::clone(&self.writer);
            submitted.spawn(async move { (of, writer.submit(command).await) });
        }
        let mut replies = Vec::new();
        while let Some(submitted) = submitted.join_next().await {
            replies.extend(submitted.ok());
        }
        replies
    }

    fn active(&self) -> MutexGuard<'_, HashMap<u128, ActiveReservation>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expires the reservations that are due and awaits the replies, so that no more are submitted than the writer can
    /// do.
    ///
    /// A reservation that could not be expired is skipped until all later ones have been tried.
    async fn expire(&self) {
        let stuck = self.stuck.load(Ordering::Relaxed);
        let Ok(due) = within(self.writer.reply_timeout(), self.writer.database.due(AT_ONCE, stuck)).await else {
            return;
        };
        let many = due.len();
        let expire = |hold: ReservationRow| {
            let kind = CommandKind::Expire { attempt: hold.attempt, since: hold.since, charge: hold.charge };
            (0, Command { key: hold.key, id: new_id(), own: false, origin: 0, kind })
        };
        let replies = self.submit_all(due.into_iter().map(expire).collect()).await;
        let failed = many - replies.iter().filter(|(_, reply)| matches!(reply, Reply::Done)).count();
        self.stuck.store(if many == AT_ONCE { stuck + failed } else { 0 }, Ordering::Relaxed);
    }
}

/// The task. If a runtime that ends drops it, another may start.
struct UpkeepTask<D: Database>(Weak<Upkeep<D>>);

impl<D: Database> Drop for UpkeepTask<D> {
    fn drop(&mut self) {
        if let Some(upkeep) = self.0.upgrade() {
            upkeep.running.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Observers;
    use crate::ledger::{
        DbError, Session, Timeouts,
        writer::{Loaded, Reads, ReservationRow, Stored, Writes},
    };

    /// A database that cannot be reached.
    struct Gone;

    /// A connection that cannot exist.
    enum Never {}

    fn gone<T>() -> Result<T, DbError> {
        Err(DbError::Lost("gone".into()))
    }

    impl Database for Gone {
        type Session = Never;

        const STORE: &'static str = "gone";

        async fn connect(&self) -> Result<Never, DbError> {
            gone()
        }

        async fn account(&self, _: &str) -> Result<(u64, Stored), DbError> {
            gone()
        }

        async fn tenants(&self, _: Option<&str>, _: usize) -> Result<Vec<Arc<str>>, DbError> {
            gone()
        }

        async fn job(&self, _: &str, _: &str) -> Result<Loaded, DbError> {
            gone()
        }

        async fn due(&self, _: usize, _: usize) -> Result<Vec<ReservationRow>, DbError> {
            gone()
        }
    }

    impl Session for Never {
        async fn begin(&mut self, _: &Reads) -> Result<Loaded, DbError> {
            match *self {}
        }

        async fn write(&mut self, _: &Writes, _: u64) -> Result<(), DbError> {
            match *self {}
        }

        async fn commit(&mut self) -> Result<(), DbError> {
            match *self {}
        }

        async fn roll_back(&mut self) -> Result<(), DbError> {
            match *self {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_fill_no_queue_while_the_database_is_away() {
        let timeouts = Timeouts { reply: Duration::from_secs(2), step: Duration::from_secs(5) };
        let writer = WriterTask::new(Gone, timeouts, Observers::default());
        let upkeep = Upkeep::new(&writer);
        let (key, since) = (Key { tenant: "acme".into(), job: "one".into() }, AdmittedAt { at: 0, epoch: 0 });
        upkeep.add(2, &key, 0, since, Duration::from_secs(30));
        upkeep.start();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert!(writer.lock().backlog() <= 1, "{} commands", writer.lock().backlog());
    }
}
