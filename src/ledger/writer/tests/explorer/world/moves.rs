//! Moves of the world: callers, crashes, and the steps of the writers.

use super::{COMMITS, Checked, Process, Stage, Ticket, Told, VOIDS, World, id_of, of};
use crate::ledger::writer::{DbError, ReservationTerms, Step, StepResult, Writes, tests::*};

impl World {
    pub(super) fn ask(&mut self, caller: usize, process: usize) -> Checked {
        let Stage::Ready(r#try) = self.callers[caller] else { return Ok(()) };
        let want = &self.setting.wants[caller];
        let admit = AdmitCommand {
            fingerprint: Some(want.fingerprint),
            reserve: want.reserves.then_some(ReservationTerms { ttl: HOUR, charge: true }),
            job_lease: Some(HOUR),
            ..admit(&self.setting.plan, ("requests", want.amount))
        };
        let asked = command(id_of(caller, r#try), want.key.clone(), CommandKind::Admit(admit));
        match self.processes[process].writer.submit(asked, (caller as u8, r#try)) {
            Ok(ticket) => self.callers[caller] = Stage::Waiting { r#try, process, ticket: Ticket(ticket) },
            Err(_) => {
                self.deny(id_of(caller, r#try));
                self.again(caller, r#try, Told::Unavailable);
            }
        }
        Ok(())
    }

    /// Retries with the same id, or ends.
    pub(super) fn again(&mut self, caller: usize, r#try: u8, told: Told) {
        let more = r#try + 1 < self.setting.wants[caller].tries;
        self.callers[caller] = if more { Stage::Ready(r#try + 1) } else { Stage::Over(told) };
    }

    pub(super) fn deny(&mut self, id: u128) {
        self.denied.push(id);
        self.denied.sort_unstable();
    }

    pub(super) fn settle(&mut self, caller: usize, serves: bool) {
        let Stage::Working { r#try, process, attempt, since } = self.callers[caller] else { return };
        let want = &self.setting.wants[caller];
        let (id, writer) = (id_of(caller, r#try), &mut self.processes[process].writer);
        let (by, end) = match (serves, want.reserves) {
            (true, false) => (COMMITS, SettleKind::Add),
            (true, true) => (COMMITS, SettleKind::Commit(("requests", want.actual).into())),
            (false, _) => (VOIDS, SettleKind::Void),
        };
        let settlement = settle(&self.setting.plan, attempt, since, end);
        let settlement = if serves { ends(settlement, JobEnd::Done) } else { settlement };
        if serves {
            self.served.insert((want.key.clone(), attempt));
        } else {
            self.voiding.push((want.key.clone(), attempt, process));
            self.voiding.sort();
        }
        writer.enqueue(command(id + by, want.key.clone(), settlement));
        self.callers[caller] = Stage::Over(if serves { Told::Served } else { Told::NotServed });
    }

    pub(super) fn crash(&mut self, process: usize, under_way: bool) {
        self.faults.crashes -= 1;
        self.crashed = true;
        for connection in [process * 2, process * 2 + 1] {
            if under_way && *self.next(connection) == Step::Commit {
                self.database.leave_under_way(connection);
            }
            self.database.roll_back(connection);
        }
        self.processes[process] = Process::new(&self.setting);
        self.voiding.retain(|(_, _, of)| *of != process); // lost with the process
        for caller in 0..self.callers.len() {
            match self.callers[caller] {
                Stage::Waiting { r#try, process: of, .. } if of == process => {
                    self.again(caller, r#try, Told::Nothing);
                }
                Stage::Working { process: of, .. } if of == process => {
                    self.callers[caller] = Stage::Over(Told::Nothing);
                }
                _ => {}
            }
        }
    }

    pub(super) fn lost(&mut self, connection: usize) -> Checked {
        let silent = self.setting.trusts_silence && *self.next(connection) == Step::Commit;
        let why = String::from("gone");
        self.step(connection, Some(StepResult::Failed(if silent { DbError::Again(why) } else { DbError::Lost(why) })))
    }

    /// Writes or commits of a connection.
    pub(super) fn written(&self, connection: usize) -> Option<&Writes> {
        match self.next(connection) {
            Step::Write(writes, _) => Some(writes),
            Step::Commit => self.database.open[connection].as_ref().map(|open| &open.writes),
            _ => None,
        }
    }

    pub(super) fn reject(&mut self, connection: usize) -> Checked {
        self.database.roll_back(connection);
        self.step(connection, Some(StepResult::Failed(DbError::Rejected("a check".into()))))
    }

    /// Performs the writer's step; `false` if it has to wait.
    pub(super) fn perform(&mut self, connection: usize) -> Result<bool, String> {
        let poisoned = |writes: &Writes| writes.rows.iter().any(|row| self.poison.contains(&row.command));
        if self.written(connection).is_some_and(poisoned) {
            return self.reject(connection).map(|()| true);
        }
        let event = match &self.next(connection).clone() {
            Step::Connect if self.refuses(connection) => {
                StepResult::Failed(DbError::Lost("too many connections".into()))
            }
            Step::Connect => StepResult::Connected,
            Step::Begin(reads) => match self.database.begin(connection, reads) {
                Ok(loaded) => StepResult::Loaded(loaded),
                Err(_) => return Ok(false),
            },
            Step::Write(writes, _) => match self.database.write(connection, writes) {
                Ok(Ok(())) => StepResult::Wrote,
                Ok(Err(_)) => {
                    self.database.roll_back(connection);
                    StepResult::Failed(DbError::Rejected("a row is there".into()))
                }
                Err(_) => return Ok(false),
            },
            Step::Commit => {
                self.database.commit(connection);
                StepResult::Committed
            }
            Step::RollBack => {
                self.database.roll_back(connection);
                StepResult::RolledBack
            }
            Step::Rest(_) => StepResult::Rested,
            Step::Rejoin => StepResult::Rejoined,
            Step::Wait | Step::End => return Ok(false),
        };
        self.step(connection, Some(event))?;
        Ok(true)
    }

    pub(super) fn step(&mut self, connection: usize, event: Option<StepResult>) -> Checked {
        let (process, lane) = of(connection);
        let one = &mut self.processes[process];
        one.next[lane as usize] = one.writer.step(lane, event);
        if matches!(self.next(connection), Step::Connect | Step::Rest(_) | Step::End) {
            self.database.roll_back(connection); // the connection is dropped
        }
        for notice in self.processes[process].writer.notices() {
            self.dropped(&notice)?;
        }
        for (to, reply) in self.processes[process].writer.replies() {
            self.tell(process, to, reply)?;
        }
        Ok(())
    }
}
