//! Two processes with a writer each, one database, and callers: the possible actions and their invariants.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::setting::{Faults, Setting};
use crate::ledger::writer::{
    AdmittedAt, CancelResult, DbError, Lane, Reads, ReservationRow, Step, StepResult, Writer,
    tests::{model::Database, *},
};

mod actions;
mod checks;
mod moves;
mod served;

/// Progress of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Ready(u8),
    Waiting { r#try: u8, process: usize, ticket: Ticket },
    Working { r#try: u8, process: usize, attempt: u32, since: AdmittedAt },
    Over(Told),
}

/// A ticket. States that differ in tickets only are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket(u64);

impl Hash for Ticket {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Final reply to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Served,
    NotServed,
    Forgot,
    Replay,
    Conflict,
    Refused,
    Unavailable,
    Rejected,
    Indeterminate,
    Nothing,
}

/// A possible next action.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Ask {
        caller: usize,
        process: usize,
    },
    Leave {
        caller: usize,
    },
    Serve {
        caller: usize,
    },
    Void {
        caller: usize,
    },
    Forget {
        caller: usize,
    },
    Sweep {
        process: usize,
        hold: usize,
    },
    Wake {
        connection: usize,
    },
    /// The database performs the step.
    Do {
        connection: usize,
    },
    /// The connection dies before anything is done.
    Die {
        connection: usize,
    },
    /// The connection dies when the commit has taken place, and its result is lost.
    DieCommitted {
        connection: usize,
    },
    /// The connection dies while the commit is under way.
    DieUnderWay {
        connection: usize,
    },
    InTheWay {
        connection: usize,
    },
    /// The database rejects a command of the transaction, now and whenever it is tried.
    Reject {
        connection: usize,
        command: u128,
    },
    EndUnderWay {
        which: usize,
        commits: bool,
    },
    Crash {
        process: usize,
        under_way: bool,
    },
    Hour,
    /// Another program locks the account of the first caller.
    Hold,
    LetGo,
    /// The server accepts no further connections of second lanes.
    Refuse,
    /// It accepts them again.
    Accept,
}

#[derive(Clone, Debug)]
struct Process {
    writer: Writer<(u8, u8)>,
    /// Next step of each lane.
    next: [Step; 2],
}

impl Process {
    fn new(setting: &Setting) -> Self {
        let mut writer = Writer::new(8, setting.batch, setting.lanes);
        writer.planted = setting.planted;
        let next = Lane::ALL.map(|lane| writer.step(lane, None));
        Self { writer, next }
    }
}

/// State of the exploration.
#[derive(Clone, Debug)]
pub(super) struct World {
    processes: Vec<Process>,
    pub(super) database: Database,
    callers: Vec<Stage>,
    faults: Faults,
    /// Command that was admitted, for each attempt of each job.
    worked: BTreeMap<(Key, u32), u128>,
    /// Attempts whose work was done.
    served: BTreeSet<(Key, u32)>,
    /// Attempts that are to be voided, and their process.
    voiding: Vec<(Key, u32, usize)>,
    /// Commands whose callers were told that nothing was stored.
    denied: Vec<u128>,
    /// Commands that the database rejects.
    poison: Vec<u128>,
    /// Something was lost with a process.
    crashed: bool,
    /// The server accepts no connections of second lanes.
    refused: bool,
    /// Whether the latest [probe](Self::check_served) was decided, if it has a reply.
    probed: Option<bool>,
    setting: Arc<Setting>,
}

