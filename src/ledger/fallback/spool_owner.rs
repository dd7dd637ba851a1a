//! The ledger of a spool: the open one that uses it, and the id for which its records were written.

use std::{
    any::Any,
    sync::{Arc, PoisonError, Weak},
};

use super::spool_queue::SpoolQueue;
use crate::ledger::{SpoolError, SpoolErrorKind};

impl SpoolQueue {
    /// Binds the spool to one open ledger.
    ///
    /// # Errors
    /// If another open ledger has it.
    pub(in crate::ledger) fn bind(&self, ledger: &Arc<dyn Any + Send + Sync>) -> Result<(), SpoolError> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = |owner: Arc<_>| !std::ptr::addr_eq(Arc::as_ptr(&owner), Arc::as_ptr(ledger));
        if owner.as_ref().and_then(Weak::upgrade).is_some_and(is_other) {
            let why = "a spool must belong to one ledger, got two; open one for each";
            return Err(SpoolError::new(SpoolErrorKind::OtherLedger, why));
        }
        *owner = Some(Arc::downgrade(ledger));
        Ok(())
    }

    /// Names the ledger of all records, those that wait and those to come. Called for each connection that is made:
    /// records that wait without a name are merged once a record of the file names it.
    ///
    /// # Errors
    /// If records of another ledger wait.
    pub(in crate::ledger) fn name(&self, ledger: u128) -> Result<(), SpoolError> {
        let mut state = self.lock();
        let waiting = state.left();
        if let Some(of) = state.ledger.filter(|of| *of != ledger && waiting > 0) {
            let why = format!(
                "a spool must be merged into the database it was written for, got {} with {waiting} records of ledger \
                 {of:032x} and a database with ledger {ledger:032x}; nothing was merged: start the program with that \
                 database, or with another path for the spool, or move the file away first",
                self.path.display(),
            );
            return Err(SpoolError::new(SpoolErrorKind::OtherLedger, why));
        }
        state.ledger = Some(ledger);
        state.names = state.unnamed;
        drop(state);
        self.wake.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::spool_format::Recovered, *};
    use crate::{
        ledger::writer::{AdmittedAt, Command, CommandKind, Key, SettleCommand},
        quota::Plan,
    };

    fn record(id: u128) -> Command {
        let settle = SettleCommand::void(Arc::new(Plan::new("free")), 0, AdmittedAt { at: 0, epoch: 0 });
        let key = Key { tenant: "acme".into(), job: "one".into() };
        Command { key, id, own: true, origin: 0, kind: CommandKind::SettleOf { of: id + 2, settle } }
    }

    fn recovered(ledger: Option<u128>) -> Recovered {
        Recovered { commands: vec![record(2)], ledger, records: 1, end: 100, ..Recovered::default() }
    }

    #[test]
    fn unnamed_records_wait_for_a_name_in_the_file() {
        let queue = SpoolQueue::new(Path::new("none"), recovered(None));
        let asked = |most| {
            let next = queue.next(most);
            (next.commands.len(), usize::from(next.probes_ledger) + next.probes.len())
        };
        assert_eq!(asked(9), (0, 1), "the ledger is probed");
        queue.name(7).unwrap();
        assert_eq!(asked(9), (0, 0), "the disk is next");
        let (mut file, read) = (tempfile(), queue.lock().records);
        queue.close();
        queue.write(&mut file);
        assert_eq!((asked(9), queue.lock().records), ((1, 0), read + 1));
    }

    #[test]
    fn name_is_written_again_after_a_failure() {
        let queue = SpoolQueue::new(Path::new("none"), recovered(None));
        queue.name(7).unwrap();
        queue.close();
        queue.write(&mut std::fs::File::open(std::env::current_exe().unwrap()).unwrap());
        assert_eq!(queue.next(9).commands.len(), 0);
        queue.write(&mut tempfile());
        assert_eq!(queue.next(9).commands.len(), 1);
    }

    #[test]
    fn records_that_wait_keep_their_ledger() {
        let queue = SpoolQueue::new(Path::new("none"), recovered(Some(7)));
        let refused = queue.name(8).unwrap_err();
        assert_eq!(refused.kind(), SpoolErrorKind::OtherLedger);
        assert!(refused.reason().contains("move the file away first"), "{refused}");
        assert_eq!(queue.lock().ledger, Some(7));
        assert_eq!(queue.next(9).commands.len(), 1);
        queue.name(7).unwrap();
        queue.lock().pending.pop("acme").unwrap();
        queue.name(8).unwrap();
    }

    /// Returns an open file without a name.
    fn tempfile() -> std::fs::File {
        let path = std::env::temp_dir().join(format!("tollgate-owner-{:x}", fastrand::u64(..)));
        let file = std::fs::File::create_new(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }
}
