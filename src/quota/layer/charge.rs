//! Extensions that a quota layer shares with handlers: the charge of a request and the usage of its client.

use std::{
    fmt,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use http::Extensions;

use super::policy::Common;
use crate::{
    identity::Digest,
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Usage},
};

/// Records the amounts that a request used. Each request has one in its extensions under
/// [`share_with_handler`](crate::QuotaLayer::share_with_handler). Clones belong to the same request.
///
/// Recorded amounts are charged when the response ends, even beyond the limit. For a kind that was estimated at admission
/// they replace the estimate; a kind without a record is charged as estimated.
///
/// ```
/// use axum::Extension;
/// use tollgate::Charge;
///
/// async fn complete(Extension(charge): Extension<Charge>) -> String {
///     charge.record("tokens", 317);
///     String::from("done")
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(complete));
/// ```
///
/// # Idle charges
/// A charge is idle if no layer charges the request. The layer is switched off, the request is exempt or passes despite
/// a refusal under `.shadow()`, the client is unidentified and passes, or a duplicate job passes. The handler runs
/// unchanged, and nothing that it records is charged. [`Default`] is idle too, for unit tests of handlers.
///
/// # Refusals that the handler passes on
/// A request that a layer further in refuses is refunded, because the handler did not receive it. A request for which the
/// handler has recorded an amount is charged whatever its response, also if the handler passes on a refusal that it
/// received from a service of its own. Without a record such a response looks like a refusal further in, unless the layer
/// around the handler's client is [`outbound`](crate::CircuitBreakerLayer::outbound).
///
/// # Several layers
/// Behind several layers that share with the handler, one charge records for all of them; each layer counts the kinds
/// that its plan limits. An idle layer among them changes nothing. A retry layer in between may clone the request. Then
/// all clones record for the layers outside of it, and each clone for its own pass through the layers inside.
///
/// A request that passes one layer twice, such as a layer on a router and on one of its routes, is charged once: the
/// inner pass is idle, unless it identifies another client. Without
/// [`share_with_handler`](crate::QuotaLayer::share_with_handler) nothing connects the passes, and each is charged.
#[derive(Clone, Default)]
pub struct Charge(Option<Arc<Link>>);

/// The charge of one layer, linked to that of the next layer further out.
struct Link {
    account: ChargedAccount,
    used: Mutex<Used>,
    outer: Option<Arc<Link>>,
}

/// The account that a layer charges: a client among those of the layer.
#[derive(Clone)]
pub(super) struct ChargedAccount {
    pub(super) layer: Arc<Common>,
    pub(super) client: Digest,
}

#[derive(Default)]
struct Used {
    amounts: Amounts,
    settled: bool,
    /// Number of live [`KeptSlot`]s.
    kept: usize,
    /// Settlement of a request whose response has ended, for the last `KeptSlot` to make.
    settlement: Option<Deferred>,
}

pub(super) type Deferred = Box<dyn FnOnce() + Send>;

impl Charge {
    /// Adds `amount` to what was used of `kind`; 0 states that nothing of it was used so far.
    ///
    /// Returns `false` if a layer that charges the request has settled it already, because the response has ended. Then
    /// no layer records the amount, and the handle's [`record`](crate::Quotas::record) charges it. Also returns `false`
    /// for a unit that no plan of these layers counts, and [`Event::UnknownUnit`](crate::Event::UnknownUnit) is emitted.
    /// `true` does not mean that the amount is charged: an [idle](Self::is_idle) charge returns it, and so does a kind
    /// that the client's plan does not limit. A counter ends at 2^53 - 1, and takes no part of an amount beyond that:
    /// [`Event::AmountCut`](crate::Event::AmountCut) reports the part that was cut.
    ///
    /// ```
    /// # fn takes(charge: &tollgate::Charge) {
    /// charge.record("bytes_scanned", 4_096);
    /// charge.record("bytes_scanned", 1_024); // 5,120 together
    /// # }
    /// ```
    pub fn record(&self, kind: impl Into<Kind>, amount: u64) -> bool {
        let Some(link) = &self.0 else { return true };
        let kind = kind.into();
        if !self.links().any(|link| link.account.layer.counts(&kind)) {
            link.account.layer.report_unknown(&kind);
            return false;
        }
        link.record(&kind, amount)
    }

