//! Invariants: replies that callers may receive, and promises of each state and of the final one.

use std::{collections::BTreeMap, sync::Arc};

use super::{Checked, Stage, Told, VOIDS, World, id_of, served::PROBE};
use crate::{
    ledger::writer::{EntryKind, Lane, NoticeKind, Reply, Row, Step, Writer, WriterNotice, tests::*},
    quota::account::Duplicate,
};

impl World {
    /// Registers that a command is dropped. Only the expiry of a reservation settles its charge then.
    pub(super) fn dropped(&mut self, notice: &WriterNotice) -> Checked {
        let NoticeKind::Rejected(_) = notice.what else { return Ok(()) };
        if self.poison.is_empty() {
            return Err(format!("a command of {} is dropped, and the database rejects none", notice.key.job));
        }
        let stays = |(key, attempt, _): &&(Key, u32, usize)| {
            let of = |row: &&Row| row.key == *key && row.attempt == *attempt;
            self.database.store.rows.iter().filter(of).any(|row| self.stays(row))
        };
        self.voiding = self.voiding.iter().filter(|voiding| !stays(voiding)).cloned().collect();
        Ok(())
    }

    /// Whether the database rejects the command that would void a charge. The ids of settlements follow the id of the
    /// admission; the writer derives odd ones.
    fn stays(&self, row: &Row) -> bool {
        self.poison.iter().any(|poison| *poison == row.command + VOIDS || *poison == row.command ^ 1)
    }

