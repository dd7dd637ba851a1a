//! Mutates bytes and runs a target on them, on stable Rust.
//!
//! A target returns a summary of its outcome. An input with a new summary joins the corpus, so that later mutations
//! begin from it: the summaries stand for the coverage that other fuzzers measure.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Duration of a long run.
const LONG: Duration = Duration::from_secs(60);

/// Longest input, in bytes. Limits of fields are at most half of it.
const LONGEST: usize = 8_192;

/// Largest corpus, in inputs.
const MOST: usize = 4_096;

/// Attempts to make a failing input smaller.
const SHRINKS: usize = 200;

/// Numbers at which parsers break.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "00",
    "255",
    "256",
    "65536",
    "4294967296",
    "9007199254740992",
    "9223372036854775808",
    "18446744073709551616",
    "99999999999999999999999999",
];

/// The inputs from which a target's mutations begin.
pub(crate) struct Fuzz {
    /// Valid and nearly valid inputs. An input that failed once is added here.
    pub(crate) corpus: &'static [&'static [u8]],
    /// Parts that inputs are made of.
    pub(crate) words: &'static [&'static [u8]],
}

/// An input on which the target panicked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) input: Vec<u8>,
    pub(crate) message: String,
    pub(crate) case: u64,
}

/// Returns the summary of an outcome.
pub(crate) fn summary(outcome: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    outcome.hash(&mut hasher);
    hasher.finish()
}

impl Fuzz {
    /// Runs the corpus and `cases` mutations, the same ones each time.
    pub(crate) fn fixed(&self, cases: u64, target: impl FnMut(&[u8]) -> u64) {
        report(self.search(17, target, |case| case < cases), 17);
    }

    /// Runs mutations of a random seed for [`LONG`]. A thread ends the run, because only `Clock` may read the time, and
    /// this file is a part of the crate's own tests too.
    pub(crate) fn long(&self, target: impl FnMut(&[u8]) -> u64) {
        let (seed, goes_on) = (fastrand::u64(..), Arc::new(AtomicBool::new(true)));
        let timer = Arc::clone(&goes_on);
        thread::spawn(move || {
            thread::sleep(LONG);
            timer.store(false, Ordering::Relaxed);
        });
        report(self.search(seed, target, |_| goes_on.load(Ordering::Relaxed)), seed);
    }

    /// Returns the first input on which the target panics, made smaller.
    pub(crate) fn search(
        &self,
        seed: u64,
        mut target: impl FnMut(&[u8]) -> u64,
        goes_on: impl Fn(u64) -> bool,
    ) -> Option<Failure> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut corpus: Vec<Vec<u8>> = self.corpus.iter().map(|input| input.to_vec()).collect();
        let mut seen = HashSet::new();
        let mut run = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| target(input))).map_err(|cause| text(&*cause));
        let mut case = 0;
        while goes_on(case) {
            let at = usize::try_from(case).unwrap_or(usize::MAX);
            let input = match self.corpus.get(at) {
                Some(input) => input.to_vec(),
                None => self.mutated(&corpus, &mut random),
            };
            match run(&input) {
                Ok(outcome) if seen.insert(outcome) && corpus.len() < MOST => corpus.push(input),
                Ok(_) => {}
                Err(message) => {
                    let input = smaller(input, &mut random, |input| run(input).is_err());
                    return Some(Failure { message: run(&input).err().unwrap_or(message), input, case });
                }
            }
            case += 1;
        }
        None
    }

    fn mutated(&self, corpus: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
        let any =
            |random: &mut fastrand::Rng| corpus.get(random.usize(..corpus.len().max(1))).cloned().unwrap_or_default();
        let mut input = any(random);
        for _ in 0..=random.usize(..4) {
            let at = random.usize(..=input.len());
            let end = (at + random.usize(..=8)).min(input.len());
            match random.u8(..10) {
                0 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.u8(..8)),
                1 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.u8(..)),
                2 => input.insert(at, random.u8(..)),
                3 => drop(input.drain(at..end)),
                4 => input.truncate(at),
                5 => {
                    let part = input[at..end].to_vec();
                    let times = if random.u8(..8) == 0 { 300 } else { 1 };
                    input.splice(at..at, part.repeat(times));
                }
                6 => drop(input.splice(at..end, random.choice(NUMBERS).unwrap_or("0").bytes())),
                7 => {
                    let other = any(random);
                    let from = random.usize(..=other.len());
                    input.splice(at.., other[from..].iter().copied());
                }
                _ => {
                    let word = random.choice(self.words).copied().unwrap_or_default();
                    let over = if random.bool() { at } else { end };
                    input.splice(at..over, word.iter().copied());
                }
            }
            input.truncate(LONGEST);
        }
        input
    }
}

/// Removes parts of an input that are not needed for its failure.
fn smaller(mut input: Vec<u8>, random: &mut fastrand::Rng, mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    for _ in 0..SHRINKS {
        let at = random.usize(..=input.len());
        let length = 1 << random.u32(..=input.len().max(1).ilog2());
        let end = (at + length).min(input.len());
        let mut shorter = input.clone();
        shorter.drain(at..end);
        if shorter.len() < input.len() && fails(&shorter) {
            input = shorter;
        }
    }
    input
}

fn text(cause: &(dyn std::any::Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn report(failure: Option<Failure>, seed: u64) {
    if let Some(Failure { input, message, case }) = failure {
        panic!("case {case} of seed {seed} fails; add it to the corpus: b\"{}\"\n{message}", input.escape_ascii());
    }
}

/// Declares a target: a test of a fixed seed, and a long one.
macro_rules! fuzz {
    ($name:ident, $cases:expr, $fuzz:expr, $target:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn fixed_seed() {
                $fuzz.fixed($cases, $target);
            }

            #[test]
            #[ignore = "60 s"]
            fn long_run() {
                $fuzz.long($target);
            }
        }
    };
}
pub(crate) use fuzz;
