//! What all circuits of a breaker have in common.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};
use httpdate::parse_http_date;

use super::{machine::Recovery, trip::Trip};
use crate::{
    classify::{CallOutcome, Classify, DefaultClassifier, Verdict},
    gate::Observers,
    head::ResponseHead,
    policy_name::PolicyName,
    refusal::{Reason, Refusal, is_grpc_status},
    time::Clock,
};

/// Rules, times, clock and listeners.
#[derive(Debug)]
pub(crate) struct BreakerConfig {
    pub(crate) name: PolicyName,
    pub(crate) clock: Clock,
    pub(crate) observers: Observers,
    pub(crate) trip: Trip,
    pub(crate) recovery: Recovery,
    pub(crate) judge: Judge,
}

impl BreakerConfig {
    pub(crate) fn refusal(&self, wait: Duration) -> Refusal {
        Refusal::new(Reason::CircuitOpen, self.name.clone()).with_retry_after(wait)
    }

    #[inline]
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        took >= self.trip.slow_bound()
    }
}

/// How results are judged.
#[derive(Clone, Default)]
pub(crate) struct Judge {
    pub(crate) statuses: DefaultClassifier,
    pub(crate) custom: Option<Arc<dyn Classify>>,
    pub(crate) slow_to_end: bool,
    pub(crate) honor_retry_after: bool,
}

impl Judge {
    #[inline]
    pub(crate) fn of(&self, seen: &CallOutcome<'_>) -> Verdict {
        match &self.custom {
            // Asked in a drop too, where a panic would take the result with it and leave a probe's place unanswered.
            Some(custom) => catch_unwind(AssertUnwindSafe(|| custom.classify(seen))).unwrap_or(Verdict::Failure),
            None => self.statuses.classify(seen),
        }
    }

    /// The verdict on a head, with the wait that it asks for where that is honoured. A gRPC-Web call that failed before
    /// its first message says so in the head, under a status of 200.
    #[inline]
    pub(crate) fn of_head(&self, head: ResponseHead<'_>) -> Verdict {
        if head.status.is_success() && is_grpc_status(head.headers) {
            return self.of(&CallOutcome::Trailers(Some(head.headers)));
        }
        match self.of(&CallOutcome::Head(head)) {
            Verdict::Failure if self.honor_retry_after => {
                asked_wait(head.headers).map_or(Verdict::Failure, Verdict::TripFor)
            }
            verdict => verdict,
        }
    }
}

/// Returns the wait that `Retry-After` asks for, in seconds or as a date.
///
/// `None` where the field says nothing: it is absent or malformed, asks for no wait (0, or a date that is not after the
/// response's own `Date`), or is a date without a `Date`, for the sender's clock is unknown.
fn asked_wait(fields: &HeaderMap) -> Option<Duration> {
    let text = |name| Some(fields.get(name)?.to_str().ok()?.trim());
    let asked = text(RETRY_AFTER)?;
    let wait = if !asked.is_empty() && asked.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that exceed a u64 are as long as the cap allows.
        Duration::from_secs(asked.parse().unwrap_or(u64::MAX))
    } else {
        let (until, sent) = (parse_http_date(asked).ok()?, parse_http_date(text(DATE)?).ok()?);
        until.duration_since(sent).ok()?
    };
    (!wait.is_zero()).then_some(wait)
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("custom", &self.custom.is_some()).finish_non_exhaustive()
    }
}