    /// Checks a reply and hands it to its caller.
    pub(super) fn tell(&mut self, by: usize, (caller, of): (u8, u8), reply: Reply) -> Checked {
        if caller == PROBE {
            self.probed = Some(reply.is_decided());
            return Ok(());
        }
        let (caller, id) = (usize::from(caller), id_of(caller.into(), of));
        let Stage::Waiting { r#try, process, .. } = self.callers[caller] else {
            return Err(format!("caller {caller} is answered, and waits for nothing: {reply:?}"));
        };
        if (r#try, process) != (of, by) {
            return Err(format!("caller {caller} is answered for what it no longer asks: {reply:?}"));
        }
        let want = &self.setting.wants[caller];
        let store = Arc::clone(&self.database.store);
        let mut rows = store.rows.iter().filter(|row| row.key == want.key);
        match reply {
            Reply::Admitted(admitted) => {
                let (attempt, since) = (admitted.attempt, admitted.since);
                if !rows.any(|row| row.command == id) {
                    return Err(format!("D2: caller {caller} is told that it is admitted, and no row is durable"));
                }
                if self.worked.insert((want.key.clone(), attempt), id).is_some() {
                    return Err(format!("D1: job {} is worked on twice", want.key.job));
                }
                self.callers[caller] = Stage::Working { r#try, process, attempt, since };
            }
            Reply::Replay(known) => {
                let running = known == Duplicate::Running;
                let admits = |row: &&Row| matches!(row.entry, EntryKind::Charge | EntryKind::Reserve);
                let Some(row) = rows.filter(admits).max_by_key(|row| row.attempt) else {
                    return Err(format!("caller {caller} is told of a charge that is not durable"));
                };
                let here = (want.key.clone(), row.attempt, by);
                if !running && self.voiding.contains(&here) && self.is_held(row) {
                    return Err(format!("caller {caller} is told done, and what was charged is about to go back"));
                }
                let (worked, crashed) = (self.worked.contains_key(&(want.key.clone(), row.attempt)), self.crashed);
                let kept = self.has_expired(row) || self.stays(row);
                if known == Duplicate::Done && !self.served.contains(&(want.key.clone(), row.attempt)) {
                    return Err(format!("J1: caller {caller} is told done, and the work of the job was not"));
                }
                let works = |stage: &Stage| matches!(stage, Stage::Working { process, attempt, .. } if *process == by && *attempt == row.attempt);
                let mut same = self.callers.iter().zip(&self.setting.wants).filter(|(_, other)| other.key == want.key);
                if !running && same.any(|(stage, _)| works(stage)) {
                    return Err(format!("J2: caller {caller} is told {known:?} by the process that does the work"));
                }
                if !running && !crashed && !worked && self.is_of(row, by) && !kept {
                    return Err(format!("caller {caller} is told done, and its work was not begun"));
                }
                self.callers[caller] = Stage::Over(Told::Replay);
            }
            Reply::Conflict => {
                if !rows.any(|row| row.fingerprint.is_some_and(|known| known != want.fingerprint)) {
                    return Err(format!("D3: caller {caller} is told of another job, and there is none"));
                }
                self.callers[caller] = Stage::Over(Told::Conflict);
            }
            Reply::Refused(_) => {
                self.deny(id);
                self.callers[caller] = Stage::Over(Told::Refused);
            }
            Reply::Unavailable(_) | Reply::Held => {
                self.deny(id);
                self.again(caller, r#try, Told::Unavailable);
            }
            Reply::Rejected(_) if !self.poison.contains(&id) => {
                return Err(format!("caller {caller} is told that it is rejected, and another one is"));
            }
            Reply::Rejected(_) => {
                self.deny(id);
                self.again(caller, r#try, Told::Rejected);
            }
            Reply::Indeterminate => self.again(caller, r#try, Told::Indeterminate),
            other => return Err(format!("caller {caller} is told {other:?}")),
        }
        Ok(())
    }

    /// Whether an attempt is not voided.
    fn is_held(&self, of: &Row) -> bool {
        let same = |row: &&Row| row.key == of.key && row.attempt == of.attempt;
        !self.database.store.rows.iter().filter(same).any(|row| row.entry == EntryKind::Void)
    }

    /// Whether an attempt expired before it could be voided.
    fn has_expired(&self, of: &Row) -> bool {
        let same = |row: &&Row| row.key == of.key && row.attempt == of.attempt;
        self.database.store.rows.iter().filter(same).any(|row| row.entry == EntryKind::Expire)
    }

    /// Whether a row's command was submitted to this process at its first try.
    fn is_of(&self, row: &Row, process: usize) -> bool {
        let caller = usize::try_from(row.command / 256).unwrap_or(0);
        let home = self.setting.wants[caller].process;
        home == process && row.command == id_of(caller, 0)
    }

    /// Checks the invariants of every state.
    pub(super) fn check(&self) -> Checked {
        for one in &self.processes {
            let [main, second] = Lane::ALL.map(|lane| one.writer.tenants_of(lane));
            if let Some(tenant) = main.intersection(&second).next() {
                return Err(format!("L1: the account of {tenant} is in two lanes"));
            }
        }
        let store = &self.database.store;
        store.adds_up()?;
        for stored in store.accounts.values() {
            for count in &stored.counts {
                let past: i64 =
                    store.rows.iter().filter(|row| row.entry == EntryKind::Record).map(|row| row.amount).sum();
                if i64::try_from(count.counter.taken()).unwrap()
                    > i64::try_from(self.setting.limit).unwrap() + past.max(0)
                {
                    return Err(format!("R1: {} of {} are taken", count.counter.taken(), self.setting.limit));
                }
            }
        }
        if let Some(row) = store.rows.iter().find(|row| self.denied.contains(&row.command)) {
            return Err(format!("D5: a caller was told that nothing was stored, and there is {row:?}"));
        }
        let mut attempts: BTreeMap<(&Key, u32), Vec<&Row>> = BTreeMap::new();
        store.rows.iter().for_each(|row| attempts.entry((&row.key, row.attempt)).or_default().push(row));
        let mut held: BTreeMap<&Key, u32> = BTreeMap::new();
        for ((key, attempt), rows) in &attempts {
            let many = |entry: EntryKind| rows.iter().filter(|row| row.entry == entry).count();
            if many(EntryKind::Charge) + many(EntryKind::Reserve) != 1 {
                return Err(format!("D1: job {} is charged twice by attempt {attempt}", key.job));
            }
            if many(EntryKind::Commit) + many(EntryKind::Void) + many(EntryKind::Expire) > 1 {
                return Err(format!("R2: a reservation of {} has ended twice", key.job));
            }
            let sum: i64 = rows.iter().map(|row| row.amount).sum();
            let given_back = many(EntryKind::Void) == 1;
            if given_back && sum != 0 || sum < 0 {
                return Err(format!("D1: {sum} of job {} are left", key.job));
            }
            *held.entry(key).or_default() += u32::from(!given_back);
        }
        match held.into_iter().find(|(_, held)| *held > 1) {
            Some((key, _)) => Err(format!("D1: job {} is charged twice", key.job)),
            None => Ok(()),
        }
    }

    /// Checks the invariants of a final state.
    pub(in super::super) fn check_end(&self) -> Checked {
        if let Some(caller) = self.callers.iter().position(|stage| !matches!(stage, Stage::Over(_))) {
            return Err(format!("caller {caller} is left: {:?}", self.callers[caller]));
        }
        let rests = |(connection, (writer, step)): (usize, (&Writer<_>, &Step))| {
            writer.backlog() == 0 && (*step == Step::Wait || self.refuses(connection))
        };
        if let Some(connection) = self.lanes().enumerate().position(|lane| !rests(lane)) {
            return Err(format!("connection {connection} has not come to rest: {:?}", self.next(connection)));
        }
        let store = &self.database.store;
        if let Some(hold) = store.holds.first() {
            return Err(format!("a reservation is stranded: {hold:?}"));
        }
        for row in store.rows.iter().filter(|row| matches!(row.entry, EntryKind::Charge | EntryKind::Reserve)) {
            let (worked, held) = (self.worked.contains_key(&(row.key.clone(), row.attempt)), self.is_held(row));
            if held && !worked && !self.crashed && !self.has_expired(row) && !self.stays(row) {
                return Err(format!("job {} is charged, and its work was not begun", row.key.job));
            }
            let voided = self.voiding.iter().any(|(key, attempt, _)| *key == row.key && *attempt == row.attempt);
            if voided && held && !self.crashed && !self.has_expired(row) {
                return Err(format!("job {} came to nothing, and is still charged", row.key.job));
            }
        }
        Ok(())
    }
}
