//! Periods as text, such as `month in Europe/Berlin`.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use super::{Period, Unit};
use crate::{
    error::ConfigError,
    time::{Span, parse_span},
};

/// Reads `hour`, `day`, `week`, `month`, `rolling 90s` or `billing_month from 1767225600`, whose number is the anchor in
/// seconds since 1970. With the feature `zones`, ` in Europe/Berlin` may follow a calendar period.
///
/// # Errors
/// If the text has another form, a value is out of range, or the zone is unknown.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Period;
/// assert_eq!("month".parse(), Ok(Period::month()));
/// assert_eq!("rolling 90min".parse(), Ok(Period::rolling(Duration::from_secs(5_400))));
/// let error = "monthly".parse::<Period>().unwrap_err();
/// assert!(error.to_string().starts_with("period must be hour, day, week, month, "));
/// ```
impl FromStr for Period {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (text, zone) = text.split_once(" in ").map_or((text, None), |(text, zone)| (text, Some(zone)));
        let period = match (text, text.split_once(' ')) {
            ("hour", _) => Self::hour(),
            ("day", _) => Self::day(),
            ("week", _) => Self::week(),
            ("month", _) => Self::month(),
            (_, Some(("rolling", length))) => Self::try_rolling(parse_span("length of a rolling period", length)?)?,
            (_, Some(("billing_month", anchor))) => {
                let seconds = anchor.strip_prefix("from ").and_then(|seconds| seconds.parse().ok());
                let anchor =
                    seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
                Self::billing_month(anchor.ok_or_else(|| form(text))?)?
            }
            _ => return Err(form(text)),
        };
        match zone {
            None => Ok(period),
            #[cfg(feature = "zones")]
            Some(zone) => period.in_zone(zone),
            #[cfg(not(feature = "zones"))]
            Some(zone) => Err(ConfigError::quoted("period", "be in UTC without the feature zones", zone)),
        }
    }
}

fn form(text: &str) -> ConfigError {
    let forms = "be hour, day, week, month, \"rolling 90s\" or \"billing_month from 1767225600\"";
    ConfigError::quoted("period", forms, text)
}

/// A period in the form that `FromStr` reads back, in whole seconds of an anchor.
#[allow(dead_code, reason = "only a feature writes periods")]
pub(crate) struct PeriodText<'a>(pub(crate) &'a Period);

impl fmt::Display for PeriodText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.unit {
            Unit::Rolling(length) => return write!(f, "rolling {}", Span(length)),
            Unit::Billing(anchor) => write!(f, "billing_month from {}", anchor.as_secs())?,
            _ => f.write_str(&self.0.name())?,
        }
        #[cfg(feature = "zones")]
        if let Some(zone) = &self.0.zone {
            write!(f, " in {zone}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_period_is_read_back() {
        for text in ["hour", "day", "week", "month", "rolling 90s", "rolling 1500ms", "billing_month from 1767225600"] {
            let period: Period = text.parse().unwrap();
            assert_eq!(PeriodText(&period).to_string(), text);
        }
        #[cfg(feature = "zones")]
        for text in ["day in Europe/Berlin", "billing_month from 1767225600 in America/New_York"] {
            let period: Period = text.parse().unwrap();
            assert_eq!(PeriodText(&period).to_string(), text);
        }
    }

    #[test]
    fn wrong_text_is_an_error_that_shows_it() {
        for (text, wanted) in [
            ("", "period must be hour, day, week, month,"),
            ("Month", "period must be hour"),
            ("rolling", "period must be hour"),
            ("rolling 1.5h", "unit of the length of a rolling period must be"),
            ("rolling 1ms", "length of a rolling period must be from 1 s to 10 years, got 1ms"),
            ("billing_month from May", "period must be hour"),
            ("billing_month from 99999999999999", "anchor of a billing month must be between 1970 and 9000"),
            ("billing_month from 18446744073709551615", "period must be hour"),
        ] {
            let error = text.parse::<Period>().unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text:?}: {error}");
        }
        assert!("day in Atlantis".parse::<Period>().is_err());
        assert!("rolling 90s in Europe/Berlin".parse::<Period>().is_err());
    }
}
