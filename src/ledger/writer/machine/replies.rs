//! Conclusion of a batch: replies, notices, and the jobs under way.

use std::sync::Arc;

use super::{Lane, Writer};
use crate::{
    ledger::writer::{Command, CommandKind, Decided, Key, Queued, Reply},
    quota::account::{Cut, Duplicate, Warning},
};

/// A named job whose work is under way, or whose end is not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RunningJob {
    pub(super) attempt: u32,
    pub(super) stage: RunningStage,
}

/// Stage of a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum RunningStage {
    Working,
    /// Its work has ended: the job ends when that is durable.
    Ending,
    /// It is being voided: the job ends when that is durable.
    Returning,
}

/// A report about a command, whether a caller waits for its reply or not.
#[derive(Clone, Debug)]
pub(crate) struct WriterNotice {
    pub(crate) origin: u32,
    pub(crate) key: Key,
    pub(crate) what: NoticeKind,
}

/// Content of a [`WriterNotice`].
#[derive(Clone, Debug)]
pub(crate) enum NoticeKind {
    /// Limits that the client has come near.
    Near(Vec<Warning>),
    /// Parts of amounts that no counter took.
    Cut(Cut),
    /// The database rejected the command for good, for this reason, and the command is dropped.
    Rejected(Arc<str>),
}

impl<R> Writer<R> {
    /// Concludes a batch whose decisions are durable. Admissions whose callers have left are voided.
    pub(super) fn conclude(&mut self, lane: Lane, decided: Vec<Decided>) {
        let (mut voids, mut again): (Vec<Command>, _) = (Vec::new(), Vec::new());
        for one in std::mem::take(&mut self.lanes[lane as usize].batch).into_iter().zip(decided) {
            let (queued, Decided { reply, cut }) = one;
            if !cut.is_none() {
                self.notify(&queued.command, NoticeKind::Cut(cut));
            }
            match &reply {
                Reply::Admitted(admitted) if queued.left => {
                    let id = queued.command.id ^ 1; // ids of commands are even
                    voids.extend(queued.command.undo(id, admitted));
                }
                // The charge that the reply refers to is about to be voided.
                Reply::Replay(_) | Reply::Conflict if voids.iter().any(|void| void.key == queued.command.key) => {
                    again.push(queued);
                }
                _ => {
                    self.lanes[lane as usize].answered += usize::from(queued.to.is_some());
                    self.reply(queued, reply);
                }
            }
        }
        self.lanes[lane as usize].batch = again;
        self.put_back(lane);
        // At the head of the queue, before the next command with the same job id.
        for void in voids.into_iter().rev() {
            self.tickets += 1;
            self.lanes[lane as usize].queue.push_front(Queued::new(self.tickets, void, None));
        }
    }

    /// Sends a durable reply.
    fn reply(&mut self, queued: Queued<R>, mut reply: Reply) {
        let Queued { command, to, .. } = queued;
        match &mut reply {
            // Without a caller nothing would report the end of the job.
            Reply::Admitted(admitted) if !command.own && to.is_some() => {
                let running = RunningJob { attempt: admitted.attempt, stage: RunningStage::Working };
                self.running.insert(command.key.clone(), running);
            }
            Reply::Replay(known) if self.running.contains_key(&command.key) => *known = Duplicate::Running,
            Reply::Settled(..) => self.ended(&command),
            _ => {}
        }
        match (to, reply) {
            (Some(to), reply) => self.replies.push((to, reply)),
            (None, Reply::Settled(_, near)) if !near.is_empty() => self.notify(&command, NoticeKind::Near(near)),
            _ => {}
        }
    }

    /// Ends a job whose attempt the command has ended or voided, or never will.
    pub(super) fn ended(&mut self, command: &Command) {
        if let CommandKind::Settle(settle) = &command.kind
            && settle.ends_job()
            && let Some(running) = self.running.get(&command.key)
            && (running.stage != RunningStage::Working && running.attempt == settle.attempt)
        {
            self.running.remove(&command.key);
        }
    }

    pub(super) fn notify(&mut self, command: &Command, what: NoticeKind) {
        self.notices.push(WriterNotice { origin: command.origin, key: command.key.clone(), what });
    }
}
