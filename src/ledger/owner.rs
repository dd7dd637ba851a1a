//! A ledger that its layers share: the writer, and who looks after what is open.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::writer::{AdmittedAt, Command, CommandKind, Key, Reply, after};
use super::{Database, DbError, Timeouts, WriterTask, new_id};
use crate::quota::store::StoreError;

/// A ledger, which ends when nobody has it any more: what is still to be written is written first.
pub(crate) struct LedgerInner<D: Database> {
    pub(crate) writer: Arc<WriterTask<D>>,
    origins: AtomicU32,
    /// For how long jobs are remembered, in nanoseconds; 0 for as long as their rows.
    horizon: AtomicU64,
    tended: AtomicBool,
    kept: Mutex<HashMap<u128, Kept>>,
    /// Number of the earliest reservations that are passed over, because their ends failed a moment ago.
    stuck: AtomicUsize,
}

/// What is set aside for somebody who is at work in this process.
#[derive(Debug)]
struct Kept {
    key: Key,
    attempt: u32,
    since: AdmittedAt,
    ttl: Duration,
    due: Instant,
}

impl Kept {
    fn renewal(&self) -> Command {
        let kind =
            CommandKind::Renew { attempt: self.attempt, since: self.since.at, ttl: crate::time::nanos(self.ttl) };
        Command { key: self.key.clone(), id: new_id(), own: false, origin: 0, kind }
    }
}

/// How long a report may take.
const READ_ALL: Duration = Duration::from_secs(300);

/// How often it is looked for what is due.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// So many reservations are ended, or put off, at once.
const AT_ONCE: usize = 256;

impl<D: Database> LedgerInner<D> {
    pub(crate) fn new(database: D, timeouts: Timeouts) -> Arc<Self> {
        Arc::new(Self {
            writer: WriterTask::new(database, timeouts),
            origins: AtomicU32::new(1),
            horizon: AtomicU64::new(0),
            tended: AtomicBool::new(false),
            kept: Mutex::default(),
            stuck: AtomicUsize::new(0),
        })
    }

    /// For how long jobs are remembered, where that is not as long as their rows.
    pub(super) fn horizon(&self) -> Option<u64> {
        Some(self.horizon.load(Ordering::Relaxed)).filter(|horizon| *horizon > 0)
    }

    pub(super) fn set_horizon(&self, horizon: Duration) {
        self.horizon.store(crate::time::nanos(horizon), Ordering::Relaxed);
    }

    pub(super) fn next_origin(&self) -> u32 {
        self.origins.fetch_add(1, Ordering::Relaxed)
    }

    /// Something that is read, if it comes in time.
    pub(super) async fn read<T>(&self, read: impl Future<Output = Result<T, DbError>>) -> Result<T, StoreError> {
        match timeout(self.writer.reply_timeout(), read).await {
            Ok(read) => read.map_err(store_error),
            Err(_) => Err(StoreError::Unavailable),
        }
    }

    /// Something that reads a lot, and may take its time.
    pub(super) async fn read_all<T>(&self, read: impl Future<Output = Result<T, DbError>>) -> Result<T, StoreError> {
        match timeout(READ_ALL, read).await {
            Ok(read) => read.map_err(store_error),
            Err(_) => Err(StoreError::Unavailable),
        }
    }

    /// Sees to it that what is set aside stays so while somebody in this process works on it.
    pub(super) fn keep_open(
        self: &Arc<Self>,
        command: u128,
        key: &Key,
        attempt: u32,
        since: AdmittedAt,
        ttl: Duration,
    ) {
        let kept = Kept { key: key.clone(), attempt, since, ttl, due: Instant::now() + ttl / 3 };
        self.kept().insert(command, kept);
    }

    pub(super) fn let_go(&self, command: u128) {
        self.kept().remove(&command);
    }

