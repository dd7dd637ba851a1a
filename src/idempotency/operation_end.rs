//! The end of an operation: its answer is stored, alone or with the handler's transaction, or its key is freed.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::time::sleep;

use super::{
    answer::{self, Fate},
    body::IdempotentAnswerBody,
    config::{IdempotencyConfig, Replay},
    execution::{AtEnd, IdempotentExecution},
    guarded_call::{AnswerOf, count, in_time},
    read_body::{self, AnswerEnd},
    state::{ClientBytes, IdempotencyState, Progress, RunningRecord},
};
use crate::{
    key_value::{Answer, Committed, Completion, Finished, OpenTransaction, OwnedRecord},
    refusal::Reason,
    sync::{Share, ShareBounds},
};

/// A running operation whose handler has answered or failed.
pub(super) struct OperationEnd<'a> {
    pub(super) config: &'a Arc<IdempotencyConfig>,
    pub(super) state: &'a Arc<IdempotencyState>,
    pub(super) progress: &'a Progress,
    pub(super) running: RunningRecord,
    pub(super) execution: &'a IdempotentExecution,
    /// Bytes of the answer that are held.
    pub(super) buffered: Share<ClientBytes>,
    pub(super) bounds: ShareBounds,
}

impl OperationEnd<'_> {
    /// Stores the answer of the handler, and returns it; or the reason why the client gets a refusal.
    pub(super) async fn store_answer<ResB: Body<Data = Bytes>>(
        mut self,
        response: Response<ResB>,
        overdue: Pin<&mut impl Future>,
    ) -> Result<AnswerOf<ResB>, Reason> {
        let (head, body) = response.into_parts();
        let is_undone = head.status.is_client_error() || head.status.is_server_error();
        let (fate, fields) = answer::fate(&head, self.config);
        if fate != Fate::Retained {
            let completion = (fate == Fate::NotRetained).then_some(Completion::NotRetained);
            self.finish_or_free(completion, is_undone).await?;
            return Ok(Response::from_parts(head, IdempotentAnswerBody::passed(body)));
        }
        let mut body = Box::pin(body);
        let most = self.config.max_answer - fields.len();
        let overdue_answer = async {
            sleep(self.config.answer_timeout).await;
            if self.progress.hung_up.load(Relaxed) {
                pending().await // its client does not wait for it
            }
        };
        let reserve = |more| self.buffered.grow(more, self.bounds).is_ok();
        let read = read_body::answer(body.as_mut(), most, overdue_answer, reserve);
        let read = in_time(read, overdue, self.progress);
        let read = self.running.record.hold(read, None, || {}).await;
        let Some((front, end)) = read else {
            self.free().await;
            return Err(Reason::RecordsUnavailable);
        };
        let (completion, next, rest) = match end {
            AnswerEnd::Whole => {
                let answer = Answer { status: head.status.as_u16(), fields, body: front.clone() };
                (Some(Completion::Answered(answer)), None, None)
            }
            AnswerEnd::Beyond(frame) => (Some(Completion::NotRetained), frame.map(Ok), Some(body)),
            AnswerEnd::Failed(error) => (self.after_failure(), Some(Err(error)), None),
        };
        let is_undone = is_undone || matches!(next, Some(Err(_)));
        self.finish_or_free(completion, is_undone).await?;
        self.buffered.shrink(front.len());
        Ok(Response::from_parts(head, IdempotentAnswerBody::partly(front, self.buffered, next, rest)))
    }

    /// Stores the end of an operation whose handler has failed without an answer.
    pub(super) async fn store_failure(mut self) {
        let completion = self.after_failure();
        let _ = self.finish_or_free(completion, true).await; // the client gets the error
    }

    /// Returns the end of an operation whose handler has failed without an answer; `None` if its key is free then.
    fn after_failure(&self) -> Option<Completion> {
        (self.config.replay == Replay::EvenFailures).then_some(Completion::NotRetained)
    }

    /// Stores the end as [`finish`](Self::finish) does, and frees the key if that is refused.
    async fn finish_or_free(&mut self, completion: Option<Completion>, undo: bool) -> Result<(), Reason> {
        let finished = self.finish(completion, undo).await;
        if finished.is_err() {
            self.free().await; // unless the end is settled otherwise
        }
        finished
    }

    /// Stores the end of the operation; without a completion its key is free. Under `undo` the handler's writes are rolled
    /// back.
    async fn finish(&mut self, completion: Option<Completion>, undo: bool) -> Result<(), Reason> {
        let Some(completion) = completion else {
            self.free().await;
            return Ok(());
        };
        match self.execution.close() {
            AtEnd::Unused => self.complete(completion).await,
            AtEnd::Lent => {
                // Not awaited: in SQLite it waits for the transaction that the handler keeps.
                if self.running.settle() {
                    self.running.record.clone().abandon_detached();
                }
                return Err(Reason::TransactionKept);
            }
            AtEnd::Open(transaction) => return self.commit(transaction, completion, undo).await,
        }
        Ok(())
    }

    /// Stores the end without a transaction. The answer is given also if the store fails: the handler has run.
    async fn complete(&mut self, completion: Completion) {
        let finished = self.running.record.finish(&completion, self.config.life).await;
        self.running.settle();
        match finished {
            Finished::Stored { retained: true } => {}
            Finished::Stored { retained: false } => count(&self.state.tallies.not_retained),
            Finished::Lost => count(&self.state.tallies.lost),
            Finished::Failed => {
                count(&self.state.tallies.not_stored);
                self.running.complete_detached(completion);
            }
        }
    }

    /// Stores the end and commits the handler's writes, both or neither.
    async fn commit(&mut self, transaction: OpenTransaction, completion: Completion, undo: bool) -> Result<(), Reason> {
        let OwnedRecord { store, key, owner, .. } = self.running.record.clone();
        let Some(transactions) = store.transactions() else { return Err(Reason::TransactionKept) };
        let life = self.config.life;
        let commit = transactions.commit_transaction(transaction, undo, &key, &owner, &completion, life);
        match self.running.record.in_time(commit).await {
            Ok(Committed::Stored) => {
                self.running.settle();
                if completion == Completion::NotRetained {
                    count(&self.state.tallies.not_retained);
                }
            }
            Ok(Committed::EndedByHandler) => self.complete(completion).await,
            Ok(Committed::Lost) => {
                self.running.settle();
                count(&self.state.tallies.lost);
                return Err(Reason::OperationRunning); // by the owner that has taken it
            }
            Err(error) => {
                count(&self.state.tallies.not_stored);
                if error.is_indeterminate() {
                    self.running.settle(); // the next request finds out
                    return Err(Reason::OperationRunning);
                }
                return Err(Reason::RecordsUnavailable);
            }
        }
        Ok(())
    }

    /// Rolls the handler's writes back and frees the key, unless the end is stored.
    pub(super) async fn free(&mut self) {
        if let (AtEnd::Open(transaction), Some(transactions)) =
            (self.execution.close(), self.running.record.store.transactions())
        {
            let roll_back = transactions.roll_back_transaction(transaction);
            let _ = self.running.record.in_time(roll_back).await; // else its connection is closed
        }
        if self.running.settle() {
            self.running.record.abandon().await;
        }
    }
}