    /// Returns whether no layer charges this request, so that nothing recorded here is charged.
    ///
    /// ```
    /// use axum::Extension;
    /// use tollgate::Charge;
    ///
    /// async fn price(Extension(charge): Extension<Charge>) -> &'static str {
    ///     if charge.is_idle() { "this request is free" } else { "5 tokens" }
    /// }
    /// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(price));
    /// ```
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// Keeps the request open until the returned guard is dropped: its concurrency slots, and its records.
    ///
    /// An upgraded connection, such as a WebSocket over HTTP/1.1 or HTTP/2, goes on when the response has ended, and the
    /// layer cannot see it. Move the guard into the task that serves the connection. What is [recorded](Self::record)
    /// until the drop is charged, and a job runs until then. [`max_hold`](crate::QuotaLayer::max_hold) still bounds the time of a slot, and
    /// [`max_stall`](crate::QuotaLayer::max_stall) only until the response has ended. The guard of an
    /// [idle](Self::is_idle) or settled charge has no effect.
    ///
    /// ```
    /// use axum::{Extension, Router, extract::ws::{WebSocket, WebSocketUpgrade}, response::Response, routing::any};
    /// use tollgate::{Charge, Plan, Quota, QuotaLayer};
    ///
    /// async fn chat(Extension(charge): Extension<Charge>, upgrade: WebSocketUpgrade) -> Response {
    ///     let slot = charge.keep_slot();
    ///     upgrade.on_upgrade(async move |mut socket: WebSocket| {
    ///         let _slot = slot; // held to the end of the connection
    ///         while let Some(Ok(_)) = socket.recv().await {
    ///             charge.record("messages", 1);
    ///         }
    ///     })
    /// }
    ///
    /// let plan = Plan::new("sockets").limit(Quota::concurrent(5));
    /// let app: Router = Router::new().route("/chat", any(chat)).layer(QuotaLayer::new(plan).share_with_handler());
    /// ```
    pub fn keep_slot(&self) -> KeptSlot {
        self.links().for_each(|link| link.used().kept += 1);
        KeptSlot(self.clone())
    }

    /// Returns whether a guard keeps the request open.
    pub(super) fn is_kept(&self) -> bool {
        self.0.as_ref().is_some_and(|link| link.used().kept > 0)
    }

    /// Leaves the settlement of the innermost layer to the last guard. Returns it if there is none any more.
    pub(super) fn settle_later(&self, settlement: Deferred) -> Option<Deferred> {
        let Some(link) = &self.0 else { return Some(settlement) };
        let mut used = link.used();
        if used.kept == 0 {
            return Some(settlement);
        }
        used.settlement = Some(settlement);
        None
    }

    /// Returns whether an amount was recorded for the innermost layer, even of 0.
    pub(super) fn has_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|link| !link.used().amounts.is_empty())
    }

    /// Returns whether a layer further out has charged this account for the request, which has not ended.
    pub(super) fn is_open_for(&self, layer: &Arc<Common>, client: Digest) -> bool {
        self.links().any(|link| {
            let ChargedAccount { layer: charged, client: known } = &link.account;
            Arc::ptr_eq(charged, layer) && *known == client && !link.used().settled
        })
    }

    /// Returns the charges of all layers, from the inside out.
    fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        std::iter::successors(self.0.as_ref(), |link| link.outer.as_ref())
    }

    /// Returns what was recorded for the innermost layer, and lets it record no more.
    pub(super) fn settle(&self) -> Amounts {
        let Some(link) = &self.0 else { return Amounts::new() };
        let mut used = link.used();
        used.settled = true;
        std::mem::take(&mut used.amounts)
    }
}

