//! Orders as they are kept in a file until the ledger takes them, and what is found in such a file after a crash.
//!
//! A file begins with [`HEADER`]; records follow. A record is a length, a check of the length, a check of the body and the
//! body, numbers with their lowest byte first. Both checks know how many records came before, so that none can be left out,
//! repeated or moved. The last record may be cut short or end in zeros, for a crash leaves it so; everything else that does
//! not check is damage.

use std::{hash::Hasher, sync::Arc, time::Duration};

use siphasher::sip::SipHasher24;

use crate::ledger::writer::{
    AdmittedAt, Command, CommandKind, Key, ReservationTerms, SettleCommand, SettleKind, SpooledCharge,
};
use crate::{
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Plan, Quota, account::StoredCounter},
    time::Period,
};

/// What a file begins with.
pub(crate) const HEADER: &[u8; 16] = b"tollgate spool 1";

/// The length, its check, and that of the body.
const HEAD: usize = 16;

/// What there is in a file.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) commands: Vec<Command>,
    /// Where the last whole record ends: what follows was never acknowledged.
    pub(crate) end: usize,
}

/// A file that was altered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// At which byte.
    pub(crate) at: usize,
    /// So many records before it are whole.
    pub(crate) whole: usize,
    pub(crate) what: &'static str,
}

/// Reads a file.
pub(crate) fn recover(file: &[u8]) -> Result<Recovered, Damage> {
    // Where a file was made longer before its bytes were there, zeros are at its end.
    let written = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if file.len() <= HEADER.len() && written < HEADER.len() && HEADER.starts_with(&file[..written]) {
        return Ok(Recovered::default()); // it was being made
    }
    if !file.starts_with(HEADER) {
        return Err(Damage { at: 0, whole: 0, what: "it does not begin as a spool does" });
    }
    let (mut at, mut commands) = (HEADER.len(), Vec::new());
    while at < file.len() {
        let damage = |what| Damage { at, whole: commands.len(), what };
        let number = commands.len() as u64;
        let Some(head) = file.get(at..at + HEAD).filter(|_| written >= at + 8) else {
            break; // no length was ever written whole
        };
        let (length, check) = (word(&head[..4]), word(&head[4..8]));
        if check != check_of_length(number, length) {
            if written < at + HEAD {
                break;
            }
            return Err(damage("the length of a record was altered"));
        }
        let end = at + HEAD + length as usize;
        let Some(body) = file.get(at + HEAD..end) else { break };
        if head[8..] != check_of_body(number, body).to_le_bytes() {
            if written < end {
                break;
            }
            return Err(damage("a record was altered"));
        }
        let command = Reader(body).command().ok_or_else(|| damage("a record says what this version cannot read"))?;
        commands.push(command);
        at = end;
    }
    Ok(Recovered { commands, end: at })
}

/// A body as the record of this number.
pub(crate) fn frame(number: u64, body: &[u8], into: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    into.extend(length.to_le_bytes());
    into.extend(check_of_length(number, length).to_le_bytes());
    into.extend(check_of_body(number, body).to_le_bytes());
    into.extend(body);
}

fn check_of_length(number: u64, length: u32) -> u32 {
    let mut check = SipHasher24::new_with_keys(number, 1);
    check.write(&length.to_le_bytes());
    check.finish() as u32
}

fn check_of_body(number: u64, body: &[u8]) -> u64 {
    let mut check = SipHasher24::new_with_keys(number, 2);
    check.write(body);
    check.finish()
}

fn word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

const PASS: u8 = 1;
const END: u8 = 2;

/// What a body ends with: never a zero, so that one that ends in zeros was not written whole.
const SEAL: u8 = 0xa5;