    /// Ends reservations whose time has run out, whoever made them, and puts off the end of those that are worked on; in a
    /// task of its own where there is a runtime for it.
    pub(crate) fn tend(self: &Arc<Self>) {
        if self.tended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.tended.swap(true, Ordering::AcqRel) {
            return;
        }
        let tending = Tending(Arc::downgrade(self));
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(TEND_EVERY).await;
                let Some(owner) = tending.0.upgrade() else { return };
                owner.put_off().await;
                owner.expire().await;
            }
        });
    }

    /// Puts off ends, and waits until it has: what the ledger does not take now is asked for again, and fills no queue.
    async fn put_off(&self) {
        let now = Instant::now();
        let due: Vec<_> =
            self.kept().iter().filter(|(_, kept)| kept.due <= now).map(|(of, kept)| (*of, kept.renewal())).collect();
        for some in due.chunks(AT_ONCE) {
            let mut renewals = tokio::task::JoinSet::new();
            for (of, renewal) in some.iter().cloned() {
                let writer = Arc::clone(&self.writer);
                renewals.spawn(async move { after(&writer.submit(renewal).await).is_none().then_some(of) });
            }
            let mut done = Vec::new();
            while let Some(renewed) = renewals.join_next().await {
                done.extend(renewed.ok().flatten());
            }
            if done.is_empty() {
                return;
            }
            let mut all = self.kept();
            for of in done {
                if let Some(kept) = all.get_mut(&of) {
                    kept.due = now + kept.ttl / 3;
                }
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<u128, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what is due, and waits until it has: so no more is asked for than can be done.
    ///
    /// What could not be ended is passed over until all that comes after it has had its turn.
    pub(crate) async fn expire(&self) {
        let stuck = self.stuck.load(Ordering::Relaxed);
        let Ok(due) = self.read(self.writer.database.due(AT_ONCE, stuck)).await else { return };
        let (more, mut failed) = (due.len() == AT_ONCE, 0);
        let mut ends = tokio::task::JoinSet::new();
        for hold in due {
            let kind = CommandKind::Expire { attempt: hold.attempt, since: hold.since, charge: hold.charge };
            let command = Command { key: hold.key, id: new_id(), own: false, origin: 0, kind };
            let writer = Arc::clone(&self.writer);
            ends.spawn(async move { writer.submit(command).await });
        }
        while let Some(ended) = ends.join_next().await {
            failed += usize::from(!matches!(ended, Ok(Reply::Done)));
        }
        self.stuck.store(if more { stuck + failed } else { 0 }, Ordering::Relaxed);
    }
}

fn store_error(failure: DbError) -> StoreError {
    match failure {
        DbError::Rejected(why) => StoreError::Rejected(why.into()),
        _ => StoreError::Unavailable,
    }
}

/// Whoever looks after it; when a runtime has taken that one with it, another may.
struct Tending<D: Database>(Weak<LedgerInner<D>>);

impl<D: Database> Drop for Tending<D> {
    fn drop(&mut self) {
        if let Some(owner) = self.0.upgrade() {
            owner.tended.store(false, Ordering::Release);
        }
    }
}

impl<D: Database> Drop for LedgerInner<D> {
    fn drop(&mut self) {
        self.writer.close();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Session, *};
    use crate::ledger::writer::{Loaded, Reads, ReservationRow, Row, Stored, Writes};

    /// A database that is not there.
    struct Gone;

    /// A connection that nobody has.
    enum Never {}

    fn gone<T>() -> Result<T, DbError> {
        Err(DbError::Lost("gone".into()))
    }

    impl Database for Gone {
        type Session = Never;

        async fn connect(&self) -> Result<Never, DbError> {
            gone()
        }

        async fn account(&self, _: &str) -> Result<(u64, Stored), DbError> {
            gone()
        }

        async fn tenants(&self, _: Option<&str>, _: usize) -> Result<Vec<Arc<str>>, DbError> {
            gone()
        }

        async fn job(&self, _: &str, _: &str) -> Result<Vec<Row>, DbError> {
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
    async fn what_is_worked_on_does_not_fill_the_queue_while_the_database_is_away() {
        let timeouts = Timeouts { reply: Duration::from_secs(2), step: Duration::from_secs(5) };
        let owner = LedgerInner::new(Gone, timeouts);
        let (key, since) = (Key { tenant: "acme".into(), job: "one".into() }, AdmittedAt { at: 0, epoch: 0 });
        owner.keep_open(2, &key, 0, since, Duration::from_secs(30));
        owner.tend();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert!(owner.writer.backlog() <= 1, "{} commands", owner.writer.backlog());
    }
}