/// Keeps a request open after its response; see [`Charge::keep_slot`].
///
/// ```
/// use tollgate::{Charge, quota::KeptSlot};
/// async fn chat(slot: KeptSlot) {
///     // serves the connection
///     drop(slot);
/// }
/// # drop(chat(Charge::default().keep_slot()));
/// ```
#[derive(Debug)]
#[must_use = "dropping it releases the slot with the response"]
pub struct KeptSlot(Charge);

impl Drop for KeptSlot {
    fn drop(&mut self) {
        for link in self.0.links() {
            let mut used = link.used();
            used.kept -= 1;
            let settlement = if used.kept == 0 { used.settlement.take() } else { None };
            drop(used); // a settlement locks it again
            settlement.into_iter().for_each(|settle| settle());
        }
    }
}

impl Link {
    /// Records for all layers, outermost first, or for none. Locks are taken from the inside out: the links of a request
    /// form a tree, so that every thread takes them in the same order.
    fn record(&self, kind: &Kind, amount: u64) -> bool {
        let mut used = self.used();
        let recorded = !used.settled && self.outer.as_ref().is_none_or(|outer| outer.record(kind, amount));
        if recorded {
            used.amounts.add(kind, amount);
        }
        recorded
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(link) => f.debug_tuple("Charge").field(&link.used().amounts).finish(),
            None => f.write_str("Charge(idle)"),
        }
    }
}

/// Usage of the client's limits after its request was admitted. Each request has one in its extensions under
/// [`share_with_handler`](crate::QuotaLayer::share_with_handler).
///
/// ```
/// use axum::Extension;
/// use tollgate::QuotaStatus;
///
/// async fn home(Extension(status): Extension<QuotaStatus>) -> String {
///     match status.near.first() {
///         Some(limit) => format!("{limit} comes to its end"),
///         None => String::from("plenty left"),
///     }
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(home));
/// ```
///
/// # Without limits
/// If the usage is not known, [`usage`](Self::usage) lists no limits, and [`near`](Self::near) is empty. Either the
/// ledger is away and the request [passes without it](crate::OnFailure), or the table of clients is full and the client
/// shares an account. The plan is still the client's. If no layer charges the request ([idle
/// charges](crate::Charge#idle-charges)), there are no limits either, and the plan is `none`, version 0.
///
/// # Several layers
/// Behind several layers that share with the handler, both lists hold the limits of all of them, those of the outermost layer
/// first. Two layers may have limits of one name: [`Usage::get`] returns the outermost, `usage.limits` lists both.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// Usage of each limit, with the amounts of this request as reserved. Plan and version are those of the innermost
    /// layer that charges.
    pub usage: Usage,
    /// Limits of which this request's response carries a warning.
    pub near: Vec<PolicyName>,
}

impl QuotaStatus {
    /// Creates the status under a plan of whose limits nothing is known.
    pub(super) fn unknown(plan: PolicyName, version: u64) -> Self {
        Self { usage: Usage { plan, version, limits: Vec::new() }, near: Vec::new() }
    }

    fn idle() -> Self {
        static NONE: LazyLock<PolicyName> = LazyLock::new(|| PolicyName::try_new("none").expect("a valid name"));
        Self::unknown(NONE.clone(), 0)
    }
}

/// Inserts charge and status of a layer that charges the request, joined with those of the layers further out. Returns
/// the charge, which the layer settles.
pub(super) fn share(extensions: &mut Extensions, account: ChargedAccount, mut status: QuotaStatus) -> Charge {
    let outer = extensions.get().and_then(|Charge(outer)| outer.clone());
    let charge = Charge(Some(Arc::new(Link { account, used: Mutex::default(), outer })));
    extensions.insert(charge.clone());
    if let Some(QuotaStatus { usage, near }) = extensions.remove() {
        status.usage.limits.splice(0..0, usage.limits);
        status.near.splice(0..0, near);
    }
    extensions.insert(status);
    charge
}

/// Inserts charge and status of a layer that does not charge the request: idle ones, unless a layer further out has
/// inserted its own.
pub(super) fn share_idle(extensions: &mut Extensions) {
    extensions.get_or_insert_default::<Charge>();
    extensions.get_or_insert_with(QuotaStatus::idle);
}
