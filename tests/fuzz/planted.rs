//! Shows that the engine finds panics which no first mutation reaches.

use crate::engine::{Fuzz, summary};

const FUZZ: Fuzz = Fuzz { corpus: &[b"key=1"], words: &[b"key", b"=", b";"] };

/// Parses `key=number` pairs, and overflows on a number that is too long.
fn overflows(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let numbers = text.split(';').filter_map(|pair| pair.strip_prefix("key="));
    let digits = numbers.filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    summary(digits.map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>().len())
}

/// Panics behind four steps, each of which another summary shows.
fn behind_steps(input: &[u8]) -> u64 {
    let steps = input.iter().zip(b"\xc7\x01\xfe\x55").take_while(|(byte, wanted)| byte == wanted).count();
    assert!(steps < 4, "all steps");
    summary(steps)
}

#[test]
fn overflow_is_found_and_made_small() {
    let failure = FUZZ.search(17, overflows, |case| case < 10_000).expect("a failure");
    assert!(failure.message.contains("ParseIntError"), "{failure:?}");
    assert!(failure.input.starts_with(b"key=") && failure.input.len() < 40, "{failure:?}");
}

#[test]
fn panic_behind_steps_is_found_by_their_summaries() {
    let failure = FUZZ.search(17, behind_steps, |case| case < 200_000).expect("a failure");
    assert_eq!((failure.input.as_slice(), failure.message.as_str()), (&b"\xc7\x01\xfe\x55"[..], "all steps"));
    let blind = |input: &[u8]| {
        behind_steps(input);
        0
    };
    assert!(FUZZ.search(17, blind, |case| case < 200_000).is_none(), "without summaries it is out of reach");
}

#[test]
fn same_seed_finds_the_same_input() {
    let inputs: Vec<_> = (0..2).map(|_| FUZZ.search(5, overflows, |_| true).expect("a failure").input).collect();
    assert_eq!(inputs[0], inputs[1]);
}
