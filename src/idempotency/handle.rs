//! Handle of a layer: shutdown, unknown outcomes, counts.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use tokio::time::timeout;

use super::{answer, config::IdempotencyConfig, state::IdempotencyState};
use crate::key_value::{Answer, Completion, KeyValueError, RecordKey, UnknownPage};

/// Handle of an [`IdempotencyLayer`](super::IdempotencyLayer).
///
/// ```no_run
/// # async fn example(layer: tollgate::idempotency::IdempotencyLayer) -> Result<(), tollgate::key_value::KeyValueError> {
/// use std::time::Duration;
///
/// let handle = layer.handle();
/// for operation in handle.unknown(None, 100).await?.records {
///     println!("{} {} of {} may have been carried out", operation.about.method, operation.about.route, operation.about.client);
/// }
/// // After the server's graceful shutdown, before the process ends:
/// handle.drain(Duration::from_secs(30)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct IdempotencyHandle {
    config: Arc<IdempotencyConfig>,
    state: Arc<IdempotencyState>,
}

/// Numbers of requests with a key since the layer was made, and present amounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdempotencyCounts {
    /// Handlers that were called.
    pub executed: u64,
    /// Answers that were replayed.
    pub replayed: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Answers that came after another process had taken the operation over. Any is a sign that a lease is too short.
    pub lost: u64,
    /// Answers that the store did not take when the handler had run. It is tried again in the background.
    pub not_stored: u64,
    /// Operations that were carried out and whose answer is not replayed: it was a stream, too long, or without room.
    pub not_retained: u64,
    /// Handlers that run without their client at present.
    pub detached: usize,
    /// Bytes of bodies and answers that are held at present.
    pub buffered: usize,
}

impl IdempotencyHandle {
    pub(super) const fn new(config: Arc<IdempotencyConfig>, state: Arc<IdempotencyState>) -> Self {
        Self { config, state }
    }

    /// Waits until no handler runs without its client, and all ends are stored, for at most `time`; returns whether that is so.
    /// Call it after the server's shutdown: the outcome of a handler that is cut off is unknown.
    pub async fn drain(&self, time: Duration) -> bool {
        let ended = async {
            loop {
                let mut idle = std::pin::pin!(self.state.idle.notified());
                idle.as_mut().enable();
                if self.state.is_idle() {
                    return;
                }
                idle.await;
            }
        };
        timeout(time, ended).await.is_ok()
    }

    /// Returns at most `limit` operations with an unknown outcome, of all layers of the store, after the key `after`.
    ///
    /// # Errors
    /// As [`RecordStore::unknown`](crate::key_value::RecordStore::unknown).
    pub async fn unknown(&self, after: Option<&RecordKey>, limit: usize) -> Result<UnknownPage, KeyValueError> {
        self.config.store.unknown(after, limit).await
    }

    /// Settles an operation with an unknown outcome: it was carried out, and duplicates get this answer. Of the fields those
    /// are stored that the layer stores. Returns whether its outcome was unknown.
    ///
    /// # Errors
    /// As [`RecordStore::settle`](crate::key_value::RecordStore::settle).
    pub async fn settle(
        &self,
        key: &RecordKey,
        status: StatusCode,
        headers: &HeaderMap,
        body: impl Into<bytes::Bytes> + Send,
    ) -> Result<bool, KeyValueError> {
        let fields = answer::encode(headers, &self.config.replayed_headers);
        let answer = Answer { status: status.as_u16(), fields, body: body.into() };
        self.config.store.settle(key, &Completion::Answered(answer), self.config.life).await
    }

    /// Releases an operation with an unknown outcome: it was not carried out, and the next request carries it out. Returns
    /// whether its outcome was unknown.
    ///
    /// # Errors
    /// As [`RecordStore::release`](crate::key_value::RecordStore::release).
    pub async fn release(&self, key: &RecordKey) -> Result<bool, KeyValueError> {
        self.config.store.release(key).await
    }

    /// Returns the counts.
    #[must_use]
    pub fn counts(&self) -> IdempotencyCounts {
        let tallies = &self.state.tallies;
        IdempotencyCounts {
            executed: tallies.executed.load(Relaxed),
            replayed: tallies.replayed.load(Relaxed),
            refused: tallies.refused.load(Relaxed),
            lost: tallies.lost.load(Relaxed),
            not_stored: tallies.not_stored.load(Relaxed),
            not_retained: tallies.not_retained.load(Relaxed),
            detached: self.state.detached(),
            buffered: self.state.buffered.used(),
        }
    }
}

impl fmt::Debug for IdempotencyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyHandle").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
