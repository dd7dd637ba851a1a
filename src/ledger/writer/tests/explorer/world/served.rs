//! Follow-up of a state without further faults: an account that no transaction holds is served in few steps.

use std::sync::Arc;

use super::{Checked, World, of};
use crate::ledger::writer::{Command, Lane, Step, tests::*};

/// Caller of a probe, which is none of the setting's.
pub(super) const PROBE: u8 = u8::MAX;

/// Number of steps of each lane in which a probe is decided.
const STEPS: usize = 64;

impl World {
    /// Whether the server refuses new connections to a lane.
    pub(super) fn refuses(&self, connection: usize) -> bool {
        self.refused && of(connection).1 == Lane::Second
    }

    /// Checks that each process serves the account of the first caller once no other transaction holds it, although its
    /// second lane has no connection.
    pub(in super::super) fn check_served(&self) -> Checked {
        if !self.refused {
            return Ok(());
        }
        let mut world = self.clone();
        world.database.roll_back(world.outsider());
        while !world.database.under_way.is_empty() {
            world.database.end(0, false);
        }
        (0..world.processes.len()).try_for_each(|process| world.serves(process))
    }

    fn serves(&mut self, process: usize) -> Checked {
        let tenant = Arc::clone(&self.setting.wants[0].key.tenant);
        let mut waits = false;
        for _ in 0..STEPS {
            if !waits {
                waits = self.processes[process].writer.submit(probe(&tenant), (PROBE, 0)).is_ok();
            }
            for connection in 0..self.processes.len() * 2 {
                match self.next(connection) {
                    Step::Wait => self.step(connection, None)?,
                    _ => _ = self.perform(connection)?,
                }
            }
            match self.probed.take() {
                Some(true) => return Ok(()),
                Some(false) => waits = false,
                None => {}
            }
        }
        Err(format!("L2: {tenant} is not served in {STEPS} steps, and no transaction holds it"))
    }
}

/// A command that changes nothing.
fn probe(tenant: &Arc<str>) -> Command {
    let kind = CommandKind::Renew { attempt: 0, since: u64::MAX, ttl: 0 };
    command(u128::MAX - 1, key(tenant, ""), kind)
}
