//! The secret under which identities have the same digest in every process.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose};

use super::{
    Client,
    digester::{Digest, Digester},
    sip_hash::little_endian,
};
use crate::error::ConfigError;

/// Key of 16 bytes under which identities, and fingerprints of requests, have the same digest in every process.
///
/// A store outside of the process needs it: the digests of [`Digester::process`] are lost with the process, so that another
/// one, or the same after a restart, would not find the record of a client. All processes of one store need the same secret:
/// under another one, no client finds its records. With the secret the digest of a guessed identity can be computed, so store
/// it as passwords are stored.
///
/// `openssl rand -hex 16` makes one. It is read from text as 32 hexadecimal digits or as base64, and never shown.
///
/// ```
/// use tollgate::Secret;
///
/// let variable = std::env::var("TOLLGATE_SECRET");
/// # let variable = variable.or(Ok::<_, std::env::VarError>("5d4fb7f10c3a4c2d9a86e0c1b2f37e58".to_owned()));
/// let secret: Secret = variable?.parse()?;
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Format
/// A digest is SipHash-2-4-128 (J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF"), with its first bit
/// set, of the kind and the parts of an identity. Each piece but the last is preceded by its length and the number of
/// pieces behind it, at most 2, in one byte (`length << 2 | behind`; from 63 bytes on eight bytes, least significant
/// first: `length << 8 | 63 << 2 | behind`), and is filled up with zeros to whole words of eight bytes.
///
/// ```
/// use tollgate::Secret;
/// let secret: Secret = "000102030405060708090a0b0c0d0e0f".parse()?;
/// let digest = secret.digester().digest("name", [b"alice"]);
/// assert_eq!(digest.to_bytes().map(|byte| format!("{byte:02x}")).concat(), "b7412289f043434a783f328f03dee416");
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Secret(Arc<Digester>);

impl Secret {
    /// Creates a secret of these bytes.
    ///
    /// # Errors
    /// If there are not 16 of them, or all are equal. The error does not contain them.
    pub fn try_new(bytes: &[u8]) -> Result<Self, ConfigError> {
        let must = "have 16 bytes; `openssl rand -hex 16` makes one";
        let Ok(key) = <[u8; 16]>::try_from(bytes) else { return Err(ConfigError::new("secret", must, bytes.len())) };
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(ConfigError::message(
                "secret must be drawn by chance, got one byte 16 times; `openssl rand -hex 16` makes one",
            ));
        }
        let (first, second) = key.split_at(8);
        Ok(Self(Arc::new(Digester::under_secret([little_endian(first), little_endian(second)]))))
    }

    /// Returns the digester, under which [`Identify::identify`](crate::Identify::identify) finds clients that other
    /// processes find too.
    #[must_use]
    pub fn digester(&self) -> &Digester {
        &self.0
    }

    /// Returns the digest by which other processes find a client too.
    ///
    /// A client that was identified under a secret has it already; it must be this one. One that is known by its public name alone, as
    /// [`Client::named`] and peer addresses are, is digested anew.
    ///
    /// # Errors
    /// [`LocalClient`] if the client was identified under the key of this process by more than a public name.
    ///
    /// ```
    /// use tollgate::{Client, Digester, Secret};
    ///
    /// let secret: Secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse()?;
    /// let alice = secret.durable(&Client::named("alice"))?;
    /// assert_eq!(alice, secret.digester().named("alice").digest());
    ///
    /// let session = Digester::process().secret("session", b"s3cret");
    /// assert!(secret.durable(&session).is_err()); // another process could not find it
    /// assert!(secret.durable(&secret.digester().secret("session", b"s3cret")).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durable(&self, client: &Client) -> Result<Digest, LocalClient> {
        if client.digest().is_durable() {
            return Ok(client.digest());
        }
        let anew = |digester: &Digester| client.known_by_name(digester);
        match anew(Digester::process()).filter(|known| known == client).and_then(|_| anew(self.digester())) {
            Some(client) => Ok(client.digest()),
            None => Err(LocalClient(())),
        }
    }
}

/// A client that no other process can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalClient(());

impl fmt::Display for LocalClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the client has no public name and was identified under the key of this process, so that no other process \
             finds it; identify it with the digester that identify receives, or by a public name",
        )
    }
}

impl std::error::Error for LocalClient {}