/// Command id of a caller's try; those of its settlements follow it.
fn id_of(caller: usize, r#try: u8) -> u128 {
    (caller as u128 * 16 + u128::from(r#try)) * 16
}

/// Process and lane of a connection.
fn of(connection: usize) -> (usize, Lane) {
    (connection / 2, Lane::ALL[connection % 2])
}

const COMMITS: u128 = 2;
const VOIDS: u128 = 4;
const EXPIRES: u128 = 8;

impl Hash for World {
    fn hash<H: Hasher>(&self, into: &mut H) {
        for process in &self.processes {
            (&process.writer, &process.next).hash(into);
        }
        let database = &self.database;
        (&database.store, database.now, &database.open, &database.under_way).hash(into);
        (&self.callers, self.faults, &self.worked, &self.served, &self.voiding).hash(into);
        (&self.denied, &self.poison, self.crashed, self.refused).hash(into);
    }
}

type Checked = Result<(), String>;

impl World {
    pub(super) fn new(setting: &Arc<Setting>) -> Self {
        Self {
            processes: (0..setting.processes).map(|_| Process::new(setting)).collect(),
            // One connection for each lane, and one of another program.
            database: Database::new(START, setting.processes * 2 + 1, setting.without),
            callers: vec![Stage::Ready(0); setting.wants.len()],
            faults: setting.faults,
            worked: BTreeMap::new(),
            served: BTreeSet::new(),
            voiding: Vec::new(),
            denied: Vec::new(),
            poison: Vec::new(),
            crashed: false,
            refused: setting.no_second,
            probed: None,
            setting: Arc::clone(setting),
        }
    }

    /// Writer and next step of each lane, in the order of their connections.
    fn lanes(&self) -> impl Iterator<Item = (&Writer<(u8, u8)>, &Step)> {
        self.processes.iter().flat_map(|one| one.next.iter().map(|step| (&one.writer, step)))
    }

    fn next(&self, connection: usize) -> &Step {
        let (process, lane) = of(connection);
        &self.processes[process].next[lane as usize]
    }

    /// Connection of another program.
    fn outsider(&self) -> usize {
        self.processes.len() * 2
    }

    /// Whether this process may sweep the reservation, which may have expired.
    fn is_swept(&self, hold: &ReservationRow, process: usize) -> bool {
        let settling = self.setting.wants.iter().any(|want| want.reserves && want.key == hold.key);
        settling && (self.processes.len() == 1 || process == 1)
    }

    /// State after an action; `None` if the action has to wait for another transaction.
    pub(super) fn after(&self, action: Action) -> Option<Result<Self, String>> {
        let mut world = self.clone();
        match world.act(action) {
            Ok(true) => Some(world.check().map(|()| world)),
            Ok(false) => None,
            Err(why) => Some(Err(why)),
        }
    }

    fn act(&mut self, action: Action) -> Result<bool, String> {
        match action {
            Action::Ask { caller, process } => self.ask(caller, process)?,
            Action::Leave { caller } => {
                self.faults.leaves -= 1;
                let Stage::Waiting { r#try, process, ticket } = self.callers[caller] else { return Ok(false) };
                let writer = &mut self.processes[process].writer;
                let times_out = self.setting.times_out;
                let told = match if times_out { writer.time_out(ticket.0) } else { writer.cancel(ticket.0) } {
                    CancelResult::Unsent | CancelResult::Held => {
                        self.deny(id_of(caller, r#try));
                        Told::Unavailable
                    }
                    CancelResult::Underway => Told::Indeterminate,
                    CancelResult::Answered => return Err("an answer has not come to its caller".into()),
                };
                self.again(caller, r#try, told);
            }
            Action::Serve { caller } | Action::Void { caller } => {
                self.settle(caller, matches!(action, Action::Serve { .. }))
            }
            Action::Forget { caller } => {
                if let Stage::Working { .. } = self.callers[caller] {
                    self.callers[caller] = Stage::Over(Told::Forgot);
                }
            }
            Action::Sweep { process, hold } => {
                let hold = &self.database.store.holds[hold];
                let (attempt, since, charge) = (hold.attempt, hold.since, self.setting.charge_expired);
                let about = self.setting.wants.iter().position(|want| want.key == hold.key).unwrap_or(0);
                let id = id_of(about, 15) + EXPIRES + u128::from(attempt) * (1 << 64);
                let expire = command(id, hold.key.clone(), CommandKind::Expire { attempt, since, charge });
                self.processes[process].writer.enqueue(expire);
                self.step(process * 2, None)?; // at once
            }
            Action::Wake { connection } => self.step(connection, None)?,
            Action::Do { connection } => return self.perform(connection),
            Action::Die { connection } => {
                self.faults.lost -= 1;
                self.database.roll_back(connection);
                self.lost(connection)?;
            }
            Action::DieCommitted { connection } => {
                self.faults.lost -= 1;
                self.database.commit(connection);
                self.lost(connection)?;
            }
            Action::DieUnderWay { connection } => {
                self.faults.lost -= 1;
                self.database.leave_under_way(connection);
                self.lost(connection)?;
            }
            Action::InTheWay { connection } => {
                self.faults.again -= 1;
                self.database.roll_back(connection);
                self.step(connection, Some(StepResult::Failed(DbError::Again("in the way".into()))))?;
            }
            Action::Reject { connection, command } => {
                self.faults.rejected -= 1;
                self.poison.push(command);
                self.poison.sort_unstable();
                self.reject(connection)?;
            }
            Action::EndUnderWay { which, commits } => self.database.end(which, commits),
            Action::Crash { process, under_way } => self.crash(process, under_way),
            Action::Hold => {
                let tenants = vec![Arc::clone(&self.setting.wants[0].key.tenant)];
                let reads = Reads { tenants, ..Reads::default() };
                self.faults.holds -= 1;
                return Ok(self.database.begin(self.outsider(), &reads).is_ok());
            }
            Action::LetGo => self.database.roll_back(self.outsider()),
            Action::Refuse => {
                self.faults.refusals -= 1;
                self.refused = true;
            }
            Action::Accept => self.refused = false,
            Action::Hour => {
                self.faults.hours -= 1;
                self.database.now += HOUR;
            }
        }
        Ok(true)
    }
}
