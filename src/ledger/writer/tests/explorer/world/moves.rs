//! Moves of the world: callers, crashes, and the steps of the writers.

use super::{COMMITS, Checked, Process, Stage, Ticket, Told, VOIDS, World, id_of};
use crate::ledger::writer::{DbError, ReservationTerms, Step, StepResult, Writes, tests::*};

impl World {
    pub(super) fn ask(&mut self, caller: usize, process: usize) -> Checked {
        let Stage::Ready(r#try) = self.callers[caller] else { return Ok(()) };
        let want = &self.setting.wants[caller];
        let admit = AdmitCommand {
            fingerprint: Some(want.fingerprint),
            reserve: want.reserves.then_some(ReservationTerms { ttl: HOUR, charge: true }),
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
        let settlement = match (serves, want.reserves) {
            (true, false) => None,
            (true, true) => Some((COMMITS, SettleKind::Commit(("requests", want.actual).into()))),
            (false, _) => Some((VOIDS, SettleKind::Void)),
        };
        if let Some((by, end)) = settlement {
            if end == SettleKind::Void {
                self.voiding.push((want.key.clone(), attempt, process));
                self.voiding.sort();
            }
            writer.enqueue(command(id + by, want.key.clone(), settle(&self.setting.plan, attempt, since, end)));
        }
        writer.finish(&want.key, id);
        self.callers[caller] = Stage::Over(if serves { Told::Served } else { Told::NotServed });
    }

    pub(super) fn crash(&mut self, process: usize, under_way: bool) {
        self.faults.crashes -= 1;
        self.crashed = true;
        if under_way {
            self.database.leave_under_way(process);
        }
        self.database.roll_back(process);
        self.processes[process] = Process::new(self.setting.batch);
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

    pub(super) fn lost(&mut self, process: usize) -> Checked {
        let silent = self.setting.trusts_silence && self.processes[process].next == Step::Commit;
        let why = String::from("gone");
        self.step(process, Some(StepResult::Failed(if silent { DbError::Again(why) } else { DbError::Lost(why) })))
    }

    /// Writes or commits of a process.
    pub(super) fn written(&self, process: usize) -> Option<&Writes> {
        match &self.processes[process].next {
            Step::Write(writes, _) => Some(writes),
            Step::Commit => self.database.open[process].as_ref().map(|open| &open.writes),
            _ => None,
        }
    }

    pub(super) fn reject(&mut self, process: usize) -> Checked {
        self.database.roll_back(process);
        self.step(process, Some(StepResult::Failed(DbError::Rejected("a check".into()))))
    }

    /// Performs the writer's step; `false` if it has to wait.
    pub(super) fn perform(&mut self, process: usize) -> Result<bool, String> {
        let poisoned = |writes: &Writes| writes.rows.iter().any(|row| self.poison.contains(&row.command));
        if self.written(process).is_some_and(poisoned) {
            return self.reject(process).map(|()| true);
        }
        let event = match &self.processes[process].next {
            Step::Connect => StepResult::Connected,
            Step::Begin(reads) => match self.database.begin(process, reads) {
                Ok(loaded) => StepResult::Loaded(loaded),
                Err(_) => return Ok(false),
            },
            Step::Write(writes, _) => match self.database.write(process, writes) {
                Ok(Ok(())) => StepResult::Wrote,
                Ok(Err(_)) => {
                    self.database.roll_back(process);
                    StepResult::Failed(DbError::Rejected("a row is there".into()))
                }
                Err(_) => return Ok(false),
            },
            Step::Commit => {
                self.database.commit(process);
                StepResult::Committed
            }
            Step::RollBack => {
                self.database.roll_back(process);
                StepResult::RolledBack
            }
            Step::Rest(_) => StepResult::Rested,
            Step::Wait | Step::End => return Ok(false),
        };
        self.step(process, Some(event))?;
        Ok(true)
    }

    pub(super) fn step(&mut self, process: usize, event: Option<StepResult>) -> Checked {
        let one = &mut self.processes[process];
        one.next = one.writer.step(event);
        if matches!(one.next, Step::Connect | Step::Rest(_) | Step::End) {
            self.database.roll_back(process); // the connection is dropped
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
