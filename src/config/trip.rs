//! Rules of circuits in files.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::{
    circuit_breaker::{Trip, WindowLength},
    error::ConfigError,
    time::{Span, parse_span},
};

/// Rules of a circuit as a file has them.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TripForm<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure_rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slow_rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    consecutive: Option<u32>,
    /// For rules that a classifier alone makes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    on_classifier: bool,
    /// For both rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_requests: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure_min_requests: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slow_min_requests: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    over_calls: Option<u32>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    over_time: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    slow_after: Option<Cow<'a, str>>,
}

impl TripForm<'_> {
    fn trip(self) -> Result<Trip, ConfigError> {
        let rate = |rule: Trip, own: Option<u32>| match own.or(self.min_requests) {
            Some(calls) => rule.min_requests(calls),
            None => rule,
        };
        let rules = [
            self.failure_rate.map(|share| rate(Trip::failure_rate(share), self.failure_min_requests)),
            self.slow_rate.map(|share| rate(Trip::slow_rate(share), self.slow_min_requests)),
            self.consecutive.map(Trip::consecutive),
            self.on_classifier.then(Trip::on_classifier),
        ];
        let no_rule = || {
            ConfigError::message(
                "a circuit needs a rule, got none: set failure_rate, slow_rate or consecutive, such as consecutive = 5",
            )
        };
        let mut trip = rules.into_iter().flatten().reduce(Trip::or).ok_or_else(no_rule)?;
        match (self.over_calls, self.over_time) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::message("the window has over_calls and over_time; remove one of them"));
            }
            (Some(calls), None) => trip = trip.over_calls(calls),
            (None, Some(time)) => trip = trip.over_time(parse_span("over_time", &time)?),
            (None, None) => {}
        }
        if let Some(time) = self.slow_after {
            trip = trip.slow_after(parse_span("slow_after", &time)?);
        }
        trip.check()?;
        Ok(trip)
    }

    /// Returns the form of rules that can be built into a layer.
    fn of(trip: &Trip) -> Result<Self, ConfigError> {
        trip.check()?;
        let span = |what, time: Duration| {
            let text = Span(time).to_string();
            parse_span(what, &text).map(|_| Cow::from(text)) // an error for a span that no file can have
        };
        let (failure, slow) = (trip.failure, trip.slow);
        let mut form = TripForm {
            failure_rate: failure.map(|rule| rule.share),
            slow_rate: slow.map(|rule| rule.share),
            consecutive: trip.consecutive,
            on_classifier: failure.is_none() && slow.is_none() && trip.consecutive.is_none(),
            failure_min_requests: failure.and_then(|rule| rule.min_requests),
            slow_min_requests: slow.and_then(|rule| rule.min_requests),
            slow_after: trip.slow_after.map(|time| span("slow_after", time)).transpose()?,
            ..TripForm::default()
        };
        if failure.is_none() || slow.is_none() || form.failure_min_requests == form.slow_min_requests {
            form.min_requests = form.failure_min_requests.or(form.slow_min_requests);
            (form.failure_min_requests, form.slow_min_requests) = (None, None);
        }
        match trip.window {
            Some(WindowLength::Calls(calls)) => form.over_calls = Some(calls),
            Some(WindowLength::Time(time)) => form.over_time = Some(span("over_time", time)?),
            None => {}
        }
        Ok(form)
    }
}

/// A map with one or more of `failure_rate`, `slow_rate` and `consecutive`, and optionally `min_requests`, `over_calls` or
/// `over_time`, and `slow_after`. Times are texts such as `10s`:
///
/// ```
/// let trip: tollgate::Trip = serde_json::from_str(r#"{ "failure_rate": 0.5, "min_requests": 20, "over_time": "10s" }"#)?;
/// let layer = tollgate::CircuitBreakerLayer::for_server().trip(trip);
/// # Ok::<_, serde_json::Error>(())
/// ```
///
/// If the rates differ in it, `failure_min_requests` and `slow_min_requests` stand for `min_requests`. Rules without a
/// rate and a number have `on_classifier`, which is true.
impl<'de> Deserialize<'de> for Trip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TripForm::deserialize(deserializer)?.trip().map_err(de::Error::custom)
    }
}

/// The map that reads back as equal rules. Rules that no layer takes, such as a rate above 1, are an error.
impl Serialize for Trip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TripForm::of(self).map_err(ser::Error::custom)?.serialize(serializer)
    }
}
