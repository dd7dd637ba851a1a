//! The thread that writes a spool's file.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    sync::PoisonError,
};

use super::{
    spool_format::{HEADER, frame},
    spool_queue::SpoolQueue,
    spool_state::SpooledCommand,
};
use crate::quota::store::StoreEvent;

impl SpoolQueue {
    /// Writes until all clones of the spool are dropped.
    pub(super) fn write(&self, file: &mut File) {
        while let Some(queued) = self.next_to_write(file) {
            let (end, records, broken) = {
                let state = self.lock();
                (state.size, state.records, state.broken)
            };
            let mut bytes = Vec::new();
            (records..).zip(&queued).for_each(|(number, queued)| frame(number, &queued.body, &mut bytes));
            let wrote = !broken
                && file
                    .seek(SeekFrom::Start(end))
                    .and_then(|_| file.write_all(&bytes))
                    .and_then(|()| file.sync_data())
                    .is_ok();
            // A partial record would be damage in front of the next one.
            let undone = wrote || file.set_len(end).and_then(|()| file.sync_all()).is_ok();
            let mut state = self.lock();
            (state.writing, state.unwritten) = (0, state.unwritten - bytes.len() as u64);
            state.broken |= !undone;
            if wrote {
                state.size += bytes.len() as u64;
                state.records += queued.len() as u64;
            }
            for SpooledCommand { command, reply, .. } in queued {
                // A charge without its record does not pass; a settlement goes to the ledger while this process
                // lives.
                if wrote || reply.is_none() {
                    state.pending.push_back(command);
                } else if state.claims.get(&command.key).is_some_and(|claim| claim.command == command.id) {
                    state.claims.remove(&command.key);
                }
                if let Some(reply) = reply {
                    let _ = reply.send(wrote);
                }
            }
            let new = !wrote && !std::mem::replace(&mut state.full, true);
            drop(state);
            if new {
                self.notify(&StoreEvent::Full);
            }
        }
    }

    /// Waits for commands, and empties the file once all its records are merged; `None` after the end.
    fn next_to_write(&self, file: &File) -> Option<Vec<SpooledCommand>> {
        let mut state = self.lock();
        loop {
            if !state.queue.is_empty() {
                state.writing = state.queue.len();
                return Some(std::mem::take(&mut state.queue));
            }
            if state.pending.is_empty() && (state.records > 0 || state.broken) {
                drop(state); // only this thread makes the file longer
                let empty = HEADER.len() as u64;
                let emptied = file.set_len(empty).and_then(|()| file.sync_all()).is_ok();
                state = self.lock();
                state.broken = !emptied;
                if emptied {
                    (state.size, state.records, state.full) = (empty, 0, false);
                    continue;
                }
            }
            if state.closed {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
