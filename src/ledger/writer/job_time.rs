//! Creation times that job ids carry.

/// Largest lead of an id's time over the database's clock, 5 min, because clocks differ.
const AHEAD: u64 = 5 * 60 * 1_000_000_000;

/// Whether the rows of a job with this id may have been archived, or will be: rows from before `sealed` are archived.
pub(super) fn forgotten(id: &str, sealed: u64, now: u64) -> bool {
    let remembered = sealed.saturating_add(AHEAD)..=now.saturating_add(AHEAD);
    sealed > 0 && time_of(id).is_none_or(|made| !remembered.contains(&made))
}

/// Whether an id is accepted under a horizon of `horizon` nanoseconds: it must carry a time within the horizon and at
/// most [`AHEAD`] ahead.
pub(crate) fn is_within(id: &str, now: u64, horizon: u64) -> bool {
    time_of(id).is_some_and(|made| made <= now.saturating_add(AHEAD) && now.saturating_sub(made) <= horizon)
}

/// Returns the time that an id carries, in nanoseconds since 1970, if it carries one.
///
/// A UUID of version 7 ([RFC 9562](https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7)), with hyphens or
/// without, or a [ULID](https://github.com/ulid/spec): both begin with 48 bits of milliseconds.
pub(super) fn time_of(id: &str) -> Option<u64> {
    let millis = match id.len() {
        26 => ulid(id)?,
        32 | 36 => uuid(id)?,
        _ => return None,
    };
    millis.checked_mul(1_000_000)
}

fn uuid(id: &str) -> Option<u64> {
    let uuid = uuid::Uuid::try_parse(id).ok().filter(|uuid| uuid.get_version_num() == 7)?;
    Some(u64::try_from(uuid.as_u128() >> 80).expect("48 bits"))
}

/// Decodes Crockford's Base32: ten characters of time, sixteen of randomness.
fn ulid(id: &str) -> Option<u64> {
    let digit = |character: u8| match character.to_ascii_uppercase() {
        digit @ b'0'..=b'9' => Some(u64::from(digit - b'0')),
        letter @ b'A'..=b'Z' => {
            let left_out = b"ILOU";
            let before = left_out.iter().filter(|&&other| other < letter).count();
            (!left_out.contains(&letter)).then(|| u64::from(letter - b'A') + 10 - before as u64)
        }
        _ => None,
    };
    let (time, chance) = id.as_bytes().split_at(10);
    chance.iter().all(|&character| digit(character).is_some()).then_some(())?;
    let millis = time.iter().try_fold(0_u64, |sum, &character| Some(sum << 5 | digit(character)?))?;
    (millis < 1 << 48).then_some(millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

    fn ulid_of(millis: u64, chance: u128) -> String {
        let value = u128::from(millis) << 80 | chance & ((1 << 80) - 1);
        (0..26).rev().map(|at| char::from(CROCKFORD[(value >> (5 * at) & 31) as usize])).collect()
    }

    proptest! {
        #[test]
        fn ulid_carries_its_time(millis in 0_u64..1 << 48, chance: u128) {
            let id = ulid_of(millis, chance);
            prop_assert_eq!(time_of(&id), millis.checked_mul(1_000_000));
            prop_assert_eq!(time_of(&id.to_lowercase()), time_of(&id));
        }

        #[test]
        fn uuid_of_version_7_carries_its_time(seconds in 0_u64..1 << 34, nanos in 0_u32..1_000_000_000) {
            let context = uuid::NoContext;
            let id = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(context, seconds, nanos));
            let expected = Some((seconds * 1_000 + u64::from(nanos) / 1_000_000) * 1_000_000);
            prop_assert_eq!(time_of(&id.to_string()), expected);
            prop_assert_eq!(time_of(&id.simple().to_string()), expected);
        }

        #[test]
        fn any_text_is_accepted(id in ".{0,40}") {
            let _ = time_of(&id);
        }
    }

    #[test]
    fn other_ids_carry_no_time() {
        let random = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"; // version 4
        for id in [
            "",
            "17",
            random,
            "0000000000000000000000000U",
            "80000000000000000000000000",
            "\u{e4}0000000000000000000000000",
        ] {
            assert_eq!(time_of(id), None, "{id}");
        }
    }
}
