//! Reservations by the handle: reserved now, committed or rolled back later.

use std::{error::Error, fmt, num::NonZeroU64, str::FromStr, sync::Arc};

use super::{policy::QuotaPolicy, report::warn};
use crate::{
    error::ConfigError,
    kind::Kind,
    quota::{
        Amounts,
        account::{CloseResult, Stage},
        store::{AccountAddress, Receipt, ReservationKey, Settlement, StoreError},
    },
};

/// Amounts reserved for one piece of work. Dropping it commits what was [recorded](Self::record), or rolls back if nothing
/// was.
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
#[must_use = "dropping it returns the reserved amounts"]
pub struct Reservation {
    policy: Arc<QuotaPolicy>,
    /// `None` once it has ended.
    receipt: Option<Receipt>,
    recorded: Amounts,
}

/// Outcome of closing a reservation by its id.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, CloseOutcome, Kind, Period, Plan, Quota, QuotaLayer};
///
/// let quotas = QuotaLayer::new(Plan::new("free").limit(Quota::units("tokens", 1_000).per(Period::hour()))).handle();
/// let id = quotas.reserve(&Client::named("alice"), ("tokens", 800)).await.unwrap().detach();
/// for counted in [317, 299] {
///     match quotas.commit(&id, ("tokens", counted)).await.unwrap() {
///         CloseOutcome::AlreadyClosed { charged } => assert_eq!(charged.get(&Kind::from("tokens")), Some(317)),
///         first => assert_eq!(first, CloseOutcome::Closed),
///     }
/// }
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseOutcome {
    /// It was open and is closed now.
    Closed,
    /// It had expired. Used amounts are charged all the same: as in time if the expiry charged the estimate, else in the
    /// period in which the commit arrives; amounts that
    /// were returned stay returned.
    Expired,
    /// It had been closed in the same way before; nothing has changed, whatever amounts this call names.
    AlreadyClosed {
        /// Amounts that stand: those that the first commit charged, sorted by kind. A kind of which nothing was charged is
        /// missing, so that nothing is here after a rollback.
        charged: Amounts,
    },
}

/// Reason why a reservation cannot be closed in this way.
///
/// ```
/// assert_eq!(tollgate::ReservationError::RolledBack.to_string(), "the reservation was rolled back before and cannot be committed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReservationError {
    /// It was committed and cannot be rolled back.
    Committed,
    /// It was rolled back and cannot be committed; nothing was charged.
    RolledBack,
    /// It is not known: it was closed long ago, or its client was forgotten. This call charged nothing;
    /// [`record`](crate::Quotas::record) can still charge the usage.
    Unknown,
    /// The store is unavailable; nothing has changed.
    Unavailable,
    /// The store did not reply in time, and the reservation may have been closed. Retry: it is closed only once.
    Indeterminate,
    /// The store rejects the call for good, and nothing was written;
    /// [`Event::StoreRejected`](crate::Event::StoreRejected) has the reason. The reservation stays open until it
    /// expires.
    Rejected,
    /// The commit charges this amount, with which a counter would exceed 2^53 - 1, the greatest that it holds. Nothing was
    /// charged, and the reservation stays as it was: commit less, or, if usage was recorded by mistake,
    /// [give it back](crate::Quotas::credit) first. The amount may be the estimate of a kind that the commit did not name;
    /// name such a kind with 0.
    TooLarge(u64),
}

impl Reservation {
    pub(super) fn new(policy: &Arc<QuotaPolicy>, receipt: Receipt) -> Self {
        Self { policy: Arc::clone(policy), receipt: Some(receipt), recorded: Amounts::new() }
    }

    /// Adds `amount` to what was used of `kind`, for work that may be cut off, such as a stream. 0 states that nothing of it
    /// was used so far.
    ///
    /// A drop then commits the recorded amounts; a kind without a record is charged as reserved.
    /// [`detach`](Self::detach) forgets them, and [`commit`](Self::commit) replaces those of the kinds that it names.
    /// Returns `false` for a unit that no plan of the layer counts, and emits
    /// [`Event::UnknownUnit`](crate::Event::UnknownUnit).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::new("free").limit(Quota::units("tokens", 1_000).per(Period::hour()))).handle();
    /// let alice = Client::named("alice");
    /// let mut reservation = quotas.reserve(&alice, ("tokens", 800)).await.unwrap();
    /// for chunk in ["Once", "upon", "a"] {
    ///     reservation.record("tokens", chunk.len() as u64);
    /// }
    /// drop(reservation); // the client hung up
    /// assert_eq!(quotas.usage(&alice).await.unwrap().limits[0].used, 9);
    /// # });
    /// ```
    pub fn record(&mut self, kind: impl Into<Kind>, amount: u64) -> bool {
        let kind = kind.into();
        let known = self.policy.common.counts(&kind);
        if known {
            self.recorded.add(&kind, amount);
        } else {
            self.policy.common.report_unknown(&kind);
        }
        known
    }

