//! Operations that are carried out once for each key.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use super::{
    error::KeyValueError,
    limits::{self, setting},
    memory::MemoryStore,
    owned::{Finished, OwnedRecord},
    record::{AfterLease, Answer, Begun, Claim, Completion, Owner, RecordAbout, RecordKey, RecordStore},
};
use crate::{
    error::ConfigError,
    identity::{Digester, Secret},
};

/// Carries out operations once for each key, and answers later calls as the first one.
///
/// The answer is stored for 24 h. While an operation runs, its record is leased for 30 s at a time. If the process ends in
/// between, its outcome is unknown: by default each later call is [`Unknown`](IdempotentError::Unknown) until
/// [`RecordStore::settle`] or [`RecordStore::release`] decides, so that nothing runs twice. With [`AfterLease::Rerun`] the
/// next call carries it out again.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::convert::Infallible;
/// use tollgate::key_value::{Answer, IdempotentExecutor};
///
/// let payments = IdempotentExecutor::in_memory("payments");
/// let mut charged = 0;
/// for _ in 0..2 {
///     let done = payments.idempotent_execute(b"order 7", async || {
///         charged += 1;
///         Ok::<_, Infallible>(Answer::new(201, "paid"))
///     }).await?;
///     assert_eq!((done.answer.status, &done.answer.body[..]), (201, &b"paid"[..]));
/// }
/// assert_eq!(charged, 1);
/// # Ok::<(), tollgate::key_value::IdempotentError<Infallible>>(())
/// # }).unwrap();
/// ```
pub struct IdempotentExecutor {
    store: Arc<dyn RecordStore>,
    digester: Digester,
    prefix: String,
    lease: Duration,
    life: Duration,
    after_lease: AfterLease,
}

/// Result of [`IdempotentExecutor::idempotent_execute`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// The answer of the first call.
    pub answer: Answer,
    /// Whether an earlier call has carried the operation out.
    pub replayed: bool,
    /// Whether later calls get the answer. `false` if the store had no room for it, or failed when the operation had been
    /// carried out; then it is stored in the background, for as long as the store may come back soon.
    pub retained: bool,
}

/// An operation that was not carried out by this call, and has no answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum IdempotentError<E> {
    /// The operation failed, and a later call carries it out anew.
    Failed(E),
    /// Another call carries it out.
    Running {
        /// Time until its lease ends unless it is renewed.
        left: Duration,
    },
    /// It was carried out, and its answer was not retained.
    NotRetained,
    /// The process that carried it out is gone, and the outcome is unknown.
    Unknown {
        /// Key of the record, for [`RecordStore::settle`] and [`RecordStore::release`].
        key: RecordKey,
    },
    /// The store failed, and the operation was not carried out.
    Store(KeyValueError),
}

impl<E: fmt::Display> fmt::Display for IdempotentError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "the operation failed: {error}"),
            Self::Running { left } => write!(f, "the operation is running; ask again in {} s", left.as_secs() + 1),
            Self::NotRetained => f.write_str("the operation was carried out, and its answer was not retained"),
            Self::Unknown { key } => write!(
                f,
                "the outcome of the operation is unknown, because its process is gone; settle or release record {key}"
            ),
            Self::Store(error) => write!(f, "the record store failed, and nothing was carried out: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for IdempotentError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Running { .. } | Self::NotRetained | Self::Unknown { .. } => None,
        }
    }
}

