//! Rates as text, such as `1000/h burst 50`.

use std::{fmt, str::FromStr, time::Duration};

use super::Rate;
use crate::{
    error::ConfigError,
    time::{Span, UNITS, parse_span},
};

/// Reads `50/s`, `1000/h burst 50` or `3/2s burst 10 initial 0`: a count, a period, and optionally the burst and the
/// tokens of a newcomer, in this order. The units are `ns`, `us`, `ms`, `s`, `min`, `h` and `d`.
///
/// # Errors
/// If the text has another form, or a value is out of range, as for [`Rate::try_per`].
///
/// ```
/// use tollgate::Rate;
/// assert_eq!("50/s".parse(), Ok(Rate::per_second(50)));
/// assert_eq!("1000/h burst 50".parse(), Ok(Rate::per_hour(1_000).burst(50)));
/// let error = "50/m".parse::<Rate>().unwrap_err();
/// assert_eq!(error.to_string(), r#"unit of the period of a rate must be ns, us, ms, s, min, h or d, got "m""#);
/// ```
impl FromStr for Rate {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let form = || ConfigError::quoted("rate", "have the form 50/s or 1000/h burst 50", text);
        let mut words = text.split_ascii_whitespace();
        let (count, period) = words.next().and_then(|word| word.split_once('/')).ok_or_else(form)?;
        let mut rate = Self::try_per(number("count of a rate", count)?, parse_span("period of a rate", period)?)?;
        let mut rest = words.next();
        if rest == Some("burst") {
            rate = rate.try_burst(number("burst", words.next().ok_or_else(form)?)?)?;
            rest = words.next();
        }
        if rest == Some("initial") {
            rate = rate.try_initial_tokens(number("initial tokens", words.next().ok_or_else(form)?)?)?;
            rest = words.next();
        }
        if rest.is_some() { Err(form()) } else { Ok(rate) }
    }
}

fn number(what: &str, text: &str) -> Result<u64, ConfigError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| ConfigError::quoted(what, "be a whole number in digits", text))
}

/// A rate in the form that `FromStr` reads back exactly.
#[allow(dead_code, reason = "only a feature writes rates")]
pub(crate) struct RateText<'a>(pub(crate) &'a Rate);

impl fmt::Display for RateText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rate) = self;
        let interval = rate.interval_ns();
        // The shortest unit in which a whole count gives this very interval; one per interval always does.
        let whole = UNITS[..4].iter().rev().find_map(|(unit, nanos)| {
            let least = nanos / interval; // an interval is rounded up, so that one more may fit too
            let count = [least, least + 1].into_iter().find(|count| *count > 0 && nanos.div_ceil(*count) == interval);
            Some((count?, *unit))
        });
        match whole {
            Some((count, unit)) => write!(f, "{count}/{unit}")?,
            None => write!(f, "1/{}", Span(Duration::from_nanos(interval)))?,
        }
        write!(f, " burst {}", rate.capacity())?;
        if rate.newcomer_tokens() != rate.capacity() {
            write!(f, " initial {}", rate.newcomer_tokens())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_rate_is_read_back(interval in 1..1_u64 << 61, burst in 1..1_000_u64, initial: u64) {
            let rate = Rate::try_per(1, Duration::from_nanos(interval)).unwrap();
            if let Ok(rate) = rate.try_burst(burst) {
                let rate = rate.initial_tokens(initial % (burst + 1));
                prop_assert_eq!(RateText(&rate).to_string().parse(), Ok(rate));
            }
        }

        #[test]
        fn counts_are_written_as_they_were_set(count in 1..1_000_000_u64) {
            let rate = Rate::per_second(count);
            prop_assert_eq!(RateText(&rate).to_string().parse(), Ok(rate));
        }

        #[test]
        fn any_text_is_a_rate_or_an_error(text in "[0-9]{0,21}/?[0-9]{0,21}[a-z]{0,3}( burst [0-9]{0,21})?( initial [0-9]{0,3})?") {
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert_eq!(RateText(&rate).to_string().parse(), Ok(rate));
            }
        }
    }

    #[test]
    fn texts_are_short_and_exact() {
        for (text, rate) in [
            ("50/s burst 50", Rate::per_second(50)),
            ("1000/h burst 50", Rate::per_hour(1_000).burst(50)),
            ("7/min burst 7 initial 0", Rate::per_minute(7).initial_tokens(0)),
            ("1/d burst 3", Rate::every(Duration::from_secs(86_400)).burst(3)),
        ] {
            assert_eq!(RateText(&rate).to_string(), text);
            assert_eq!(text.parse(), Ok(rate));
        }
        assert_eq!("3/2s".parse(), Ok(Rate::per(3, Duration::from_secs(2))));
        assert_eq!(" 1/500ms   burst 2 ".parse(), Ok(Rate::every(Duration::from_millis(500)).burst(2)));
    }

    #[test]
    fn error_names_the_wrong_part() {
        for (text, wanted) in [
            ("", "rate must have the form 50/s or 1000/h burst 50, got \"\""),
            ("50", "rate must have the form"),
            ("50/s burst", "rate must have the form"),
            ("50/s initial 1 burst 2", "rate must have the form"),
            ("50/s, burst 2", "unit of the period of a rate must be ns, us, ms, s, min, h or d, got \"s,\""),
            ("0/s", "rate must be positive, got 0"),
            ("-1/s", "count of a rate must be a whole number in digits, got \"-1\""),
            ("1.5/s", "count of a rate must be a whole number"),
            ("1/0s", "period must be positive"),
            ("1/200000d", "period must be at most 2^62 ns"),
            ("1/s burst 0", "burst must be positive, got 0"),
            ("1/s initial 2", "initial tokens must be at most the burst, got 2 with a burst of 1"),
        ] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text:?}: {error}");
        }
    }
}