/// The body of a record: `None` for an order that is not kept like this.
pub(crate) fn encode(command: &Command) -> Option<Vec<u8>> {
    let mut body = Body(Vec::with_capacity(256));
    let kind = match &command.kind {
        CommandKind::Spooled(_) => PASS,
        CommandKind::SettleOf { .. } => END,
        _ => return None,
    };
    body.0.push(kind);
    body.text(&command.key.tenant);
    body.text(&command.key.job);
    body.0.extend(command.id.to_le_bytes());
    body.0.push(u8::from(command.own));
    match &command.kind {
        CommandKind::Spooled(pass) => {
            body.number(pass.at);
            body.plan(&pass.plan, pass.at);
            body.amounts(&pass.amounts);
            body.maybe(pass.fingerprint, |body, fingerprint| body.0.extend(fingerprint.to_le_bytes()));
            body.maybe(pass.reserve, |body, reserve| {
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

struct Body(Vec<u8>);

impl Body {
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

    /// What of a plan says what is counted: of each limit the period that is under way.
    fn plan(&mut self, plan: &Plan, at: u64) {
        self.text(plan.name().as_str());
        self.0.push(plan.warns_at());
        self.number(plan.counted().len() as u64);
        for limit in plan.counted() {
            let period = StoredCounter::beginning(limit, at);
            self.text(limit.name.as_str());
            self.text(limit.kind().as_str());
            self.number(limit.limit);
            self.number(period.starts);
            self.number(period.ends);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn command(mut self) -> Option<Command> {
        let kind = self.byte()?;
        let key = Key { tenant: self.text()?.into(), job: self.text()?.into() };
        let (id, own) = (self.digest()?, self.flag()?);
        let kind = match kind {
            PASS => {
                let at = self.number()?;
                let (plan, amounts) = (self.plan()?, self.amounts()?);
                let fingerprint = if self.flag()? { Some(self.digest()?) } else { None };
                let reserve = if self.flag()? {
                    Some(ReservationTerms { ttl: self.number()?, charge: self.flag()? })
                } else {
                    None
                };
                CommandKind::Spooled(SpooledCharge { plan, amounts, fingerprint, reserve, at })
            }
            END => {
                let of = self.digest()?;
                let since = AdmittedAt { at: self.number()?, epoch: u32::MAX };
                let plan = self.plan()?;
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

    fn plan(&mut self) -> Option<Arc<Plan>> {
        let (mut plan, warn_at) = (Plan::try_new(self.text()?).ok()?, self.byte()?);
        for _ in 0..self.number()? {
            let name = PolicyName::try_new(self.text()?).ok()?;
            let (kind, most) = (Kind::try_units(self.text()?).ok()?, self.number()?);
            let period = Period::once(Duration::from_nanos(self.number()?), Duration::from_nanos(self.number()?));
            let quota = Quota::try_of(kind, most).ok()?.per(period).named(name.as_str());
            plan = plan.try_limit(quota).ok()?;
        }
        (warn_at <= 100).then(|| Arc::new(plan.warn_at(warn_at)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_782_869_400_000_000_000;

    fn commands() -> impl Strategy<Value = Command> {
        let amounts = || {
            proptest::collection::vec((prop_oneof!["requests", "bytes", "[a-z]{1,9}"], any::<u64>()), 0..4).prop_map(
                |all| all.into_iter().fold(Amounts::new(), |sum, (kind, amount)| sum.with(Kind::units(&kind), amount)),
            )
        };
        let plans = proptest::collection::vec((1..1_000_u64, 1..4_000_u64), 0..4).prop_map(|limits| {
            let limit = |plan: Plan, (at, (most, length)): (usize, (u64, u64))| {
                let period = if at == 0 { Period::month() } else { Period::rolling(Duration::from_secs(length)) };
                plan.limit(Quota::units("tokens", most).per(period).named(&format!("limit {at}")))
            };
            Arc::new(limits.into_iter().enumerate().fold(Plan::new("paid").warn_at(80), limit))
        });
        let kind = prop_oneof![
            (plans.clone(), amounts(), any::<Option<u128>>(), any::<Option<(u64, bool)>>(), 0..START).prop_map(
                |(plan, amounts, fingerprint, reserve, at)| {
                    let reserve = reserve.map(|(ttl, charge)| ReservationTerms { ttl, charge });
                    CommandKind::Spooled(SpooledCharge { plan, amounts, fingerprint, reserve, at })
                }
            ),
            (
                plans,
                amounts(),
                prop_oneof![Just(SettleKind::Add), Just(SettleKind::Void), amounts().prop_map(SettleKind::Commit)],
                any::<(u128, u32)>(),
                0..START
            )
                .prop_map(|(plan, used, end, (of, part), at)| {
                    let since = AdmittedAt { at, epoch: u32::MAX };
                    CommandKind::SettleOf { of, settle: SettleCommand { plan, attempt: 0, since, end, used, part } }
                }),
        ];
        (".{0,30}", ".{0,30}", any::<u128>(), any::<bool>(), kind).prop_map(|(tenant, job, id, own, kind)| Command {
            key: Key { tenant: tenant.into(), job: job.into() },
            id,
            own,
            origin: 0,
            kind,
        })
    }

    /// A file, and where its records end.
    fn file(commands: &[Command]) -> (Vec<u8>, Vec<usize>) {
        let (mut file, mut ends) = (HEADER.to_vec(), vec![HEADER.len()]);
        for (number, command) in commands.iter().enumerate() {
            frame(number as u64, &encode(command).unwrap(), &mut file);
            ends.push(file.len());
        }
        (file, ends)
    }

    fn same(one: &Command, other: &Command) -> bool {
        encode(one) == encode(other) && one.key == other.key && one.id == other.id
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_is_read_again_and_cut_anywhere_all_that_is_whole(commands in proptest::collection::vec(commands(), 0..4)) {
            let (file, ends) = file(&commands);
            for cut in 0..=file.len() {
                let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
                for zeros in [0, 1, 7, 8, 40] {
                    let torn = [&file[..cut], &vec![0; zeros][..]].concat();
                    if torn.len() >= 16 && cut < 16 {
                        continue; // a header is written at once, and nothing after it
                    }
                    let read = recover(&torn).unwrap_or_else(|damage| panic!("{damage:?} at {cut} and {zeros} zeros"));
                    prop_assert!(read.commands.len() == whole || zeros > 0 && read.commands.len() == whole + 1);
                    prop_assert!(read.commands.iter().zip(&commands).all(|(read, written)| same(read, written)));
                    prop_assert!(read.end <= torn.len());
                }
            }
        }

        #[test]
        fn a_flipped_bit_is_found_out(commands in proptest::collection::vec(commands(), 1..3), at: prop::sample::Index, bit in 0..8) {
            let (mut file, _) = file(&commands);
            let at = at.index(file.len());
            file[at] ^= 1_u8 << bit;
            prop_assert!(recover(&file).is_err(), "byte {at}");
        }

        #[test]
        fn records_that_are_left_out_repeated_or_moved_are_found_out(commands in proptest::collection::vec(commands(), 3..5)) {
            let (file, ends) = file(&commands);
            let part = |n: usize| &file[ends[n]..ends[n + 1]];
            for wrong in [[0, 2], [0, 0], [1, 0]] {
                let altered = [&file[..16], part(wrong[0]), part(wrong[1])].concat();
                prop_assert!(recover(&altered).is_err(), "{wrong:?}");
            }
        }

        #[test]
        fn whatever_is_read_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = recover(&bytes);
            let _ = recover(&[&HEADER[..], &bytes].concat());
            let _ = Reader(&bytes).command();
        }
    }
}
