//! A reservation outside http: set aside now, charged or given back later.

use std::{error::Error, fmt, sync::Arc};

use super::{policy::QuotaPolicy, reservation_id::ReservationId};
use crate::quota::{
    Amounts,
    account::Stage,
    store::{CloseResult, Receipt, Settlement, StoreError},
};

/// What was set aside for one piece of work; a drop gives it back.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
///
/// let quotas = QuotaLayer::new(Plan::new("free").limit(Quota::units("tokens", 1_000).per(Period::hour()))).handle();
/// let alice = Client::named("alice");
/// let reservation = quotas.reserve(&alice, ("tokens", 800)).await.unwrap();
/// assert!(quotas.reserve(&alice, ("tokens", 800)).await.is_err());
/// reservation.commit(("tokens", 317)); // so much it was in the end
/// assert_eq!(quotas.usage(&alice).await.unwrap().limits[0].used, 317);
/// # });
/// ```
#[must_use = "what is dropped is given back"]
pub struct Reservation {
    policy: Arc<QuotaPolicy>,
    receipt: Option<Receipt>,
}

/// How a reservation was ended by its id.
///
/// ```
/// assert_ne!(tollgate::CloseOutcome::Closed, tollgate::CloseOutcome::Expired);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseOutcome {
    /// It was open.
    Closed,
    /// Its time had run out. What was used is charged all the same, in the period in which it was reserved; what had gone
    /// back stays there.
    Expired,
    /// It had been ended like this before: nothing has changed.
    AlreadyClosed,
}

/// Why a reservation cannot be ended like this.
///
/// ```
/// assert_eq!(tollgate::ReservationError::RolledBack.to_string(), "the reservation was rolled back before");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReservationError {
    /// It was committed, and is not rolled back any more.
    Committed,
    /// It was rolled back, and is not committed any more: nothing was charged.
    RolledBack,
    /// Nobody remembers it: it ended long ago, or its client has been forgotten. Nothing was charged just now; what was used
    /// can be recorded.
    Unknown,
    /// The store of the accounts cannot be reached: nothing has changed.
    Unavailable,
    /// The store did not say in time whether it was ended: ask again, for it ends once.
    Indeterminate,
    /// The store rejects the call for good, and nothing was written; [`Event::StoreRejected`](crate::Event::StoreRejected)
    /// says why. The reservation stays open until its time runs out.
    Rejected,
}

impl Reservation {
    pub(super) fn new(policy: &Arc<QuotaPolicy>, receipt: Receipt) -> Self {
        Self { policy: Arc::clone(policy), receipt: Some(receipt) }
    }

    /// Charges what was really used; a kind that `actual` does not name, as it was reserved.
    ///
    /// More than was reserved is charged too, whether there is room for it or not.
    ///
    /// ```
    /// # fn takes(reservation: tollgate::Reservation) {
    /// reservation.commit(("tokens", 317));
    /// # }
    /// ```
    pub fn commit(mut self, actual: impl Into<Amounts>) {
        self.end(&Settlement::Served { used: &Amounts::new(), actual: &actual.into() });
    }

    /// Gives everything back, as a drop does.
    ///
    /// ```
    /// # fn takes(reservation: tollgate::Reservation) {
    /// reservation.roll_back();
    /// # }
    /// ```
    pub fn roll_back(self) {}

    /// Leaves it open, to be ended by its id: with [`commit`](crate::Quotas::commit) or
    /// [`roll_back`](crate::Quotas::roll_back), or by its time running out. A place of those at a time comes back at once.
    ///
    /// ```
    /// # fn takes(reservation: tollgate::Reservation) {
    /// let id = reservation.detach();
    /// # }
    /// ```
    #[must_use = "an id that is lost leaves the reservation open until its time runs out"]
    pub fn detach(mut self) -> ReservationId {
        let receipt = self.receipt.as_ref().expect("there until it is ended");
        let id = self.policy.common.store.reservation_key(receipt);
        self.end(&Settlement::Detached);
        ReservationId(id)
    }

    fn end(&mut self, end: &Settlement<'_>) {
        if let Some(receipt) = self.receipt.take() {
            let near = self.policy.common.store.settle(&receipt, end, self.policy.common.now());
            self.policy.common.warn(&near);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(&Settlement::Void(&Amounts::new()));
    }
}

impl QuotaPolicy {
    pub(super) async fn close(
        self: &Arc<Self>,
        id: &ReservationId,
        actual: Option<&Amounts>,
    ) -> Result<CloseOutcome, ReservationError> {
        let (ending, near) = self.common.store.close(&id.0, actual, self.plan_of(), self.common.now()).await?;
        self.common.warn(&near);
        match (ending, actual) {
            (CloseResult::Closed, _) => Ok(CloseOutcome::Closed),
            (CloseResult::Expired, _) | (CloseResult::AlreadyClosed(Stage::Expired), None) => Ok(CloseOutcome::Expired),
            (CloseResult::AlreadyClosed(Stage::Committed), Some(_))
            | (CloseResult::AlreadyClosed(Stage::RolledBack), None) => Ok(CloseOutcome::AlreadyClosed),
            (CloseResult::AlreadyClosed(Stage::Committed), None) => Err(ReservationError::Committed),
            (CloseResult::AlreadyClosed(Stage::RolledBack), Some(_)) => Err(ReservationError::RolledBack),
            _ => Err(ReservationError::Unknown),
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reservation").field(&self.receipt).finish()
    }
}

impl fmt::Display for ReservationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Committed => "the reservation was committed before",
            Self::RolledBack => "the reservation was rolled back before",
            Self::Unknown => "nobody remembers the reservation: it ended long ago",
            Self::Unavailable => "the store of the accounts cannot be reached",
            Self::Indeterminate => "the store of the accounts did not say in time whether the reservation was ended",
            Self::Rejected => "the store of the accounts rejected the end of the reservation, which stays open",
        })
    }
}

impl Error for ReservationError {}

impl From<StoreError> for ReservationError {
    fn from(trouble: StoreError) -> Self {
        match trouble {
            StoreError::Unavailable => Self::Unavailable,
            StoreError::Indeterminate => Self::Indeterminate,
            StoreError::Rejected(_) => Self::Rejected,
            // None of these accounts has it.
            StoreError::Nameless => Self::Unknown,
        }
    }
}
