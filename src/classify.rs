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
/// use tollgate::{CircuitBreakerLayer, Classify, CallOutcome, DefaultClassifier, Verdict};
///
/// let layer = CircuitBreakerLayer::for_server().classify(|outcome: &CallOutcome<'_>| match outcome {
///     CallOutcome::Head(head) if head.headers.contains_key("x-degraded") => Verdict::Failure,
///     CallOutcome::Head(head) if head.status == StatusCode::GONE => Verdict::Trip,
///     _ => DefaultClassifier::for_server().classify(outcome),
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

impl Verdict {
    /// Returns the verdict of a client on a status, as [`DefaultClassifier::for_client`] gives it.
    ///
    /// For results of [`CircuitBreaker::call_with`](crate::CircuitBreaker::call_with), where a response of 502 is an `Ok`.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tollgate::Verdict;
    /// assert_eq!(Verdict::of_status(StatusCode::BAD_GATEWAY), Verdict::Failure);
    /// assert_eq!(Verdict::of_status(StatusCode::NOT_FOUND), Verdict::Success);
    /// ```
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        DefaultClassifier::for_client().status(status)
    }
}

/// The default [`Classify`]: errors, statuses from 500 and gRPC's server faults are failures, except those that a
/// stranger can cause.
///
/// | result | [`for_server`](Self::for_server) | [`for_client`](Self::for_client) |
/// |---|---|---|
/// | error of the service or the body, panic | failure | failure |
/// | status from 500, except those below | failure | failure |
/// | 501, 505, 511 | ignored: the request decides | failure |
/// | 408 | ignored: the client was slow | failure: the service did not answer in time |
/// | other statuses below 500 | success | success |
/// | gRPC `UNAVAILABLE`, `DATA_LOSS`, a stream without a status | failure | failure |
/// | gRPC `INTERNAL`, `UNKNOWN` | ignored: servers answer garbage with them | failure |
/// | gRPC `CANCELLED`, `DEADLINE_EXCEEDED` | ignored: the client sets the deadline and cancels | failure |
/// | other gRPC statuses | success | success |
///
/// 429 and `RESOURCE_EXHAUSTED` concern one client, and are successes unless
/// [`count_rate_limits`](Self::count_rate_limits) is set.
///
/// ```
/// use http::HeaderMap;
/// use tollgate::{Classify, CallOutcome, DefaultClassifier, Verdict};
///
/// let mut trailers = HeaderMap::new();
/// trailers.insert("grpc-status", 13.into()); // INTERNAL
/// let outcome = CallOutcome::Trailers(Some(&trailers));
/// assert_eq!(DefaultClassifier::for_client().classify(&outcome), Verdict::Failure);
/// assert_eq!(DefaultClassifier::for_server().classify(&outcome), Verdict::Ignore);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultClassifier {
    /// Whether the calls are the server's own, so that no stranger chooses them.
    pub(crate) is_client: bool,
    rate_limits: bool,
}

impl DefaultClassifier {
    /// Judges responses of a server to requests that strangers choose.
    #[must_use]
    pub const fn for_server() -> Self {
        Self { is_client: false, rate_limits: false }
    }

    /// Judges responses that a client receives.
    #[must_use]
    pub const fn for_client() -> Self {
        Self { is_client: true, rate_limits: false }
    }

    /// Counts 429 and `RESOURCE_EXHAUSTED` as failures too, for a service whose limit is shared by all callers.
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use tollgate::{Classify, ResponseHead, CallOutcome, DefaultClassifier, Verdict};
    ///
    /// let answer = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).body(()).unwrap();
    /// let head = CallOutcome::Head(ResponseHead::of(&answer));
    /// assert_eq!(DefaultClassifier::for_client().classify(&head), Verdict::Success);
    /// assert_eq!(DefaultClassifier::for_client().count_rate_limits().classify(&head), Verdict::Failure);
    /// ```
    #[must_use]
    pub const fn count_rate_limits(self) -> Self {
        Self { rate_limits: true, ..self }
    }

    #[inline]
    fn status(self, status: StatusCode) -> Verdict {
        match status.as_u16() {
            ..408 => Verdict::Success,
            429 if self.rate_limits => Verdict::Failure,
            408 | 501 | 505 | 511 if !self.is_client => Verdict::Ignore,
            408 | 500..=599 => Verdict::Failure,
            _ => Verdict::Success,
        }
    }

    fn trailers(self, trailers: Option<&HeaderMap>) -> Verdict {
        let Some(status) = trailers.and_then(|trailers| trailers.get("grpc-status")) else { return Verdict::Failure };
        match status.as_bytes() {
            b"8" if self.rate_limits => Verdict::Failure,
            // The caller's fault, or answers.
            b"0" | b"3" | b"5" | b"6" | b"7" | b"8" | b"9" | b"10" | b"11" | b"12" | b"16" => Verdict::Success,
            b"14" | b"15" => Verdict::Failure,
            // 1, 2, 4, 13, and text that is no status, which counts as UNKNOWN.
            _ if self.is_client => Verdict::Failure,
            _ => Verdict::Ignore,
        }
    }
}

impl Classify for DefaultClassifier {
    #[inline]
    fn classify(&self, outcome: &CallOutcome<'_>) -> Verdict {
        match outcome {
            CallOutcome::Head(head) => self.status(head.status),
            CallOutcome::Trailers(trailers) => self.trailers(*trailers),
            CallOutcome::Error(_) | CallOutcome::BodyError(_) => Verdict::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDES: [DefaultClassifier; 2] = [DefaultClassifier::for_server(), DefaultClassifier::for_client()];

    #[test]
    fn grpc_statuses_fail_only_for_server_faults() {
        let verdicts = |code: &str| {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
            SIDES.map(|side| side.classify(&CallOutcome::Trailers(Some(&trailers))))
        };
        for code in ["14", "15"] {
            assert_eq!(verdicts(code), [Verdict::Failure; 2], "{code}");
        }
        for code in ["1", "2", "4", "13", "", "x", "17", "014"] {
            assert_eq!(verdicts(code), [Verdict::Ignore, Verdict::Failure], "{code}");
        }
        for code in ["0", "3", "5", "6", "7", "8", "9", "10", "11", "12", "16"] {
            assert_eq!(verdicts(code), [Verdict::Success; 2], "{code}");
        }
        assert_eq!(SIDES.map(|side| side.classify(&CallOutcome::Trailers(None))), [Verdict::Failure; 2]);
    }

    #[test]
    fn statuses_that_a_stranger_can_cause_fail_only_on_a_client() {
        for status in (100..=999).filter_map(|status| StatusCode::from_u16(status).ok()) {
            let expected = match status.as_u16() {
                408 | 501 | 505 | 511 => [Verdict::Ignore, Verdict::Failure],
                500..=599 => [Verdict::Failure; 2],
                _ => [Verdict::Success; 2],
            };
            assert_eq!(SIDES.map(|side| side.status(status)), expected, "{status}");
            let counted = SIDES.map(|side| side.count_rate_limits().status(status));
            assert_eq!(counted, if status == 429 { [Verdict::Failure; 2] } else { expected }, "{status}");
        }
    }
}
