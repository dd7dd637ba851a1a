//! Keys of requests, and the digests of their operations.

use http::{
    HeaderMap, HeaderName,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
    request::Parts,
};

use super::config::IdempotencyConfig;
use crate::{
    head::RequestHead,
    identity::{Client, Digest, Digester, MissingIdentity},
    key_value::RecordKey,
    refusal::{Reason, Refusal},
};

/// Greatest length of a key, in bytes.
const LONGEST: usize = 255;

/// Reads the key of a request: a quoted string of RFC 9651, or visible characters. `None` if there is none.
pub(super) fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let text = value.as_bytes().trim_ascii();
    let key = match text {
        [b'"', quoted @ .., b'"'] => unescaped(quoted).ok_or(())?,
        _ if text.iter().all(|byte| (b'!'..=b'~').contains(byte) && *byte != b'"') => text.to_vec(),
        _ => return Err(()),
    };
    let is_valid = (1..=LONGEST).contains(&key.len());
    String::from_utf8(key).ok().filter(|_| is_valid).map(Some).ok_or(())
}

/// Returns the content of a quoted string (RFC 9651, section 4.2.5).
fn unescaped(quoted: &[u8]) -> Option<Vec<u8>> {
    let (mut content, mut bytes) = (Vec::with_capacity(quoted.len()), quoted.iter());
    while let Some(byte) = bytes.next() {
        content.push(match byte {
            b'\\' => *bytes.next().filter(|escaped| matches!(escaped, b'\\' | b'"'))?,
            b'"' => return None,
            b' '..=b'~' => *byte,
            _ => return None,
        });
    }
    Some(content)
}

/// Operation that a request asks for.
pub(super) struct Operation {
    pub(super) record: RecordKey,
    pub(super) client: Client,
    pub(super) client_digest: Digest,
    pub(super) route: String,
    pub(super) key: String,
}

impl IdempotencyConfig {
    fn digester(&self) -> &Digester {
        self.secret.as_ref().map_or_else(|| Digester::process(), |secret| secret.digester())
    }

    pub(super) fn refusal(&self, reason: Reason) -> Refusal {
        Refusal::new(reason, self.name.clone())
    }

    /// Returns the operation of a request with this key.
    pub(super) fn operation(&self, head: &RequestHead<'_>, key: String) -> Result<Operation, Refusal> {
        let digester = self.digester();
        let mut client = self.identity.identify(head, digester);
        Client::identified(&mut client);
        let Some(client) = client else {
            return Err(match self.identity.missing() {
                MissingIdentity::PeerAddress => self.refusal(Reason::NoPeerAddress),
                MissingIdentity::Principal => self.refusal(Reason::NoPrincipal),
                MissingIdentity::Credential { challenge } => {
                    self.refusal(Reason::Unauthenticated).with_challenge(challenge)
                }
                _ => self.refusal(Reason::Unidentified),
            });
        };
        let client_digest = match &self.secret {
            None => client.digest(),
            Some(secret) => secret.durable(&client).map_err(|_| self.refusal(Reason::LocalIdentity))?,
        };
        let route = self.route.as_ref().map_or_else(|| head.uri.path().to_owned(), |route| route(head));
        let parts: [&[u8]; 5] = [
            self.name.as_str().as_bytes(),
            &client_digest.to_bytes(),
            head.method.as_str().as_bytes(),
            route.as_bytes(),
            key.as_bytes(),
        ];
        let record = digester.digest("idempotent request", parts).into();
        Ok(Operation { record, client, client_digest, route, key })
    }

    /// Returns the digest of everything that a duplicate must repeat. The host is none of it: a client may retry at another
    /// one.
    pub(super) fn fingerprint(&self, parts: &Parts, body: &[u8]) -> [u8; 16] {
        let query = parts.uri.query();
        let [kind, encoding] = [CONTENT_TYPE, CONTENT_ENCODING].map(|name| parts.headers.get(name));
        let content: [&[u8]; 9] = [
            parts.method.as_str().as_bytes(),
            parts.uri.path().as_bytes(),
            &[u8::from(query.is_some())],
            query.unwrap_or_default().as_bytes(),
            &[u8::from(kind.is_some())],
            kind.map_or(&[], |kind| kind.as_bytes()),
            &[u8::from(encoding.is_some())],
            encoding.map_or(&[], |encoding| encoding.as_bytes()),
            body,
        ];
        self.digester().digest("idempotent content", content).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NAME: HeaderName = HeaderName::from_static("idempotency-key");

    fn of(values: &[&[u8]]) -> Result<Option<String>, ()> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(NAME, HeaderValue::from_bytes(value).unwrap());
        }
        read(&headers, &NAME)
    }

    #[test]
    fn keys_are_quoted_strings_or_visible_characters() {
        assert_eq!(of(&[]), Ok(None));
        for (value, key) in [
            (&b"8e03978e"[..], "8e03978e"),
            (b"\"8e03978e\"", "8e03978e"),
            (b" a ", "a"),
            (b"\"a b\"", "a b"),
            (br#""a\"b\\c""#, "a\"b\\c"),
            (b"a/b;c=d", "a/b;c=d"),
        ] {
            assert_eq!(of(&[value]), Ok(Some(key.to_owned())), "{value:?}");
        }
        let longest = "x".repeat(LONGEST);
        assert_eq!(of(&[longest.as_bytes()]), Ok(Some(longest.clone())));
    }

    #[test]
    fn other_values_are_no_keys() {
        let long = "x".repeat(LONGEST + 1);
        for value in
            [&b""[..], b"\"\"", b"\"", b"a b", b"\"a", b"a\"", b"\"a\"b\"", b"\"\\a\"", b"\"\\\"", b"\xff", b"a\tb"]
        {
            assert_eq!(of(&[value]), Err(()), "{value:?}");
        }
        assert_eq!(of(&[long.as_bytes()]), Err(()));
        assert_eq!(of(&[b"a", b"a"]), Err(()));
    }
}
