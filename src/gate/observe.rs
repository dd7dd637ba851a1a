//! What is worth telling, through one door.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    identity::{Client, Digest},
    policy_name::PolicyName,
    refusal::Refusal,
};

/// Something worth telling; everything that metrics, traces and logs know comes from here.
///
/// ```
/// use tollgate::{Event, Observer};
///
/// let observer = |event: &Event<'_>| match event {
///     Event::Refused { refusal, .. } => println!("{refusal}"),
///     _ => {}
/// };
/// # fn takes(_: impl Observer) {} takes(observer);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A request may pass.
    Admitted {
        /// Who decided.
        policy: &'a PolicyName,
    },
    /// A request was refused, or would have been.
    Refused {
        /// Why, and by whom.
        refusal: &'a Refusal,
        /// True when the layer only watches and the request passed all the same.
        shadow: bool,
    },
    /// A request named no client; all such requests are treated as the layer was told. Told once a layer.
    Unidentified {
        /// Who asked for the identity.
        policy: &'a PolicyName,
    },
    /// The table of clients is full of live entries, and a newcomer was treated as one of many.
    Overflow {
        /// Whose table is full.
        policy: &'a PolicyName,
    },
    /// A lease that was held too long was taken back.
    Reclaimed {
        /// Whose lease it was.
        policy: &'a PolicyName,
    },
    /// A client has come near to a limit: told once for each limit and period.
    NearLimit {
        /// Whose limit.
        policy: &'a PolicyName,
        /// Who; `None` where newcomers share an account. Not for labels of metrics: there are as many as clients.
        client: Option<&'a Client>,
        /// Which limit.
        limit: &'a PolicyName,
        /// How much of it is used and reserved.
        used: u64,
        /// How much there is.
        of: u64,
    },
    /// The store of the accounts rejected a call or a settlement for good (a constraint, a trigger, a value out of range).
    /// Nothing was written for it, and it is not retried: of a settlement, the reservation ends by its time, and units that
    /// it would have charged are not charged. Where [`OnFailure`](crate::OnFailure) lets requests pass without the store,
    /// an admission passes all the same; its record stays in the spool, behind all others, and is reported whenever it is
    /// tried.
    StoreRejected {
        /// Policy of the store.
        policy: &'a PolicyName,
        /// Client of the rejected call. Not for labels of metrics: there are as many as clients.
        client: &'a Client,
        /// Why, in the words of the database.
        why: &'a str,
    },
    /// The store of the accounts does not answer, and requests pass without it, as
    /// [`OnFailure`](crate::OnFailure) says. Told once, until it is back.
    StoreLost {
        /// Policy of the store.
        policy: &'a PolicyName,
        /// Why it did not answer, in words.
        why: &'a str,
    },
    /// The store of the accounts is asked again.
    StoreBack {
        /// Policy of the store.
        policy: &'a PolicyName,
    },
    /// What passes without the store can be kept no more, because the spool is full or its disk fails: requests are refused.
    /// Told once, until it is emptied.
    SpoolFull {
        /// Whose spool.
        policy: &'a PolicyName,
    },
    /// All that had passed without the store is there now.
    SpoolMerged {
        /// Whose spool.
        policy: &'a PolicyName,
        /// How many records.
        records: u64,
        /// How many jobs of them had been charged before, and were not charged again.
        duplicates: u64,
    },
    /// A circuit went from one state into another.
    Transition {
        /// Whose circuit.
        policy: &'a PolicyName,
        /// Which of its circuits, where each key has one of its own: to be compared with keys that you know, such as
        /// [`host_key`](crate::CircuitBreakerLayer::host_key)'s, for nobody can read it.
        key: Option<Digest>,
        /// The state before, such as `closed`.
        from: &'static str,
        /// The state after, such as `open`.
        to: &'static str,
        /// What made it go.
        cause: &'static str,
    },
}

/// Hears of every [`Event`]; closures implement it.
///
/// It is called on the request's path and sometimes in a drop: it must not block. When it panics the event is lost and
/// the request goes on.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use tollgate::{Event, Observer};
///
/// #[derive(Default)]
/// struct Refusals(AtomicU64);
/// impl Observer for Refusals {
///     fn observe(&self, event: &Event<'_>) {
///         if matches!(event, Event::Refused { .. }) {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Hears of one event.
    fn observe(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn observe(&self, event: &Event<'_>) {
        (**self).observe(event);
    }
}

/// Observers of a layer; none by default, which costs one branch per event.
#[derive(Clone, Default)]
pub(crate) struct Observers(Option<Arc<dyn Observer>>);

impl Observers {
    /// Adds an observer. Each event is emitted to all.
    pub(crate) fn and(self, observer: impl Observer) -> Self {
        Self(Some(if self.is_empty() {
            Arc::new(observer)
        } else {
            Arc::new(move |event: &Event<'_>| {
                self.emit(event); // a panic of an earlier observer does not keep the event from this one
                observer.observe(event);
            })
        }))
    }

    /// Emits an event to every observer. A panic of an observer is caught.
    #[inline]
    pub(crate) fn emit(&self, event: &Event<'_>) {
        if let Some(observer) = &self.0 {
            let _ = catch_unwind(AssertUnwindSafe(|| observer.observe(event)));
        }
    }

    /// Returns whether there is no observer.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Observers(none)" } else { "Observers(..)" })
    }
}
