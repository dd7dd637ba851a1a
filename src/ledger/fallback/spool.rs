//! A file in which what was let pass without the ledger waits for it.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::sync::oneshot;

use crate::ledger::{SpoolError, recent::Recent};
use crate::{
    ledger::writer::{Command, CommandKind, HEADER, Key, Mode, SettleKind, encode, frame, recover},
    quota::account::Duplicate,
};

/// A file of what the layers of a ledger let pass while it was away, until the ledger has it; clones are the same file.
///
/// Each record is on the disk before its request passes (one `fsync` for all that wait), and is brought to the ledger as soon
/// as that answers again, exactly once, also by the next process where this one was killed. What is in the file is kept in
/// memory too. It belongs to one process at a time, to one ledger, and on a disk that outlives the process.
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
pub struct Spool(Arc<Handle>);

/// When the last one goes, the file is closed.
struct Handle {
    shared: Arc<Shared>,
    writer: Option<thread::JoinHandle<()>>,
}

/// What the handles and the one who writes the file share.
pub(in crate::ledger) struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    wake: Condvar,
    listeners: Mutex<Vec<Listener>>,
    /// The ledger that it is for.
    ledger: Mutex<Option<Weak<dyn std::any::Any + Send + Sync>>>,
    merging: AtomicBool,
}

type Listener = Box<dyn Fn(&Heard) + Send>;

/// What there is to tell of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Heard {
    Lost(Arc<str>),
    Back,
    Full,
    Merged { records: u64, duplicates: u64 },
}

struct State {
    mode: Mode,
    /// To be written to the file.
    queue: Vec<SpooledCommand>,
    /// Durable, and not yet in the ledger.
    pending: VecDeque<Command>,
    /// So many of the file's records are being written.
    writing: usize,
    claims: HashMap<Key, Claim>,
    recent: Recent,
    /// The file's bytes, with those that are to be written.
    size: u64,
    most: u64,
    /// Records in the file.
    records: u64,
    /// Whether somebody was told that it is full.
    full: bool,
    /// The file cannot be written any more until it is empty.
    broken: bool,
    closed: bool,
    /// AdmittedAt the last time that somebody was told.
    merged: u64,
    duplicates: u64,
}

struct SpooledCommand {
    command: Command,
    body: Vec<u8>,
    told: Option<oneshot::Sender<bool>>,
}

/// A named job that is being asked for, or was let pass.
#[derive(Clone, Copy, Debug)]
struct Claim {
    command: u128,
    fingerprint: Option<u128>,
    /// Somebody asks for it or works on it.
    running: bool,
    /// The ledger knows of it.
    merged: bool,
    passed: bool,
}

/// What a record takes besides its body.
const FRAME: u64 = 16;

/// So many bytes are kept by default: some 300,000 records.
const MOST: u64 = 64 << 20;

impl Spool {
    /// In the file at this path, which is made if it is missing; of what is in it, nothing is lost.
    ///
    /// # Errors
    /// When the file cannot be opened or written, or another process has it. When it is damaged it is kept under another name,
    /// which the error tells, and the next attempt begins with an empty one: what it holds has not been charged. A last record
    /// that a crash has cut short is no damage: its request did not pass.
    ///
    /// ```no_run
    /// let spool = tollgate::Spool::at("/var/lib/shop/quota.spool")?;
    /// # Ok::<_, tollgate::SpoolError>(())
    /// ```
    pub fn at(path: impl AsRef<Path>) -> Result<Self, SpoolError> {
        let path = path.as_ref();
        let failed = |doing: &str, error: io::Error| {
            SpoolError::new(format!(
                "a spool must be a file that can be read and written, got {}: {doing}: {error}",
                path.display()
            ))
        };
        let mut options = OpenOptions::new();
        #[cfg(unix)] // who was charged for what is nobody else's business
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| failed("cannot be opened", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = format!("a spool must belong to one process, got {}, which another has open", path.display());
                return Err(SpoolError::new(why));
            }
            Err(TryLockError::Error(error)) => return Err(failed("cannot be locked", error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| failed("cannot be read", error))?;
        let recovered = recover(&bytes).map_err(|damage| {
            let kept = aside(path);
            let (at, whole, what) = (damage.at, damage.whole, damage.what);
            let moved = match std::fs::rename(path, &kept) {
                Ok(()) => format!("it is kept as {}", kept.display()),
                Err(error) => format!("it cannot be kept aside: {error}"),
            };
            SpoolError::new(format!(
                "a spool must be as it was written, got {}: at byte {at}, after {whole} whole records, {what}; {moved}",
                path.display(),
            ))
        })?;
        let end = recovered.end.max(HEADER.len()) as u64;
        let prepare = |file: &mut File| -> io::Result<()> {
            file.set_len(recovered.end as u64)?;
            if recovered.end == 0 {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(HEADER)?;
            }
            file.sync_all()?;
            // The file's name must be durable too.
            if let Some(directory) = path.parent().filter(|_| cfg!(unix)) {
                let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
                File::open(directory)?.sync_all()?;
            }
            Ok(())
        };
        prepare(&mut file).map_err(|error| failed("cannot be written", error))?;
        let shared = Arc::new(Shared::new(path, recovered.commands, end));
        let works = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("tollgate-spool".into())
            .spawn(move || works.write(&mut file))
            .map_err(|error| failed("nobody can be found to write it", error))?;
        Ok(Self(Arc::new(Handle { shared, writer: Some(writer) })))
    }

    /// Takes so many bytes at most; 64 MiB by default, some 300,000 records. When it is full nobody passes without the ledger:
    /// requests are refused with 503. What settles a request that has passed is taken all the same.
    ///
    /// ```no_run
    /// let spool = tollgate::Spool::at("quota.spool")?.at_most(16 << 20);
    /// # Ok::<_, tollgate::SpoolError>(())
    /// ```
    #[must_use]
    pub fn at_most(self, bytes: u64) -> Self {
        self.0.shared.lock().most = bytes;
        self
    }

    /// How many records the ledger does not have yet: a gauge for alerts.
    ///
    /// ```no_run
    /// let spool = tollgate::Spool::at("quota.spool")?;
    /// assert_eq!(spool.pending(), 0);
    /// # Ok::<_, tollgate::SpoolError>(())
    /// ```
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.shared.lock().left()
    }

