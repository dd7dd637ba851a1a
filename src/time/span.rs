//! Spans of time as text, such as `90s`: for rates, periods and settings in files.

use std::{fmt, time::Duration};

use crate::error::ConfigError;

/// Units of a span in nanoseconds, the longest first.
pub(crate) const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a unit, or a whole number and a unit, of at most 2^64 - 1 ns. `what` names the setting in errors.
pub(crate) fn parse_span(what: &str, text: &str) -> Result<Duration, ConfigError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let nanos = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos);
    let of = format!("unit of the {what}");
    let nanos = nanos.ok_or_else(|| ConfigError::quoted(&of, "be ns, us, ms, s, min, h or d", unit))?;
    let count = if count.is_empty() { Some(1) } else { count.parse().ok() };
    let fits = count.and_then(|count| nanos.checked_mul(count)).map(Duration::from_nanos);
    fits.ok_or_else(|| ConfigError::quoted(what, "be at most 2^64 - 1 ns (584 years)", text))
}

/// A span in the longest unit that it is a whole number of.
#[allow(dead_code, reason = "only a feature writes spans")]
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let whole = UNITS.iter().find(|(_, unit)| nanos != 0 && nanos.is_multiple_of(u128::from(*unit)));
        let (unit, length) = whole.copied().unwrap_or(("ns", 1));
        write!(f, "{}{unit}", nanos / u128::from(length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_span_is_read_back(nanos: u64, unit in prop::sample::select(UNITS.to_vec())) {
            for nanos in [nanos, nanos / unit.1 * unit.1] {
                let span = Duration::from_nanos(nanos);
                prop_assert_eq!(parse_span("time", &Span(span).to_string()), Ok(span));
            }
        }
    }

    #[test]
    fn error_names_the_unit_and_the_setting() {
        assert_eq!(parse_span("time", "h"), Ok(Duration::from_secs(3_600)));
        for (text, wanted) in [
            ("", "unit of the time must be ns, us, ms, s, min, h or d, got \"\""),
            ("5", "unit of the time must be"),
            ("5m", "unit of the time must be"),
            ("1.5s", "unit of the time must be"),
            ("213504d", "time must be at most 2^64 - 1 ns (584 years), got \"213504d\""),
            ("99999999999999999999ns", "time must be at most"),
        ] {
            let error = parse_span("time", text).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text:?}: {error}");
        }
    }
}
