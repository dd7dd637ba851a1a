//! Receipts of charges in a ledger, and the texts of reservation ids.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    store::is_short,
    writer::{AdmittedAt, CommandKind, JobEnd, Key, SettleCommand, SettleKind},
};
use crate::{
    quota::{
        Amounts, Plan,
        store::{Receipt, ReservationKey},
    },
    time::Moment,
};

/// Receipt of an open charge, by which its settlement finds its rows.
#[derive(Debug)]
pub(crate) struct LedgerReceipt {
    pub(super) id: LedgerReservation,
    attempt: u32,
    plan: Arc<Plan>,
    /// Whether it is a reservation, which its settlement commits.
    pub(super) reserved: bool,
    unwritten: Mutex<Unwritten>,
}

/// Usage in addition to the charge that is not written yet.
#[derive(Debug)]
struct Unwritten {
    used: Amounts,
    part: u32,
    written_at: Moment,
}

/// Interval between two rows of such usage: a crash loses at most the usage of this time.
const WRITE_EVERY: Duration = Duration::from_secs(1);

impl LedgerReceipt {
    pub(super) fn new(id: LedgerReservation, attempt: u32, plan: Arc<Plan>, reserved: bool, now: Moment) -> Self {
        let unwritten = Mutex::new(Unwritten { used: Amounts::new(), part: 0, written_at: now });
        Self { id, attempt, plan, reserved, unwritten }
    }

    /// Returns the part of a receipt that the ledger stored in it.
    pub(super) fn of(receipt: &Receipt) -> Option<&Self> {
        receipt.store_part.as_ref()?.downcast_ref()
    }

    /// Adds usage; returns all that is not written once it is due.
    pub(super) fn add(&self, used: &Amounts, now: Moment) -> Option<(Amounts, u32)> {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter().for_each(|(kind, amount)| unwritten.used.add(kind, amount));
        if unwritten.used.is_empty() || now.since(unwritten.written_at) < WRITE_EVERY {
            return None;
        }
        unwritten.written_at = now;
        unwritten.part += 1;
        Some((std::mem::take(&mut unwritten.used), unwritten.part))
    }

    /// Whether usage was added, written or not.
    pub(super) fn has_added(&self) -> bool {
        let unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        unwritten.part > 0 || !unwritten.used.is_empty()
    }

    /// Returns all usage for the settlement to write.
    pub(super) fn take(&self, used: Amounts) -> (Amounts, u32) {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut unwritten.used);
        used.iter().for_each(|(kind, amount)| all.add(kind, amount));
        unwritten.part += 1;
        (all, unwritten.part)
    }

    pub(super) fn settle(&self, end: SettleKind, job: Option<JobEnd>, used: Amounts, part: u32) -> CommandKind {
        let (plan, attempt, since) = (Arc::clone(&self.plan), self.attempt, self.id.since);
        let settle = SettleCommand { plan, attempt, since, end, job, used, part, whole: false };
        if self.id.passed { CommandKind::SettleOf { of: self.id.command, settle } } else { CommandKind::Settle(settle) }
    }
}

/// Id of a charge or a reservation, also as a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LedgerReservation {
    pub(super) key: Key,
    /// Number of the command that made it. Other callers may know a tenant and a job id, but not this number.
    pub(super) command: u128,
    pub(super) since: AdmittedAt,
    /// Whether it passed without the ledger; its settlement then goes through the spool.
    pub(super) passed: bool,
}

/// Prefix of the text of an id of the ledger. Another prefix marks an id that passed without it.
const PREFIX: &str = "l";
const PASSED: &str = "p";

impl LedgerReservation {
    /// Parses the id of a reservation. Ids come from callers, and reading an account creates it: no account has a
    /// longer name than is accepted here.
    pub(super) fn of(reserved: &ReservationKey) -> Option<Self> {
        let ReservationKey::Named(text) = reserved else { return None };
        Self::parse(text).filter(|id| is_short(&id.key.tenant))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (prefix, command, at, epoch) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let mut name = || String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
        let key = Key { tenant: name()?.into(), job: name()?.into() };
        let since = AdmittedAt { at: at.parse().ok()?, epoch: epoch.parse().ok()? };
        let (command, passed) = (u128::from_str_radix(command, 16).ok()?, prefix == PASSED);
        (parts.next().is_none() && (passed || prefix == PREFIX)).then_some(Self { key, command, since, passed })
    }
}

impl fmt::Display for LedgerReservation {
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
        fn text_round_trips(tenant in ".{0,80}", job in ".{0,80}", command: u128, at: u64, epoch: u64, passed: bool) {
            let key = Key { tenant: tenant.into(), job: job.into() };
            let reserved = LedgerReservation { key, command, since: AdmittedAt { at, epoch }, passed };
            prop_assert_eq!(LedgerReservation::parse(&reserved.to_string()), Some(reserved));
        }

        #[test]
        fn any_text_parses_without_a_panic(text in ".{0,200}") {
            let _ = LedgerReservation::parse(&text);
        }
    }
}
