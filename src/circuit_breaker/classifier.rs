//! Verdict on what a breaker saw of a call: the user's classifier or the default one, and `Retry-After`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};
use httpdate::parse_http_date;

use crate::{
    classify::{CallOutcome, Classify, DefaultClassifier, Verdict},
    head::ResponseHead,
    refusal::is_grpc_status,
};

/// Settings by which results are judged.
#[derive(Clone, Default)]
pub(crate) struct ResultClassifier {
    pub(crate) default: DefaultClassifier,
    pub(crate) custom: Option<Arc<dyn Classify>>,
    pub(crate) slow_to_end: bool,
    pub(crate) honor_retry_after: bool,
}

impl ResultClassifier {
    #[inline]
    pub(crate) fn judge(&self, outcome: &CallOutcome<'_>) -> Verdict {
        match &self.custom {
            // A permit also judges while it is dropped. There a panic would lose the result, and a probe's slot with
            // it.
            Some(custom) => catch_unwind(AssertUnwindSafe(|| custom.classify(outcome))).unwrap_or(Verdict::Failure),
            None => self.default.classify(outcome),
        }
    }

    /// Returns the verdict on a head, with the wait that it asks for where that is honored. A gRPC-Web call that failed
    /// before its first message has its status in the head, under an HTTP status of 200.
    #[inline]
    pub(crate) fn judge_head(&self, head: ResponseHead<'_>) -> Verdict {
        if head.status.is_success() && is_grpc_status(head.headers) {
            return self.judge(&CallOutcome::Trailers(Some(head.headers)));
        }
        match self.judge(&CallOutcome::Head(head)) {
            Verdict::Failure if self.honor_retry_after => {
                asked_wait(head.headers).map_or(Verdict::Failure, Verdict::TripFor)
            }
            verdict => verdict,
        }
    }
}

/// Returns the wait that `Retry-After` asks for, in seconds or as a date.
///
/// `None` if the field is absent or malformed, or asks for no wait: 0, or a date that is not after the response's own
/// `Date`. `None` also for a date in a response without a `Date`, because the sender's clock is unknown.
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
