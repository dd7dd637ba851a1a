//! State of a spool: commands on their way to the file and to the ledger, and claims on jobs.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use super::{mode::Mode, recent_jobs::RecentJobs};
use crate::ledger::writer::{Command, CommandKind, Key, SettleKind};

/// State of a spool, under its lock.
#[derive(Default)]
pub(super) struct SpoolState {
    pub(super) mode: Mode,
    /// Commands to write to the file.
    pub(super) queue: Vec<SpooledCommand>,
    /// Commands that are durable and not yet in the ledger.
    pub(super) pending: VecDeque<Command>,
    /// Number of commands that are being written.
    pub(super) writing: usize,
    pub(super) claims: HashMap<Key, JobClaim>,
    pub(super) recent: RecentJobs,
    /// The file's bytes, with those that are to be written.
    pub(super) size: u64,
    pub(super) most: u64,
    /// Records in the file.
    pub(super) records: u64,
    /// Whether listeners were notified that it is full.
    pub(super) full: bool,
    /// The file cannot be written any more until it is empty.
    pub(super) broken: bool,
    pub(super) closed: bool,
    /// Merged records since listeners were last notified.
    pub(super) merged: u64,
    pub(super) duplicates: u64,
}

/// A command in the queue of the file, encoded.
pub(super) struct SpooledCommand {
    pub(super) command: Command,
    pub(super) body: Vec<u8>,
    pub(super) told: Option<oneshot::Sender<bool>>,
}

/// Claim on a named job that is being asked for or has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobClaim {
    pub(super) command: u128,
    pub(super) fingerprint: Option<u128>,
    /// Whether a caller asks for it or a handler works on it.
    pub(super) running: bool,
    /// The ledger knows of it.
    pub(super) merged: bool,
    pub(super) passed: bool,
}

/// Bytes of a record besides its body.
pub(super) const FRAME: u64 = 16;

/// Default limit in bytes: some 300,000 records.
const MOST: u64 = 64 << 20;

impl SpoolState {
    pub(super) fn left(&self) -> usize {
        self.queue.len() + self.writing + self.pending.len()
    }

    /// Notes the job of a recovered record.
    pub(super) fn note(&mut self, command: &Command) {
        match &command.kind {
            CommandKind::Spooled { admit, .. } if !command.own => {
                let (command_id, fingerprint) = (command.id, admit.fingerprint);
                let claim = JobClaim { command: command_id, fingerprint, running: false, merged: false, passed: true };
                self.claims.insert(command.key.clone(), claim);
            }
            CommandKind::SettleOf { of, settle } if settle.end == SettleKind::Void => self.free(&command.key, *of),
            _ => {}
        }
    }

    /// Frees the id of a job that passed and is voided, unless the ledger has it.
    pub(super) fn free(&mut self, key: &Key, of: u128) {
        if self.claims.get(key).is_some_and(|claim| claim.command == of && !claim.merged) {
            self.claims.remove(key);
        }
    }

    /// Turns the claim on a merged and finished job into one of the recent jobs.
    pub(super) fn let_be(&mut self, key: &Key) {
        if let Some(claim) = self.claims.remove(key) {
            self.recent.add(key, claim.fingerprint);
        }
    }

    /// Notes that the ledger has a command.
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
                self.let_be(&command.key);
            }
        }
    }

    /// Returns the state of a file of this size that holds these commands.
    pub(super) fn new(commands: Vec<Command>, size: u64) -> Self {
        let mut state = Self { size, most: MOST, records: commands.len() as u64, ..Self::default() };
        commands.iter().for_each(|command| state.note(command));
        state.pending = commands.into();
        state
    }
}
