//! Bodies of the records of a spool.

use std::{sync::Arc, time::Duration};

use crate::ledger::writer::{
    AdmitCommand, AdmittedAt, Command, CommandKind, Key, ReservationTerms, SettleCommand, SettleKind, StoredCounter,
};
use crate::{
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Plan, Quota},
    time::Period,
};

/// Kinds of records. Those before [`PASS`] are of version 1, in which limits had no period.
const PASS_1: u8 = 1;
const END_1: u8 = 2;
const PASS: u8 = 3;
const END: u8 = 4;

/// Last byte of a body. It is not zero, so that a body that ends in zeros was not written completely.
const SEAL: u8 = 0xa5;

/// Encodes the body of a record; `None` for a command that a spool does not hold.
pub(crate) fn encode(command: &Command) -> Option<Vec<u8>> {
    let mut body = RecordBody(Vec::with_capacity(256));
    let kind = match &command.kind {
        CommandKind::Spooled { .. } => PASS,
        CommandKind::SettleOf { .. } => END,
        _ => return None,
    };
    body.0.push(kind);
    body.text(&command.key.tenant);
    body.text(&command.key.job);
    body.0.extend(command.id.to_le_bytes());
    body.0.push(u8::from(command.own));
    match &command.kind {
        CommandKind::Spooled { admit, at } => {
            body.number(*at);
            body.plan(&admit.plan, *at);
            body.amounts(&admit.amounts);
            body.maybe(admit.fingerprint, |body, fingerprint| body.0.extend(fingerprint.to_le_bytes()));
            body.maybe(admit.reserve, |body, reserve| {
                body.number(reserve.ttl);
                body.0.push(u8::from(reserve.charge));
            });
        }
        CommandKind::SettleOf { of, settle } => {
            body.0.extend(of.to_le_bytes());
            body.number(settle.since.at);
            body.plan(&settle.plan, settle.since.at);
            match &settle.end {
                SettleKind::Add => body.0.push(0),
                SettleKind::Commit(actual) => {
                    body.0.push(1);
                    body.amounts(actual);
                }
                SettleKind::Void => body.0.push(2),
            }
            body.amounts(&settle.used);
            body.number(u64::from(settle.part));
        }
        _ => return None,
    }
    body.0.push(SEAL);
    Some(body.0)
}

struct RecordBody(Vec<u8>);

impl RecordBody {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.0.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn amounts(&mut self, amounts: &Amounts) {
        self.number(amounts.iter().count() as u64);
        for (kind, amount) in amounts.iter() {
            self.text(kind.as_str());
            self.number(amount);
        }
    }

    /// Encodes the part of a plan that a charge needs: for each limit the period that is open.
    fn plan(&mut self, plan: &Plan, at: u64) {
        self.text(plan.name().as_str());
        self.0.push(plan.warn_at);
        self.number(plan.counted().len() as u64);
        for limit in plan.counted() {
            let period = StoredCounter::beginning(limit, at);
            self.text(limit.name.as_str());
            self.text(limit.kind().as_str());
            self.text(&limit.period_key);
            self.number(limit.limit);
            self.number(period.counter.starts);
            self.number(period.counter.ends);
        }
    }
}

/// Decodes the body of a record; `None` if this version cannot read it.
pub(super) fn decode(body: &[u8]) -> Option<Command> {
    RecordReader(body).command()
}

struct RecordReader<'a>(&'a [u8]);

impl RecordReader<'_> {
    fn command(mut self) -> Option<Command> {
        let kind = self.byte()?;
        let key = Key { tenant: self.text()?.into(), job: self.text()?.into() };
        let (id, own) = (self.digest()?, self.flag()?);
        let kind = match kind {
            PASS_1 | PASS => {
                let at = self.number()?;
                let (plan, amounts) = (self.plan(kind)?, self.amounts()?);
                let fingerprint = if self.flag()? { Some(self.digest()?) } else { None };
                let reserve = if self.flag()? {
                    Some(ReservationTerms { ttl: self.number()?, charge: self.flag()? })
                } else {
                    None
                };
                let admit = AdmitCommand { plan, amounts, fingerprint, reserve, wants_nearest: false, usage: false };
                CommandKind::Spooled { admit, at }
            }
            END_1 | END => {
                let of = self.digest()?;
                let since = AdmittedAt { at: self.number()?, epoch: u64::MAX };
                let plan = self.plan(kind)?;
                let end = match self.byte()? {
                    0 => SettleKind::Add,
                    1 => SettleKind::Commit(self.amounts()?),
                    2 => SettleKind::Void,
                    _ => return None,
                };
                let (used, part) = (self.amounts()?, u32::try_from(self.number()?).ok()?);
                CommandKind::SettleOf { of, settle: SettleCommand { plan, attempt: 0, since, end, used, part } }
            }
            _ => return None,
        };
        (self.0 == [SEAL]).then_some(Command { key, id, own, origin: 0, kind })
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn digest(&mut self) -> Option<u128> {
        self.bytes().map(u128::from_le_bytes)
    }

    fn text(&mut self) -> Option<&str> {
        let length = self.bytes().map(u32::from_le_bytes)?;
        let (text, rest) = self.0.split_at_checked(length as usize)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn amounts(&mut self) -> Option<Amounts> {
        let mut amounts = Amounts::new();
        for _ in 0..self.number()? {
            let kind = Kind::try_units(self.text()?).ok()?;
            amounts.set(&kind, self.number()?);
        }
        Some(amounts)
    }

    /// Decodes the plan of a record of this kind.
    fn plan(&mut self, kind: u8) -> Option<Arc<Plan>> {
        let has_periods = kind >= PASS;
        let (mut plan, warn_at) = (Plan::try_new(self.text()?).ok()?, self.byte()?);
        for _ in 0..self.number()? {
            let name = PolicyName::try_new(self.text()?).ok()?;
            let kind = Kind::try_units(self.text()?).ok()?;
            let period_key: Arc<str> = if has_periods { self.text()?.into() } else { Arc::default() };
            let most = self.number()?;
            let period = Period::once(Duration::from_nanos(self.number()?), Duration::from_nanos(self.number()?));
            let quota = Quota::try_of(kind, most).ok()?.per(period).named(name.as_str());
            plan = plan.try_limit(quota).ok()?.counted_as(period_key);
        }
        (warn_at <= 100).then(|| Arc::new(plan.warn_at(warn_at)))
    }
}
