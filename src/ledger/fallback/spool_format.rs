//! The format of a spool's file, and its recovery after a crash.
//!
//! A file begins with [`HEADER`]; records follow. A record is a length, a check of the length, a check of the body, and
//! the body; numbers are little-endian. Both checks include the number of records before it, so that no record can be
//! left out, repeated or moved. A crash may cut the last record short or leave zeros at its end; every other failed
//! check is damage.
//!
//! A record has the id of its ledger, or 0 if it was written before the process had reached the database. At first contact
//! a record of only an id is appended: it names the ledger of all others.

use std::{collections::HashSet, hash::Hasher};

use siphasher::sip::SipHasher24;

use super::spool_record::{decode, decode_name};
use crate::ledger::writer::Command;

/// First bytes of a file.
pub(crate) const HEADER: &[u8; 16] = b"tollgate spool 2";

/// Size of the length, its check, and the check of the body.
pub(super) const HEAD: usize = 16;

/// Contents of a file.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) commands: Vec<Command>,
    /// Ledger that the records name; `None` if they name none.
    pub(crate) ledger: Option<u128>,
    /// Ids of the records that were set aside.
    pub(super) aside: Vec<u128>,
    /// Number of records, with those that only name the ledger.
    pub(crate) records: u64,
    /// End of the last whole record; later bytes were never acknowledged.
    pub(crate) end: usize,
}

impl Recovered {
    /// Removes the records that were set aside, by their ids.
    pub(super) fn without(mut self, aside: &HashSet<u128>) -> Self {
        let (gone, commands) = self.commands.into_iter().partition(|command| aside.contains(&command.id));
        self.aside = Vec::into_iter(gone).map(|command: Command| command.id).collect();
        Self { commands, ..self }
    }
}

/// A file that was altered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Offset of the damage, in bytes.
    pub(crate) at: usize,
    /// Number of whole records before it.
    pub(crate) whole: usize,
    pub(crate) what: &'static str,
}

/// Reads a file.
pub(crate) fn recover(file: &[u8]) -> Result<Recovered, Damage> {
    // Zeros at the end: the file grew before its bytes were written.
    let written = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if file.len() <= HEADER.len() && written < HEADER.len() && HEADER.starts_with(&file[..written]) {
        return Ok(Recovered::default()); // the file was being created
    }
    if !file.starts_with(HEADER) {
        return Err(Damage { at: 0, whole: 0, what: "it does not begin as a spool does" });
    }
    let mut read = Recovered { end: HEADER.len(), ..Recovered::default() };
    while read.end < file.len() {
        let (at, number) = (read.end, read.records);
        let damage = |what| Damage { at, whole: number as usize, what };
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
        let (of, command) = match decode_name(body) {
            Some(of) => (of, None),
            None => decode(body)
                .map(|(of, command)| (of, Some(command)))
                .ok_or_else(|| damage("this version cannot read a record"))?,
        };
        if of != 0 && *read.ledger.get_or_insert(of) != of {
            return Err(damage("a record belongs to another ledger"));
        }
        read.commands.extend(command);
        (read.records, read.end) = (number + 1, end);
    }
    Ok(read)
}

/// Writes a body as the record of this number.
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use proptest::prelude::*;

    use super::{
        super::spool_record::{encode, encode_name},
        *,
    };
    use crate::{
        kind::Kind,
        ledger::writer::{
            AdmitCommand, AdmittedAt, CommandKind, JobEnd, Key, ReservationTerms, SettleCommand, SettleKind,
        },
        quota::{Amounts, Plan, Quota},
        time::Period,
    };

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
                    let admit = AdmitCommand {
                        plan,
                        amounts,
                        fingerprint,
                        tier: None,
                        reserve,
                        job_lease: None,
                        wants_nearest: false,
                        usage: false,
                    };
                    CommandKind::Spooled { admit, at }
                }
            ),
            (
                plans,
                amounts(),
                prop_oneof![Just(SettleKind::Add), Just(SettleKind::Void), amounts().prop_map(SettleKind::Commit)],
                prop_oneof![Just(None), Just(Some(JobEnd::Done)), Just(Some(JobEnd::Interrupted))],
                any::<(u128, u32)>(),
                0..START
            )
                .prop_map(|(plan, used, end, job, (of, part), at)| {
                    let since = AdmittedAt { at, epoch: u64::MAX };
                    CommandKind::SettleOf {
                        of,
                        settle: SettleCommand { plan, attempt: 0, since, end, job, used, part, whole: false },
                    }
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
            frame(number as u64, &encode(7, command).unwrap(), &mut file);
            ends.push(file.len());
        }
        (file, ends)
    }

    fn same(one: &Command, other: &Command) -> bool {
        encode(7, one) == encode(7, other) && one.key == other.key && one.id == other.id
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn cut_anywhere_all_whole_records_are_recovered(commands in proptest::collection::vec(commands(), 0..4)) {
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
        fn flipped_bit_is_damage(commands in proptest::collection::vec(commands(), 1..3), at: prop::sample::Index, bit in 0..8) {
            let (mut file, _) = file(&commands);
            let at = at.index(file.len());
            file[at] ^= 1_u8 << bit;
            prop_assert!(recover(&file).is_err(), "byte {at}");
        }

        #[test]
        fn omitted_repeated_or_moved_record_is_damage(commands in proptest::collection::vec(commands(), 3..5)) {
            let (file, ends) = file(&commands);
            let part = |n: usize| &file[ends[n]..ends[n + 1]];
            for wrong in [[0, 2], [0, 0], [1, 0]] {
                let altered = [&file[..16], part(wrong[0]), part(wrong[1])].concat();
                prop_assert!(recover(&altered).is_err(), "{wrong:?}");
            }
        }

        #[test]
        fn name_at_any_place_is_that_of_the_file(commands in proptest::collection::vec(commands(), 0..4), at: prop::sample::Index) {
            let mut bodies: Vec<_> = commands.iter().map(|command| encode(0, command).unwrap()).collect();
            bodies.insert(at.index(bodies.len() + 1), encode_name(7));
            let (mut file, mut other) = (HEADER.to_vec(), HEADER.to_vec());
            bodies.iter().enumerate().for_each(|(number, body)| frame(number as u64, body, &mut file));
            let read = recover(&file).unwrap();
            prop_assert_eq!((read.ledger, read.records, read.end), (Some(7), bodies.len() as u64, file.len()));
            prop_assert!(read.commands.iter().zip(&commands).all(|(read, written)| same(read, written)));
            bodies.push(encode_name(8));
            bodies.iter().enumerate().for_each(|(number, body)| frame(number as u64, body, &mut other));
            prop_assert_eq!(recover(&other).unwrap_err().what, "a record belongs to another ledger");
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = recover(&bytes);
            let _ = recover(&[&HEADER[..], &bytes].concat());
            let _ = decode(&bytes);
        }
    }
}
