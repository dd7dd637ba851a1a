//! Keyed digests of identities, which stand in for the identities themselves.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, LazyLock, OnceLock},
};

use super::{
    Client, Name, PeerIp, Principal, Tier,
    sip_hash::{SipHash, little_endian},
};
use ipnet::IpNet;

/// 128-bit keyed hash of an identity. A collision cannot be constructed without the digester's key.
///
/// ```
/// use tollgate::Digester;
/// let digester = Digester::process();
/// assert_ne!(digester.digest("user", [b"ab", b"c" as &[u8]]), digester.digest("user", [b"a", b"bc" as &[u8]]));
/// ```
///
/// The first bit says where the digest is known: under a [`Secret`](crate::Secret) in each process that has it, else only
/// in the process that has computed it, until that ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub(crate) u128);

/// Bit of the digests that other processes compute too.
const DURABLE: u128 = 1 << 127;

impl Digest {
    /// Returns whether other processes compute the same digest, and this one after a restart: it was computed under a
    /// [`Secret`](crate::Secret).
    ///
    /// ```
    /// use tollgate::{Digester, Secret};
    ///
    /// let secret: Secret = "000102030405060708090a0b0c0d0e0f".parse()?;
    /// assert!(secret.digester().digest("user", [b"alice"]).is_durable());
    /// assert!(!Digester::process().digest("user", [b"alice"]).is_durable());
    /// # Ok::<(), tollgate::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn is_durable(self) -> bool {
        self.0 & DURABLE != 0
    }

    /// Returns the digest as a key for stores, its first bit first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:08x}", self.0 >> 96)
    }
}

/// Computes the [`Digest`]s of identities with a key that no client knows.
///
/// The digester of the [process](Self::process) has a random key (SipHash-1-3-128), that of a
/// [`Secret`](crate::Secret) the same key in every process (SipHash-2-4-128).
///
/// ```
/// use tollgate::Digester;
/// let client = Digester::process().secret("session", b"s3cret");
/// assert!(!format!("{client:?}").contains("s3cret"));
/// ```
#[derive(Clone)]
pub struct Digester {
    hash: SipHash,
    /// Bits of the upper half of its digests that are kept: those of the process are without [`DURABLE`]. [`OF_SECRET`]
    /// marks the key of a secret, for which another hash is used.
    kept: u64,
}

const OF_PROCESS: u64 = u64::MAX >> 1;
const FIXED: u64 = u64::MAX;
const OF_SECRET: u64 = 0;

impl Digester {
    /// Returns the digester of this process. Its key is drawn at first use and lost when the process ends.
    #[must_use]
    pub fn process() -> &'static Self {
        static PROCESS: LazyLock<Digester> = LazyLock::new(|| {
            // Keyed from the operating system's randomness, as every std::collections::HashMap is.
            let random = RandomState::new();
            Digester::new([random.hash_one(0_u8), random.hash_one(1_u8)], OF_PROCESS)
        });
        &PROCESS
    }

    /// Creates a digester with a fixed key that is no secret, for texts that only must not be mistaken for each other. No
    /// client is digested with it.
    #[allow(dead_code, reason = "only a ledger has one")]
    pub(crate) fn fixed(k0: u64, k1: u64) -> Self {
        Self::new([k0, k1], FIXED)
    }

    fn new(key: [u64; 2], kept: u64) -> Self {
        Self { hash: SipHash::new(key), kept }
    }

    /// Creates the digester of a secret.
    pub(super) fn under_secret(key: [u64; 2]) -> Self {
        Self::new(key, OF_SECRET)
    }

    /// Computes the digest of `parts`.
    ///
    /// It differs for every `kind` of identity and for every division of the same bytes into parts.
    ///
    /// ```
    /// use tollgate::Digester;
    /// let digester = Digester::process();
    /// assert_ne!(digester.digest("user", [b"7"]), digester.digest("tenant", [b"7"]));
    /// ```
    #[must_use]
    pub fn digest<P: AsRef<[u8]>>(&self, kind: &str, parts: impl IntoIterator<Item = P>) -> Digest {
        if self.kept == OF_SECRET {
            return Digest(digest_parts(SipHash::<2, 4>::new(self.hash.keys()), kind, parts) | DURABLE);
        }
        self.keep(digest_parts(self.hash, kind, parts))
    }

    /// Same as [`digest`](Self::digest) of one part, without a loop.
    #[inline(always)]
    fn digest_one(&self, kind: &str, part: &[u8]) -> Digest {
        if self.kept == OF_SECRET {
            return self.digest_under_secret(kind, [part]);
        }
        debug_assert!(self.kept == OF_PROCESS, "no client is digested with a fixed key");
        let mut hasher = self.hash;
        feed(&mut hasher, kind.as_bytes(), 1);
        Digest(hasher.finish_127(part))
    }

    #[cold]
    fn digest_under_secret<const N: usize>(&self, kind: &str, parts: [&[u8]; N]) -> Digest {
        self.digest(kind, parts)
    }

    #[inline(always)]
    fn keep(&self, hash: u128) -> Digest {
        Digest(hash & (u128::from(self.kept) << 64 | u128::from(u64::MAX)))
    }

    /// Returns the client that is identified by a secret of the given kind; it has no public name.
    #[must_use]
    pub fn secret(&self, kind: &str, secret: &[u8]) -> Client {
        Client::from_digest(self.digest_one(kind, secret))
    }

    /// Returns the client of a peer address, as [`PeerIp`](crate::PeerIp) identifies it with its default groups.
    ///
    /// ```
    /// use tollgate::Digester;
    /// let client = Digester::process().peer("2001:db8::7".parse().unwrap());
    /// assert_eq!(client.name().unwrap().to_string(), "2001:db8::/64");
    /// ```
    #[must_use]
    pub fn peer(&self, ip: IpAddr) -> Client {
        PeerIp::new().client(ip, self)
    }

    /// Returns the client of a principal, as [`ApiKey`](crate::ApiKey) and [`Verified`](crate::Verified) identify it.
    ///
    /// `None` for an [unnamed](Principal::unnamed) one, which is known by its [`key`](Self::key), and for one whose name
    /// is no identity.
    ///
    /// ```
    /// use tollgate::{Client, Digester, Principal};
    /// let client = Digester::process().principal(Principal::named("acme").in_tier("pro"));
    /// assert_eq!(client, Some(Client::named("acme")));
    /// ```
    #[must_use]
    pub fn principal(&self, principal: Principal) -> Option<Client> {
        principal.into_client(false, None, self)
    }

    /// Returns the client of a key whose principal is [unnamed](Principal::unnamed).
    #[must_use]
    pub fn key(&self, key: &[u8]) -> Client {
        self.secret("key", key)
    }

    /// Returns the client of a network.
    pub(super) fn network(&self, network: IpNet) -> Client {
        let bits = network.prefix_len();
        let digest = match network {
            IpNet::V4(network) => self.digest("ip", [&network.addr().octets()[..], &[bits]]),
            IpNet::V6(network) => self.digest("ip", [&network.addr().octets()[..], &[bits]]),
        };
        Client { digest, name: Some(Name::network(network.addr(), bits)), tier: None }
    }

    /// Returns the client with this public name.
    #[must_use]
    pub fn named(&self, name: impl Into<Arc<str>>) -> Client {
        let name = name.into();
        let digest = self.digest_one("name", name.as_bytes());
        Client { digest, name: Some(name.into()), tier: Some(Tier::unknown()) }
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester(..)")
    }
}

