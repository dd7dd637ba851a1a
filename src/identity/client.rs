//! Whom to charge: a keyed digest of an identity, never the identity itself.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, LazyLock, OnceLock},
};

use siphasher::sip128::SipHasher13;

/// Whom a request is charged to: a digest of fixed size, perhaps a name that is no secret, perhaps a tier.
///
/// Two clients are the same client when their digests are the same. `Debug` shows the public name or eight digits of
/// the digest, never what was digested.
///
/// ```
/// use tollgate::Client;
///
/// let alice = Client::named("alice").with_tier("pro");
/// assert_eq!(alice.name().unwrap().to_string(), "alice");
/// assert_eq!(alice.tier().unwrap().as_str(), "pro");
/// assert_eq!(alice, Client::named("alice"));
/// ```
#[derive(Clone)]
pub struct Client {
    digest: Digest,
    name: Option<Name>,
    tier: Option<Tier>,
}

impl Client {
    /// The client with this public name, digested with the key of this process.
    ///
    /// ```
    /// assert_ne!(tollgate::Client::named("alice"), tollgate::Client::named("bob"));
    /// ```
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Digester::process().named(name)
    }

    /// A client of whom only the digest is known.
    ///
    /// ```
    /// use tollgate::{Client, Digester};
    /// let digest = Digester::process().digest("session", [b"s3cret"]);
    /// assert!(Client::from_digest(digest).name().is_none());
    /// ```
    #[must_use]
    pub const fn from_digest(digest: Digest) -> Self {
        Self { digest, name: None, tier: None }
    }

    /// The same client with a name that may be shown, logged and billed.
    ///
    /// ```
    /// use tollgate::{Client, Digester};
    /// let digest = Digester::process().digest("tenant", [b"17"]);
    /// assert_eq!(Client::from_digest(digest).with_name("acme").name().unwrap().to_string(), "acme");
    /// ```
    #[must_use]
    pub fn with_name(self, name: impl Into<Name>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// The same client in a tier that may have limits of its own.
    ///
    /// ```
    /// assert_eq!(tollgate::Client::named("alice").with_tier("free").tier().unwrap().as_str(), "free");
    /// ```
    #[must_use]
    pub fn with_tier(self, tier: impl Into<Tier>) -> Self {
        Self { tier: Some(tier.into()), ..self }
    }

    /// What the client is charged under.
    ///
    /// ```
    /// let client = tollgate::Client::named("alice");
    /// assert_eq!(client.digest(), client.clone().with_tier("pro").digest());
    /// ```
    #[must_use]
    #[inline]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The name that may be shown, where the extractor knows one.
    ///
    /// ```
    /// assert!(tollgate::Client::named("alice").name().is_some());
    /// ```
    #[must_use]
    pub const fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// The tier, where the extractor knows one.
    ///
    /// ```
    /// assert!(tollgate::Client::named("alice").tier().is_none());
    /// ```
    #[must_use]
    #[inline]
    pub const fn tier(&self) -> Option<&Tier> {
        self.tier.as_ref()
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Client {}

impl std::hash::Hash for Client {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "Client({name}")?,
            None => write!(f, "Client(#{:08x}", self.digest.0 >> 96)?,
        }
        match &self.tier {
            Some(tier) => write!(f, ", {})", tier.as_str()),
            None => f.write_str(")"),
        }
    }
}

/// A name that is no secret: text, or a network; a network is written out only when somebody reads it.
///
/// ```
/// use tollgate::Name;
/// let name = Name::network("2001:db8::".parse().unwrap(), 64);
/// assert_eq!(name.to_string(), "2001:db8::/64");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Named);

/// Of words throughout: an address would stand askew in a client, and each move of it would stall.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Named {
    Text(Arc<str>),
    V4 { address: u64, bits: u64 },
    V6 { address: [u64; 2], bits: u64 },
}

