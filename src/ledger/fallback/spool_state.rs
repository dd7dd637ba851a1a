//! State of a spool: commands that are not written or not merged, and claims on jobs.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::{
    account_queues::AccountQueues,
    aside::AsideIds,
    recent_jobs::RecentJobs,
    spool_format::{HEAD, HEADER, Recovered},
    spool_record::encode,
};
use crate::{
    ledger::writer::{Command, CommandKind, JobEnd, Key, SettleKind},
    quota::account::Duplicate,
};

/// State of a spool, under its lock.
#[derive(Default)]
pub(super) struct SpoolState {
    /// Ledger of the records; `None` until the database has been reached.
    pub(super) ledger: Option<u128>,
    /// Records wait that no record of the file names a ledger for. They are not merged until one does.
    pub(super) unnamed: bool,
    /// A record that names the ledger is to be written.
    pub(super) names: bool,
    /// Requests pass without the ledger; only the merging task retries it.
    pub(super) away: bool,
    /// Commands to write to the file.
    pub(super) queue: Vec<SpooledCommand>,
    /// Commands that are durable and not merged, and the accounts that other transactions hold: only the requests of
    /// those pass without the ledger.
    pub(super) pending: AccountQueues,
    /// Charges that were set aside.
    pub(super) aside: AsideIds,
    /// Number of commands that are being written.
    pub(super) writing: usize,
    pub(super) claims: HashMap<Key, JobClaim>,
    pub(super) recent: RecentJobs,
    /// Size of the file in bytes.
    pub(super) size: u64,
    /// Bytes of the commands that are not written yet.
    pub(super) unwritten: u64,
    pub(super) most: u64,
    /// Number of records in the file.
    pub(super) records: u64,
    /// Whether listeners were notified that it is full.
    pub(super) full: bool,
    /// Set if the file cannot be written until it is empty.
    pub(super) broken: bool,
    pub(super) closed: bool,
    /// Merged records since listeners were last notified.
    pub(super) merged: u64,
    pub(super) duplicates: u64,
}

/// An encoded command that is not written yet.
pub(super) struct SpooledCommand {
    pub(super) command: Command,
    pub(super) body: Vec<u8>,
    pub(super) reply: Option<oneshot::Sender<bool>>,
}

/// Claim on a named job that is being decided or has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobClaim {
    pub(super) command: u128,
    pub(super) fingerprint: Option<u128>,
    /// Whether a caller waits for its decision or a handler works on it.
    pub(super) running: bool,
    /// Whether its work was done; otherwise the outcome is unknown once it no longer runs.
    pub(super) done: bool,
    /// Whether it is merged.
    pub(super) merged: bool,
    pub(super) passed: bool,
}

impl JobClaim {
    /// Returns the reply to a duplicate with this fingerprint.
    pub(super) fn reply(&self, fingerprint: Option<u128>) -> Duplicate {
        match (self.fingerprint, fingerprint) {
            (Some(known), Some(asked)) if known != asked => Duplicate::Conflict,
            _ => self.state(),
        }
    }

    pub(super) fn state(&self) -> Duplicate {
        match self {
            Self { running: true, .. } => Duplicate::Running,
            Self { done: true, .. } => Duplicate::Done,
            _ => Duplicate::Unknown { may_run: false },
        }
    }
}

/// Number of records that fit one transaction. With no more left, the ledger is asked again while they are merged.
pub(super) const FEW: usize = 512;

/// Default limit in bytes, about 300,000 records.
const MOST: u64 = 64 << 20;

impl SpoolState {
    pub(super) fn left(&self) -> usize {
        self.queue.len() + self.writing + self.pending.len()
    }

    /// Returns the size of the file once it has all commands and this body.
    pub(super) fn size_with(&self, body: &[u8]) -> u64 {
        self.size + self.unwritten + (HEAD + body.len()) as u64
    }

    /// Encodes the body of a record of the present ledger.
    pub(super) fn encode(&self, command: &Command) -> Option<Vec<u8>> {
        encode(self.ledger.unwrap_or(0), command)
    }

    pub(super) fn add(&mut self, command: SpooledCommand) {
        self.unnamed |= self.ledger.is_none();
        self.unwritten += (HEAD + command.body.len()) as u64;
        self.queue.push(command);
    }

    /// Whether a record waits for the ledger, or the ledger is to be probed.
    pub(super) fn needs_merging(&self) -> bool {
        self.away || self.pending.has_held() || self.left() > 0
    }

    /// Claims the job of a recovered record.
    pub(super) fn note(&mut self, command: &Command) {
        match &command.kind {
            CommandKind::Spooled { admit, .. } if !command.own => {
                let (command_id, fingerprint) = (command.id, admit.fingerprint);
                let (running, done) = (false, false); // the process has ended
                let claim = JobClaim { command: command_id, fingerprint, running, done, merged: false, passed: true };
                self.claims.insert(command.key.clone(), claim);
            }
            CommandKind::SettleOf { of, settle } if settle.end == SettleKind::Void => self.free(&command.key, *of),
            CommandKind::SettleOf { of, settle } if settle.job == Some(JobEnd::Done) => {
                if let Some(claim) = self.claims.get_mut(&command.key).filter(|claim| claim.command == *of) {
                    claim.done = true;
                }
            }
            _ => {}
        }
    }

    /// Frees the id of a job that passed and is voided, unless it is merged.
    pub(super) fn free(&mut self, key: &Key, of: u128) {
        if self.claims.get(key).is_some_and(|claim| claim.command == of && !claim.merged) {
            self.claims.remove(key);
        }
    }

    /// Turns the claim on a merged and finished job into one of the recent jobs.
    pub(super) fn release(&mut self, key: &Key) {
        if let Some(claim) = self.claims.remove(key) {
            self.recent.add(key, claim.fingerprint, claim.state());
        }
    }

    /// Records that a command is merged.
    pub(super) fn has(&mut self, command: &Command) {
        let known = match &command.kind {
            CommandKind::Spooled { .. } => command.id,
            CommandKind::SettleOf { of, settle } if settle.end == SettleKind::Void => {
                if self.claims.get(&command.key).is_some_and(|claim| claim.command == *of) {
                    self.claims.remove(&command.key);
                }
                return;
            }
            _ => return,
        };
        if let Some(claim) = self.claims.get_mut(&command.key).filter(|claim| claim.command == known) {
            claim.merged = true;
            if !claim.running {
                self.release(&command.key);
            }
        }
    }

    /// Returns the state of a file with these contents.
    pub(super) fn new(file: Recovered) -> Self {
        let Recovered { commands, ledger, aside, records, end } = file;
        let (size, unnamed) = (end.max(HEADER.len()) as u64, ledger.is_none() && !commands.is_empty());
        let mut state = Self { ledger, unnamed, size, most: MOST, records, ..Self::default() };
        aside.into_iter().for_each(|id| state.aside.add(id));
        for command in commands {
            state.note(&command);
            state.pending.push(command);
        }
        state
    }
}
