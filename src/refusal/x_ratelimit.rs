//! The three `X-RateLimit` fields, which have room for one policy.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    names::{X_RATELIMIT_LIMIT, X_RATELIMIT_REMAINING, X_RATELIMIT_RESET},
    number::{number, read},
};

/// What one policy has to say besides its limit.
#[derive(Clone, Copy)]
pub(super) struct Triple {
    pub(super) remaining: u64,
    pub(super) reset: Option<u64>,
}

/// Writes all three fields unless those of a narrower policy stand there: one with less remaining or, as long as it is
/// the same, with a later reset. What is not well formed is replaced.
pub(super) fn write(headers: &mut HeaderMap, limit: &HeaderValue, ours: Triple) {
    if let Some(theirs) = standing(headers)
        && (theirs.remaining < ours.remaining || theirs.remaining == ours.remaining && theirs.reset >= ours.reset)
    {
        return;
    }
    let _ = headers.try_insert(X_RATELIMIT_LIMIT, limit.clone());
    let _ = headers.try_insert(X_RATELIMIT_REMAINING, number(ours.remaining));
    match ours.reset {
        Some(seconds) => drop(headers.try_insert(X_RATELIMIT_RESET, number(seconds))),
        None => drop(headers.remove(X_RATELIMIT_RESET)),
    }
}

/// What was written before, if it is whole.
fn standing(headers: &HeaderMap) -> Option<Triple> {
    let remaining = only(headers, X_RATELIMIT_REMAINING)?;
    only(headers, X_RATELIMIT_LIMIT)?;
    let reset = if headers.contains_key(X_RATELIMIT_RESET) { Some(only(headers, X_RATELIMIT_RESET)?) } else { None };
    Some(Triple { remaining, reset })
}

/// The number in a field that stands there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.next().is_some() { None } else { read(first) }
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
        write(&mut headers, &number(500), Triple { remaining, reset });
        names.map(|name| headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn the_whole_triple_of_the_narrower_policy_stands() {
        assert_eq!(after(["", "", ""], 7, Some(60)), ["500", "7", "60"]);
        assert_eq!(after(["100", "3", "10"], 7, Some(60)), ["100", "3", "10"]);
        assert_eq!(after(["100", "30", "10"], 7, Some(60)), ["500", "7", "60"]);
    }

    #[test]
    fn of_two_equals_the_later_reset_stands() {
        assert_eq!(after(["100", "0", "10"], 0, Some(60)), ["500", "0", "60"]);
        assert_eq!(after(["100", "0", "90"], 0, Some(60)), ["100", "0", "90"]);
    }

    #[test]
    fn a_policy_without_a_reset_takes_anothers_away() {
        assert_eq!(after(["100", "30", "10"], 7, None), ["500", "7", ""]);
        assert_eq!(after(["100", "3", ""], 7, Some(60)), ["100", "3", ""]);
    }

    #[test]
    fn what_is_not_whole_or_no_number_is_replaced() {
        for garbage in [["", "3", "10"], ["x", "3", "10"], ["100", "-3", "10"], ["100", "3", "soon"], ["100", "+3", ""]]
        {
            assert_eq!(after(garbage, 7, Some(60)), ["500", "7", "60"], "{garbage:?}");
        }
    }

    #[test]
    fn a_field_that_stands_there_twice_is_replaced_by_one() {
        let mut headers = HeaderMap::new();
        headers.insert(X_RATELIMIT_LIMIT, number(100));
        headers.insert(X_RATELIMIT_REMAINING, number(1));
        headers.append(X_RATELIMIT_REMAINING, number(2));
        write(&mut headers, &number(500), Triple { remaining: 7, reset: None });
        assert_eq!(headers.get_all(X_RATELIMIT_REMAINING).iter().collect::<Vec<_>>(), ["7"]);
    }
}