    pub(in crate::ledger) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // then the file is unlocked
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("path", &self.0.shared.path).field("pending", &self.pending()).finish()
    }
}

/// A name that no file has.
fn aside(path: &Path) -> PathBuf {
    let named = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    (1..).map(named).find(|name| !name.exists()).unwrap_or_else(|| named(0))
}

impl State {
    fn left(&self) -> usize {
        self.queue.len() + self.writing + self.pending.len()
    }

    /// A job of which a record tells.
    fn note(&mut self, command: &Command) {
        match &command.kind {
            CommandKind::Spooled(pass) if !command.own => {
                let (command_id, fingerprint) = (command.id, pass.fingerprint);
                let claim = Claim { command: command_id, fingerprint, running: false, merged: false, passed: true };
                self.claims.insert(command.key.clone(), claim);
            }
            CommandKind::SettleOf { of, settle } if settle.end == SettleKind::Void => self.free(&command.key, *of),
            _ => {}
        }
    }

    /// What an order let pass is to go back: its id is free once nobody else can hold it for taken.
    fn free(&mut self, key: &Key, of: u128) {
        if self.claims.get(key).is_some_and(|claim| claim.command == of && !claim.merged) {
            self.claims.remove(key);
        }
    }

    /// The ledger has it, and nobody works on it.
    fn let_be(&mut self, key: &Key) {
        if let Some(claim) = self.claims.remove(key) {
            self.recent.add(key, claim.fingerprint);
        }
    }

    /// The ledger has an order.
    fn has(&mut self, command: &Command) {
        let known = match &command.kind {
            CommandKind::Spooled(_) => command.id,
            CommandKind::SettleOf { of, settle } if settle.end == SettleKind::Void => {
                if self.claims.get(&command.key).is_some_and(|claim| claim.command == *of) {
                    self.claims.remove(&command.key);
                }
                return;
            }
            _ => return,
        };
        if let Some(claim) = self.claims.get_mut(&command.key).filter(|claim| claim.command == known) {
            claim.merged = true;
            if !claim.running {
                self.let_be(&command.key);
            }
        }
    }
}

