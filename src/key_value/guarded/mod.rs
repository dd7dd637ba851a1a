//! A cache in which a missing value is computed once, however many callers ask for it.

mod flight;

use std::{error::Error, fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use dashmap::DashMap;
use flight::{Flight, FlightMember, FlightResult, Joined, Lead};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{
    error::KeyValueError,
    limits::{self, setting},
    memory::MemoryStore,
    owned::OwnedRecord,
    port::StoreFuture,
    record::{AfterLease, Answer, Begun, Claim, Completion, RecordAbout, RecordKey, RecordStore},
};
use crate::{
    error::ConfigError,
    identity::{Digester, Secret},
};

/// A cache over a record store, in which a missing value is computed by one caller while the others wait for it.
///
/// In one process one caller asks the store and computes; the others are woken with its value or its error. Another process
/// asks the store every 50 ms until the value is there. If the one that computes is gone, or is not polled, its lease of
/// 2 s ends and one other takes over. A caller waits for at most [`max_compute`](Self::max_compute), for others and for the
/// store; then it computes for itself, and stores nothing.
///
/// `E` is the error of the computation. It goes to all callers that are waiting, and is not stored.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::{convert::Infallible, time::Duration};
/// use tollgate::key_value::GuardedCache;
///
/// let prices = GuardedCache::<Infallible>::in_memory(Duration::from_secs(60));
/// let mut queries = 0;
/// for _ in 0..3 {
///     let price = prices.guarded_get(b"book 7", async || { queries += 1; Ok("12.50".into()) }).await?;
///     assert_eq!(price, "12.50");
/// }
/// assert_eq!(queries, 1);
/// # Ok::<(), tollgate::key_value::GuardedCacheError<Infallible>>(())
/// # }).unwrap();
/// ```
pub struct GuardedCache<E> {
    store: Arc<dyn RecordStore>,
    digester: Digester,
    prefix: String,
    flights: Arc<DashMap<RecordKey, Arc<Flight<E>>>>,
    life: Duration,
    lease: Duration,
    poll: Duration,
    max_compute: Duration,
    about: Arc<RecordAbout>,
}

/// Error of [`GuardedCache::guarded_get`].
#[derive(Debug)]
pub enum GuardedCacheError<E> {
    /// The computation failed.
    Compute(Arc<E>),
    /// The store failed before anything was computed.
    Store(KeyValueError),
}

impl<E> Clone for GuardedCacheError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Compute(error) => Self::Compute(Arc::clone(error)),
            Self::Store(error) => Self::Store(error.clone()),
        }
    }
}

impl<E: fmt::Display> fmt::Display for GuardedCacheError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compute(error) => write!(f, "the value could not be computed: {error}"),
            Self::Store(error) => write!(f, "the store of the cache failed: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for GuardedCacheError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Compute(error) => Some(&**error),
            Self::Store(error) => Some(error),
        }
    }
}

