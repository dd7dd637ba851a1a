//! Spool: a file of the charges that passed without the ledger.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use super::{
    aside::ids_aside,
    spool_file::{LockedFile, OpenError},
    spool_format::{HEADER, recover},
    spool_queue::SpoolQueue,
};
use crate::ledger::{SpoolError, SpoolErrorKind};

/// File of the charges that the layers of a ledger admit while it is away, until they are merged. Clones are the same
/// file.
///
/// Each record is on the disk before its request passes (one `fsync` for all that wait). It is merged exactly once, as
/// soon as the ledger answers again; after a crash the next process merges it. The records are held in memory too. A
/// spool belongs to one process at a time and to one ledger, and must be on a disk that outlives the process.
///
/// The file names the database to be charged, as soon as the ledger has reached it and before a record is merged. Another
/// database fails the ledger's [check](crate::Ledger::failed_check) for as long as records wait, and nothing is merged
/// into it. Requests that pass before the database is reached are recorded for the one that the file names, if it names
/// one.
///
/// A record that the database rejects for good (a constraint, a trigger) is set aside, with the settlements of its charge:
/// it is moved to a file beside the spool, whose name ends in `.aside`, as a line of JSON, and
/// [`Event::StoreRejected`](crate::Event::StoreRejected) reports it. So is a record under a client's job id that is older
/// than the ledger remembers, because it may have been charged before. All other records are merged. The file may be as
/// large as the spool; while it is full or cannot be written, such records stay in the spool, and the same event says so
/// once. Move it away when its lines are dealt with, while the program is stopped or the spool is empty.
///
/// All layers of a ledger share its spool. Each layer that falls back reports its events: the records of
/// [`Event::SpoolMerged`](crate::Event::SpoolMerged) are those of all layers.
///
/// ```no_run
/// # #[cfg(feature = "sqlite")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tollgate::{Ledger, OnFailure, Plan, QuotaLayer, Spool};
///
/// let spool = Spool::at("quota.spool")?.at_most(16 << 20);
/// let ledger = Ledger::sqlite("quota.db").spool(spool).open().await?;
/// let layer = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailOpen);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Spool(Arc<SpoolHandle>);

/// Closes the file when the last clone is dropped.
struct SpoolHandle {
    queue: Arc<SpoolQueue>,
    writer: Option<thread::JoinHandle<()>>,
}

