//! Bodies of the records of a spool, in the format of [Borsh](https://borsh.io): each value has one encoding.

use std::{
    io::{self, ErrorKind, Read, Write},
    sync::Arc,
    time::Duration,
};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::ledger::writer::{
    AdmitCommand, AdmittedAt, Command, CommandKind, JobEnd, Key, ReservationTerms, SettleCommand, SettleKind,
    StoredCounter,
};
use crate::{
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Plan, Quota},
    time::Period,
};

/// Last byte of a body. It is not zero, so that a body that ends in zeros was not written completely.
const SEAL: u8 = 0xa5;

#[derive(BorshSerialize, BorshDeserialize)]
struct RecordBody {
    /// Id of the ledger to be charged.
    ledger: u128,
    key: Key,
    id: u128,
    own: bool,
    /// Admission time, in nanoseconds since 1970.
    at: u64,
    plan: RecordedPlan,
    kind: RecordKind,
    seal: u8,
}

/// Body of a record that names the ledger of a file whose other records do not.
#[derive(BorshSerialize, BorshDeserialize)]
struct NameBody {
    ledger: u128,
    seal: u8,
}

#[derive(BorshSerialize, BorshDeserialize)]
enum RecordKind {
    Charge {
        amounts: Amounts,
        fingerprint: Option<u128>,
        reserve: Option<ReservationTerms>,
    },
    Settlement {
        of: u128,
        end: SettleKind,
        used: Amounts,
        part: u32,
    },
    /// As `Settlement`, and the end of the work of a named job.
    JobEnd {
        of: u128,
        end: SettleKind,
        used: Amounts,
        part: u32,
        job: JobEnd,
    },
}

/// The part of a plan that a charge needs: for each limit the period that is open.
#[derive(BorshSerialize, BorshDeserialize)]
struct RecordedPlan {
    name: String,
    warn_at: u8,
    limits: Vec<RecordedLimit>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct RecordedLimit {
    name: String,
    kind: String,
    period: String,
    most: u64,
    starts: u64,
    ends: u64,
}

/// Encodes the body of a record of this ledger; `None` for a command that a spool does not hold.
pub(crate) fn encode(ledger: u128, command: &Command) -> Option<Vec<u8>> {
    let (plan, at, kind) = match command.kind.clone() {
        CommandKind::Spooled { admit: AdmitCommand { plan, amounts, fingerprint, reserve, .. }, at } => {
            (plan, at, RecordKind::Charge { amounts, fingerprint, reserve })
        }
        CommandKind::SettleOf { of, settle: SettleCommand { plan, since, end, job, used, part, .. } } => {
            let kind = match job {
                Some(job) => RecordKind::JobEnd { of, end, used, part, job },
                None => RecordKind::Settlement { of, end, used, part },
            };
            (plan, since.at, kind)
        }
        _ => return None,
    };
    let plan = RecordedPlan::of(&plan, at);
    let Command { key, id, own, .. } = command.clone();
    borsh::to_vec(&RecordBody { ledger, key, id, own, at, plan, kind, seal: SEAL }).ok()
}

/// Decodes the body of a record, and the id of its ledger; `None` if this version cannot read it.
pub(super) fn decode(body: &[u8]) -> Option<(u128, Command)> {
    let RecordBody { ledger, key, id, own, at, plan, kind, seal } = borsh::from_slice(body).ok()?;
    let plan = plan.restore()?;
    let since = AdmittedAt { at, epoch: u64::MAX };
    let settle_of = |of, end, job, used, part| CommandKind::SettleOf {
        of,
        settle: SettleCommand { plan: Arc::clone(&plan), attempt: 0, since, end, job, used, part, whole: false },
    };
    let kind = match kind {
        RecordKind::Charge { amounts, fingerprint, reserve } => {
            // The process that did the work has ended.
            let job_lease = (!own).then_some(0);
            let admit = AdmitCommand {
                plan: Arc::clone(&plan),
                amounts,
                fingerprint,
                tier: None,
                reserve,
                job_lease,
                wants_nearest: false,
                usage: false,
            };
            CommandKind::Spooled { admit, at }
        }
        RecordKind::Settlement { of, end, used, part } => settle_of(of, end, None, used, part),
        RecordKind::JobEnd { of, end, used, part, job } => settle_of(of, end, Some(job), used, part),
    };
    (seal == SEAL).then_some((ledger, Command { key, id, own, origin: 0, kind }))
}

/// Encodes the body of a record that names the ledger of its file.
pub(super) fn encode_name(ledger: u128) -> Vec<u8> {
    borsh::to_vec(&NameBody { ledger, seal: SEAL }).unwrap_or_default() // writing to memory does not fail
}

/// Decodes the body of a record that names a ledger; `None` for all others, which are longer.
pub(super) fn decode_name(body: &[u8]) -> Option<u128> {
    let NameBody { ledger, seal } = borsh::from_slice(body).ok()?;
    (seal == SEAL && ledger != 0).then_some(ledger)
}

impl RecordedPlan {
    fn of(plan: &Plan, at: u64) -> Self {
        let limits = plan.counted().iter().map(|limit| {
            let StoredCounter { limit: name, kind, period, counter } = StoredCounter::beginning(limit, at);
            let (name, kind, period) = ((*name).into(), (*kind).into(), (*period).into());
            RecordedLimit { name, kind, period, most: limit.limit, starts: counter.starts, ends: counter.ends }
        });
        Self { name: plan.name().to_string(), warn_at: plan.warn_at, limits: limits.collect() }
    }

    fn restore(self) -> Option<Arc<Plan>> {
        let mut plan = Plan::try_new(&self.name).ok()?;
        for RecordedLimit { name, kind, period, most, starts, ends } in self.limits {
            let once = Period::once(Duration::from_nanos(starts), Duration::from_nanos(ends));
            let (name, kind) = (PolicyName::try_new(&name).ok()?, Kind::try_units(&kind).ok()?);
            let quota = Quota::try_of(kind, most).ok()?.per(once).named(name.as_str());
            plan = plan.try_limit(quota).ok()?.counted_as(period.into());
        }
        (self.warn_at <= 100).then(|| Arc::new(plan.warn_at(self.warn_at)))
    }
}

impl BorshSerialize for Amounts {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        self.iter().map(|(kind, amount)| (kind.as_str(), amount)).collect::<Vec<_>>().serialize(writer)
    }
}

impl BorshDeserialize for Amounts {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        let kind = |text: &str| Kind::try_units(text).map_err(|error| io::Error::new(ErrorKind::InvalidData, error));
        let amounts = Vec::<(String, u64)>::deserialize_reader(reader)?;
        amounts.into_iter().map(|(text, amount)| Ok((kind(&text)?, amount))).collect()
    }
}
