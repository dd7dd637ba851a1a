//! Claims: which operation a caller wants to carry out, and as which owner.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    identity::{Digest, Digester},
    key_value::{error::KeyValueError, limits},
};

/// Greatest length of each text of a [`RecordAbout`] in bytes; longer ones are cut.
const MAX_TEXT: usize = 1_024;

/// Key of a record, 16 bytes: the digest of an operation.
///
/// A store that other processes share needs a digest that they compute too, under a [`Secret`](crate::Secret).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(pub [u8; 16]);

impl From<Digest> for RecordKey {
    fn from(digest: Digest) -> Self {
        Self(digest.to_bytes())
    }
}

/// Writes the 32 hexadecimal digits.
impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({self})")
    }
}

/// Owner of a record: a random number of 127 bits that only one execution knows. It is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub(crate) [u8; 16]);

impl Owner {
    /// Draws an owner.
    #[must_use]
    pub fn random() -> Self {
        static DRAWN: AtomicU64 = AtomicU64::new(0);
        // Numbers that count up, under a hash whose key the operating system has drawn for this process.
        let number = DRAWN.fetch_add(1, Relaxed).to_le_bytes();
        Self(Digester::process().digest("record owner", [number]).to_bytes())
    }

    /// Returns the bytes, for stores of your own.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner(..)")
    }
}

/// Fate of a record whose lease ended without the operation's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AfterLease {
    /// The next caller carries the operation out again. It may run twice, in part or as a whole.
    Rerun,
    /// The outcome is unknown until an operator settles or releases the record. It runs at most once.
    #[default]
    Hold,
}

/// Request to carry out an operation.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{Secret, key_value::{AfterLease, Claim, Owner}};
///
/// let secret: Secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse()?;
/// let import = secret.digester().digest("import", ["orders-2026-11-30.csv"]);
/// let claim = Claim {
///     after_lease: AfterLease::Rerun, // an import may begin again
///     lease: Duration::from_secs(300),
///     ..Claim::new(import.into(), Owner::random())
/// };
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Claim {
    /// The operation.
    pub key: RecordKey,
    /// The caller.
    pub owner: Owner,
    /// Digest of the operation's content. Another one under the same key is a mismatch; default none, which matches all.
    pub fingerprint: Option<[u8; 16]>,
    /// Time until the caller counts as gone unless it renews; default 30 s.
    pub lease: Duration,
    /// Time for which a running record of [`AfterLease::Rerun`] stays after its lease; default 24 h.
    pub life: Duration,
    /// Fate of the record when the lease ends; default [`AfterLease::Hold`].
    pub after_lease: AfterLease,
    /// Client on whose behalf the operation runs, for stores that bound its records; default none.
    pub client: Option<[u8; 16]>,
    /// Texts for operators.
    pub about: Arc<RecordAbout>,
}

impl Claim {
    /// Creates a claim with the defaults.
    #[must_use]
    pub fn new(key: RecordKey, owner: Owner) -> Self {
        Self {
            key,
            owner,
            fingerprint: None,
            lease: Duration::from_secs(30),
            life: Duration::from_secs(86_400),
            after_lease: AfterLease::Hold,
            client: None,
            about: Arc::default(),
        }
    }

    /// Returns the lease and the life in microseconds.
    pub(crate) fn times(&self) -> Result<(i64, i64), KeyValueError> {
        Ok((limits::time("lease", self.lease)?, limits::time("life", self.life)?))
    }
}

/// Texts of a record for operators. They are stored and listed, so they must hold no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordAbout {
    /// Name of the layer's policy, or of what your program does.
    pub policy: String,
    /// Public name of the client.
    pub client: String,
    /// Method of the request.
    pub method: String,
    /// Route or path of the request.
    pub route: String,
    /// Key that the client has given.
    pub key: String,
}

impl RecordAbout {
    /// Returns the texts as they are stored: each cut to at most 1,024 bytes, and without control characters.
    pub(crate) fn stored(&self) -> Self {
        let [policy, client, method, route, key] = self.texts().map(|text| {
            let end = (0..=text.len().min(MAX_TEXT)).rev().find(|at| text.is_char_boundary(*at));
            // PostgreSQL stores no NUL, and a terminal shows the rest.
            let shown = |read: char| if read.is_control() { '?' } else { read };
            text[..end.unwrap_or(0)].chars().map(shown).collect()
        });
        Self { policy, client, method, route, key }
    }

    /// Returns the texts in the order of the fields.
    pub(crate) fn texts(&self) -> [&str; 5] {
        [&self.policy, &self.client, &self.method, &self.route, &self.key]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_differ_and_are_not_shown() {
        let (first, second) = (Owner::random(), Owner::random());
        assert_ne!(first, second);
        assert_eq!(format!("{first:?}"), "Owner(..)");
    }

    #[test]
    fn stored_texts_are_short_and_printable() {
        let stored = |route: &str| RecordAbout { route: route.into(), ..RecordAbout::default() }.stored().route;
        assert_eq!(stored(&"é".repeat(600)).len(), 1_024);
        assert_eq!(stored(&format!("a{}", "é".repeat(600))).len(), 1_023);
        assert_eq!(stored("/a\0b\r\u{85}é"), "/a?b??é");
    }
}
