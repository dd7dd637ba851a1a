//! A call with a key: its body is read, its record begun, its answer stored. It runs on without its client.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header::ACCEPT_ENCODING, request::Parts};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service;

use super::{
    answer,
    body::{IdempotentAnswerBody, IdempotentBody},
    config::{IdempotencyConfig, OnRunning, OnStoreFailure},
    execution::IdempotentExecution,
    key::Operation,
    operation_end::OperationEnd,
    read_body::{self, Unread},
    state::{BufferedBytes, IdempotencyState, RunningRecord, WaitingPlace},
};
use crate::{
    head::RequestHead,
    key_value::{Answer, Begun, Claim, MAX_TTL, OwnedRecord, Owner, RecordAbout},
    refusal::{Reason, Responder},
    time::Clock,
};

/// Wait that is told to a duplicate.
const RETRY: Duration = Duration::from_secs(1);

/// Time between two questions for an operation that runs in this process, and elsewhere.
const ASK_HERE: Duration = Duration::from_secs(1);
const ASK_ELSEWHERE: Duration = Duration::from_millis(50);

/// Whether a call has to go on without its client, and whether it does.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) begun: AtomicBool,
    pub(super) hung_up: AtomicBool,
}

pub(super) type AnswerOf<B> = Response<IdempotentAnswerBody<B>>;

/// A request with a key, and what it needs.
pub(super) struct GuardedCall<S, B> {
    pub(super) config: Arc<IdempotencyConfig>,
    pub(super) state: Arc<IdempotencyState>,
    pub(super) service: S,
    pub(super) request: Request<B>,
    pub(super) operation: Operation,
    pub(super) buffered: BufferedBytes,
    pub(super) progress: Arc<Progress>,
}

/// Returns the response of a refusal.
pub(super) fn refuse<B: Body>(
    config: &IdempotencyConfig,
    state: &IdempotencyState,
    refusal: crate::refusal::Refusal,
    head: &RequestHead<'_>,
) -> AnswerOf<B> {
    state.tallies.refused.fetch_add(1, Relaxed);
    let is_mismatch = refusal.reason() == Reason::IdempotencyKeyReused;
    let mut response = Responder::default().answer(refusal, head, || Clock::system().wall());
    if is_mismatch {
        *response.status_mut() = config.mismatch;
    }
    response.map(IdempotentAnswerBody::refusal)
}

pub(super) fn count(tally: &AtomicU64) {
    tally.fetch_add(1, Relaxed);
}

/// Result of the questions to the store.
enum StoreAnswer {
    Started {
        attempt: u32,
    },
    Replayed {
        answer: Answer,
        first_at: Duration,
    },
    Refused(Reason),
    /// The store fails, and the request passes all the same.
    Unprotected,
}

impl<S, ReqB, ResB> GuardedCall<S, ReqB>
where
    S: Service<Request<IdempotentBody<ReqB>>, Response = Response<ResB>>,
    ReqB: Body<Data = Bytes>,
    ResB: Body<Data = Bytes>,
{
    pub(super) async fn run(self) -> Result<AnswerOf<ResB>, S::Error> {
        let Self { config, state, mut service, request, operation, mut buffered, progress } = self;
        let (mut parts, body) = request.into_parts();
        let refused = |reason: Reason, parts: &Parts| {
            let refusal = config.refusal(reason);
            let waits = matches!(reason, Reason::OperationRunning | Reason::RecordsUnavailable);
            let refusal = if waits { refusal.with_retry_after(RETRY) } else { refusal };
            Ok(refuse(&config, &state, refusal, &RequestHead::from(parts)))
        };
        let (data, trailers) = match timeout(config.body_timeout, read_body::whole(body, buffered.length())).await {
            Ok(Ok(read)) => read,
            Ok(Err(Unread::TooLong)) => return refused(Reason::BodyTooLong, &parts),
            Ok(Err(Unread::Failed)) | Err(_) => return refused(Reason::BodyUnread, &parts),
        };
        buffered.shrink(data.len());
        let key = operation.key.clone();
        let claim = claim(&config, &parts, &data, operation);
        let record = OwnedRecord::new(Arc::clone(&config.store), &claim);
        let asked = ask(&config, &state, &claim, &record, &progress).await;
        let mut running = match asked {
            StoreAnswer::Started { attempt } => {
                let execution = IdempotentExecution::new(Arc::clone(&config.store), record.key, attempt, key);
                Some((RunningRecord::new(&state, &config, record), execution))
            }
            StoreAnswer::Unprotected => None,
            StoreAnswer::Refused(reason) => return refused(reason, &parts),
            StoreAnswer::Replayed { answer, first_at } => {
                let Some(response) = answer::replayed(answer, first_at) else {
                    return refused(Reason::AnswerNotRetained, &parts);
                };
                count(&state.tallies.replayed);
                return Ok(response.map(IdempotentAnswerBody::stored));
            }
        };
        if let Some((running, _)) = running.as_mut().filter(|_| progress.hung_up.load(Relaxed)) {
            running.settle();
            running.record.abandon().await; // its client went before the handler was called
            return refused(Reason::OperationRunning, &parts);
        }
        parts.headers.remove(ACCEPT_ENCODING); // the answer is stored for clients with others
        if let Some((_, execution)) = &running {
            parts.extensions.insert(execution.clone());
        }
        let request = Request::from_parts(parts, IdempotentBody::read(data, trailers));
        let work = async {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        };
        let Some((running, execution)) = running else {
            return Ok(work.await?.map(IdempotentAnswerBody::passed));
        };
        count(&state.tallies.executed);
        let mut end = OperationEnd { config: &config, state: &state, running, execution: &execution };
        let answered = {
            let mut overdue = pin!(execution.overdue());
            let work = in_time(work, overdue.as_mut());
            let answered = end.running.record.hold(work, None, || {}).await;
            drop(buffered); // the handler has had its body
            match answered {
                Some(Ok(response)) => end.store_answer(response, overdue).await,
                Some(Err(error)) => {
                    end.free().await;
                    return Err(error);
                }
                None => Err(Reason::RecordsUnavailable),
            }
        };
        match answered {
            Ok(response) => Ok(response),
            Err(reason) => {
                end.free().await; // unless the end is stored, or settled otherwise
                refused(reason, &Request::new(()).into_parts().0)
            }
        }
    }
}

