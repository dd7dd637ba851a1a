//! Two processes with a writer each, one database, and callers: what may happen next, and what must never have happened.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::ledger::writer::{
    AdmittedAt, CancelResult, DbError, EntryKind, NoticeKind, Reply, ReservationRow, Row, Step, StepResult, Writer,
    WriterNotice, Writes,
    tests::{
        model::{Database, Without},
        *,
    },
};

/// Somebody who wants a job done.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) key: Key,
    pub(super) fingerprint: u128,
    pub(super) amount: u64,
    pub(super) reserves: bool,
    /// Which process is asked first; after that, any.
    pub(super) process: usize,
    pub(super) tries: u8,
    /// Whether the work may come to nothing, and what it really takes if it does not.
    pub(super) may_void: bool,
    pub(super) actual: u64,
    /// Whether nobody may come to settle what was set aside.
    pub(super) may_forget: bool,
}

pub(super) fn want(job: &str, amount: u64) -> Want {
    Want {
        key: key("acme", job),
        fingerprint: 7,
        amount,
        reserves: false,
        process: 0,
        tries: 1,
        may_void: false,
        actual: amount,
        may_forget: false,
    }
}

/// How often what may go wrong does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    /// Connections that die, at any point.
    pub(super) lost: u8,
    /// Transactions that others are in the way of.
    pub(super) again: u8,
    /// Orders that the database rejects from then on, whenever they are written.
    pub(super) rejected: u8,
    pub(super) crashes: u8,
    /// Callers whose deadline passes.
    pub(super) leaves: u8,
    pub(super) hours: u8,
}

/// How far a caller has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Ready(u8),
    Waiting { r#try: u8, process: usize, ticket: Ticket },
    Working { r#try: u8, process: usize, attempt: u32, since: AdmittedAt },
    Over(Told),
}

/// Tickets are numbers that nothing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket(u64);

impl Hash for Ticket {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What a caller was told in the end.
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

/// What may happen next.
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
        process: usize,
    },
    /// The database does what it was asked to.
    Do {
        process: usize,
    },
    /// The connection dies before anything is done.
    Die {
        process: usize,
    },
    /// It dies when the commit has taken place, and nobody hears of it.
    DieCommitted {
        process: usize,
    },
    /// It dies while the commit is under way.
    DieUnderWay {
        process: usize,
    },
    InTheWay {
        process: usize,
    },
    /// The database rejects an order of the transaction, now and whenever it is tried.
    Reject {
        process: usize,
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
}

#[derive(Clone, Debug)]
struct Process {
    writer: Writer<(u8, u8)>,
    next: Step,
}

impl Process {
    fn new(batch: usize) -> Self {
        let mut writer = Writer::new(8, batch);
        let next = writer.step(None);
        Self { writer, next }
    }
}

/// Everything there is.
#[derive(Clone, Debug)]
pub(super) struct World {
    processes: Vec<Process>,
    pub(super) database: Database,
    callers: Vec<Stage>,
    faults: Faults,
    /// Which order was told that it is admitted, of each attempt of each job.
    worked: BTreeMap<(Key, u32), u128>,
    /// Attempts that are to go back, and in which process.
    voiding: Vec<(Key, u32, usize)>,
    /// Orders whose callers were told that nothing was done.
    denied: Vec<u128>,
    /// Orders that the database rejects.
    poison: Vec<u128>,
    /// Something was lost with a process.
    crashed: bool,
    setting: Arc<Setting>,
}

/// What does not change.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) wants: Vec<Want>,
    pub(super) limit: u64,
    pub(super) batch: usize,
    pub(super) faults: Faults,
    pub(super) charge_expired: bool,
    pub(super) processes: usize,
    pub(super) without: Without,
    /// A commit without a reply is taken for one that did not take place.
    pub(super) trusts_silence: bool,
    pub(super) plan: Arc<Plan>,
}

impl Setting {
    pub(super) fn new(name: &'static str, wants: Vec<Want>) -> Self {
        Self {
            name,
            wants,
            limit: 100,
            batch: 4,
            faults: Faults::default(),
            charge_expired: true,
            processes: 2,
            without: Without::default(),
            trusts_silence: false,
            plan: hourly(100),
        }
    }
}