impl Name {
    /// The name of a network: an address and how many of its leading bits count. A whole address is shown without its
    /// length.
    ///
    /// ```
    /// use tollgate::Name;
    /// assert_eq!(Name::network("192.0.2.7".parse().unwrap(), 32).to_string(), "192.0.2.7");
    /// ```
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // the halves of an address
    pub fn network(address: IpAddr, bits: u8) -> Self {
        let bits = u64::from(bits);
        Self(match address {
            IpAddr::V4(v4) => Named::V4 { address: u64::from(v4.to_bits()), bits },
            IpAddr::V6(v6) => Named::V6 { address: [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64], bits },
        })
    }
}

impl fmt::Display for Name {
    #[allow(clippy::cast_possible_truncation)] // what was an address
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, bits, whole) = match self.0 {
            Named::Text(ref text) => return f.write_str(text),
            Named::V4 { address, bits } => (IpAddr::V4(Ipv4Addr::from_bits(address as u32)), bits, 32),
            Named::V6 { address: [high, low], bits } => {
                (IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))), bits, 128)
            }
        };
        if bits == whole { write!(f, "{address}") } else { write!(f, "{address}/{bits}") }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Named::Text(text.into()))
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(Named::Text(text.into()))
    }
}

impl From<Arc<str>> for Name {
    fn from(text: Arc<str>) -> Self {
        Self(Named::Text(text))
    }
}

/// A class of clients that shares its limits, such as `free` or `pro`; cheap to clone.
///
/// ```
/// assert_eq!(tollgate::Tier::from("pro").as_str(), "pro");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tier(Arc<str>);

impl Tier {
    /// The tier's name.
    ///
    /// ```
    /// assert_eq!(tollgate::Tier::from("pro").as_str(), "pro");
    /// ```
    #[must_use]
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Tier {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Tier {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

/// 128 bits that stand for an identity; without the digester's key nobody can make one that collides with another.
///
/// ```
/// use tollgate::Digester;
/// let digester = Digester::process();
/// assert_ne!(digester.digest("user", [b"ab", b"c" as &[u8]]), digester.digest("user", [b"a", b"bc" as &[u8]]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub(crate) u128);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:08x}", self.0 >> 96)
    }
}

/// Turns identities into [`Digest`]s with a key that nobody outside knows (SipHash-1-3-128).
///
/// ```
/// use tollgate::Digester;
/// let client = Digester::process().secret("session", b"s3cret");
/// assert!(!format!("{client:?}").contains("s3cret"));
/// ```
#[derive(Clone)]
pub struct Digester(SipHasher13);

impl Digester {
    /// The digester of this process: its key is drawn at first use and gone when the process ends.
    ///
    /// ```
    /// use tollgate::Digester;
    /// assert_eq!(Digester::process().named("a"), Digester::process().named("a"));
    /// ```
    #[must_use]
    pub fn process() -> &'static Self {
        static PROCESS: LazyLock<Digester> = LazyLock::new(|| {
            // Keyed from the operating system's randomness, as every std::collections::HashMap is.
            let random = std::hash::RandomState::new();
            Digester(SipHasher13::new_with_keys(random.hash_one(0_u8), random.hash_one(1_u8)))
        });
        &PROCESS
    }

