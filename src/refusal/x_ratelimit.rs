//! The three `X-RateLimit` fields, which have room for one policy.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::buffer::{number, parse_number};
use crate::head::only;

pub(super) const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Writes all three fields unless those of a narrower policy are present: one with less remaining or, if that is equal,
/// with a later reset. Malformed fields are replaced.
pub(super) fn write(headers: &mut HeaderMap, limit: &HeaderValue, remaining: u64, reset: Option<u64>) {
    if present(headers).is_some_and(|narrowest| narrowest <= (remaining, Reverse(reset))) {
        return;
    }
    let _ = headers.try_insert(X_RATELIMIT_LIMIT, limit.clone());
    let _ = headers.try_insert(X_RATELIMIT_REMAINING, number(remaining));
    match reset {
        Some(seconds) => drop(headers.try_insert(X_RATELIMIT_RESET, number(seconds))),
        None => drop(headers.remove(X_RATELIMIT_RESET)),
    }
}

/// Returns what remains and the reset, if the fields that are present are well formed.
fn present(headers: &HeaderMap) -> Option<(u64, Reverse<Option<u64>>)> {
    let remaining = read(headers, X_RATELIMIT_REMAINING)?;
    read(headers, X_RATELIMIT_LIMIT)?;
    let reset = if headers.contains_key(X_RATELIMIT_RESET) { Some(read(headers, X_RATELIMIT_RESET)?) } else { None };
    Some((remaining, Reverse(reset)))
}

/// Returns the number in a field that is present once.
fn read(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    only(headers.get_all(name)).and_then(parse_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(before: [&str; 3], remaining: u64, reset: Option<u64>) -> [String; 3] {
        let names = [X_RATELIMIT_LIMIT, X_RATELIMIT_REMAINING, X_RATELIMIT_RESET];
        let mut headers = HeaderMap::new();
        for (name, value) in names.iter().zip(before).filter(|(_, value)| !value.is_empty()) {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        write(&mut headers, &number(500), remaining, reset);
        names.map(|name| headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn triple_of_the_narrower_policy_remains() {
        assert_eq!(after(["", "", ""], 7, Some(60)), ["500", "7", "60"]);
        assert_eq!(after(["100", "3", "10"], 7, Some(60)), ["100", "3", "10"]);
        assert_eq!(after(["100", "30", "10"], 7, Some(60)), ["500", "7", "60"]);
    }

    #[test]
    fn later_reset_remains_when_the_remainders_are_equal() {
        assert_eq!(after(["100", "0", "10"], 0, Some(60)), ["500", "0", "60"]);
        assert_eq!(after(["100", "0", "90"], 0, Some(60)), ["100", "0", "90"]);
    }

    #[test]
    fn policy_without_a_reset_removes_an_older_reset() {
        assert_eq!(after(["100", "30", "10"], 7, None), ["500", "7", ""]);
        assert_eq!(after(["100", "3", ""], 7, Some(60)), ["100", "3", ""]);
    }

    #[test]
    fn malformed_triple_is_replaced() {
        for garbage in [["", "3", "10"], ["x", "3", "10"], ["100", "-3", "10"], ["100", "3", "soon"], ["100", "+3", ""]]
        {
            assert_eq!(after(garbage, 7, Some(60)), ["500", "7", "60"], "{garbage:?}");
        }
    }

    #[test]
    fn repeated_field_is_replaced_by_one() {
        let mut headers = HeaderMap::new();
        headers.insert(X_RATELIMIT_LIMIT, number(100));
        headers.insert(X_RATELIMIT_REMAINING, number(1));
        headers.append(X_RATELIMIT_REMAINING, number(2));
        write(&mut headers, &number(500), 7, None);
        assert_eq!(headers.get_all(X_RATELIMIT_REMAINING).iter().collect::<Vec<_>>(), ["7"]);
    }
}
