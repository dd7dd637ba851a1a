//! What a charge keeps of its rows, so that its end finds them.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::writer::{AdmittedAt, CommandKind, Key, SettleCommand, SettleKind};
use crate::{
    quota::{Amounts, Plan},
    time::Moment,
};

/// A charge under way in a ledger.
#[derive(Debug)]
pub(crate) struct Written {
    pub(super) key: Key,
    pub(super) attempt: u32,
    pub(super) since: AdmittedAt,
    pub(super) plan: Arc<Plan>,
    /// The order that wrote it, or let it pass.
    pub(super) command: u128,
    /// It passed without the ledger: its end waits where it waits.
    pub(super) passed: bool,
    /// It was set aside, and is settled at its end.
    pub(super) reserved: bool,
    more: Mutex<More>,
}

/// What was used besides, and is not written yet.
#[derive(Debug)]
struct More {
    used: Amounts,
    part: u32,
    told: Moment,
}

/// What is used besides is written so often: a crash loses no more of it.
const TOLD_EVERY: Duration = Duration::from_secs(1);

impl Written {
    pub(super) fn new(key: Key, attempt: u32, since: AdmittedAt, plan: Arc<Plan>, command: u128, now: Moment) -> Self {
        let more = Mutex::new(More { used: Amounts::new(), part: 0, told: now });
        Self { key, attempt, since, plan, command, passed: false, reserved: false, more }
    }

    /// Adds to what was used; gives all that is to be written now, if it is time.
    pub(super) fn add(&self, used: &Amounts, now: Moment) -> Option<(Amounts, u32)> {
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter().for_each(|(kind, amount)| more.used.add(kind, amount));
        if more.used.is_empty() || now.since(more.told) < TOLD_EVERY {
            return None;
        }
        more.told = now;
        more.part += 1;
        Some((std::mem::take(&mut more.used), more.part))
    }

    /// All that is to be written with the end.
    pub(super) fn take(&self, used: Amounts) -> (Amounts, u32) {
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut more.used);
        used.iter().for_each(|(kind, amount)| all.add(kind, amount));
        more.part += 1;
        (all, more.part)
    }

    pub(super) fn settle(&self, end: SettleKind, used: Amounts, part: u32) -> CommandKind {
        let (plan, attempt, since) = (Arc::clone(&self.plan), self.attempt, self.since);
        let settle = SettleCommand { plan, attempt, since, end, used, part };
        if self.passed { CommandKind::SettleOf { of: self.command, settle } } else { CommandKind::Settle(settle) }
    }

    pub(super) fn reserved_as(&self) -> ReservedAs {
        ReservedAs { key: self.key.clone(), command: self.command, since: self.since, passed: self.passed }
    }
}

/// By what a reservation is found again, as a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReservedAs {
    pub(super) key: Key,
    /// The order that made it: others know a tenant and the id of a job, but not this number.
    pub(super) command: u128,
    pub(super) since: AdmittedAt,
    /// It passed without the ledger.
    pub(super) passed: bool,
}

/// What the text begins with, and what it does where the ledger was not asked.
const PREFIX: &str = "l";
const PASSED: &str = "p";

impl ReservedAs {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (prefix, command, at, epoch) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let mut name = || String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
        let key = Key { tenant: name()?.into(), job: name()?.into() };
        let since = AdmittedAt { at: at.parse().ok()?, epoch: epoch.parse().ok()? };
        let (command, passed) = (u128::from_str_radix(command, 16).ok()?, prefix == PASSED);
        (parts.next().is_none() && (passed || prefix == PREFIX)).then_some(Self { key, command, since, passed })
    }
}

impl fmt::Display for ReservedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, command, since, passed } = self;
        let (tenant, job) = (URL_SAFE_NO_PAD.encode(&*key.tenant), URL_SAFE_NO_PAD.encode(&*key.job));
        let prefix = if *passed { PASSED } else { PREFIX };
        write!(f, "{prefix}.{command:x}.{}.{}.{tenant}.{job}", since.at, since.epoch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_again(tenant in ".{0,80}", job in ".{0,80}", command: u128, at: u64, epoch: u32, passed: bool) {
            let key = Key { tenant: tenant.into(), job: job.into() };
            let reserved = ReservedAs { key, command, since: AdmittedAt { at, epoch }, passed };
            prop_assert_eq!(ReservedAs::parse(&reserved.to_string()), Some(reserved));
        }

        #[test]
        fn whatever_is_read_does_no_harm(text in ".{0,200}") {
            let _ = ReservedAs::parse(&text);
        }
    }
}