impl<E: Send + Sync + 'static> GuardedCache<E> {
    /// Creates a cache over a store, whose values stay for `life`. Caches with different prefixes have values of their own;
    /// those of processes with the same prefix and secret share them.
    ///
    /// # Panics
    /// If `life` is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn new(store: Arc<dyn RecordStore>, secret: &Secret, prefix: impl Into<String>, life: Duration) -> Self {
        Self::over(store, secret.digester().clone(), prefix.into(), life)
    }

    /// Creates a cache over a [`MemoryStore`] of its own.
    ///
    /// # Panics
    /// If `life` is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn in_memory(life: Duration) -> Self {
        Self::over(Arc::new(MemoryStore::new()), Digester::process().clone(), String::new(), life)
    }

    #[track_caller]
    fn over(store: Arc<dyn RecordStore>, digester: Digester, prefix: String, life: Duration) -> Self {
        ConfigError::or_panic(setting("life", life));
        Self {
            store,
            digester,
            prefix,
            flights: Arc::default(),
            life,
            lease: Duration::from_secs(2),
            poll: Duration::from_millis(50),
            max_compute: Duration::from_secs(30),
            about: Arc::new(RecordAbout { policy: "guarded cache".into(), ..RecordAbout::default() }),
        }
    }

    /// Sets the time after which another caller takes over from one that is gone; default 2 s, renewed at each third.
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

    /// Sets the time between two questions for a value that another process computes; default 50 ms, with a quarter of
    /// jitter.
    ///
    /// # Panics
    /// If it is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn poll(mut self, poll: Duration) -> Self {
        ConfigError::or_panic(setting("poll", poll));
        self.poll = poll;
        self
    }

    /// Sets the longest time for which a caller waits for a value, and for which a lease is renewed; default 30 s.
    ///
    /// # Panics
    /// If it is zero or above ten years.
    #[must_use]
    #[track_caller]
    pub fn max_compute(mut self, time: Duration) -> Self {
        ConfigError::or_panic(setting("max_compute", time));
        self.max_compute = time;
        self
    }

    /// Returns the value of a key, and computes it if it is missing and no other caller does.
    ///
    /// The key has 1 to 1,024 bytes. A value that is longer than the store retains is returned, and computed again next time.
    ///
    /// # Errors
    /// That of the computation, or of the store if it fails before. A value is returned also if the store then fails.
    ///
    /// # Cancel safety
    /// Dropped while it computes, another waiting caller computes in its place at once. The computation must bear to be
    /// dropped and repeated.
    pub async fn guarded_get(
        &self,
        key: &[u8],
        compute: impl AsyncFnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, GuardedCacheError<E>> {
        limits::key(key).map_err(GuardedCacheError::Store)?;
        let key = self.digester.digest("guarded", [self.prefix.as_bytes(), key]).into();
        // A store in memory answers at once. A flight, in which others wait with this caller, is made only for one that does
        // not, and for a value that is missing.
        let mut find = None;
        if !self.flights.contains_key(&key) {
            let mut asked = self.store.find(&key);
            match poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await {
                Poll::Ready(Ok(Some(answer))) => return Ok(answer.body),
                Poll::Ready(Ok(None)) => find = Some(None),
                Poll::Ready(Err(error)) => return Err(GuardedCacheError::Store(error)),
                Poll::Pending => find = Some(Some(asked)),
            }
        }
        let deadline = Instant::now() + self.max_compute;
        let member = FlightMember::join(&self.flights, key);
        let flight = Arc::clone(&member.flight);
        loop {
            // Registered before the state is read, so that no change is missed.
            let mut changed = pin!(flight.changed.notified());
            changed.as_mut().enable();
            match member.joined(self.lease) {
                Joined::Ended(result) => return result,
                Joined::Waits { until } => {
                    find = None; // it may hold a connection that the leader needs
                    let in_time = timeout_at(until.min(deadline), changed).await.is_ok();
                    if !in_time && Instant::now() >= deadline {
                        break;
                    }
                }
                Joined::Leads(lead) => match self.claim(&member, &lead, find.take(), deadline).await {
                    Claimed::Present(value) => return end(&lead, Ok(value)),
                    Claimed::Failed(error) => return end(&lead, Err(GuardedCacheError::Store(error))),
                    Claimed::Mine(record) => return self.compute(&lead, &record, compute).await,
                    Claimed::Others => break, // and another member leads
                },
            }
        }
        drop(member);
        compute().await.map_err(|error| GuardedCacheError::Compute(Arc::new(error)))
    }

    /// Asks the store until the value is there, or is this caller's to compute, or the caller has waited long enough.
    /// A first question may have been asked, and may have found nothing.
    async fn claim(
        &self,
        member: &FlightMember<E>,
        lead: &Lead<E>,
        find: Option<Option<StoreFuture<'_, Option<Answer>>>>,
        deadline: Instant,
    ) -> Claimed {
        let found = match find {
            Some(None) => Ok(Ok(None)),
            Some(Some(asked)) => timeout_at(deadline, asked).await,
            None => timeout_at(deadline, self.store.find(&member.key)).await,
        };
        match found {
            Ok(Ok(Some(answer))) => return Claimed::Present(answer.body),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Claimed::Failed(error),
            Err(_) => return Claimed::Others, // the store hangs
        }
        let claim = Claim {
            lease: self.lease,
            life: self.life,
            after_lease: AfterLease::Rerun,
            about: Arc::clone(&self.about),
            ..Claim::new(member.key, lead.owner)
        };
        loop {
            lead.extend();
            let Ok(begun) = timeout_at(deadline, self.store.begin(&claim)).await else { return Claimed::Others };
            match begun {
                Ok(Begun::Started { .. }) => {
                    let record = OwnedRecord::new(Arc::clone(&self.store), &claim);
                    lead.runs(Some(&record));
                    return Claimed::Mine(record);
                }
                Ok(Begun::Done { answer, .. }) => return Claimed::Present(answer.body),
                Ok(Begun::Running { left }) if Instant::now() < deadline => {
                    let poll = self.poll.mul_f64(0.75 + fastrand::f64() / 2.0);
                    sleep_until((Instant::now() + poll.min(left.max(MIN_POLL))).min(deadline)).await;
                }
                Ok(_) => return Claimed::Others,
                Err(error) => return Claimed::Failed(error),
            }
        }
    }

    async fn compute(
        &self,
        lead: &Lead<E>,
        record: &OwnedRecord,
        compute: impl AsyncFnOnce() -> Result<Bytes, E>,
    ) -> FlightResult<E> {
        let until = Instant::now() + self.max_compute;
        let result = record.hold(compute(), Some(until), || lead.extend()).await;
        let result = end(lead, result.map_err(|error| GuardedCacheError::Compute(Arc::new(error))));
        let stored = match &result {
            Ok(value) if value.len() <= self.store.max_answer() => {
                let answer = Completion::Answered(Answer::new(200, value.clone()));
                let stored = self.store.complete(&record.key, &record.owner, &answer, self.life);
                timeout(self.lease, stored).await.is_ok_and(|stored| stored.is_ok())
            }
            Ok(_) | Err(_) => false,
        };
        if !stored {
            record.clone().abandon_detached();
        }
        lead.runs(None);
        result
    }
}

/// Result of a leader's questions to the store.
enum Claimed {
    Present(Bytes),
    Mine(OwnedRecord),
    /// Other processes have it, and this caller has waited long enough.
    Others,
    Failed(KeyValueError),
}

/// Shortest wait between two questions to the store.
const MIN_POLL: Duration = Duration::from_millis(1);

/// Gives a result to all members, and returns it.
fn end<E>(lead: &Lead<E>, result: FlightResult<E>) -> FlightResult<E> {
    lead.end(result.clone());
    result
}

/// Shows the times and the number of values that callers wait for, and no key.
impl<E> fmt::Debug for GuardedCache<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("GuardedCache");
        shown.field("life", &self.life).field("lease", &self.lease).field("poll", &self.poll);
        shown.field("max_compute", &self.max_compute).field("waiting", &self.flights.len()).finish_non_exhaustive()
    }
}