/// Reads 32 hexadecimal digits, or base64 with or without padding.
impl FromStr for Secret {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let text = text.trim();
        let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes = match is_hex {
            true => (0..32).step_by(2).map(digit).collect(),
            false => general_purpose::STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok(),
        };
        let must = "be 32 hexadecimal digits or base64 of 16 bytes; `openssl rand -hex 16` makes one";
        let got = || ConfigError::new("secret", must, format_args!("{} characters", text.chars().count()));
        match bytes {
            Some(bytes) if bytes.len() == 16 => Self::try_new(&bytes),
            _ => Err(got()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::identity::{ApiKey, Identify, PeerIp, Principal, Unverified, Verified};

    const HEX: &str = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58";

    fn secret(text: &str) -> Secret {
        text.parse().unwrap()
    }

    #[test]
    fn texts_of_one_key_are_one_secret() {
        let digest = |text: &str| secret(text).digester().digest("kind", [b"part"]);
        let upper = HEX.to_uppercase();
        for text in [&upper, "XU+38Qw6TC2ahuDBsvN+WA==", "XU+38Qw6TC2ahuDBsvN+WA", &format!(" {HEX}\n")] {
            assert_eq!(digest(text), digest(HEX), "{text}");
        }
        assert_ne!(digest("5d4fb7f10c3a4c2d9a86e0c1b2f37e59"), digest(HEX));
    }

    #[test]
    fn wrong_text_is_an_error_without_the_text() {
        for text in
            ["", "canary", &HEX[1..], &format!("{HEX}00"), "Y2FuYXJ5", &"ä".repeat(32), &format!("{}x", &HEX[1..])]
        {
            let error = secret_error(text);
            assert!(!error.contains("canary") && !error.contains(&HEX[5..]), "{error}");
            assert!(error.ends_with(&format!("got {} characters", text.chars().count())), "{error}");
        }
        assert!(secret_error(&"0".repeat(32)).contains("one byte 16 times"));
        assert!(Secret::try_new(&[1; 15]).unwrap_err().to_string().ends_with("got 15"));
    }

    fn secret_error(text: &str) -> String {
        text.parse::<Secret>().unwrap_err().to_string()
    }

    #[test]
    fn every_identity_is_durable_under_a_secret() {
        let keys = |key: &str| match key {
            "named" => Some(Principal::named("acme")),
            "private" => Some(Principal::private("ann@example.org")),
            _ => Some(Principal::unnamed()),
        };
        let identities: Vec<Box<dyn Identify>> = vec![
            Box::new(PeerIp::new()),
            Box::new(ApiKey::header("x-key", keys)),
            Box::new(ApiKey::bearer(keys)),
            Box::new(Unverified::header("x-key")),
            Box::new(Verified::from_extension(|_: &u8| Some(Principal::private("7")))),
            Box::new(PeerIp::new().and(Unverified::header("x-key"))),
            Box::new(ApiKey::header("x-missing", keys).or(PeerIp::new())),
            Box::new(|_: &crate::head::RequestHead<'_>, digester: &Digester| Some(digester.key(b"key"))),
        ];
        let (one, again, other) = (secret(HEX), secret(HEX), secret("00112233445566778899aabbccddeeff"));
        for (at, identity) in identities.iter().enumerate() {
            for key in ["named", "private", "unnamed"] {
                let mut request =
                    http::Request::get("/").header("x-key", key).header("authorization", format!("Bearer {key}"));
                let extensions = request.extensions_mut().unwrap();
                extensions.insert(std::net::SocketAddr::from(([198, 51, 100, 7], 80)));
                extensions.insert(7_u8);
                let request = request.body(()).unwrap();
                let head = crate::head::RequestHead::of(&request);
                let by = |digester: &Digester| identity.identify(&head, digester).unwrap();
                let (durable, local) = (by(one.digester()), by(Digester::process()));
                assert!(durable.digest().is_durable() && !local.digest().is_durable(), "identity {at}, {key}");
                assert_eq!(durable, by(again.digester()), "another process");
                assert_ne!(durable, by(other.digester()), "another secret");
                assert_eq!(one.durable(&durable), Ok(durable.digest()));
                // Either the same digest, or an error: never that of another client.
                assert!(
                    one.durable(&local).is_err() || one.durable(&local) == Ok(durable.digest()),
                    "identity {at}, {key}"
                );
            }
        }
    }

    #[test]
    fn public_name_is_digested_anew_only_where_it_is_the_identity() {
        let secret = secret(HEX);
        let ip: IpAddr = "2001:db8::7".parse().unwrap();
        let peer = Digester::process().peer(ip);
        assert_eq!(secret.durable(&peer), Ok(secret.digester().peer(ip).digest()));
        let digest = Digester::process().digest("tenant", [b"17"]);
        for client in [Client::from_digest(digest), Client::from_digest(digest).with_name("alice")] {
            assert_eq!(secret.durable(&client), Err(LocalClient(())), "its name is not all that it is known by");
        }
    }
}
