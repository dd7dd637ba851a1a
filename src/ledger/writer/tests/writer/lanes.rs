//! Two lanes: the main one skips accounts that are held, and the second one waits for them.

use super::*;
use crate::ledger::writer::Reads;

/// A writer of two lanes, and a database with a third connection of another program.
struct Lanes {
    writer: Writer<&'static str>,
    database: Database,
    next: [Step; 2],
    told: Vec<(&'static str, Reply)>,
}

const OUTSIDER: usize = 2;

impl Lanes {
    fn new() -> Self {
        let mut writer = Writer::new(8, 8, true);
        let next = Lane::ALL.map(|lane| writer.step(lane, None));
        Self { writer, database: Database::new(START, 3, Without::default()), next, told: Vec::new() }
    }

    /// Another program locks an account.
    fn hold(&mut self, tenant: &str) {
        let reads = Reads { tenants: vec![tenant.into()], ..Reads::default() };
        self.database.begin(OUTSIDER, &reads).unwrap();
    }

    fn ask(&mut self, who: &'static str, id: u128) -> u64 {
        let asked = command(id, key(who, &id.to_string()), CommandKind::Admit(admit(&hourly(100), ("requests", 1))));
        self.writer.submit(asked, who).unwrap()
    }

    fn hear(&mut self, lane: Lane, event: Option<StepResult>) {
        self.next[lane as usize] = self.writer.step(lane, event);
        self.told.extend(self.writer.replies());
    }

    /// Performs the steps of a lane until it waits for a command or for a lock.
    fn run(&mut self, lane: Lane) {
        for _ in 0..100 {
            let connection = lane as usize;
            let event = match self.next[connection].clone() {
                Step::Wait if self.writer.backlog_of(lane) == 0 => return,
                Step::End => return,
                Step::Connect => Some(StepResult::Connected),
                Step::Begin(reads) => match self.database.begin(connection, &reads) {
                    Ok(loaded) => Some(StepResult::Loaded(loaded)),
                    Err(_) => return,
                },
                Step::Write(writes, _) => {
                    self.database.write(connection, &writes).unwrap().unwrap();
                    Some(StepResult::Wrote)
                }
                Step::Commit => {
                    self.database.commit(connection);
                    Some(StepResult::Committed)
                }
                Step::RollBack => {
                    self.database.roll_back(connection);
                    Some(StepResult::RolledBack)
                }
                Step::Rest(_) => Some(StepResult::Rested),
                Step::Rejoin => Some(StepResult::Rejoined),
                Step::Wait => None,
            };
            self.hear(lane, event);
        }
        panic!("the lane does not come to rest");
    }

    fn admitted(&mut self) -> Vec<&'static str> {
        let told = std::mem::take(&mut self.told);
        assert!(told.iter().all(|(_, reply)| matches!(reply, Reply::Admitted(_))), "{told:?}");
        told.into_iter().map(|(who, _)| who).collect()
    }

    /// The second lane gets no connection.
    fn no_connection(&mut self) {
        self.lane_is_refused(Lane::Second);
    }

    fn lane_is_refused(&mut self, lane: Lane) {
        for _ in 0..10 {
            if self.next[lane as usize] == Step::Connect {
                break;
            }
            let rested = matches!(self.next[lane as usize], Step::Rest(_)).then_some(StepResult::Rested);
            self.hear(lane, rested);
        }
        assert_eq!(self.next[lane as usize], Step::Connect);
        self.hear(lane, Some(StepResult::Failed(DbError::Lost("too many connections".into()))));
    }

    fn lock_does_not_come(&mut self) {
        assert!(matches!(self.next[1], Step::Begin(_)), "{:?}", self.next[1]);
        self.hear(Lane::Second, Some(StepResult::Failed(again())));
        self.run(Lane::Second);
    }
}

#[test]
fn main_lane_never_waits_for_a_held_account() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    ["ann", "bob", "cid"].into_iter().zip(1..).for_each(|(who, id)| _ = lanes.ask(who, id * 2));
    lanes.run(Lane::Main);
    assert_eq!(lanes.admitted(), ["ann", "cid"]);
    lanes.run(Lane::Second);
    for id in 4..8 {
        lanes.ask("ann", id * 2);
        lanes.ask("bob", id * 2 + 20);
        lanes.run(Lane::Main);
        assert_eq!(lanes.admitted(), ["ann"]);
    }
    assert!(lanes.writer.is_held("bob"));
}

#[test]
fn account_returns_to_the_main_lane_with_its_commands_in_order() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    lanes.ask("bob", 2);
    lanes.run(Lane::Main);
    lanes.run(Lane::Second);
    lanes.ask("bob", 4); // arrives while the batch waits for the lock
    lanes.database.roll_back(OUTSIDER);
    lanes.run(Lane::Second);
    assert!(!lanes.writer.is_held("bob") && lanes.writer.backlog_of(Lane::Second) == 0);
    lanes.run(Lane::Main);
    assert_eq!(lanes.admitted(), ["bob", "bob"]);
    let commands: Vec<_> = lanes.database.store.rows.iter().map(|row| row.command).collect();
    assert_eq!(commands, [2, 4]);
}

