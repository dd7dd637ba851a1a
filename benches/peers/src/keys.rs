//! Keys of clients, and a loop of decisions for them in any order.

use std::hint::black_box;

use crate::lap::{Lap, timed};

/// Number of keys that a processor's caches hold together with their state.
pub const FEW_KEYS: u64 = 10_000;

/// Writes the key of client `i` into a buffer and returns its text.
pub fn key(i: u64, text: &mut [u8; 20]) -> &str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text[..4].copy_from_slice(b"key-");
    let mut rest = i.wrapping_mul(0x9e37_79b9_7f4a_7c15); // as good as random, and no two alike
    for digit in &mut text[4..] {
        *digit = DIGITS[(rest & 15) as usize];
        rest >>= 4;
    }
    std::str::from_utf8(text).expect("hexadecimal")
}

/// Returns the keys of `n` clients.
pub fn keys(n: u64) -> Vec<String> {
    (0..n).map(|i| key(i, &mut [0; 20]).to_owned()).collect()
}

/// Returns the numbers below `n` in an order that a processor cannot predict.
pub fn shuffled(n: u64) -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((u128::from(state) * u128::from(n)) >> 64) as u64
    }
}

/// Returns a loop of decisions, each for one of [`FEW_KEYS`] keys.
pub fn few(decide: impl Fn(&str) -> bool + 'static) -> Lap {
    let keys = keys(FEW_KEYS);
    assert!(keys.iter().all(|key| decide(key)));
    let mut next = shuffled(FEW_KEYS);
    Box::new(move |operations| {
        timed(|| {
            for _ in 0..operations {
                black_box(decide(&keys[next() as usize]));
            }
        })
    })
}
