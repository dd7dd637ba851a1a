//! The fix as it was reported: look up a set of job ids, then check, then count, then insert a row. The same search
//! shows that it breaks its promises without any fault.

use std::collections::{BTreeSet, HashSet, VecDeque};

const LIMIT: u64 = 100;

/// A caller: its job, and its amount.
#[derive(Clone, Copy)]
struct Want {
    job: usize,
    amount: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Start,
    /// The id is in the set.
    Marked,
    /// There was room.
    Checked,
    Counted,
    Served,
    /// The caller received that the job was done before.
    Duplicate,
    /// There was no room: the id is removed from the set.
    Refused,
    Crashed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    callers: Vec<At>,
    marked: BTreeSet<usize>,
    used: u64,
    /// Jobs in the table, once for each row.
    rows: Vec<usize>,
    crashes: u8,
    /// Number of times that a mark may expire.
    forgets: u8,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Mark(usize),
    Check(usize),
    Count(usize),
    Insert(usize),
    Crash(usize),
    AskAgain(usize),
    Forget(usize),
}

impl State {
    fn actions(&self, wants: &[Want]) -> Vec<Action> {
        let mut actions = Vec::new();
        for (caller, at) in self.callers.iter().enumerate() {
            match at {
                At::Start => actions.push(Action::Mark(caller)),
                At::Marked => actions.push(Action::Check(caller)),
                At::Checked => actions.push(Action::Count(caller)),
                At::Counted => actions.push(Action::Insert(caller)),
                At::Crashed => actions.push(Action::AskAgain(caller)),
                At::Served | At::Duplicate | At::Refused => {}
            }
            if self.crashes > 0 && matches!(at, At::Marked | At::Checked | At::Counted) {
                actions.push(Action::Crash(caller));
            }
        }
        if self.forgets > 0 {
            actions
                .extend(wants.iter().map(|want| want.job).filter(|job| self.marked.contains(job)).map(Action::Forget));
        }
        actions
    }

    fn after(&self, action: Action, wants: &[Want]) -> Self {
        let mut state = self.clone();
        match action {
            Action::Mark(caller) => {
                let new = state.marked.insert(wants[caller].job);
                state.callers[caller] = if new { At::Marked } else { At::Duplicate };
            }
            Action::Check(caller) => {
                let fits = wants[caller].amount <= LIMIT.saturating_sub(state.used);
                if !fits {
                    state.marked.remove(&wants[caller].job);
                }
                state.callers[caller] = if fits { At::Checked } else { At::Refused };
            }
            Action::Count(caller) => {
                state.used += wants[caller].amount;
                state.callers[caller] = At::Counted;
            }
            Action::Insert(caller) => {
                state.rows.push(wants[caller].job);
                state.rows.sort_unstable();
                state.callers[caller] = At::Served;
            }
            Action::Crash(caller) => {
                state.crashes -= 1;
                state.callers[caller] = At::Crashed;
            }
            Action::AskAgain(caller) => state.callers[caller] = At::Start,
            Action::Forget(job) => {
                state.forgets -= 1;
                state.marked.remove(&job);
            }
        }
        state
    }
}

/// The shortest way to a violation.
fn shortest(wants: &[Want], crashes: u8, forgets: u8, harm: impl Fn(&State, bool) -> bool) -> Option<Vec<Action>> {
    let start = State {
        callers: vec![At::Start; wants.len()],
        marked: BTreeSet::new(),
        used: 0,
        rows: Vec::new(),
        crashes,
        forgets,
    };
    let mut seen = HashSet::from([start.clone()]);
    let mut waiting = VecDeque::from([(start, Vec::new())]);
    while let Some((state, trace)) = waiting.pop_front() {
        let over = state.callers.iter().all(|at| matches!(at, At::Served | At::Duplicate | At::Refused));
        if harm(&state, over) {
            return Some(trace);
        }
        for action in state.actions(wants) {
            let next = state.after(action, wants);
            if seen.insert(next.clone()) {
                waiting.push_back((next, [&trace[..], &[action]].concat()));
            }
        }
    }
    None
}

fn shown(what: &str, trace: Option<Vec<Action>>) {
    let trace = trace.unwrap_or_else(|| panic!("{what}: not found"));
    println!("{what}");
    trace.iter().enumerate().for_each(|(at, action)| println!("  {at:2}  {action:?}"));
}

const RIVALS: [Want; 2] = [Want { job: 0, amount: 95 }, Want { job: 1, amount: 100 }];
const TWINS: [Want; 3] = [Want { job: 0, amount: 60 }, Want { job: 0, amount: 60 }, Want { job: 1, amount: 60 }];

#[test]
fn two_jobs_pass_the_check_together_without_any_fault() {
    shown("95 and 100 of 100 are used", shortest(&RIVALS, 0, 0, |state, _| state.used == 195));
}

#[test]
fn duplicate_is_done_and_its_twin_refused_without_any_fault() {
    let harm = |state: &State, over: bool| {
        over && state.callers[..2].contains(&At::Duplicate) && state.callers[..2].contains(&At::Refused)
    };
    shown("told done, and never done", shortest(&TWINS, 0, 0, harm));
}

#[test]
fn one_crash_leaves_a_job_unpaid_that_is_told_done() {
    let harm = |state: &State, over: bool| {
        over && state.callers[0] == At::Duplicate && !state.rows.contains(&0) && state.used == 0
    };
    shown("told done, and never deducted", shortest(&TWINS[..1], 1, 0, harm));
}

#[test]
fn one_crash_leaves_a_count_without_a_row() {
    let harm = |state: &State, over: bool| over && state.used == 60 && state.rows.is_empty();
    shown("counted, and in no row", shortest(&TWINS[..1], 1, 0, harm));
}

#[test]
fn one_crash_and_a_forgotten_id_charge_a_job_twice() {
    let harm = |state: &State, _: bool| state.used >= 80 && state.callers[0] == At::Served;
    shown("charged twice", shortest(&[Want { job: 0, amount: 40 }], 1, 1, harm));
}