    /// A digester with this key.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn with_keys(k0: u64, k1: u64) -> Self {
        Self(SipHasher13::new_with_keys(k0, k1))
    }

    /// The digest of `parts`, apart from every other `kind` of identity and from every other way to cut the parts.
    ///
    /// ```
    /// use tollgate::Digester;
    /// let digester = Digester::process();
    /// assert_ne!(digester.digest("user", [b"7"]), digester.digest("tenant", [b"7"]));
    /// ```
    #[must_use]
    pub fn digest<P: AsRef<[u8]>>(&self, kind: &str, parts: impl IntoIterator<Item = P>) -> Digest {
        let mut parts = parts.into_iter();
        let (mut part, mut next) = (parts.next(), parts.next());
        let follows = |part: &Option<P>, next: &Option<P>| match (part, next) {
            (None, _) => Follows::Nothing,
            (Some(_), None) => Follows::Last,
            (Some(_), Some(_)) => Follows::More,
        };
        let mut hasher = self.begin();
        feed(&mut hasher, kind.as_bytes(), follows(&part, &next));
        while let (Some(piece), Some(_)) = (&part, &next) {
            let third = parts.next();
            feed(&mut hasher, piece.as_ref(), follows(&next, &third));
            (part, next) = (next, third);
        }
        finish(&hasher, part.as_ref().map_or(b"", AsRef::as_ref))
    }

    /// As [`digest`](Self::digest) of one part.
    #[inline]
    pub(crate) fn digest_one(&self, kind: &str, part: &[u8]) -> Digest {
        let mut hasher = self.begin();
        feed(&mut hasher, kind.as_bytes(), Follows::Last);
        finish(&hasher, part)
    }

    /// A fresh hasher and not a copy: then the compiler knows that no bytes wait in it for the rest of their word.
    #[inline]
    fn begin(&self) -> SipHasher13 {
        let (k0, k1) = self.0.keys();
        SipHasher13::new_with_keys(k0, k1)
    }

    /// The client behind a secret of the given kind; it has no public name.
    ///
    /// ```
    /// assert!(tollgate::Digester::process().secret("bearer", b"s3cret").name().is_none());
    /// ```
    #[must_use]
    pub fn secret(&self, kind: &str, secret: &[u8]) -> Client {
        Client::from_digest(self.digest_one(kind, secret))
    }

    /// The client with this public name.
    ///
    /// ```
    /// use tollgate::{Client, Digester};
    /// assert_eq!(Digester::process().named("alice"), Client::named("alice"));
    /// ```
    #[must_use]
    pub fn named(&self, name: impl Into<Arc<str>>) -> Client {
        let name = name.into();
        Client::from_digest(self.digest_one("name", name.as_bytes())).with_name(name)
    }
}

/// What comes after a piece.
#[derive(Clone, Copy)]
enum Follows {
    Nothing,
    /// The last piece, which needs no length: the hasher adds that of the whole.
    Last,
    More,
}

/// Digests a piece that is not the last: behind its length and what follows, so that no two lists of pieces make the same
/// bytes, and as whole words, because then the hasher never has to shift what it holds. The first word has the length, where
/// it is short, and seven bytes of the piece; the last is filled up with zeros.
#[inline(always)]
fn feed(hasher: &mut SipHasher13, piece: &[u8], follows: Follows) {
    let mut word = |word: u64| hasher.write_u64(word.to_le()); // the same digest on every processor
    let (length, follows) = (piece.len() as u64, follows as u64);
    let rest = if length < LONG {
        let (first, rest) = piece.split_at(piece.len().min(7));
        word(little(first) << 8 | length << 2 | follows);
        rest
    } else {
        word(length << 8 | LONG << 2 | follows);
        piece
    };
    for bytes in rest.chunks(8) {
        word(little(bytes));
    }
}

/// The digest of what was fed and the last piece.
#[inline]
fn finish(hasher: &SipHasher13, last: &[u8]) -> Digest {
    Digest(hasher.hash(last).as_u128())
}

/// What stands in the place of a length that six bits do not hold.
const LONG: u64 = 63;

/// Up to eight bytes as a number, the first of least weight.
#[inline(always)]
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// What all digests of one kind of identity begin with, digested once.
#[derive(Clone, Debug)]
pub(crate) struct Beginning(OnceLock<(Digester, Digester)>);

