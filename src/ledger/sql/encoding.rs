//! Encodes values as columns hold them, and decodes them.

use std::borrow::Cow;

use crate::ledger::DbError;

/// The one instant that is not a time: the end of a span that never ends, or that ends after 2554.
const NEVER: u64 = u64::MAX;

/// The microsecond in which [`NEVER`] lies: the first that a column does not hold as a time.
const LAST: u64 = NEVER / 1_000;

/// Converts an instant that identifies a period to microseconds. Instants between two microseconds are rejected,
/// because two periods would become one.
pub(crate) fn instant(nanos: u64) -> Result<i64, DbError> {
    if until(nanos) != i64::MAX && !nanos.is_multiple_of(1_000) {
        return Err(DbError::Rejected(format!(
            "a period must begin and end at whole microseconds, got {nanos} ns since 1970"
        )));
    }
    Ok(until(nanos))
}

/// Converts the end of a span to microseconds; `i64::MAX` from the last microsecond of the range on.
pub(crate) fn until(nanos: u64) -> i64 {
    if nanos / 1_000 < LAST { (nanos / 1_000).cast_signed() } else { i64::MAX }
}

/// Returns an instant as it is read back: in whole microseconds.
pub(crate) fn whole(nanos: u64) -> u64 {
    time(until(nanos))
}

/// Converts a column of microseconds to nanoseconds. A time outside the range becomes the nearest end of the range, so
/// that no row makes an account unreadable.
pub(crate) fn time(micros: i64) -> u64 {
    match u64::try_from(micros) {
        Ok(micros) if micros < LAST => micros * 1_000,
        Ok(_) => NEVER,
        Err(_) => 0,
    }
}

/// Converts the database's clock, or a column that only this clock fills, to nanoseconds. A clock outside the range is
/// an error, because every decision depends on it.
pub(crate) fn nanos(micros: i64) -> Result<u64, DbError> {
    if micros < 0 || (micros != i64::MAX && time(micros) == NEVER) {
        let reason = format!("clock of the database must lie between 1970 and 2554, got {micros} us since 1970");
        return Err(DbError::Refused(reason));
    }
    Ok(time(micros))
}

/// Converts an amount or an id, which a column holds up to 2^63 - 1.
pub(crate) fn number(value: u64) -> Result<i64, DbError> {
    i64::try_from(value)
        .map_err(|_| DbError::Rejected(format!("numbers in the ledger must be at most 2^63 - 1, got {value}")))
}

/// Converts a column of numbers that are never negative.
pub(crate) fn natural<T: TryFrom<i64>>(value: i64) -> Result<T, DbError> {
    T::try_from(value).map_err(|_| DbError::Rejected(format!("a count in the ledger is out of its range: {value}")))
}

/// Encodes a text. PostgreSQL stores no NUL, and one such name must not fail a batch. NUL becomes two characters that
/// are otherwise unused, chosen so that texts keep their order.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte > 1) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\u{1}', "\u{1}\u{2}").replace('\0', "\u{1}\u{1}"))
}

/// Decodes a text.
pub(crate) fn read(kept: &str) -> Cow<'_, str> {
    if !kept.contains('\u{1}') {
        return Cow::Borrowed(kept);
    }
    Cow::Owned(kept.replace("\u{1}\u{1}", "\0").replace("\u{1}\u{2}", "\u{1}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_round_trips_and_keeps_its_order(a in "[\0\u{1}\u{2}a'\u{e4}]{0,6}", b in "[\0\u{1}\u{2}a'\u{e4}]{0,6}") {
            let kept = text(&a);
            prop_assert_eq!(read(&kept), a.as_str());
            prop_assert!(!text(&a).contains('\0'));
            prop_assert_eq!(text(&a).cmp(&text(&b)), a.cmp(&b));
        }

        #[test]
        fn encoded_time_is_readable(nanos: u64, micros: i64) {
            prop_assert_eq!(time(until(nanos)), if nanos / 1_000 < LAST { nanos / 1_000 * 1_000 } else { NEVER });
            prop_assert_eq!(time(until(time(micros))), time(micros));
            prop_assert!(instant(time(micros)).is_ok());
        }

        #[test]
        fn whole_microseconds_round_trip(micros in 0..LAST) {
            prop_assert_eq!(nanos(instant(micros * 1_000).unwrap()).unwrap(), micros * 1_000);
        }
    }

    #[test]
    fn values_out_of_a_columns_range_are_rejected() {
        assert!(number(1 << 63).is_err() && number((1 << 63) - 1).is_ok());
        assert!(instant(1_500).is_err());
        assert_eq!(nanos(instant(u64::MAX).unwrap()), Ok(u64::MAX));
        assert!(nanos(LAST as i64 - 1).is_ok() && nanos(LAST as i64).is_err() && nanos(i64::MAX - 1).is_err());
        assert_eq!([i64::MIN, -1, LAST as i64, i64::MAX - 1].map(time), [0, 0, NEVER, NEVER]);
        assert!(nanos(-1).is_err() && natural::<u32>(-1).is_err() && natural::<u32>(1 << 32).is_err());
    }
}