/// Hashes the kind and all parts.
fn digest_parts<const C: usize, const D: usize, P: AsRef<[u8]>>(
    mut hasher: SipHash<C, D>,
    kind: &str,
    parts: impl IntoIterator<Item = P>,
) -> u128 {
    let mut parts = parts.into_iter();
    let (mut part, mut next) = (parts.next(), parts.next());
    let behind = |part: &Option<P>, next: &Option<P>| u64::from(part.is_some()) + u64::from(next.is_some());
    feed(&mut hasher, kind.as_bytes(), behind(&part, &next));
    while let (Some(piece), Some(_)) = (&part, &next) {
        let third = parts.next();
        feed(&mut hasher, piece.as_ref(), behind(&next, &third));
        (part, next) = (next, third);
    }
    hasher.finish(part.as_ref().map_or(b"", AsRef::as_ref))
}

/// Hashes a piece that is not the last. Its length and the number of pieces `behind` it, at most 2, precede it, so that
/// no two lists of pieces make the same bytes. The last piece needs neither: the hasher adds the length of the whole.
///
/// It feeds whole words. The first word has the length, if it is below
/// [`LONG`], and seven bytes of the piece; the last word is padded with zeros.
#[inline(always)]
fn feed<const C: usize, const D: usize>(hasher: &mut SipHash<C, D>, piece: &[u8], behind: u64) {
    let mut word = |word: u64| hasher.word(word);
    let length = piece.len() as u64;
    let rest = if length < LONG {
        let (first, rest) = piece.split_at(piece.len().min(7));
        word(little_endian(first) << 8 | length << 2 | behind);
        rest
    } else {
        word(length << 8 | LONG << 2 | behind);
        piece
    };
    for bytes in rest.chunks(8) {
        word(little_endian(bytes));
    }
}

/// Mark in place of a length that does not fit six bits.
const LONG: u64 = 63;

/// Common prefix of all digests of one kind of identity, hashed once.
#[derive(Clone)]
pub(super) struct DigestPrefix(OnceLock<([u64; 2], SipHash)>);

impl fmt::Debug for DigestPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestPrefix(..)") // the key is a secret
    }
}

