//! Actions that are possible in a state.

use super::{Action, Stage, World, of};
use crate::ledger::writer::{Lane, Step};

impl World {
    /// All possible actions; none in a final state.
    pub(in super::super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let faults = self.faults;
        for (caller, stage) in self.callers.iter().enumerate() {
            let want = &self.setting.wants[caller];
            match *stage {
                Stage::Ready(0) => actions.push(Action::Ask { caller, process: want.process }),
                Stage::Ready(_) => {
                    actions.extend((0..self.processes.len()).map(|process| Action::Ask { caller, process }));
                }
                Stage::Waiting { .. } if faults.leaves > 0 => actions.push(Action::Leave { caller }),
                Stage::Working { .. } => {
                    actions.push(Action::Serve { caller });
                    actions.extend(want.may_void.then_some(Action::Void { caller }));
                    actions.extend(want.may_forget.then_some(Action::Forget { caller }));
                }
                Stage::Waiting { .. } | Stage::Over(_) => {}
            }
        }
        for (connection, (writer, step)) in self.lanes().enumerate() {
            let (process, lane) = of(connection);
            match step {
                Step::Wait => {
                    actions.extend((writer.backlog_of(lane) > 0).then_some(Action::Wake { connection }));
                    // A sweep happens while the writer is idle: only its order among the other actions matters.
                    let holds = 0..if lane == Lane::Main { self.database.store.holds.len() } else { 0 };
                    actions.extend(
                        holds
                            .filter(|hold| self.is_swept(&self.database.store.holds[*hold], process))
                            .map(|hold| Action::Sweep { process, hold }),
                    );
                }
                Step::End => {}
                // It would try for ever, and has nothing to do.
                Step::Connect | Step::Rest(_) if self.refuses(connection) && writer.backlog_of(lane) == 0 => {}
                step => {
                    actions.push(Action::Do { connection });
                    if faults.lost > 0 && !matches!(step, Step::Rest(_) | Step::Rejoin) {
                        actions.push(Action::Die { connection });
                        if *step == Step::Commit {
                            actions.push(Action::DieCommitted { connection });
                            actions.push(Action::DieUnderWay { connection });
                        }
                    }
                    if faults.rejected > 0
                        && let Some(writes) = self.written(connection)
                    {
                        let mut commands: Vec<_> = writes.rows.iter().map(|row| row.command).collect();
                        commands.dedup();
                        actions.extend(commands.into_iter().map(|command| Action::Reject { connection, command }));
                    }
                    if faults.again > 0 && matches!(step, Step::Begin(_) | Step::Write(..) | Step::Commit) {
                        actions.push(Action::InTheWay { connection });
                    }
                }
            }
        }
        for (process, one) in self.processes.iter().enumerate().filter(|_| faults.crashes > 0) {
            actions.push(Action::Crash { process, under_way: false });
            if one.next.contains(&Step::Commit) {
                actions.push(Action::Crash { process, under_way: true });
            }
        }
        if self.database.open[self.outsider()].is_some() {
            actions.push(Action::LetGo);
        } else if faults.holds > 0 {
            actions.push(Action::Hold);
        }
        if self.refused {
            actions.extend((!self.setting.no_second).then_some(Action::Accept));
        } else if faults.refusals > 0 {
            actions.push(Action::Refuse);
        }
        for which in 0..self.database.under_way.len() {
            actions.extend([true, false].map(|commits| Action::EndUnderWay { which, commits }));
        }
        if faults.hours > 0 {
            actions.push(Action::Hour);
        }
        actions
    }
}
