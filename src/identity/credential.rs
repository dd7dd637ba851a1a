//! Where in a request's head a credential stands.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::error::ConfigError;

/// How many bytes a credential may have unless something else is said.
pub(super) const LONGEST: usize = 4_096;

/// How many bytes of cookies are searched.
const MOST_COOKIES: usize = 32_768;

/// Where a credential stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A field of its own.
    Header(HeaderName),
    /// `Authorization: Bearer`.
    Bearer,
    /// A cookie of this name.
    Cookie(Box<str>),
}

impl Place {
    pub(super) fn try_header(name: &str) -> Result<Self, ConfigError> {
        field_name(name).map(Self::Header)
    }

    pub(super) fn try_cookie(name: &str) -> Result<Self, ConfigError> {
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(invalid("cookie name", name));
        }
        Ok(Self::Cookie(name.into()))
    }

    /// The one credential that stands there: none if it is empty, too long, or there twice.
    pub(super) fn read<'a>(&self, headers: &'a HeaderMap, longest: usize) -> Option<&'a [u8]> {
        let credential = match self {
            Self::Header(name) => only(name, headers, longest)?,
            Self::Bearer => {
                let value = only(&header::AUTHORIZATION, headers, longest.saturating_add(64))?;
                let (scheme, token) = value.split_at_checked(7)?;
                let token = token.trim_ascii();
                let one_word = !token.iter().any(u8::is_ascii_whitespace);
                (scheme.eq_ignore_ascii_case(b"bearer ") && one_word).then_some(token)?
            }
            Self::Cookie(name) => cookie(name.as_bytes(), headers)?,
        };
        (1..=longest).contains(&credential.len()).then_some(credential)
    }

    /// The kind of place and its name, which tell equal values in different places apart.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Header(name) => [b"header", name.as_str().as_bytes()],
            Self::Bearer => [b"bearer", b""],
            Self::Cookie(name) => [b"cookie", name.as_bytes()],
        }
    }
}

/// A checked field name.
pub(super) fn field_name(name: &str) -> Result<HeaderName, ConfigError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("field name", name))
}

fn invalid(what: &str, name: &str) -> ConfigError {
    ConfigError::quoted(what, "be a token of RFC 9110", name)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The value of a field that is there once and not too long.
fn only<'a>(name: &HeaderName, headers: &'a HeaderMap, longest: usize) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let value = lines.next()?;
    (lines.next().is_none() && value.len() <= longest).then(|| value.trim_ascii())
}

/// The value of the cookie that is there once; over HTTP/2 cookies may come in several lines (RFC 9113, 8.2.3).
fn cookie<'a>(name: &[u8], headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let mut found = None;
    let mut searched = 0_usize;
    for line in headers.get_all(header::COOKIE) {
        searched += line.len() + 1;
        if searched > MOST_COOKIES {
            return None;
        }
        for pair in line.as_bytes().split(|byte| *byte == b';') {
            let value = pair.trim_ascii().strip_prefix(name).and_then(|rest| rest.strip_prefix(b"="));
            if let Some(value) = value
                && found.replace(value).is_some()
            {
                return None;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(place: &Place, lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        place.read(&headers, 8).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_header_counts_when_it_is_there_once() {
        let place = Place::try_header("X-Key").unwrap();
        assert_eq!(read(&place, &[("x-key", "abc")]).as_deref(), Some("abc"));
        assert_eq!(read(&place, &[("x-key", "12345678")]).as_deref(), Some("12345678"));
        for lines in [&[][..], &[("x-key", "")], &[("x-key", "123456789")], &[("x-key", "a"), ("x-key", "a")]] {
            assert_eq!(read(&place, lines), None, "{lines:?}");
        }
    }

    #[test]
    fn a_bearer_token_is_one_word_after_its_scheme() {
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
            assert_eq!(read(&Place::Bearer, &[("authorization", value)]).as_deref(), token, "{value}");
        }
        assert_eq!(read(&Place::Bearer, &[("authorization", "Bearer a"), ("authorization", "Bearer a")]), None);
    }

    #[test]
    fn a_cookie_is_found_in_any_line_and_once() {
        let place = Place::try_cookie("sid").unwrap();
        assert_eq!(read(&place, &[("cookie", "a=b; sid=abc;c=d")]).as_deref(), Some("abc"));
        assert_eq!(read(&place, &[("cookie", "a=b"), ("cookie", "sid=a=b=")]).as_deref(), Some("a=b="));
        for lines in [
            &[("cookie", "sid=a; sid=b")][..],
            &[("cookie", "sid=a"), ("cookie", "sid=a")],
            &[("cookie", "xsid=a; SID=b; sid")],
            &[("cookie", "sid=")],
        ] {
            assert_eq!(read(&place, lines), None, "{lines:?}");
        }
        let flood = format!("sid=a; x={}", "x".repeat(MOST_COOKIES));
        assert_eq!(read(&place, &[("cookie", &flood)]), None);
    }
}
