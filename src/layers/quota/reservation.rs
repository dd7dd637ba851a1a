//! A reservation outside http: set aside now, charged or given back later.

use std::{error::Error, fmt, sync::Arc};

use super::tracker::Tracker;
use crate::{
    quota::Amounts,
    quota_store::{End, Receipt, Reserved},
    rule::quota::{Closed, Stage},
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
/// assert_eq!(quotas.usage(&alice).await.limits[0].used, 317);
/// # });
/// ```
#[must_use = "what is dropped is given back"]
pub struct Reservation {
    tracker: Arc<Tracker>,
    receipt: Option<Receipt>,
}

/// A reservation that outlives its value: to end it by, as often as need be.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # use tollgate::{Client, Ended, Period, Plan, Quota, QuotaLayer};
/// # let quotas = QuotaLayer::new(Plan::new("free").limit(Quota::units("tokens", 1_000).per(Period::hour()))).handle();
/// let id = quotas.reserve(&Client::named("alice"), ("tokens", 800)).await.unwrap().detach();
/// assert_eq!(quotas.commit(id, ("tokens", 317)).await, Ok(Ended::Now));
/// assert_eq!(quotas.commit(id, ("tokens", 317)).await, Ok(Ended::Before)); // nothing is charged twice
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(Reserved);

/// How a reservation was ended by its id.
///
/// ```
/// assert_ne!(tollgate::Ended::Now, tollgate::Ended::Late);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was open.
    Now,
    /// Its time had run out. What was used is charged all the same, in the period in which it was reserved; what had gone
    /// back stays there.
    Late,
    /// It had been ended like this before: nothing has changed.
    Before,
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
}

impl Reservation {
    pub(super) fn new(tracker: &Arc<Tracker>, receipt: Receipt) -> Self {
        Self { tracker: Arc::clone(tracker), receipt: Some(receipt) }
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
        self.end(&End::Served { used: &Amounts::none(), actual: &actual.into() });
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
        let id = Reserved { place: receipt.place, hold: receipt.hold.expect("it was reserved") };
        self.end(&End::Detached);
        ReservationId(id)
    }

    fn end(&mut self, end: &End<'_>) {
        if let Some(receipt) = self.receipt.take() {
            let near = self.tracker.common.store.settle(&receipt, end, self.tracker.common.now());
            self.tracker.common.warn(&near);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(&End::Void(&Amounts::none()));
    }
}

impl Tracker {
    pub(super) async fn close(&self, id: ReservationId, actual: Option<&Amounts>) -> Result<Ended, ReservationError> {
        let (closed, near) = self.common.store.close(&id.0, actual, self.common.now()).await;
        self.common.warn(&near);
        match (closed, actual) {
            (Closed::Now(_), _) => Ok(Ended::Now),
            (Closed::TooLate(_), _) | (Closed::Before(Stage::Expired), None) => Ok(Ended::Late),
            (Closed::Before(Stage::Committed), Some(_)) | (Closed::Before(Stage::RolledBack), None) => {
                Ok(Ended::Before)
            }
            (Closed::Before(Stage::Committed), None) => Err(ReservationError::Committed),
            (Closed::Before(Stage::RolledBack), Some(_)) => Err(ReservationError::RolledBack),
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
        })
    }
}

impl Error for ReservationError {}
