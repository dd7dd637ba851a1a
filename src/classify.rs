//! Classification of results: success, failure, or neither.

use std::{any::Any, fmt, time::Duration};

use http::{HeaderMap, StatusCode};

use crate::head::ResponseHead;

/// Classifies the result of a call. Closures implement it.
///
/// A classifier runs as soon as a result is known: at the head of a response, for gRPC at its trailers, and when a
/// service or a body fails. The default is [`DefaultClassifier`]. A panic in it is caught and is a
/// [`Verdict::Failure`].
///
/// ```
/// use http::StatusCode;
/// use tollgate::{CircuitBreakerLayer, Classify, CallOutcome, DefaultClassifier, Trip, Verdict};
///
/// let layer = CircuitBreakerLayer::new(Trip::consecutive(5)).classify(|outcome: &CallOutcome<'_>| match outcome {
///     CallOutcome::Head(head) if head.headers.contains_key("x-degraded") => Verdict::Failure,
///     CallOutcome::Head(head) if head.status == StatusCode::GONE => Verdict::Trip,
///     _ => DefaultClassifier::default().classify(outcome),
/// });
/// ```
pub trait Classify: Send + Sync + 'static {
    /// Returns the verdict on an outcome.
    fn classify(&self, outcome: &CallOutcome<'_>) -> Verdict;
}

impl<F: Fn(&CallOutcome<'_>) -> Verdict + Send + Sync + 'static> Classify for F {
    fn classify(&self, outcome: &CallOutcome<'_>) -> Verdict {
        self(outcome)
    }
}

/// The part of a call that a classifier judges.
#[non_exhaustive]
pub enum CallOutcome<'a> {
    /// The head of a response.
    Head(ResponseHead<'a>),
    /// The trailers of a gRPC call, or the head's fields if it has no body. `None` if the stream ended without trailers.
    Trailers(Option<&'a HeaderMap>),
    /// The service failed.
    Error(&'a dyn Any),
    /// The body failed after its head.
    BodyError(&'a dyn Any),
}

impl fmt::Debug for CallOutcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(head) => f.debug_tuple("Head").field(&head.status).finish(),
            Self::Trailers(trailers) => f.debug_tuple("Trailers").field(&trailers.is_some()).finish(),
            Self::Error(_) => f.write_str("Error"),
            Self::BodyError(_) => f.write_str("BodyError"),
        }
    }
}

/// Verdict on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The service did its work.
    Success,
    /// The service failed.
    Failure,
    /// The call is not counted; a probe releases its slot.
    Ignore,
    /// The circuit opens now, whatever its window holds.
    Trip,
    /// The circuit opens now, for at least this time. More than 60 s counts as 60 s.
    TripFor(Duration),
}

/// The default [`Classify`]: errors, statuses from 500 and gRPC's server faults are failures.
///
/// - A status below 500 is a success: the service did its work, the client was wrong. So is 429, which concerns one
///   client, unless [`count_rate_limits`](Self::count_rate_limits) is set.
/// - gRPC: `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS` are failures, and so is a stream
///   that ends without a status. `CANCELLED` is ignored.
///
/// ```
/// use http::HeaderMap;
/// use tollgate::{Classify, CallOutcome, DefaultClassifier, Verdict};
///
/// let mut trailers = HeaderMap::new();
/// trailers.insert("grpc-status", 14.into());
/// assert_eq!(DefaultClassifier::default().classify(&CallOutcome::Trailers(Some(&trailers))), Verdict::Failure);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultClassifier {
    rate_limits: bool,
}

impl DefaultClassifier {
    /// Counts 429 and `RESOURCE_EXHAUSTED` as failures too, for a service whose limit is shared by all callers.
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use tollgate::{Classify, ResponseHead, CallOutcome, DefaultClassifier, Verdict};
    ///
    /// let answer = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).body(()).unwrap();
    /// let head = CallOutcome::Head(ResponseHead::of(&answer));
    /// assert_eq!(DefaultClassifier::default().classify(&head), Verdict::Success);
    /// assert_eq!(DefaultClassifier::default().count_rate_limits().classify(&head), Verdict::Failure);
    /// ```
    #[must_use]
    pub const fn count_rate_limits(self) -> Self {
        Self { rate_limits: true }
    }

    #[inline]
    fn failed(self, status: StatusCode) -> bool {
        status.is_server_error() || (self.rate_limits && status == StatusCode::TOO_MANY_REQUESTS)
    }

    fn trailers(self, trailers: Option<&HeaderMap>) -> Verdict {
        let status = trailers.and_then(|trailers| trailers.get("grpc-status")).map(|status| status.as_bytes());
        match status {
            Some(b"1") => Verdict::Ignore,
            Some(b"8") if self.rate_limits => Verdict::Failure,
            // All other statuses are the caller's fault, or answers.
            Some(b"0" | b"3" | b"5" | b"6" | b"7" | b"8" | b"9" | b"10" | b"11" | b"12" | b"16") => Verdict::Success,
            // 2, 4, 13, 14, 15, no status at all, and text that is no status, which counts as UNKNOWN.
            _ => Verdict::Failure,
        }
    }
}

impl Classify for DefaultClassifier {
    #[inline]
    fn classify(&self, outcome: &CallOutcome<'_>) -> Verdict {
        match outcome {
            CallOutcome::Head(head) if self.failed(head.status) => Verdict::Failure,
            CallOutcome::Head(_) => Verdict::Success,
            CallOutcome::Trailers(trailers) => self.trailers(*trailers),
            CallOutcome::Error(_) | CallOutcome::BodyError(_) => Verdict::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_statuses_fail_only_for_server_faults() {
        let verdict = |code: &str| {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
            DefaultClassifier::default().classify(&CallOutcome::Trailers(Some(&trailers)))
        };
        for code in ["2", "4", "13", "14", "15", "", "x", "17", "014"] {
            assert_eq!(verdict(code), Verdict::Failure, "{code}");
        }
        for code in ["0", "3", "5", "6", "7", "8", "9", "10", "11", "12", "16"] {
            assert_eq!(verdict(code), Verdict::Success, "{code}");
        }
        assert_eq!(verdict("1"), Verdict::Ignore);
    }
}