    /// Charges the used amounts. A kind that `actual` does not name is charged as [recorded](Self::record), or else as
    /// reserved.
    ///
    /// Amounts above the reservation are charged too, even beyond the limit. A counter ends at 2^53 - 1, and takes no part
    /// of an amount beyond that: [`Event::AmountCut`](crate::Event::AmountCut) reports the part that was cut. A [commit by
    /// id](crate::Quotas::commit) returns an error instead.
    ///
    /// ```
    /// # fn takes(reservation: tollgate::Reservation) {
    /// reservation.commit(("tokens", 317));
    /// # }
    /// ```
    pub fn commit(mut self, actual: impl Into<Amounts>) {
        let actual = actual.into();
        self.policy.report_unknown_units(&actual);
        let actual = self.recorded.overridden_by(&actual);
        self.end(&Settlement::Served { used: &Amounts::new(), actual: &actual });
    }

    /// Releases all reserved amounts and charges nothing, also what was [recorded](Self::record).
    ///
    /// ```
    /// # fn takes(reservation: tollgate::Reservation) {
    /// reservation.roll_back();
    /// # }
    /// ```
    pub fn roll_back(mut self) {
        self.end(&Settlement::Void(None));
    }

    /// Leaves the reservation open for [`commit`](crate::Quotas::commit) or [`roll_back`](crate::Quotas::roll_back) by
    /// its id, or until it expires. Its concurrency slot is released at once. Recorded amounts are not a part of the id:
    /// name them in the commit.
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
            self.policy.common.settle(&receipt, end);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (recorded, none) = (std::mem::take(&mut self.recorded), Amounts::new());
        let returned = Settlement::Void(None);
        self.end(&if recorded.is_empty() { returned } else { Settlement::Served { used: &none, actual: &recorded } });
    }
}

impl QuotaPolicy {
    /// Reports units that no plan counts. They do not stop a commit: a reservation may be older than the plans.
    fn report_unknown_units(&self, amounts: &Amounts) {
        let unknown = amounts.iter().map(|(kind, _)| kind).filter(|kind| !self.common.counts(kind));
        unknown.for_each(|unit| self.common.report_unknown(unit));
    }

    pub(super) async fn close(
        self: &Arc<Self>,
        id: &ReservationId,
        actual: Option<&Amounts>,
    ) -> Result<CloseOutcome, ReservationError> {
        actual.into_iter().for_each(|actual| self.report_unknown_units(actual));
        let (ending, near) = self.common.store.close(&id.0, actual, self.plan_of(), self.common.now()).await?;
        warn(&self.common.context, &near);
        match (ending, actual) {
            (CloseResult::Closed, _) => Ok(CloseOutcome::Closed),
            (CloseResult::TooLarge(amount), _) => Err(ReservationError::TooLarge(amount)),
            (CloseResult::Expired, _) | (CloseResult::AlreadyClosed(Stage::Expired, _), None) => {
                Ok(CloseOutcome::Expired)
            }
            (CloseResult::AlreadyClosed(Stage::Committed, charged), Some(_))
            | (CloseResult::AlreadyClosed(Stage::RolledBack, charged), None) => {
                Ok(CloseOutcome::AlreadyClosed { charged })
            }
            (CloseResult::AlreadyClosed(Stage::Committed, _), None) => Err(ReservationError::Committed),
            (CloseResult::AlreadyClosed(Stage::RolledBack, _), Some(_)) => Err(ReservationError::RolledBack),
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
            Self::TooLarge(amount) => {
                return write!(
                    f,
                    "amount of a commit must leave each counter at most 2^53 - 1, got {amount}; nothing was charged, and the \
                     reservation stays as it was, commit less"
                );
            }
            Self::Committed => "the reservation was committed before and cannot be rolled back",
            Self::RolledBack => "the reservation was rolled back before and cannot be committed",
            Self::Unknown => "unknown reservation: it was closed long ago, or its client was forgotten",
            Self::Unavailable => "the quota store is unavailable; nothing has changed",
            Self::Indeterminate => {
                "the quota store did not reply in time; retry, because a reservation is closed only once"
            }
            Self::Rejected => "the quota store rejected the call; the reservation stays open until it expires",
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
            // These accounts do not have it.
            StoreError::Nameless | StoreError::Invalid(_) | StoreError::UnknownAccount => Self::Unknown,
        }
    }
}