/// Polls a future until its end, or until the transaction of the handler is overdue: then it is dropped.
pub(super) async fn in_time<F: Future>(work: F, mut overdue: Pin<&mut impl Future>) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => overdue.as_mut().poll(cx).map(|_| None),
    })
    .await
}

/// Returns the claim of a request whose body was read.
fn claim(config: &IdempotencyConfig, parts: &Parts, body: &[u8], operation: Operation) -> Claim {
    let about = RecordAbout {
        policy: config.name.as_str().to_owned(),
        client: operation.client.name().map(|name| name.to_string()).unwrap_or_default(),
        method: parts.method.as_str().to_owned(),
        route: operation.route,
        key: operation.key,
    };
    Claim {
        fingerprint: Some(config.fingerprint(parts, body)),
        lease: config.lease,
        life: config.life,
        after_lease: config.after_lease,
        client: Some(operation.client_digest.to_bytes()),
        about: Arc::new(about),
        ..Claim::new(operation.record, Owner::random())
    }
}

/// Asks the store until the operation is this call's, or has an answer, or the call has waited long enough.
async fn ask(
    config: &IdempotencyConfig,
    state: &Arc<IdempotencyState>,
    claim: &Claim,
    record: &OwnedRecord,
    progress: &Progress,
) -> StoreAnswer {
    let deadline = match config.on_running {
        OnRunning::Refuse => None,
        OnRunning::Wait(time) => Some(Instant::now() + time.min(MAX_TTL)),
    };
    let mut place = None;
    loop {
        let running = state.running(&claim.key);
        // Registered before the store is asked, so that no end is missed.
        let mut ended = pin!(running.as_ref().map(|call| call.ended.notified()));
        if let Some(ended) = ended.as_mut().as_pin_mut() {
            ended.enable();
        }
        progress.begun.store(true, Relaxed);
        let begun = record.begin(claim).await;
        if !matches!(begun, Ok(Begun::Started { .. })) {
            progress.begun.store(false, Relaxed);
            if progress.hung_up.load(Relaxed) {
                return StoreAnswer::Refused(Reason::OperationRunning); // to a client that is gone
            }
        }
        match begun {
            Ok(Begun::Started { attempt }) => return StoreAnswer::Started { attempt },
            Ok(Begun::Done { answer, first_at }) => return StoreAnswer::Replayed { answer, first_at },
            Ok(Begun::NotRetained) => return StoreAnswer::Refused(Reason::AnswerNotRetained),
            Ok(Begun::Unknown) => return StoreAnswer::Refused(Reason::OperationOutcomeUnknown),
            Ok(Begun::Mismatch) => return StoreAnswer::Refused(Reason::IdempotencyKeyReused),
            Ok(Begun::Running { .. }) => {}
            Err(_) if config.on_store_failure == OnStoreFailure::PassUnprotected => return StoreAnswer::Unprotected,
            Err(_) => return StoreAnswer::Refused(Reason::RecordsUnavailable),
        }
        let now = Instant::now();
        let Some(deadline) = deadline.filter(|deadline| now < *deadline) else {
            return StoreAnswer::Refused(Reason::OperationRunning);
        };
        if place.is_none() {
            place = WaitingPlace::take(state, claim.key);
        }
        if place.is_none() {
            return StoreAnswer::Refused(Reason::OperationRunning);
        }
        let ask = if running.is_some() { ASK_HERE } else { ASK_ELSEWHERE };
        let wait = ask.mul_f64(0.75 + fastrand::f64() / 2.0).min(deadline - now);
        match ended.as_pin_mut() {
            Some(ended) => drop(timeout(wait, ended).await),
            None => sleep(wait).await,
        }
    }
}
