//! Credits of a client, each remembered by its id.

use std::collections::{BTreeMap, VecDeque};

use super::reservations::STEPS;
use crate::{
    error::ConfigError,
    identity::Digest,
    kind::Kind,
    quota::{Credited, account::AccountSettings},
    time::Moment,
};

/// The credits of one client. An id is remembered as long as that of a finished job.
#[derive(Clone, Debug, Default)]
pub(super) struct Credits {
    /// A tree, because a table would be moved as a whole when it grows.
    all: BTreeMap<Digest, KnownCredit>,
    /// Times at which they are forgotten, in that order.
    due: VecDeque<(Moment, Digest)>,
}

#[derive(Clone, Debug)]
struct KnownCredit {
    kind: Kind,
    amount: u64,
    /// Time at which it is forgotten.
    due: Moment,
}

impl Credits {
    /// Returns the credit that stands under this id.
    pub(super) fn get(&self, id: Digest, now: Moment) -> Option<Credited> {
        let KnownCredit { kind, amount, .. } = self.all.get(&id).filter(|known| now < known.due)?;
        Some(Credited { kind: kind.clone(), amount: *amount, already: true })
    }

    /// Checks that another credit can be remembered.
    pub(super) fn check(&self, settings: &AccountSettings, now: Moment) -> Result<(), ConfigError> {
        let Some((due, _)) = self.due.front().filter(|_| self.all.len() >= settings.max_jobs) else { return Ok(()) };
        Err(ConfigError::message(format!(
            "the client has {} remembered credits, and the oldest is forgotten in {:?}; raise .max_jobs_per_client()",
            self.all.len(),
            due.since(now)
        )))
    }

    /// Remembers a credit until `due`, which is no earlier than that of the credits before it.
    pub(super) fn add(&mut self, id: Digest, kind: &Kind, amount: u64, due: Moment) {
        self.all.insert(id, KnownCredit { kind: kind.clone(), amount, due });
        self.due.push_back((due, id));
    }

    /// Forgets credits whose time has come, at most [`STEPS`]. The rest can wait: each of them counts as forgotten, and a
    /// place for a new credit is free if at least one was.
    pub(super) fn forget(&mut self, now: Moment) {
        let mut steps = 0..STEPS;
        while let Some((due, id)) = self.due.front().copied().filter(|(due, _)| now >= *due)
            && steps.next().is_some()
        {
            self.due.pop_front();
            // A later credit may have the id again.
            if self.all.get(&id).is_some_and(|known| known.due == due) {
                self.all.remove(&id);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::Digester;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn overdue_credits_are_forgotten_in_steps() {
        let (digester, tokens) = (Digester::process(), Kind::from("tokens"));
        let id = |number: usize| digester.digest("credit", [&number.to_le_bytes()[..]]);
        let (start, all) = (Moment::default(), 3 * STEPS);
        let due = start + DAY;
        let mut credits = Credits::default();
        (0..all).for_each(|number| credits.add(id(number), &tokens, 5, due));
        credits.forget(due);
        assert_eq!(credits.all.len(), all - STEPS, "no call takes longer for more of them");
        assert!((0..all).all(|number| credits.get(id(number), due).is_none()), "all are over");
        // An id that waits for its turn is taken anew, and not forgotten with the credit before it.
        credits.add(id(all - 1), &tokens, 7, due + DAY);
        (0..3).for_each(|_| credits.forget(due));
        assert_eq!(credits.get(id(all - 1), due).map(|known| known.amount), Some(7));
        assert_eq!((credits.all.len(), credits.due.len()), (1, 1));
        credits.forget(due + DAY);
        assert!(credits.is_empty());
    }
}