impl Shared {
    fn new(path: &Path, commands: Vec<Command>, size: u64) -> Self {
        let mut state = State {
            mode: Mode::default(),
            queue: Vec::new(),
            pending: VecDeque::new(),
            writing: 0,
            claims: HashMap::new(),
            recent: Recent::default(),
            size,
            most: MOST,
            records: commands.len() as u64,
            full: false,
            broken: false,
            closed: false,
            merged: 0,
            duplicates: 0,
        };
        commands.iter().for_each(|command| state.note(command));
        state.pending = commands.into();
        Self {
            path: path.into(),
            state: Mutex::new(state),
            wake: Condvar::new(),
            listeners: Mutex::default(),
            ledger: Mutex::new(None),
            merging: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one ledger only: false where it is another's.
    pub(in crate::ledger) fn bind(&self, ledger: &Arc<dyn std::any::Any + Send + Sync>) -> bool {
        let mut bound = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let other = bound
            .as_ref()
            .and_then(Weak::upgrade)
            .is_some_and(|bound| !std::ptr::addr_eq(Arc::as_ptr(&bound), Arc::as_ptr(ledger)));
        if !other {
            *bound = Some(Arc::downgrade(ledger));
        }
        !other
    }

    pub(in crate::ledger) fn listen(&self, listener: impl Fn(&Heard) + Send + 'static) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    fn tell_listeners(&self, heard: &Heard) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().for_each(|listener| listener(heard));
    }

    /// Whether the ledger is to be asked.
    pub(in crate::ledger) fn asks(&self) -> bool {
        self.lock().mode == Mode::Asking
    }

    pub(in crate::ledger) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether nothing waits for the ledger.
    pub(in crate::ledger) fn is_empty(&self) -> bool {
        self.lock().left() == 0
    }

    /// The ledger has not decided.
    pub(in crate::ledger) fn lost(&self, why: &Arc<str>) {
        let new = self.lock().mode.lost();
        if new {
            self.tell_listeners(&Heard::Lost(Arc::clone(why)));
        }
    }

    /// Nobody else may ask for this job until it is let go.
    pub(in crate::ledger) fn claim(
        &self,
        key: &Key,
        command: u128,
        fingerprint: Option<u128>,
    ) -> Result<(), Duplicate> {
        let mut state = self.lock();
        if let Some(known) = state.claims.get(key) {
            return Err(match (known.fingerprint, fingerprint) {
                (Some(known), Some(asked)) if known != asked => Duplicate::Conflict,
                _ if known.running => Duplicate::Running,
                _ => Duplicate::Done,
            });
        }
        let claim = Claim { command, fingerprint, running: true, merged: false, passed: false };
        state.claims.insert(key.clone(), claim);
        Ok(())
    }

    /// Whoever asked was answered by the ledger, or has gone.
    pub(in crate::ledger) fn let_go(&self, key: &Key, command: u128) {
        let mut state = self.lock();
        if state.claims.get(key).is_some_and(|claim| claim.command == command && !claim.passed) {
            state.claims.remove(key);
        }
    }

    /// The work of a job that was let pass is over.
    pub(in crate::ledger) fn finish(&self, key: &Key, command: u128) {
        let mut state = self.lock();
        if let Some(claim) = state.claims.get_mut(key).filter(|claim| claim.command == command) {
            claim.running = false;
            if claim.merged {
                state.let_be(key);
            }
        }
    }

    /// The ledger has charged a job; or it goes back.
    pub(in crate::ledger) fn remember(&self, key: &Key, fingerprint: Option<u128>) {
        self.lock().recent.add(key, fingerprint);
    }

    pub(in crate::ledger) fn forget(&self, key: &Key) {
        self.lock().recent.forget(key);
    }

    /// Whether a job that is about to pass was charged before, as far as this process remembers.
    pub(in crate::ledger) fn knows(&self, key: &Key, fingerprint: Option<u128>) -> Option<Duplicate> {
        self.lock().recent.get(key).map(|known| match (known, fingerprint) {
            (Some(known), Some(asked)) if known != asked => Duplicate::Conflict,
            _ => Duplicate::Done,
        })
    }

    /// Keeps what is let pass; false where there is no room for it, or it cannot be written. Waits for the disk.
    pub(in crate::ledger) async fn keep(&self, command: Command) -> bool {
        let Some(body) = encode(&command) else { return false };
        let kept = {
            let mut state = self.lock();
            let size = state.size.saturating_add(FRAME + body.len() as u64);
            if size > state.most || state.broken || state.closed {
                let new = !std::mem::replace(&mut state.full, true);
                drop(state);
                if new {
                    self.tell_listeners(&Heard::Full);
                }
                return false;
            }
            state.size = size;
            if let Some(claim) = state.claims.get_mut(&command.key).filter(|claim| claim.command == command.id) {
                claim.passed = true;
            }
            let (told, kept) = oneshot::channel();
            state.queue.push(SpooledCommand { command, body, told: Some(told) });
            kept
        };
        self.wake.notify_one();
        kept.await.unwrap_or(false)
    }

    /// Keeps what settles something that was let pass, whether there is room or not; nobody waits for it.
    pub(in crate::ledger) fn settle(&self, command: Command) {
        let Some(body) = encode(&command) else { return };
        let mut state = self.lock();
        if let CommandKind::SettleOf { of, settle } = &command.kind
            && settle.end == SettleKind::Void
        {
            state.free(&command.key, *of);
        }
        state.size = state.size.saturating_add(FRAME + body.len() as u64);
        state.queue.push(SpooledCommand { command, body, told: None });
        drop(state);
        self.wake.notify_one();
    }

    /// What is to be brought to the ledger next, and whether it is to be asked whether it is there.
    pub(in crate::ledger) fn next(&self, most: usize) -> (Vec<Command>, bool) {
        let state = self.lock();
        (state.pending.iter().take(most).cloned().collect(), state.mode == Mode::Fallback)
    }

    /// The ledger does not take the first of what waits: all of that account comes after the others, in its order.
    pub(in crate::ledger) fn put_behind(&self) {
        let mut state = self.lock();
        let Some(tenant) = state.pending.front().map(|command| Arc::clone(&command.key.tenant)) else { return };
        let (behind, before) =
            std::mem::take(&mut state.pending).into_iter().partition(|command| command.key.tenant == tenant);
        state.pending = before;
        state.pending.extend::<VecDeque<_>>(behind);
    }

    /// The ledger has the first so many of what waits, of which it had charged some before.
    pub(in crate::ledger) fn merged(&self, many: usize, duplicates: u64) {
        let (back, merged) = {
            let mut state = self.lock();
            for _ in 0..many {
                if let Some(command) = state.pending.pop_front() {
                    state.has(&command);
                }
            }
            state.merged += many as u64;
            state.duplicates += duplicates;
            let left = state.left();
            let merged = (left == 0 && state.merged > 0).then(|| Heard::Merged {
                records: std::mem::take(&mut state.merged),
                duplicates: std::mem::take(&mut state.duplicates),
            });
            (state.mode.reached(left), merged)
        };
        self.wake.notify_one();
        merged.into_iter().for_each(|merged| self.tell_listeners(&merged));
        if back {
            self.tell_listeners(&Heard::Back);
        }
    }

    /// Whether somebody is to bring it to the ledger from now on.
    pub(in crate::ledger) fn begin_merging(&self) -> bool {
        !self.merging.swap(true, Ordering::AcqRel)
    }

    pub(in crate::ledger) fn end_merging(&self) {
        self.merging.store(false, Ordering::Release);
    }

    /// Writes until nobody has the spool any more.
    fn write(&self, file: &mut File) {
        let mut end = self.lock().size;
        loop {
            let (queued, mut number) = {
                let mut state = self.lock();
                loop {
                    if !state.queue.is_empty() {
                        break;
                    }
                    if state.pending.is_empty() && (state.records > 0 || state.broken) {
                        // Nobody but this thread makes it longer.
                        let (size, empty) = (HEADER.len() as u64, std::mem::take(&mut state.records));
                        drop(state);
                        let shrunk = file.set_len(size).and_then(|()| file.sync_all()).is_ok();
                        state = self.lock();
                        let queued: u64 = state.queue.iter().map(|queued| FRAME + queued.body.len() as u64).sum();
                        if shrunk {
                            end = size;
                            (state.size, state.full, state.broken) = (size + queued, false, false);
                        } else {
                            (state.records, state.broken) = (empty, true);
                            if state.closed {
                                return;
                            }
                            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                        }
                        continue;
                    }
                    if state.closed {
                        return;
                    }
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.writing = state.queue.len();
                (std::mem::take(&mut state.queue), state.records)
            };
            let (first, mut bytes) = (number, Vec::new());
            for queued in &queued {
                frame(number, &queued.body, &mut bytes);
                number += 1;
            }
            let broken = self.lock().broken;
            let wrote = !broken
                && file
                    .seek(SeekFrom::Start(end))
                    .and_then(|_| file.write_all(&bytes))
                    .and_then(|()| file.sync_data())
                    .is_ok();
            // What is half there would be damage before what follows.
            let undone = wrote || file.set_len(end).and_then(|()| file.sync_all()).is_ok();
            let mut state = self.lock();
            state.writing = 0;
            state.broken |= !undone;
            if wrote {
                end += bytes.len() as u64;
                state.records = number;
            } else {
                state.records = first;
                state.size = end + state.queue.iter().map(|queued| FRAME + queued.body.len() as u64).sum::<u64>();
            }
            for SpooledCommand { command, told, .. } in queued {
                // Nobody passes whose record is not there; what settles goes to the ledger while this process lives.
                if wrote || told.is_none() {
                    state.pending.push_back(command);
                } else if state.claims.get(&command.key).is_some_and(|claim| claim.command == command.id) {
                    state.claims.remove(&command.key);
                }
                if let Some(told) = told {
                    let _ = told.send(wrote);
                }
            }
            let new = !wrote && !std::mem::replace(&mut state.full, true);
            drop(state);
            if new {
                self.tell_listeners(&Heard::Full);
            }
        }
    }
}
