//! What a handler knows of its request's charge.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Usage},
};

/// Says what a request really used; in its extensions where [`share_with_handler`](crate::quota::layer::QuotaLayer::share_with_handler)
/// is set. Clones belong to the same request.
///
/// What is recorded here is charged when the response ends, whether there was room for it or not. For a kind that was
/// estimated at admission it takes the place of the estimate; a kind that nobody records stays as it was estimated.
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
#[derive(Clone)]
pub struct Charge(Arc<Mutex<Used>>);

#[derive(Default)]
struct Used {
    amounts: Amounts,
    settled: bool,
}

impl Charge {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Adds `amount` to what was used of `kind`; 0 says that nothing of it was used, so far.
    ///
    /// False when the request was settled before: then nothing is recorded, and the handle's
    /// [`record`](crate::quota::layer::Quotas::record) is the way.
    ///
    /// ```
    /// # fn takes(charge: &tollgate::Charge) {
    /// charge.record("bytes_scanned", 4_096);
    /// charge.record("bytes_scanned", 1_024); // 5,120 together
    /// # }
    /// ```
    pub fn record(&self, kind: impl Into<Kind>, amount: u64) -> bool {
        let mut used = self.used();
        if !used.settled {
            used.amounts.add(&kind.into(), amount);
        }
        !used.settled
    }

    /// What was recorded; from now on nothing more is.
    pub(super) fn settle(&self) -> Amounts {
        let mut used = self.used();
        used.settled = true;
        std::mem::take(&mut used.amounts)
    }

    fn used(&self) -> std::sync::MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Charge").field(&self.used().amounts).finish()
    }
}

/// How the client stands after its request was admitted; in the request's extensions where
/// [`share_with_handler`](crate::quota::layer::QuotaLayer::share_with_handler) is set.
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// What is used of each limit, this request included.
    pub usage: Usage,
    /// The limits whose warning this request's response carries.
    pub near: Vec<PolicyName>,
}

impl QuotaStatus {
    pub(super) const fn new(usage: Usage, near: Vec<PolicyName>) -> Self {
        Self { usage, near }
    }
}