impl Beginning {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// As [`Digester::digest`] of the kind, its `first` parts, which are the same each time, and the `last` one.
    #[inline]
    pub(crate) fn digest<'a>(
        &self,
        digester: &Digester,
        kind: &str,
        first: impl Fn() -> [&'a [u8]; 2],
        last: &[u8],
    ) -> Digest {
        let begin = || {
            let (mut hasher, [one, other]) = (digester.begin(), first());
            feed(&mut hasher, kind.as_bytes(), Follows::More);
            feed(&mut hasher, one, Follows::More);
            feed(&mut hasher, other, Follows::Last);
            hasher
        };
        let (of, begun) = self.0.get_or_init(|| (digester.clone(), Digester(begin())));
        if of.0.keys() == digester.0.keys() {
            return finish(&begun.0, last);
        }
        // Another digester: another layer has another store, and they share the extractor.
        finish(&begin(), last)
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester(..)")
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
    fn every_byte_counts_at_every_length() {
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
    fn pieces_of_every_length_are_read_alike() {
        let plain = |pieces: &[&[u8]], last: &[u8], after: u64| {
            let mut all = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                let follows = if index + 1 < pieces.len() { 2 } else { after };
                match piece.len() as u64 {
                    length @ 0..=62 => all.push((length << 2 | follows) as u8),
                    length => all.extend_from_slice(&(length << 8 | 63 << 2 | follows).to_le_bytes()),
                }
                all.extend_from_slice(piece);
                all.resize(all.len().next_multiple_of(8), 0);
            }
            all.extend_from_slice(last);
            Digest(SipHasher13::new().hash(&all).as_u128())
        };
        let digester = Digester(SipHasher13::new());
        let bytes: Vec<u8> = (1..=200).collect();
        assert_eq!(digester.digest::<&[u8]>("kind", []), plain(&[b"kind"], b"", 0));
        assert_eq!(digester.digest("kind", [b"one"]), plain(&[b"kind"], b"one", 1));
        assert_eq!(digester.digest("kind", [b"one"]), digester.digest_one("kind", b"one"));
        for len in 0..=200 {
            let (one, other) = (&bytes[..len], &bytes[len..]);
            assert_eq!(digester.digest("kind", [one, other]), plain(&[b"kind", one], other, 1), "{len} bytes");
            let three = digester.digest("kind", [one, one, other]);
            assert_eq!(three, plain(&[b"kind", one, one], other, 1), "{len} bytes");
        }
    }

    #[test]
    fn a_last_piece_cannot_imitate_pieces_and_lengths() {
        let digester = Digester::process();
        let two = digester.digest("k", [&b"a"[..], b"b"]);
        for follows in 0..4 {
            let imitation = [1 << 2 | follows, b'a', 0, 0, 0, 0, 0, 0, b'b'];
            assert_ne!(digester.digest("k", [imitation]), two);
        }
        assert_ne!(digester.digest::<&[u8]>("k", []), digester.digest("k", [b""]));
        assert_ne!(digester.digest("k", [b"a"]), digester.digest("k", [b"a\0"]));
    }

    #[test]
    fn a_beginning_belongs_to_its_digester() {
        let (one, other) = (Digester(SipHasher13::new_with_keys(1, 2)), Digester(SipHasher13::new_with_keys(3, 4)));
        let beginning = Beginning::new();
        for digester in [&one, &other, &one] {
            for last in [&b"value"[..], b"", b"a value that is longer"] {
                let whole = digester.digest("kind", [&b"header"[..], b"x-key", last]);
                assert_eq!(beginning.digest(digester, "kind", || [b"header", b"x-key"], last), whole);
            }
        }
    }

    #[test]
    fn parts_are_never_joined() {
        let digester = Digester::process();
        let all = [vec!["a|b", "c"], vec!["a", "b|c"], vec!["a|b|c"], vec!["a", "b", "c"], vec!["", "a|b", "c"]];
        let digests: std::collections::HashSet<_> = all.iter().map(|parts| digester.digest("k", parts)).collect();
        assert_eq!(digests.len(), all.len());
    }
}
