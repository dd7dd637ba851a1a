//! Rules of circuits in files.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::Error};

use crate::{circuit_breaker::Trip, error::ConfigError, time::parse_span};

/// Rules of a circuit as a file has them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TripForm<'a> {
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    consecutive: Option<u32>,
    min_requests: Option<u32>,
    over_calls: Option<u32>,
    #[serde(borrow)]
    over_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    slow_after: Option<Cow<'a, str>>,
}

impl TripForm<'_> {
    fn trip(self) -> Result<Trip, ConfigError> {
        let rules = [
            self.failure_rate.map(Trip::failure_rate),
            self.slow_rate.map(Trip::slow_rate),
            self.consecutive.map(Trip::consecutive),
        ];
        let no_rule = || {
            ConfigError::message(
                "a circuit needs a rule, got none: set failure_rate, slow_rate or consecutive, such as consecutive = 5",
            )
        };
        let mut trip = rules.into_iter().flatten().reduce(Trip::or).ok_or_else(no_rule)?;
        if let Some(calls) = self.min_requests {
            trip = trip.min_requests(calls);
        }
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
}

/// A map with one or more of `failure_rate`, `slow_rate` and `consecutive`, and optionally `min_requests`, `over_calls` or
/// `over_time`, and `slow_after`. Times are texts such as `10s`:
///
/// ```
/// let trip: tollgate::Trip = serde_json::from_str(r#"{ "failure_rate": 0.5, "min_requests": 20, "over_time": "10s" }"#)?;
/// let layer = tollgate::CircuitBreakerLayer::for_server().trip(trip);
/// # Ok::<_, serde_json::Error>(())
/// ```
impl<'de> Deserialize<'de> for Trip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TripForm::deserialize(deserializer)?.trip().map_err(D::Error::custom)
    }
}
