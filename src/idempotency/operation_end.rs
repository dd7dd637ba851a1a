//! The end of an operation: its answer is stored, alone or with the handler's transaction, or its key is freed.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::time::sleep;

use super::{
    answer::{self, Fate},
    body::IdempotentAnswerBody,
    config::IdempotencyConfig,
    execution::{AtEnd, IdempotentExecution},
    guarded_call::{AnswerOf, count, in_time},
    read_body::{self, AnswerEnd},
    state::{DetachedPlace, IdempotencyState, RunningRecord},
};
use crate::{
    key_value::{Answer, Committed, Completion, Finished, OpenTransaction, OwnedRecord},
    refusal::Reason,
};

/// Attempts to store an end after the answer was sent, and the wait before the first, which doubles.
const STORE_ATTEMPTS: u32 = 8;
const STORE_WAIT: Duration = Duration::from_millis(500);

/// A running operation whose handler has answered or failed.
pub(super) struct OperationEnd<'a> {
    pub(super) config: &'a Arc<IdempotencyConfig>,
    pub(super) state: &'a Arc<IdempotencyState>,
    pub(super) running: RunningRecord,
    pub(super) execution: &'a IdempotentExecution,
}

impl OperationEnd<'_> {
    /// Stores the answer of the handler, and returns it; or the reason why the client gets a refusal.
    pub(super) async fn store_answer<ResB: Body<Data = Bytes>>(
        &mut self,
        response: Response<ResB>,
        overdue: Pin<&mut impl Future>,
    ) -> Result<AnswerOf<ResB>, Reason> {
        let (head, body) = response.into_parts();
        let is_undone = head.status.is_client_error() || head.status.is_server_error();
        let fate = answer::fate(&head, self.config.replay);
        if fate != Fate::Retained {
            self.finish((fate == Fate::NotRetained).then_some(Completion::NotRetained), is_undone).await?;
            return Ok(Response::from_parts(head, IdempotentAnswerBody::passed(body)));
        }
        let mut body = Box::pin(body);
        let fields = answer::encode(&head.headers, &self.config.replayed_headers);
        let most = self.config.max_answer.saturating_sub(fields.len());
        let read = in_time(read_body::answer(body.as_mut(), most), overdue);
        let (pieces, end) = self.running.record.hold(read, None, || {}).await.ok_or(Reason::RecordsUnavailable)?;
        let (completion, next, rest) = match end {
            AnswerEnd::Whole => {
                let answer = Answer { status: head.status.as_u16(), fields, body: read_body::joined(&pieces) };
                (Some(Completion::Answered(answer)), None, None)
            }
            AnswerEnd::Beyond(frame) => (Some(Completion::NotRetained), frame.map(Ok), Some(body)),
            AnswerEnd::Failed(error) => (None, Some(Err(error)), None),
        };
        self.finish(completion, is_undone).await?;
        Ok(Response::from_parts(head, IdempotentAnswerBody::partly(pieces, next, rest)))
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
        let record = &self.running.record;
        let finished = record.hold(record.finish(&completion, self.config.life), None, || {}).await;
        self.running.settle();
        match finished {
            Finished::Stored { .. } => {}
            Finished::Lost => count(&self.state.tallies.lost),
            Finished::Failed => {
                count(&self.state.tallies.not_stored);
                self.complete_later(completion);
            }
        }
    }

    /// Stores the end and commits the handler's writes, both or neither.
    async fn commit(&mut self, transaction: OpenTransaction, completion: Completion, undo: bool) -> Result<(), Reason> {
        let OwnedRecord { store, key, owner, .. } = self.running.record.clone();
        let Some(transactions) = store.transactions() else { return Err(Reason::TransactionKept) };
        match transactions.commit_transaction(transaction, undo, &key, &owner, &completion, self.config.life).await {
            Ok(Committed::Stored) => drop(self.running.settle()),
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
            let _ = transactions.roll_back_transaction(transaction).await; // else its connection is closed
        }
        if self.running.settle() {
            self.running.record.abandon().await;
        }
    }

    /// Stores the end in the background, for as long as the store may come back soon. At most as many at once as handlers
    /// run without a client.
    fn complete_later(&self, completion: Completion) {
        let Some(place) = DetachedPlace::take(self.state, self.config.max_detached) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (record, life) = (self.running.record.clone(), self.config.life);
        runtime.spawn(async move {
            let _place = place;
            for attempt in 0..STORE_ATTEMPTS {
                record.hold(sleep(STORE_WAIT * (1 << attempt)), None, || {}).await;
                if !matches!(record.finish(&completion, life).await, Finished::Failed) {
                    return;
                }
            }
        });
    }
}