impl IdempotentExecutor {
    /// Creates an executor over a store. Keys of executors with different prefixes are different operations. Processes with
    /// the same secret share them.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>, secret: &Secret, prefix: impl Into<String>) -> Self {
        Self::over(store, secret.digester().clone(), prefix.into())
    }

    /// Creates an executor over a [`MemoryStore`] of its own: what it has carried out is forgotten when the process ends.
    #[must_use]
    pub fn in_memory(prefix: impl Into<String>) -> Self {
        Self::over(Arc::new(MemoryStore::new()), Digester::process().clone(), prefix.into())
    }

    fn over(store: Arc<dyn RecordStore>, digester: Digester, prefix: String) -> Self {
        let (lease, life) = (Duration::from_secs(30), Duration::from_secs(86_400));
        Self { store, digester, prefix, lease, life, after_lease: AfterLease::default() }
    }

    /// Sets the time after which a process that does not renew counts as gone; default 30 s, renewed at each third.
    ///
    /// # Panics
    /// If it is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn lease(mut self, lease: Duration) -> Self {
        ConfigError::or_panic(setting("lease", lease));
        self.lease = lease;
        self
    }

    /// Sets the time for which an answer is stored; default 24 h.
    ///
    /// # Panics
    /// If it is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn life(mut self, life: Duration) -> Self {
        ConfigError::or_panic(setting("life", life));
        self.life = life;
        self
    }

    /// Sets the fate of an operation whose process is gone; default [`AfterLease::Hold`].
    #[must_use]
    pub const fn after_lease(mut self, after_lease: AfterLease) -> Self {
        self.after_lease = after_lease;
        self
    }

    /// Carries out an operation, unless it was carried out before or is running; returns its answer.
    ///
    /// The key has 1 to 1,024 bytes, and is stored and listed as text, so it must be no secret. An operation that fails is as
    /// good as never begun; while the store is away then, it counts as running until the store is back.
    ///
    /// # Errors
    /// That of the operation, or the reason why there is no answer. Only [`Store`](IdempotentError::Store) and
    /// [`Failed`](IdempotentError::Failed) say that nothing was carried out.
    ///
    /// # Cancel safety
    /// Dropped in the middle, or with a panic, the operation counts as running until its lease ends, and then as
    /// [`after_lease`](Self::after_lease) says. Under [`AfterLease::Hold`] each such record stays until it is settled or
    /// released. Spawn the call if its caller may go.
    pub async fn idempotent_execute<E>(
        &self,
        key: &[u8],
        operation: impl AsyncFnOnce() -> Result<Answer, E>,
    ) -> Result<Executed, IdempotentError<E>> {
        limits::key(key).map_err(IdempotentError::Store)?;
        let about = RecordAbout {
            policy: self.prefix.clone(),
            key: String::from_utf8_lossy(key).into_owned(),
            ..RecordAbout::default()
        };
        let claim = Claim {
            lease: self.lease,
            life: self.life,
            after_lease: self.after_lease,
            about: Arc::new(about),
            ..Claim::new(self.digester.digest("execute", [self.prefix.as_bytes(), key]).into(), Owner::random())
        };
        let record = OwnedRecord::new(Arc::clone(&self.store), &claim);
        match record.begin(&claim).await.map_err(IdempotentError::Store)? {
            Begun::Started { .. } => {}
            Begun::Done { answer, .. } => return Ok(Executed { answer, replayed: true, retained: true }),
            Begun::Running { left } => return Err(IdempotentError::Running { left }),
            Begun::NotRetained | Begun::Mismatch => return Err(IdempotentError::NotRetained),
            Begun::Unknown => return Err(IdempotentError::Unknown { key: claim.key }),
        }
        match record.hold(operation(), None, || {}).await {
            Ok(answer) => {
                let completion = Completion::Answered(answer.clone());
                let finished = record.finish(&completion, self.life).await;
                let retained = matches!(finished, Finished::Stored { retained: true });
                if matches!(finished, Finished::Failed) {
                    record.finish_detached(completion, self.life, ());
                }
                Ok(Executed { answer, replayed: false, retained })
            }
            Err(error) => {
                record.abandon().await;
                Err(IdempotentError::Failed(error))
            }
        }
    }
}

/// Shows the prefix and the times.
impl fmt::Debug for IdempotentExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("IdempotentExecutor");
        shown.field("prefix", &self.prefix).field("lease", &self.lease).field("life", &self.life);
        shown.field("after_lease", &self.after_lease).finish_non_exhaustive()
    }
}