#[test]
fn callers_of_a_held_account_are_told_so_and_others_are_served() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    lanes.ask("bob", 2);
    lanes.run(Lane::Main);
    lanes.run(Lane::Second);
    (0..3).for_each(|_| lanes.lock_does_not_come());
    assert!(matches!(lanes.told[..], [("bob", Reply::Held)]), "{:?}", lanes.told);
    lanes.told.clear();
    let late = lanes.ask("bob", 4);
    lanes.run(Lane::Main);
    lanes.run(Lane::Second);
    assert_eq!(lanes.writer.time_out(late), CancelResult::Held);
    lanes.ask("ann", 6);
    lanes.run(Lane::Main);
    assert_eq!(lanes.admitted(), ["ann"]);
}

#[test]
fn second_lane_without_a_connection_refuses_its_accounts_only() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    lanes.ask("bob", 2);
    lanes.run(Lane::Main);
    for _ in 0..3 {
        assert!(lanes.told.is_empty(), "{:?}", lanes.told);
        lanes.no_connection();
        lanes.run(Lane::Main);
    }
    assert!(matches!(lanes.told[..], [("bob", Reply::Held)]), "{:?}", lanes.told);
    lanes.told.clear();
    ["bob", "ann"].into_iter().zip(2..).for_each(|(who, id)| _ = lanes.ask(who, id * 2));
    lanes.run(Lane::Main);
    assert!(matches!(lanes.told[..], [("bob", Reply::Held), ("ann", Reply::Admitted(_))]), "{:?}", lanes.told);
    assert!(!lanes.writer.is_down());
}

#[test]
fn free_account_is_served_while_the_second_lane_is_away() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    lanes.ask("bob", 2);
    lanes.run(Lane::Main);
    (0..3).for_each(|_| {
        lanes.no_connection();
        lanes.run(Lane::Main);
    });
    lanes.told.clear();
    lanes.database.roll_back(OUTSIDER);
    lanes.ask("bob", 4);
    lanes.run(Lane::Main);
    assert_eq!(lanes.admitted(), ["bob"]);
}

/// The settlement stays queued, and is tried once for each connection that the second lane could not get.
#[test]
fn settlement_of_a_held_account_is_tried_once_per_connect() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    let void = settle(&hourly(100), 0, AdmittedAt { at: START, epoch: 0 }, SettleKind::Void);
    lanes.writer.enqueue(command(2, key("bob", "a"), void));
    lanes.hear(Lane::Main, None);
    lanes.run(Lane::Main);
    for _ in 0..5 {
        lanes.no_connection();
        assert_eq!(lanes.writer.backlog_of(Lane::Main), 1);
        lanes.run(Lane::Main);
        assert_eq!(lanes.next[0], Step::Wait, "the main lane does not try again by itself");
        assert_eq!(lanes.writer.backlog_of(Lane::Second), 1);
    }
    lanes.database.roll_back(OUTSIDER);
    let refused = command(4, key("bob", "b"), CommandKind::Admit(admit(&hourly(100), ("requests", 1))));
    assert_eq!(lanes.writer.submit(refused, "bob"), Err(SubmitError::Held), "before the next attempt");
    lanes.no_connection();
    lanes.run(Lane::Main);
    assert_eq!(lanes.writer.backlog(), 0);
}

#[test]
fn time_out_of_a_returned_command_is_the_trouble_of_its_account() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    let ticket = lanes.ask("bob", 2);
    lanes.run(Lane::Main);
    lanes.no_connection();
    assert!(!lanes.writer.is_held("bob"));
    assert_eq!(lanes.writer.time_out(ticket), CancelResult::Held);
    assert!(!lanes.writer.is_down());
}

#[test]
fn accounts_of_the_second_lane_share_an_outage_of_both() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    lanes.ask("bob", 2);
    lanes.run(Lane::Main);
    lanes.ask("ann", 4);
    lanes.hear(Lane::Main, None);
    assert!(matches!(lanes.next[0], Step::Begin(_)), "{:?}", lanes.next[0]);
    lanes.hear(Lane::Main, Some(StepResult::Failed(DbError::Lost("gone".into()))));
    (0..2).for_each(|_| lanes.lane_is_refused(Lane::Main));
    assert!(lanes.writer.is_down());
    lanes.no_connection();
    assert!(
        matches!(lanes.told[..], [("ann", Reply::Unavailable(_)), ("bob", Reply::Unavailable(_))]),
        "{:?}",
        lanes.told
    );
}

#[test]
fn callers_of_held_accounts_leave_room_to_others() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    lanes.ask("bob", 2);
    lanes.run(Lane::Main);
    lanes.run(Lane::Second);
    (2..6).for_each(|id| _ = lanes.ask("bob", id * 2));
    let refused = command(12, key("bob", "6"), CommandKind::Admit(admit(&hourly(100), ("requests", 1))));
    assert_eq!(lanes.writer.submit(refused, "bob"), Err(SubmitError::Held));
    (7..11).for_each(|id| _ = lanes.ask("ann", id * 2));
    lanes.run(Lane::Main);
    assert_eq!(lanes.admitted().len(), 4);
}

#[test]
fn closed_lanes_end_together() {
    let mut lanes = Lanes::new();
    lanes.hold("bob");
    lanes.ask("bob", 2);
    lanes.run(Lane::Main);
    lanes.run(Lane::Second);
    lanes.writer.close();
    lanes.hear(Lane::Main, None);
    assert_eq!(lanes.next[0], Step::Wait, "the account may return");
    lanes.database.roll_back(OUTSIDER);
    lanes.run(Lane::Second);
    assert_eq!(lanes.admitted(), ["bob"]);
    Lane::ALL.into_iter().for_each(|lane| lanes.hear(lane, None));
    assert_eq!(lanes.next, [Step::End, Step::End]);
}
