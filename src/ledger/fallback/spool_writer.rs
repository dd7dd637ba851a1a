//! The thread that writes a spool's file.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    sync::PoisonError,
};

use super::{
    spool_format::{HEADER, frame},
    spool_queue::SpoolQueue,
    spool_record::encode_name,
    spool_state::SpooledCommand,
};
use crate::quota::store::StoreEvent;

impl SpoolQueue {
    /// Writes until all clones of the spool are dropped.
    pub(super) fn write(&self, file: &mut File) {
        while let Some((queued, name)) = self.next_to_write(file) {
            let (end, records, broken, empties) = {
                let state = self.lock();
                (state.size, state.records, state.broken, state.pending.is_empty())
            };
            let mut bytes = Vec::new();
            (records..).zip(&queued).for_each(|(number, queued)| frame(number, &queued.body, &mut bytes));
            let (charged, mut frames) = (bytes.len() as u64, queued.len() as u64);
            if let Some(ledger) = name {
                frame(records + frames, &encode_name(ledger), &mut bytes);
                frames += 1;
            }
            // A partial record would be damage in front of the next one.
            let cut = |file: &File| file.set_len(end).and_then(|()| file.sync_all()).is_ok();
            let wrote = (!broken || (!empties && cut(file)))
                && file
                    .seek(SeekFrom::Start(end))
                    .and_then(|_| file.write_all(&bytes))
                    .and_then(|()| file.sync_data())
                    .is_ok();
            let broken = !wrote && (broken || !cut(file));
            let mut state = self.lock();
            (state.writing, state.unwritten) = (0, state.unwritten - charged);
            state.broken = broken;
            if wrote {
                state.size += bytes.len() as u64;
                state.records += frames;
                state.unnamed &= name.is_none();
            }
            for SpooledCommand { command, reply, .. } in queued {
                // A charge without its record does not pass; a settlement goes to the ledger while this process
                // lives.
                if wrote || reply.is_none() {
                    state.pending.push(command);
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

    /// Waits for commands, or for the name of the ledger; `None` after the end. Empties the file once all its records are
    /// merged, and before another is written, which may be another ledger's.
    fn next_to_write(&self, file: &File) -> Option<(Vec<SpooledCommand>, Option<u128>)> {
        let mut state = self.lock();
        loop {
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
            let name = if std::mem::take(&mut state.names) { state.ledger } else { None };
            if !state.queue.is_empty() || name.is_some() {
                state.writing = state.queue.len();
                return Some((std::mem::take(&mut state.queue), name));
            }
            if state.closed {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