impl Spool {
    /// Opens the file at `path`, which is created if it is missing. The records in it stay.
    ///
    /// # Errors
    /// If the file cannot be opened or written, or another process has it open. A damaged file is renamed to a name
    /// that the error contains, and the next attempt begins with an empty file. The records in the damaged file are not
    /// charged. A last record that a crash has cut short is not damage, because its request did not pass.
    ///
    /// ```no_run
    /// let spool = tollgate::Spool::at("/var/lib/shop/quota.spool")?;
    /// # Ok::<_, tollgate::SpoolError>(())
    /// ```
    pub fn at(path: impl AsRef<Path>) -> Result<Self, SpoolError> {
        let path = path.as_ref();
        let failed = |doing: &str, error: io::Error| {
            let got = path.display();
            let reason = format!("a spool must be a file that can be read and written, got {got}: {doing}: {error}");
            SpoolError::new(SpoolErrorKind::Io, reason).caused_by(error)
        };
        let mut file = LockedFile::open(path).map_err(|error| match error {
            OpenError::Open(error) => failed("cannot be opened", error),
            OpenError::Lock(error) => failed("cannot be locked", error),
            OpenError::InUse => {
                let why = format!("a spool must belong to one process, got {}, which another has open", path.display());
                SpoolError::new(SpoolErrorKind::InUse, why)
            }
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| failed("cannot be read", error))?;
        let recovered = recover(&bytes).map_err(|damage| {
            let kept = aside(path);
            let (at, whole, what) = (damage.at, damage.whole, damage.what);
            let moved = match std::fs::rename(path, &kept) {
                Ok(()) => format!("it was renamed to {}", kept.display()),
                Err(error) => format!("it cannot be renamed: {error}"),
            };
            let got = path.display();
            SpoolError::new(SpoolErrorKind::Damaged, format!(
                "a spool must be as it was written, got {got}: at byte {at}, after {whole} whole records, {what}; {moved}"
            ))
        })?;
        let aside = ids_aside(path).map_err(|error| failed("the records that were set aside cannot be read", error))?;
        let recovered = recovered.without(&aside);
        let prepare = |file: &mut File| -> io::Result<()> {
            file.set_len(recovered.end as u64)?;
            if recovered.end == 0 {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(HEADER)?;
            }
            file.sync_all()?;
            // The name of the file must be durable too.
            if let Some(directory) = path.parent().filter(|_| cfg!(unix)) {
                let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
                File::open(directory)?.sync_all()?;
            }
            Ok(())
        };
        prepare(&mut file).map_err(|error| failed("cannot be written", error))?;
        let queue = Arc::new(SpoolQueue::new(path, recovered));
        let works = Arc::clone(&queue);
        let writer = thread::Builder::new()
            .name("tollgate-spool".into())
            .spawn(move || works.write(&mut file))
            .map_err(|error| failed("could not spawn the writer thread", error))?;
        Ok(Self(Arc::new(SpoolHandle { queue, writer: Some(writer) })))
    }

    /// Sets the greatest size of the file in bytes; default 64 MiB, about 300,000 records. If it is full, no request
    /// passes without the ledger: requests are refused with 503. Settlements of requests that have passed are still
    /// accepted.
    #[must_use]
    pub fn at_most(self, bytes: u64) -> Self {
        self.0.queue.lock().most = bytes;
        self
    }

    /// Returns the number of records that are not merged yet; a gauge for alerts.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.queue.lock().left()
    }

    pub(in crate::ledger) fn queue(&self) -> &Arc<SpoolQueue> {
        &self.0.queue
    }
}

impl Drop for SpoolHandle {
    fn drop(&mut self) {
        self.queue.close();
        // If a listener had the last clone, the writer thread itself may drop it, and cannot await its own end.
        if let Some(writer) = self.writer.take().filter(|writer| writer.thread().id() != thread::current().id()) {
            let _ = writer.join(); // then the file is unlocked
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("path", &self.0.queue.path).field("pending", &self.pending()).finish()
    }
}

/// Returns a name that no file has.
fn aside(path: &Path) -> PathBuf {
    let named = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    (1..).map(named).find(|name| !name.exists()).unwrap_or_else(|| named(0))
}

#[cfg(test)]
mod tests {
    use super::{super::spool_format::Recovered, *};
    use crate::{
        ledger::writer::{AdmittedAt, Command, CommandKind, Key, SettleCommand},
        quota::{Plan, store::StoreListener},
    };

    #[test]
    fn listener_may_drop_the_last_clone_on_the_writer_thread() {
        let queue = Arc::new(SpoolQueue::new(Path::new("none"), Recovered::default()));
        let works = Arc::clone(&queue);
        let mut unwritable = File::open(std::env::current_exe().unwrap()).unwrap();
        let (ends, ended) = std::sync::mpsc::channel();
        let writer = thread::spawn(move || {
            works.write(&mut unwritable);
            ends.send(()).unwrap();
        });
        let spool = Spool(Arc::new(SpoolHandle { queue: Arc::clone(&queue), writer: Some(writer) }));
        let last = std::sync::Mutex::new(Some(spool));
        let listener: StoreListener = Arc::new(move |_| drop(last.lock().unwrap().take()));
        queue.listen(&listener);
        let settle = SettleCommand::void(Arc::new(Plan::new("free")), 0, AdmittedAt { at: 0, epoch: 0 });
        let key = Key { tenant: "acme".into(), job: "one".into() };
        queue.settle(Command { key, id: 2, own: true, origin: 0, kind: CommandKind::SettleOf { of: 4, settle } });
        ended.recv().expect("the thread ends without a panic");
    }
}
