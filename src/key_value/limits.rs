//! Bounds of keys, values, times and batches: the same in every store, and checked before anything is stored.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use super::{error::KeyValueError, record::Completion};
use crate::error::ConfigError;

/// Greatest length of a key, in bytes.
pub const MAX_KEY: usize = 1_024;

/// Greatest time to live: ten years of 365 days.
pub const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Greatest number of keys or entries of one call.
pub const MAX_BATCH: usize = 1_000;

/// Greatest length of a value unless a store is told otherwise: 1 MiB.
pub(crate) const DEFAULT_MAX_VALUE: usize = 1 << 20;

/// Checks a key.
pub(crate) fn key(key: &[u8]) -> Result<(), KeyValueError> {
    let must = "have 1 to 1024 bytes";
    if (1..=MAX_KEY).contains(&key.len()) { Ok(()) } else { Err(KeyValueError::invalid("key", must, key.len())) }
}

/// Checks the keys of one call, and their number.
pub(crate) fn keys<'a>(keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<(), KeyValueError> {
    batch(keys.len())?;
    let mut keys = keys;
    keys.try_for_each(key)
}

/// Checks the number of keys or entries of one call.
pub(crate) fn batch(count: usize) -> Result<(), KeyValueError> {
    let must = "name at most 1000 keys; divide it";
    if count <= MAX_BATCH { Ok(()) } else { Err(KeyValueError::invalid("a call", must, count)) }
}

/// Checks the length of a value.
pub(crate) fn value(value: &[u8], most: usize) -> Result<(), KeyValueError> {
    if value.len() <= most {
        return Ok(());
    }
    Err(KeyValueError::invalid("value", &format!("have at most {most} bytes; raise .max_value()"), value.len()))
}

/// Checks the entries of one call; returns them in the order of their keys. Of a key that is named twice the last counts.
pub(crate) fn entries<'a>(
    entries: &'a [(&'a [u8], Bytes)],
    max_value: usize,
) -> Result<BTreeMap<&'a [u8], &'a Bytes>, KeyValueError> {
    batch(entries.len())?;
    for (name, content) in entries {
        key(name)?;
        value(content, max_value)?;
    }
    Ok(entries.iter().map(|(key, value)| (*key, value)).collect())
}

/// Checks the prefix and the number of keys of a page.
pub(crate) fn scan(prefix: &[u8], limit: usize) -> Result<(), KeyValueError> {
    if prefix.len() > MAX_KEY {
        return Err(KeyValueError::invalid("prefix", "have at most 1024 bytes", prefix.len()));
    }
    page(limit)
}

/// Checks a time to live, and returns it in microseconds, rounded up.
pub(crate) fn ttl(ttl: Duration) -> Result<i64, KeyValueError> {
    time("time to live", ttl)
}

/// Checks a time of this name, and returns it in microseconds, rounded up.
pub(crate) fn time(name: &str, time: Duration) -> Result<i64, KeyValueError> {
    if time.is_zero() || time > MAX_TTL {
        let got = format_args!("{time:?}").to_string();
        return Err(KeyValueError::invalid(name, "be positive and at most 10 years", got));
    }
    Ok(time.as_nanos().div_ceil(1_000) as i64)
}

/// Checks a time that is set when something is built.
pub(crate) fn setting(name: &str, time: Duration) -> Result<(), ConfigError> {
    let is_valid = !time.is_zero() && time <= MAX_TTL;
    ConfigError::require(is_valid, name, "be positive and at most 10 years", format_args!("{time:?}"))
}

/// Checks the number of records of a page.
pub(crate) fn page(limit: usize) -> Result<(), KeyValueError> {
    let must = "be from 1 to 1000";
    if (1..=MAX_BATCH).contains(&limit) { Ok(()) } else { Err(KeyValueError::invalid("limit of a page", must, limit)) }
}

/// Checks the length of an answer.
pub(crate) fn answer(completion: &Completion, most: usize) -> Result<(), KeyValueError> {
    match completion {
        Completion::Answered(answer) if answer.len() > most => {
            let must = format!("have at most {most} bytes; raise .max_value(), or complete without it");
            Err(KeyValueError::invalid("answer", &must, answer.len()))
        }
        Completion::Answered(_) | Completion::NotRetained => Ok(()),
    }
}

/// Returns the number that a value is: the shortest decimal text of an `i64`.
pub(crate) fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (itoa::Buffer::new().format(number) == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_exact() {
        assert!(key(&[0]).is_ok() && key(&[0; MAX_KEY]).is_ok());
        assert!(key(&[]).is_err() && key(&[0; MAX_KEY + 1]).is_err());
        assert!(value(&[0; 9], 9).is_ok() && value(&[0; 10], 9).is_err());
        assert_eq!(ttl(Duration::from_nanos(1)).unwrap(), 1);
        assert_eq!(ttl(MAX_TTL).unwrap(), 315_360_000_000_000);
        assert!(ttl(Duration::ZERO).is_err() && ttl(MAX_TTL + Duration::from_nanos(1)).is_err());
        assert!(batch(MAX_BATCH).is_ok() && batch(MAX_BATCH + 1).is_err());
    }

    #[test]
    fn errors_name_the_value_and_the_way_out() {
        let text = |checked: Result<(), KeyValueError>| checked.unwrap_err().to_string();
        assert_eq!(text(key(&[0; 1_025])), "key must have 1 to 1024 bytes, got 1025");
        assert_eq!(text(value(&[0; 10], 9)), "value must have at most 9 bytes; raise .max_value(), got 10");
        assert_eq!(text(ttl(Duration::ZERO).map(drop)), "time to live must be positive and at most 10 years, got 0ns");
    }

    #[test]
    fn only_the_shortest_decimal_text_is_a_number() {
        for (value, is) in [("0", Some(0)), ("-9223372036854775808", Some(i64::MIN)), ("42", Some(42))] {
            assert_eq!(number(value.as_bytes()), is);
        }
        for text in ["", "+1", "01", "-0", " 1", "1 ", "9223372036854775808", "1.0", "x"] {
            assert_eq!(number(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(number(&[0xff]), None);
    }
}