impl DigestPrefix {
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Same as [`Digester::digest`] of the kind and three parts, the first two of which are the same each time.
    #[inline]
    pub(super) fn digest(&self, digester: &Digester, kind: &str, [one, other, last]: [&[u8]; 3]) -> Digest {
        if digester.kept == OF_SECRET {
            return digester.digest_under_secret(kind, [one, other, last]);
        }
        debug_assert!(digester.kept == OF_PROCESS, "no client is digested with a fixed key");
        let begin = || {
            let mut hash = digester.hash;
            feed(&mut hash, kind.as_bytes(), 2);
            feed(&mut hash, one, 2);
            feed(&mut hash, other, 1);
            hash
        };
        let (key, begun) = self.0.get_or_init(|| (digester.hash.keys(), begin()));
        if *key == digester.hash.keys() {
            return Digest(begun.finish_127(last));
        }
        // Another digester: layers with different stores share the identity.
        Digest(begin().finish_127(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let digester = Digester::process();
        let client = digester.secret("bearer", b"canary-7f3a");
        assert!(!format!("{client:?} {digester:?}").contains("canary"));
        assert!(!format!("{digester:?}").contains("k0"), "the key of the hash is a secret too");
    }

    #[test]
    fn every_byte_changes_the_digest_at_every_length() {
        let digester = Digester::process();
        let mut digests = std::collections::HashSet::new();
        for len in 0..40 {
            let zeros = vec![0_u8; len];
            assert!(digests.insert(digester.digest("k", [&zeros])), "{len} zeros");
            for at in 0..len {
                let mut bytes = zeros.clone();
                bytes[at] = 1;
                assert!(digests.insert(digester.digest("k", [&bytes])), "a one at {at} of {len}");
            }
        }
    }

    #[test]
    fn pieces_of_every_length_hash_as_their_plain_encoding() {
        let plain = |pieces: &[&[u8]], last: &[u8], after: u64| {
            let mut all = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                let behind = if index + 1 < pieces.len() { 2 } else { after };
                match piece.len() as u64 {
                    length @ 0..=62 => all.push((length << 2 | behind) as u8),
                    length => all.extend_from_slice(&(length << 8 | 63 << 2 | behind).to_le_bytes()),
                }
                all.extend_from_slice(piece);
                all.resize(all.len().next_multiple_of(8), 0);
            }
            all.extend_from_slice(last);
            all
        };
        let fast = |all: Vec<u8>| Digest(siphasher::sip128::SipHasher13::new().hash(&all).as_u128() & !DURABLE);
        let strong = |all: Vec<u8>| Digest(siphasher::sip128::SipHasher24::new().hash(&all).as_u128() | DURABLE);
        let both =
            [(Digester::new([0; 2], OF_PROCESS), &fast as &dyn Fn(_) -> _), (Digester::under_secret([0; 2]), &strong)];
        let bytes: Vec<u8> = (1..=200).collect();
        for (digester, hash) in both {
            let plain = |pieces: &[&[u8]], last: &[u8], after| hash(plain(pieces, last, after));
            assert_eq!(digester.digest::<&[u8]>("kind", []), plain(&[b"kind"], b"", 0));
            assert_eq!(digester.digest("kind", [b"one"]), plain(&[b"kind"], b"one", 1));
            assert_eq!(digester.digest_one("kind", b"one"), plain(&[b"kind"], b"one", 1));
            for len in 0..=200 {
                let (one, other) = (&bytes[..len], &bytes[len..]);
                assert_eq!(digester.digest("kind", [one, other]), plain(&[b"kind", one], other, 1), "{len} bytes");
                let three = digester.digest("kind", [one, one, other]);
                assert_eq!(three, plain(&[b"kind", one, one], other, 1), "{len} bytes");
            }
        }
    }

    #[test]
    fn last_piece_cannot_forge_pieces_and_lengths() {
        let digester = Digester::process();
        let two = digester.digest("k", [&b"a"[..], b"b"]);
        for follows in 0..4 {
            let forged = [1 << 2 | follows, b'a', 0, 0, 0, 0, 0, 0, b'b'];
            assert_ne!(digester.digest("k", [forged]), two);
        }
        assert_ne!(digester.digest::<&[u8]>("k", []), digester.digest("k", [b""]));
        assert_ne!(digester.digest("k", [b"a"]), digester.digest("k", [b"a\0"]));
    }

    #[test]
    fn prefix_gives_the_digest_of_the_digester_in_use() {
        let (one, other) = (Digester::new([1, 2], OF_PROCESS), Digester::under_secret([1, 2]));
        let prefix = DigestPrefix::new();
        for digester in [&one, &other, Digester::process(), &Digester::under_secret([3, 4]), &one] {
            for last in [&b"value"[..], b"", b"a value that is longer"] {
                let whole = digester.digest("kind", [&b"header"[..], b"x-key", last]);
                assert_eq!(prefix.digest(digester, "kind", [b"header", b"x-key", last]), whole);
            }
        }
    }

    #[test]
    fn division_into_parts_changes_the_digest() {
        let digester = Digester::process();
        let all = [vec!["a|b", "c"], vec!["a", "b|c"], vec!["a|b|c"], vec!["a", "b", "c"], vec!["", "a|b", "c"]];
        let digests: std::collections::HashSet<_> = all.iter().map(|parts| digester.digest("k", parts)).collect();
        assert_eq!(digests.len(), all.len());
    }
}
