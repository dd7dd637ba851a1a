//! SipHash with a result of 128 bits, over words and one last piece of bytes: SipHash-1-3 and SipHash-2-4.
//!
//! The digests are those of the `siphasher` crate, which the tests compare; a hasher that never holds part of a word needs
//! half of its instructions. The algorithm is that of J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input
//! PRF", with the 128-bit finish of their reference code.

/// State of a hash: the words so far. It runs `C` rounds for each word and `D` at the end.
#[derive(Clone, Copy)]
pub(super) struct SipHash<const C: usize = 1, const D: usize = 3> {
    v: [u64; 4],
    /// Number of words so far.
    words: u64,
    keys: [u64; 2],
}

impl<const C: usize, const D: usize> SipHash<C, D> {
    #[inline]
    pub(super) fn new(keys: [u64; 2]) -> Self {
        let [k0, k1] = keys;
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee, // a result of 128 bits
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { v, words: 0, keys }
    }

    /// Returns the key, which is a secret.
    #[inline]
    pub(super) fn keys(&self) -> [u64; 2] {
        self.keys
    }

    /// Hashes eight bytes, the least significant first.
    #[inline(always)]
    pub(super) fn word(&mut self, word: u64) {
        self.absorb(word);
        self.words = self.words.wrapping_add(1);
    }

    /// Returns the digest of the words and of the last bytes. Its lower half is known first.
    #[inline]
    pub(super) fn finish(self, last: &[u8]) -> u128 {
        self.finish_inline(last)
    }

    /// Returns the digest without its first bit. Here, because the caller has no register free for it.
    #[inline]
    pub(super) fn finish_127(self, last: &[u8]) -> u128 {
        self.finish_inline(last) & (u128::MAX >> 1)
    }

    #[inline(always)]
    fn finish_inline(mut self, last: &[u8]) -> u128 {
        let length = self.words.wrapping_mul(8).wrapping_add(last.len() as u64);
        let (words, rest) = last.as_chunks::<8>();
        for word in words {
            self.absorb(u64::from_le_bytes(*word));
        }
        // Up to seven bytes, in one load where the last has eight.
        let tail = match last.last_chunk::<8>() {
            Some(end) if !rest.is_empty() => u64::from_le_bytes(*end) >> (64 - 8 * rest.len()),
            _ => little_endian(rest),
        };
        self.absorb(length << 56 | tail);
        self.v[2] ^= 0xee;
        let low = self.half();
        self.v[1] ^= 0xdd;
        u128::from(self.half()) << 64 | u128::from(low)
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.v[3] ^= word;
        (0..C).for_each(|_| self.round());
        self.v[0] ^= word;
    }

    #[inline(always)]
    fn half(&mut self) -> u64 {
        (0..D).for_each(|_| self.round());
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32).wrapping_add(d);
        c = c.wrapping_add(b);
        d = d.rotate_left(21) ^ a;
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }
}

/// Reads at most eight bytes as a number, the least significant first.
#[inline(always)]
pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use proptest::prelude::*;
    use siphasher::sip128::{SipHasher13, SipHasher24};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn equals_the_hash_of_another_library(
            keys: [u64; 2],
            words in prop::collection::vec(any::<u64>(), 0..6),
            last in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let (mut fast, mut strong) = (SipHash::<1, 3>::new(keys), SipHash::<2, 4>::new(keys));
            let mut others = (
                SipHasher13::new_with_keys(keys[0], keys[1]),
                SipHasher24::new_with_keys(keys[0], keys[1]),
            );
            for word in words {
                fast.word(word);
                strong.word(word);
                others.0.write(&word.to_le_bytes());
                others.1.write(&word.to_le_bytes());
            }
            others.0.write(&last);
            others.1.write(&last);
            prop_assert_eq!(fast.finish(&last), siphasher::sip128::Hasher128::finish128(&others.0).as_u128());
            prop_assert_eq!(strong.finish(&last), siphasher::sip128::Hasher128::finish128(&others.1).as_u128());
        }
    }

    #[test]
    fn lengths_are_counted_by_bytes_modulo_256() {
        let bytes = vec![7; 600];
        for length in [0, 1, 7, 8, 9, 63, 64, 255, 256, 257, 600] {
            let other = SipHasher13::new_with_keys(1, 2).hash(&bytes[..length]).as_u128();
            assert_eq!(SipHash::<1, 3>::new([1, 2]).finish(&bytes[..length]), other, "{length} bytes");
        }
    }

    /// The first vectors of the reference code for SipHash-2-4 with 128 bits: <https://github.com/veorq/SipHash>.
    #[test]
    fn equals_the_vectors_of_the_reference_code() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let digest = |bytes: &[u8]| SipHash::<2, 4>::new(key).finish(bytes).to_le_bytes();
        let hex = |bytes: [u8; 16]| bytes.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex(digest(&[])), "a3817f04ba25a8e66df67214c7550293");
        assert_eq!(hex(digest(&[0])), "da87c1d86b99af44347659119b22fc45");
        assert_eq!(hex(digest(&[0, 1])), "8177228da4a45dc7fca38bdef60affe4");
    }
}
