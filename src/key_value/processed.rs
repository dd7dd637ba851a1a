//! Events that are processed once.

use std::time::Duration;

use bytes::Bytes;

use super::{error::KeyValueError, port::KeyValue};

/// Marks an event as processed for `life`, and returns whether it was marked before; 24 h is usual for webhooks.
///
/// Of several calls with one id, also in several processes, exactly one returns `false`.
///
/// It marks **before** the work: if the work then fails, or the process ends, no later call does it.
///
/// # Errors
/// As [`KeyValue::set_nx`]. After [`Indeterminate`](super::KeyValueErrorKind::Indeterminate) the event may be marked.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use tollgate::key_value::{MemoryStore, already_processed};
///
/// let (store, day) = (MemoryStore::new(), Duration::from_secs(86_400));
/// let mut sent = 0;
/// for event in ["evt_1", "evt_2", "evt_1"] {
///     if !already_processed(&store, format!("stripe:{event}").as_bytes(), day).await? {
///         sent += 1; // send the receipt
///     }
/// }
/// assert_eq!(sent, 2);
/// # Ok::<(), tollgate::key_value::KeyValueError>(())
/// # }).unwrap();
/// ```
pub async fn already_processed(
    store: &(impl KeyValue + ?Sized),
    event: &[u8],
    life: Duration,
) -> Result<bool, KeyValueError> {
    Ok(!store.set_nx(event, Bytes::from_static(b"1"), Some(life)).await?)
}
