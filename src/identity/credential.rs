//! Credentials in a request's head: API keys, bearer tokens and cookies.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    error::ConfigError,
    head::{only, only_value},
};

/// Default for the greatest length of a credential, in bytes.
const DEFAULT_LONGEST: usize = 4_096;

/// Greatest size of all cookies of a request that are searched, in bytes.
const MAX_COOKIE_BYTES: usize = 32_768;

/// A credential that requests carry in one location.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    location: Location,
    /// Greatest length, in bytes.
    pub(super) longest: usize,
}

/// Location of a credential in a request's head.
#[derive(Clone, Debug)]
pub(super) enum Location {
    /// A field of its own.
    Header(HeaderName),
    /// `Authorization: Bearer`.
    Bearer,
    /// A cookie of this name.
    Cookie(Box<str>),
}

impl Credential {
    pub(super) const fn at(location: Location) -> Self {
        Self { location, longest: DEFAULT_LONGEST }
    }

    /// Returns the credential, or `None` if it is empty, too long or present twice.
    pub(super) fn read<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let credential = match &self.location {
            Location::Header(name) => only_line(name, headers, self.longest)?,
            Location::Bearer => {
                let value = only_line(&header::AUTHORIZATION, headers, self.longest.saturating_add(64))?;
                let (scheme, token) = value.split_at_checked(7)?;
                let token = token.trim_ascii();
                let one_word = !token.iter().any(u8::is_ascii_whitespace);
                (scheme.eq_ignore_ascii_case(b"bearer ") && one_word).then_some(token)?
            }
            Location::Cookie(name) => cookie(name.as_bytes(), headers)?,
        };
        (1..=self.longest).contains(&credential.len()).then_some(credential)
    }

    /// Returns the value of `WWW-Authenticate` that asks for the credential.
    ///
    /// `Bearer` is of RFC 6750, section 3. No registered scheme has credentials in other fields, so that the others are
    /// for people.
    pub(super) fn challenge(&self) -> HeaderValue {
        let challenge = match &self.location {
            Location::Bearer => return HeaderValue::from_static("Bearer realm=\"api\""),
            Location::Header(name) => format!("ApiKey realm=\"api\", header=\"{name}\""),
            Location::Cookie(name) => format!("Cookie realm=\"api\", cookie-name=\"{name}\""),
        };
        HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("ApiKey"))
    }

    /// Returns the type of the location and its name, which distinguish equal values in different locations.
    #[inline]
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        match &self.location {
            Location::Header(name) => [b"header", name.as_str().as_bytes()],
            Location::Bearer => [b"bearer", b""],
            Location::Cookie(name) => [b"cookie", name.as_bytes()],
        }
    }
}

/// Checks a name that must be a token of RFC 9110. Names of fields and of cookies have the same grammar.
pub(super) fn token(what: &str, name: &str) -> Result<HeaderName, ConfigError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| ConfigError::quoted(what, "be a token of RFC 9110", name))
}

/// Returns the value of a field that is present once and not too long.
#[inline]
fn only_line<'a>(name: &HeaderName, headers: &'a HeaderMap, longest: usize) -> Option<&'a [u8]> {
    only_value(headers, name).filter(|value| value.len() <= longest).map(|value| value.as_bytes().trim_ascii())
}

/// Returns the value of a cookie that is present once. Over HTTP/2 cookies may come in several lines (RFC 9113, section
/// 8.2.3).
fn cookie<'a>(name: &[u8], headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let lines = headers.get_all(header::COOKIE);
    if lines.iter().map(|line| line.len() + 1).sum::<usize>() > MAX_COOKIE_BYTES {
        return None;
    }
    let pairs = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    only(pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(credential: &Credential, lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let credential = Credential { longest: 8, ..credential.clone() };
        credential.read(&headers).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn header_is_read_if_present_once() {
        let key = Credential::at(Location::Header(HeaderName::from_static("x-key")));
        assert_eq!(read(&key, &[("x-key", "abc")]).as_deref(), Some("abc"));
        assert_eq!(read(&key, &[("x-key", "12345678")]).as_deref(), Some("12345678"));
        for lines in [&[][..], &[("x-key", "")], &[("x-key", "123456789")], &[("x-key", "a"), ("x-key", "a")]] {
            assert_eq!(read(&key, lines), None, "{lines:?}");
        }
    }

    #[test]
    fn bearer_token_is_one_word_after_its_scheme() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bEARER   abc ", Some("abc")),
            ("Bearer 12345678", Some("12345678")),
            ("Bearer 123456789", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer a b", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("Bäärer ab", None),
        ] {
            assert_eq!(
                read(&Credential::at(Location::Bearer), &[("authorization", value)]).as_deref(),
                token,
                "{value}"
            );
        }
        assert_eq!(
            read(&Credential::at(Location::Bearer), &[("authorization", "Bearer a"), ("authorization", "Bearer a")]),
            None
        );
    }

    #[test]
    fn cookie_is_found_in_any_line_if_present_once() {
        let cookie = Credential::at(Location::Cookie("sid".into()));
        assert_eq!(read(&cookie, &[("cookie", "a=b; sid=abc;c=d")]).as_deref(), Some("abc"));
        assert_eq!(read(&cookie, &[("cookie", "a=b"), ("cookie", "sid=a=b=")]).as_deref(), Some("a=b="));
        for lines in [
            &[("cookie", "sid=a; sid=b")][..],
            &[("cookie", "sid=a"), ("cookie", "sid=a")],
            &[("cookie", "xsid=a; SID=b; sid")],
            &[("cookie", "sid=")],
        ] {
            assert_eq!(read(&cookie, lines), None, "{lines:?}");
        }
        let flood = format!("sid=a; x={}", "x".repeat(MAX_COOKIE_BYTES));
        assert_eq!(read(&cookie, &[("cookie", &flood)]), None);
    }
}