/// The id of the order of a caller's try; those of its settlements follow it.
fn id_of(caller: usize, r#try: u8) -> u128 {
    (caller as u128 * 16 + u128::from(r#try)) * 16
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
        (&self.callers, self.faults, &self.worked, &self.voiding, &self.denied, &self.poison, self.crashed).hash(into);
    }
}

type Checked = Result<(), String>;

impl World {
    pub(super) fn new(setting: &Arc<Setting>) -> Self {
        Self {
            processes: (0..setting.processes).map(|_| Process::new(setting.batch)).collect(),
            database: Database::new(START, setting.processes, setting.without),
            callers: vec![Stage::Ready(0); setting.wants.len()],
            faults: setting.faults,
            worked: BTreeMap::new(),
            voiding: Vec::new(),
            denied: Vec::new(),
            poison: Vec::new(),
            crashed: false,
            setting: Arc::clone(setting),
        }
    }

    /// Everything that may happen next; nothing where all is over.
    pub(super) fn actions(&self) -> Vec<Action> {
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
        for (process, one) in self.processes.iter().enumerate() {
            match &one.next {
                Step::Wait => {
                    actions.extend((one.writer.backlog() > 0).then_some(Action::Wake { process }));
                    // Whoever sweeps does so while there is nothing else to do: what matters is who comes first.
                    let holds = 0..self.database.store.holds.len();
                    actions.extend(
                        holds
                            .filter(|hold| self.is_swept(&self.database.store.holds[*hold], process))
                            .map(|hold| Action::Sweep { process, hold }),
                    );
                }
                Step::End => {}
                step => {
                    actions.push(Action::Do { process });
                    if faults.lost > 0 && !matches!(step, Step::Rest(_)) {
                        actions.push(Action::Die { process });
                        if *step == Step::Commit {
                            actions.push(Action::DieCommitted { process });
                            actions.push(Action::DieUnderWay { process });
                        }
                    }
                    if faults.rejected > 0
                        && let Some(writes) = self.written(process)
                    {
                        let mut commands: Vec<_> = writes.rows.iter().map(|row| row.command).collect();
                        commands.dedup();
                        actions.extend(commands.into_iter().map(|command| Action::Reject { process, command }));
                    }
                    if faults.again > 0 && matches!(step, Step::Begin(_) | Step::Write(..) | Step::Commit) {
                        actions.push(Action::InTheWay { process });
                    }
                }
            }
            if faults.crashes > 0 {
                actions.push(Action::Crash { process, under_way: false });
                if one.next == Step::Commit {
                    actions.push(Action::Crash { process, under_way: true });
                }
            }
        }
        for which in 0..self.database.under_way.len() {
            actions.extend([true, false].map(|commits| Action::EndUnderWay { which, commits }));
        }
        if faults.hours > 0 {
            actions.push(Action::Hour);
        }
        actions
    }

    /// Whether a reservation may have expired, and nobody in this process has been told so.
    fn is_swept(&self, hold: &ReservationRow, process: usize) -> bool {
        let settling = self.setting.wants.iter().any(|want| want.reserves && want.key == hold.key);
        settling && (self.processes.len() == 1 || process == 1)
    }

    /// What comes of an action; `None` where it has to wait for another transaction.
    pub(super) fn after(&self, action: Action) -> Option<Result<Self, String>> {
        let mut world = self.clone();
        match world.kind(action) {
            Ok(true) => Some(world.check().map(|()| world)),
            Ok(false) => None,
            Err(why) => Some(Err(why)),
        }
    }

    fn kind(&mut self, action: Action) -> Result<bool, String> {
        match action {
            Action::Ask { caller, process } => self.ask(caller, process)?,
            Action::Leave { caller } => {
                self.faults.leaves -= 1;
                let Stage::Waiting { r#try, process, ticket } = self.callers[caller] else { return Ok(false) };
                let told = match self.processes[process].writer.cancel(ticket.0) {
                    CancelResult::Unsent => {
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
                if let Stage::Working { r#try, process, .. } = self.callers[caller] {
                    let key = &self.setting.wants[caller].key;
                    self.processes[process].writer.finish(key, id_of(caller, r#try));
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
                self.step(process, None)?; // at once
            }
            Action::Wake { process } => self.step(process, None)?,
            Action::Do { process } => return self.perform(process),
            Action::Die { process } => {
                self.faults.lost -= 1;
                self.database.roll_back(process);
                self.lost(process)?;
            }
            Action::DieCommitted { process } => {
                self.faults.lost -= 1;
                self.database.commit(process);
                self.lost(process)?;
            }
            Action::DieUnderWay { process } => {
                self.faults.lost -= 1;
                self.database.leave_under_way(process);
                self.lost(process)?;
            }
            Action::InTheWay { process } => {
                self.faults.again -= 1;
                self.database.roll_back(process);
                self.step(process, Some(StepResult::Failed(DbError::Again("in the way".into()))))?;
            }
            Action::Reject { process, command } => {
                self.faults.rejected -= 1;
                self.poison.push(command);
                self.poison.sort_unstable();
                self.reject(process)?;
            }
            Action::EndUnderWay { which, commits } => self.database.end(which, commits),
            Action::Crash { process, under_way } => self.crash(process, under_way),
            Action::Hour => {
                self.faults.hours -= 1;
                self.database.now += HOUR;
            }
        }
        Ok(true)
    }

    fn ask(&mut self, caller: usize, process: usize) -> Checked {
        let Stage::Ready(r#try) = self.callers[caller] else { return Ok(()) };
        let want = &self.setting.wants[caller];
        let admit = AdmitCommand {
            fingerprint: Some(want.fingerprint),
            reserve: want.reserves.then_some(crate::ledger::writer::ReservationTerms { ttl: HOUR, charge: true }),
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

    /// The same id tells what has become of it.
    fn again(&mut self, caller: usize, r#try: u8, told: Told) {
        let more = r#try + 1 < self.setting.wants[caller].tries;
        self.callers[caller] = if more { Stage::Ready(r#try + 1) } else { Stage::Over(told) };
    }

    fn deny(&mut self, id: u128) {
        self.denied.push(id);
        self.denied.sort_unstable();
    }

    fn settle(&mut self, caller: usize, serves: bool) {
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

    fn crash(&mut self, process: usize, under_way: bool) {
        self.faults.crashes -= 1;
        self.crashed = true;
        if under_way {
            self.database.leave_under_way(process);
        }
        self.database.roll_back(process);
        self.processes[process] = Process::new(self.setting.batch);
        self.voiding.retain(|(_, _, of)| *of != process); // nobody knows of it any more
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

    fn lost(&mut self, process: usize) -> Checked {
        let silent = self.setting.trusts_silence && self.processes[process].next == Step::Commit;
        let why = String::from("gone");
        self.step(process, Some(StepResult::Failed(if silent { DbError::Again(why) } else { DbError::Lost(why) })))
    }

    /// Writes or commits of a process.
    fn written(&self, process: usize) -> Option<&Writes> {
        match &self.processes[process].next {
            Step::Write(writes, _) => Some(writes),
            Step::Commit => self.database.open[process].as_ref().map(|open| &open.writes),
            _ => None,
        }
    }

    fn reject(&mut self, process: usize) -> Checked {
        self.database.roll_back(process);
        self.step(process, Some(StepResult::Failed(DbError::Rejected("a check".into()))))
    }

    /// Does what a writer has asked for; false where it has to wait.
    fn perform(&mut self, process: usize) -> Result<bool, String> {
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

    fn step(&mut self, process: usize, event: Option<StepResult>) -> Checked {
        let one = &mut self.processes[process];
        one.next = one.writer.step(event);
        if matches!(one.next, Step::Connect | Step::Rest(_) | Step::End) {
            self.database.roll_back(process); // the connection is dropped
        }
        for notice in self.processes[process].writer.notices() {
            self.dropped(&notice)?;
        }
        for answered in self.processes[process].writer.answers() {
            self.tell(process, answered.to, answered.reply)?;
        }
        Ok(())
    }

    /// An order is dropped: nothing settles what it would have settled, but the time of a reservation.
    fn dropped(&mut self, notice: &WriterNotice) -> Checked {
        let NoticeKind::Rejected(_) = notice.what else { return Ok(()) };
        if self.poison.is_empty() {
            return Err(format!("an command of {} is dropped, and the database rejects none", notice.key.job));
        }
        let stays = |(key, attempt, _): &&(Key, u32, usize)| {
            let of = |row: &&Row| row.key == *key && row.attempt == *attempt;
            self.database.store.rows.iter().filter(of).any(|row| self.stays(row))
        };
        self.voiding = self.voiding.iter().filter(|voiding| !stays(voiding)).cloned().collect();
        Ok(())
    }

    /// Whether the database rejects what would give a charge back. The ids of settlements follow the id of what they settle;
    /// a writer makes odd ones.
    fn stays(&self, row: &Row) -> bool {
        self.poison.iter().any(|poison| *poison == row.command + VOIDS || *poison == row.command ^ 1)
    }

    /// A caller is answered.
    fn tell(&mut self, by: usize, (caller, of): (u8, u8), reply: Reply) -> Checked {
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
            Reply::Replay { running, .. } => {
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
                if !running && !crashed && !worked && self.is_of(row, by) && !kept {
                    return Err(format!("caller {caller} is told done, and nobody has worked on it"));
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
            Reply::Unavailable(_) => {
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

    /// Whether an attempt has not gone back.
    fn is_held(&self, of: &Row) -> bool {
        let same = |row: &&Row| row.key == of.key && row.attempt == of.attempt;
        !self.database.store.rows.iter().filter(same).any(|row| row.entry == EntryKind::Void)
    }

    /// Whether the time of an attempt ran out before anybody could give it back.
    fn has_expired(&self, of: &Row) -> bool {
        let same = |row: &&Row| row.key == of.key && row.attempt == of.attempt;
        self.database.store.rows.iter().filter(same).any(|row| row.entry == EntryKind::Expire)
    }

    /// Whether a row's order came through this process, last we knew.
    fn is_of(&self, row: &Row, process: usize) -> bool {
        let caller = usize::try_from(row.command / 256).unwrap_or(0);
        let home = self.setting.wants[caller].process;
        home == process && row.command == id_of(caller, 0)
    }

    /// What must hold at every moment.
    fn check(&self) -> Checked {
        let store = &self.database.store;
        store.adds_up()?;
        for stored in store.accounts.values() {
            for count in &stored.counts {
                let past: i64 =
                    store.rows.iter().filter(|row| row.entry == EntryKind::Record).map(|row| row.amount).sum();
                if i64::try_from(count.taken()).unwrap() > i64::try_from(self.setting.limit).unwrap() + past.max(0) {
                    return Err(format!("R1: {} of {} are taken", count.taken(), self.setting.limit));
                }
            }
        }
        if let Some(row) = store.rows.iter().find(|row| self.denied.contains(&row.command)) {
            return Err(format!("D5: somebody was told that nothing was done, and there is {row:?}"));
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

    /// What must hold where nothing more can happen.
    pub(super) fn check_end(&self) -> Checked {
        if let Some(caller) = self.callers.iter().position(|stage| !matches!(stage, Stage::Over(_))) {
            return Err(format!("caller {caller} is left: {:?}", self.callers[caller]));
        }
        if let Some(process) = self.processes.iter().position(|one| one.writer.backlog() > 0 || one.next != Step::Wait)
        {
            return Err(format!("process {process} has not come to rest: {:?}", self.processes[process].next));
        }
        let store = &self.database.store;
        if let Some(hold) = store.holds.first() {
            return Err(format!("a reservation is stranded: {hold:?}"));
        }
        for row in store.rows.iter().filter(|row| matches!(row.entry, EntryKind::Charge | EntryKind::Reserve)) {
            let (worked, held) = (self.worked.contains_key(&(row.key.clone(), row.attempt)), self.is_held(row));
            if held && !worked && !self.crashed && !self.has_expired(row) && !self.stays(row) {
                return Err(format!("job {} is charged, and nobody has worked on it", row.key.job));
            }
            let voided = self.voiding.iter().any(|(key, attempt, _)| *key == row.key && *attempt == row.attempt);
            if voided && held && !self.crashed && !self.has_expired(row) {
                return Err(format!("job {} came to nothing, and is still charged", row.key.job));
            }
        }
        Ok(())
    }
}