/// Id of a detached reservation, by which it can be closed; closing it again changes nothing.
///
/// Its `Display` text parses back into the same id. Only the accounts that issued an id know it. An id of accounts in
/// memory is [`Unknown`](crate::ReservationError::Unknown) to all others, and after a restart.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # use tollgate::{Client, CloseOutcome, Period, Plan, Quota, QuotaLayer, ReservationId};
/// # let quotas = QuotaLayer::new(Plan::new("free").limit(Quota::units("tokens", 1_000).per(Period::hour()))).handle();
/// let id = quotas.reserve(&Client::named("alice"), ("tokens", 800)).await.unwrap().detach();
/// let written = id.to_string();
/// assert_eq!(quotas.commit(&id, ("tokens", 317)).await, Ok(CloseOutcome::Closed));
/// let read: ReservationId = written.parse().unwrap();
/// let again = CloseOutcome::AlreadyClosed { charged: ("tokens", 317).into() }; // nothing is charged twice
/// assert_eq!(quotas.commit(&read, ("tokens", 317)).await, Ok(again));
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(pub(super) ReservationKey);

/// Prefix of the ids of memory; no other store uses it.
const HERE: &str = "m-";

/// Greatest length of an id, in bytes; an id of a ledger contains the name of its client.
const LONGEST: usize = 8_192;

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ReservationKey::Memory { accounts, address, reservation, proof } => {
                let AccountAddress { shard, slot, generation } = address;
                write!(f, "{HERE}{accounts:016x}-{shard}-{slot}-{generation}-{reservation}-{proof:016x}")
            }
            ReservationKey::Named(id) => f.write_str(id),
        }
    }
}

impl FromStr for ReservationId {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let visible = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let reserved = match text.strip_prefix(HERE) {
            Some(numbers) => here(numbers),
            None => visible.then(|| ReservationKey::Named(text.into())),
        };
        // Each id has exactly one text; any other spelling is rejected.
        let id = reserved.map(Self).filter(|id| id.to_string() == text);
        let must = "be a text that a ReservationId displays as";
        id.ok_or_else(|| ConfigError::new("id of a reservation", must, format_args!("{text:?}")))
    }
}

fn here(numbers: &str) -> Option<ReservationKey> {
    let mut parts = numbers.split('-');
    let accounts = u64::from_str_radix(parts.next()?, 16).ok()?;
    let mut number = || parts.next()?.parse().ok();
    let address = AccountAddress { shard: number()?, slot: number()?, generation: number()? };
    let reservation: NonZeroU64 = parts.next()?.parse().ok()?;
    let proof = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some(ReservationKey::Memory { accounts, address, reservation, proof })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reserved() -> impl Strategy<Value = ReservationKey> {
        let here =
            any::<(u64, (u32, u32, u32), NonZeroU64, u64)>().prop_map(|(accounts, place, reservation, proof)| {
                let (shard, slot, generation) = place;
                let address = AccountAddress { shard, slot, generation };
                ReservationKey::Memory { accounts, address, reservation, proof }
            });
        prop_oneof![here, "[!-l][!-~]{0,254}".prop_map(|id| ReservationKey::Named(id.into()))]
    }

    proptest! {
        #[test]
        fn text_of_an_id_parses_back(reserved in reserved()) {
            let id = ReservationId(reserved);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn any_text_is_an_id_or_named_in_an_error(text in ".{0,300}") {
            match text.parse::<ReservationId>() {
                Ok(id) => prop_assert_eq!(id.to_string(), text),
                Err(invalid) => {
                    let said = format!("got {text:?}");
                    prop_assert!(invalid.reason().ends_with(&said));
                }
            }
        }
    }

    #[test]
    fn invalid_id_is_named_in_the_error() {
        let good = "m-00000000000000ff-1-2-3-4-00000000000000aa";
        assert!(good.parse::<ReservationId>().is_ok());
        let longer = format!("{good}-5");
        let zero = "m-00000000000000ff-1-2-3-0-00000000000000aa";
        for text in [
            "",
            "with space",
            "m-",
            "m-ff-1-2-3-4-00000000000000aa",
            "m-00000000000000FF-1-2-3-4-00000000000000aa",
            zero,
            "m-00000000000000ff-1-2-+3-4-00000000000000aa",
            &longer,
        ] {
            let error = text.parse::<ReservationId>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("id of a reservation must be a text that a ReservationId displays as, got {text:?}")
            );
        }
    }
}
