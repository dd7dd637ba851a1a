//! By what a reservation is ended when its value is gone.

use std::{fmt, num::NonZeroU64, str::FromStr};

use crate::{
    error::ConfigError,
    quota::store::{AccountAddress, ReservationKey},
};

/// A reservation that outlives its value: to end it by, as often as need be.
///
/// Its text can be written down and read again. Only the accounts that gave an id know it: one of accounts in memory is
/// [`Unknown`](crate::ReservationError::Unknown) to all others, and so after a restart.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # use tollgate::{Client, CloseOutcome, Period, Plan, Quota, QuotaLayer, ReservationId};
/// # let quotas = QuotaLayer::new(Plan::new("free").limit(Quota::units("tokens", 1_000).per(Period::hour()))).handle();
/// let id = quotas.reserve(&Client::named("alice"), ("tokens", 800)).await.unwrap().detach();
/// let written = id.to_string();
/// assert_eq!(quotas.commit(&id, ("tokens", 317)).await, Ok(CloseOutcome::Closed));
/// let read: ReservationId = written.parse().unwrap();
/// assert_eq!(quotas.commit(&read, ("tokens", 317)).await, Ok(CloseOutcome::AlreadyClosed)); // nothing is charged twice
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(pub(super) ReservationKey);

/// What an id of memory begins with, and no other does.
const HERE: &str = "m-";

/// The longest id: that of a ledger has the name of its client in it.
const LONGEST: usize = 8_192;

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ReservationKey::Memory { accounts, address: AccountAddress { shard, slot, generation }, reservation } => {
                write!(f, "{HERE}{accounts:016x}-{shard}-{slot}-{generation}-{reservation}")
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
        // However it was written, there is one text for each id.
        let id = reserved.map(Self).filter(|id| id.to_string() == text);
        let must = "be the text of one that was given out";
        id.ok_or_else(|| ConfigError::new("id of a reservation", must, format_args!("{text:?}")))
    }
}

fn here(numbers: &str) -> Option<ReservationKey> {
    let mut parts = numbers.split('-');
    let accounts = u64::from_str_radix(parts.next()?, 16).ok()?;
    let mut number = || parts.next()?.parse().ok();
    let address = AccountAddress { shard: number()?, slot: number()?, generation: number()? };
    let reservation: NonZeroU64 = parts.next()?.parse().ok()?;
    Some(ReservationKey::Memory { accounts, address, reservation })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reserved() -> impl Strategy<Value = ReservationKey> {
        let here =
            any::<(u64, u32, u32, u32, NonZeroU64)>().prop_map(|(accounts, shard, slot, generation, reservation)| {
                ReservationKey::Memory { accounts, address: AccountAddress { shard, slot, generation }, reservation }
            });
        prop_oneof![here, "[!-l][!-~]{0,254}".prop_map(|id| ReservationKey::Named(id.into()))]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(reserved in reserved()) {
            let id = ReservationId(reserved);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn whatever_is_read_is_an_id_or_named_in_an_error(text in ".{0,300}") {
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
    fn what_is_no_id_is_named() {
        let good = "m-00000000000000ff-1-2-3-4";
        assert!(good.parse::<ReservationId>().is_ok());
        let longer = format!("{good}-5");
        let zero = "m-00000000000000ff-1-2-3-0";
        for text in [
            "",
            "with space",
            "m-",
            "m-ff-1-2-3-4",
            "m-00000000000000FF-1-2-3-4",
            zero,
            "m-00000000000000ff-1-2-+3-4",
            &longer,
        ] {
            let error = text.parse::<ReservationId>().unwrap_err().to_string();
            assert_eq!(error, format!("id of a reservation must be the text of one that was given out, got {text:?}"));
        }
    }
}
