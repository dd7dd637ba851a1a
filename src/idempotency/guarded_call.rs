//! A call with a key: its body is read, its record begun, its answer stored. It runs on without its client.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
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
    state::{Asker, ClientBytes, IdempotencyState, Progress, RunningRecord},
};
use crate::{
    head::RequestHead,
    key_value::{Answer, Begun, Claim, KeyValueErrorKind, MAX_TTL, OwnedRecord, Owner, RecordAbout},
    refusal::{Reason, Responder},
    sync::{Share, ShareExceeded},
    time::Clock,
};

/// Wait that is told to a duplicate, and to a request for which there is no room.
pub(super) const RETRY: Duration = Duration::from_secs(1);
const RETRY_WHEN_FULL: Duration = Duration::from_secs(60);

/// Time between two questions of a duplicate that is woken when the operation ends.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Time between two questions for an operation that another process carries out. It doubles from one to the other.
const ASK_ELSEWHERE: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

pub(super) type AnswerOf<B> = Response<IdempotentAnswerBody<B>>;

/// A request with a key, and what it needs.
pub(super) struct GuardedCall<S, B> {
    pub(super) config: Arc<IdempotencyConfig>,
    pub(super) state: Arc<IdempotencyState>,
    pub(super) service: S,
    pub(super) request: Request<B>,
    pub(super) operation: Operation,
    pub(super) buffered: Share<ClientBytes>,
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

/// Returns the reason of a refusal for want of room.
pub(super) const fn no_room(exceeded: ShareExceeded) -> Reason {
    match exceeded {
        ShareExceeded::All => Reason::Capacity,
        ShareExceeded::Each => Reason::ClientCapacity,
    }
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
            let refusal = config.refusal(reason).with_retry_after(match reason {
                Reason::RecordsFull => RETRY_WHEN_FULL,
                _ => RETRY, // told for reasons that pass
            });
            Ok(refuse(&config, &state, refusal, &RequestHead::from(parts)))
        };
        let bounds = config.buffer_bounds();
        let reserve = |length: usize| buffered.grow(length.saturating_sub(buffered.amount()), bounds);
        let (data, trailers) =
            match timeout(config.body_timeout, read_body::whole(body, config.max_body, reserve)).await {
                Ok(Ok(read)) => read,
                Ok(Err(Unread::TooLong)) => return refused(Reason::BodyTooLong, &parts),
                Ok(Err(Unread::NoRoom(exceeded))) => return refused(no_room(exceeded), &parts),
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
                Some((RunningRecord::new(&state, &config, &progress, buffered.key(), record), execution))
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
        let mut is_called = false;
        let work = async {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            is_called = true;
            service.call(request).await
        };
        let Some((running, execution)) = running else {
            return Ok(work.await?.map(IdempotentAnswerBody::passed));
        };
        count(&state.tallies.executed);
        let mut overdue = pin!(execution.overdue());
        let answered = running.record.hold(in_time(work, overdue.as_mut(), &progress), None, || {}).await;
        buffered.shrink(0); // the handler has had its body
        let (config, state, progress) = (&config, &state, &*progress);
        let mut end = OperationEnd { config, state, progress, running, execution: &execution, buffered, bounds };
        let reason = match answered {
            Some(Ok(response)) => match end.store_answer(response, overdue).await {
                Ok(response) => return Ok(response),
                Err(reason) => reason,
            },
            Some(Err(error)) => {
                if is_called {
                    end.store_failure().await;
                } else {
                    end.free().await;
                }
                return Err(error);
            }
            None => {
                end.free().await;
                Reason::RecordsUnavailable
            }
        };
        refused(reason, &Request::new(()).into_parts().0)
    }
}

/// Polls code of the handler until its end, or until the transaction of the handler is overdue: then it is dropped.
pub(super) async fn in_time<F: Future>(
    work: F,
    mut overdue: Pin<&mut impl Future>,
    progress: &Progress,
) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        progress.in_handler.store(true, Relaxed); // and stays if it panics
        let polled = work.as_mut().poll(cx);
        progress.in_handler.store(false, Relaxed);
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => overdue.as_mut().poll(cx).map(|_| None),
        }
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
    let (mut place, mut asker) = (None, None);
    let [mut pause, longest_pause] = ASK_ELSEWHERE;
    loop {
        let running = state.running(&claim.key).filter(|_| asker.is_none());
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
            Err(error) if error.kind() == KeyValueErrorKind::Full => return StoreAnswer::Refused(Reason::RecordsFull),
            Err(_) => return StoreAnswer::Refused(Reason::RecordsUnavailable),
        }
        let now = Instant::now();
        let Some(deadline) = deadline.filter(|deadline| now < *deadline) else {
            return StoreAnswer::Refused(Reason::OperationRunning);
        };
        if place.is_none() {
            place = state.wait(claim.key);
        }
        if place.is_none() {
            return StoreAnswer::Refused(Reason::OperationRunning);
        }
        let jittered = |time: Duration| time.mul_f64(0.75 + fastrand::f64() / 2.0).min(deadline - now);
        if let Some(ended) = ended.as_pin_mut() {
            let _ = timeout(jittered(ASK_AGAIN), ended).await;
            continue;
        }
        if asker.is_none() {
            asker = Asker::of(state, claim.key);
        }
        if asker.is_some() {
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(longest_pause);
        } // else another call has come in between, and wakes this one
    }
}
