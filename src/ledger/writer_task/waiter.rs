//! A caller's side of a command: it waits for the reply until its deadline, and cancels the command if it leaves.

use std::sync::Arc;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{WriterTask, new_id};
use crate::ledger::{
    Database,
    writer::{CancelResult, Command, Reply, SubmitError},
};

/// A caller that waits for its reply. Dropped before, it cancels the command.
pub(super) struct Waiter<D: Database> {
    pub(super) task: Arc<WriterTask<D>>,
    pub(super) ticket: u64,
    /// `None` once the reply has been received.
    pub(super) receiver: Option<oneshot::Receiver<Reply>>,
    pub(super) command: Command,
}

impl<D: Database> Waiter<D> {
    /// Returns the reply, or `None` after the deadline.
    pub(super) async fn reply(&mut self, deadline: Instant) -> Option<Reply> {
        let received = timeout_at(deadline, self.receiver.as_mut()?).await.ok()?;
        self.receiver = None;
        Some(received.unwrap_or_else(|_| Reply::Unavailable(SubmitError::Shut.reason())))
    }

    /// Cancels the command after its deadline.
    pub(super) fn time_out(mut self) -> Reply {
        let receiver = self.receiver.take();
        match self.task.lock().time_out(self.ticket) {
            CancelResult::Unsent => Reply::Unavailable("no answer in time".into()),
            CancelResult::Held => Reply::Held,
            CancelResult::Underway => Reply::Indeterminate,
            CancelResult::Answered => receiver
                .and_then(|mut receiver| receiver.try_recv().ok())
                .unwrap_or_else(|| Reply::Unavailable(SubmitError::Shut.reason())),
        }
    }
}

impl<D: Database> Drop for Waiter<D> {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else { return };
        let cancelled = self.task.lock().cancel(self.ticket);
        if cancelled == CancelResult::Answered
            && let Ok(Reply::Admitted(admitted)) = receiver.try_recv()
            && let Some(undo) = self.command.undo(new_id(), &admitted)
        {
            self.task.enqueue(undo);
        }
    }
}
