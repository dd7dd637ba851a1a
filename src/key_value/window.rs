//! A rate limit by fixed windows over a key-value store.

use std::time::Duration;

use super::{
    error::KeyValueError,
    port::{KeyValue, Ttl},
};

/// Decision of a [`fixed_window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowDecision {
    /// Whether the call is within the limit.
    pub allowed: bool,
    /// Calls in this window so far, this one and refused ones included.
    pub count: u64,
    /// The limit that was given.
    pub limit: u64,
    /// Calls that are left in this window.
    pub remaining: u64,
    /// Time until the next window of a call that is refused.
    pub retry_after: Option<Duration>,
}

/// Counts a call under `key` and decides whether it is among the first `limit` of its window, which begins with the first
/// call and lasts for `window`.
///
/// One [`incr`](KeyValue::incr) is the whole decision, so that a crash leaves no counter without an end and callers in all
/// processes count together. A client may use the limit twice in a short time, at the end of one window and at the start of
/// the next: a [`TokenBucketLayer`](crate::TokenBucketLayer) allows no such burst.
///
/// # Errors
/// As [`KeyValue::incr`]. After [`Indeterminate`](super::KeyValueErrorKind::Indeterminate) the call may be counted.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use tollgate::key_value::{MemoryStore, fixed_window};
///
/// let (store, minute) = (MemoryStore::new(), Duration::from_secs(60));
/// assert!(fixed_window(&store, b"login:alice", 2, minute).await?.allowed);
/// assert_eq!(fixed_window(&store, b"login:alice", 2, minute).await?.remaining, 0);
/// let third = fixed_window(&store, b"login:alice", 2, minute).await?;
/// assert!(!third.allowed && third.retry_after.unwrap() <= minute);
/// # Ok::<(), tollgate::key_value::KeyValueError>(())
/// # }).unwrap();
/// ```
pub async fn fixed_window(
    store: &(impl KeyValue + ?Sized),
    key: &[u8],
    limit: u64,
    window: Duration,
) -> Result<WindowDecision, KeyValueError> {
    let counted = store.incr(key, Some(window)).await?;
    let count = u64::try_from(counted.number).unwrap_or(0);
    let allowed = count <= limit;
    let retry_after = match counted.ttl {
        Ttl::Left(left) => Some(left),
        Ttl::Forever | Ttl::Missing => None, // a counter that was stored otherwise
    };
    let retry_after = retry_after.filter(|_| !allowed);
    Ok(WindowDecision { allowed, count, limit, remaining: limit.saturating_sub(count), retry_after })
}
