//! The thread that writes a spool's file.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    sync::PoisonError,
};

use super::{
    spool_format::{HEADER, frame},
    spool_queue::SpoolQueue,
    spool_state::{FRAME, SpooledCommand},
};
use crate::quota::store::StoreEvent;

impl SpoolQueue {
    /// Writes until all clones of the spool are dropped.
    pub(super) fn write(&self, file: &mut File) {
        let mut end = self.lock().size;
        loop {
            let (queued, mut number) = {
                let mut state = self.lock();
                loop {
                    if !state.queue.is_empty() {
                        break;
                    }
                    if state.pending.is_empty() && (state.records > 0 || state.broken) {
                        // Only this thread makes the file longer.
                        let (size, empty) = (HEADER.len() as u64, std::mem::take(&mut state.records));
                        drop(state);
                        let shrunk = file.set_len(size).and_then(|()| file.sync_all()).is_ok();
                        state = self.lock();
                        let queued: u64 = state.queue.iter().map(|queued| FRAME + queued.body.len() as u64).sum();
                        if shrunk {
                            end = size;
                            (state.size, state.full, state.broken) = (size + queued, false, false);
                        } else {
                            (state.records, state.broken) = (empty, true);
                            if state.closed {
                                return;
                            }
                            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                        }
                        continue;
                    }
                    if state.closed {
                        return;
                    }
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.writing = state.queue.len();
                (std::mem::take(&mut state.queue), state.records)
            };
            let (first, mut bytes) = (number, Vec::new());
            for queued in &queued {
                frame(number, &queued.body, &mut bytes);
                number += 1;
            }
            let broken = self.lock().broken;
            let wrote = !broken
                && file
                    .seek(SeekFrom::Start(end))
                    .and_then(|_| file.write_all(&bytes))
                    .and_then(|()| file.sync_data())
                    .is_ok();
            // A partial record would be damage in front of the next one.
            let undone = wrote || file.set_len(end).and_then(|()| file.sync_all()).is_ok();
            let mut state = self.lock();
            state.writing = 0;
            state.broken |= !undone;
            if wrote {
                end += bytes.len() as u64;
                state.records = number;
            } else {
                state.records = first;
                state.size = end + state.queue.iter().map(|queued| FRAME + queued.body.len() as u64).sum::<u64>();
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
}
