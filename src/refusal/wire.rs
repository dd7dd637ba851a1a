//! Which protocol a request speaks.

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

use super::names::GRPC_STATUS;

/// The protocol that a request speaks, which decides how a refusal is said.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
/// use tollgate::refusal::Wire;
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(Wire::of(&headers), Wire::Http);
/// headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
/// assert_eq!(Wire::of(&headers), Wire::Grpc { content_type: HeaderValue::from_static("application/grpc+proto") });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wire {
    /// Plain HTTP.
    Http,
    /// gRPC, or gRPC-Web: they differ in the type of the answer and not in its form, as long as no message follows.
    Grpc {
        /// The type to answer with: the request's own, without parameters.
        content_type: HeaderValue,
    },
}

impl Wire {
    /// The protocol that a request with these fields speaks.
    ///
    /// gRPC is `application/grpc`, `application/grpc-web` or `application/grpc-web-text`, followed by the end, by `+`
    /// or by `;`. Everything else is plain HTTP.
    ///
    /// ```
    /// # use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
    /// # use tollgate::refusal::Wire;
    /// let not_grpc = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpcurl"))]);
    /// assert_eq!(Wire::of(&not_grpc), Wire::Http);
    /// ```
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_TYPE).and_then(|value| echo(value.as_bytes())) {
            Some(content_type) => Self::Grpc { content_type },
            None => Self::Http,
        }
    }
}

/// Whether a message is of gRPC itself, whose trailers are fields: gRPC-Web has them in the body, where nobody looks.
#[inline]
pub(crate) fn has_grpc_trailers(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    family(value.as_bytes()).is_some_and(|(family, _)| family == GRPC)
}

/// Whether a head carries the status of a gRPC or gRPC-Web call, so that no body with it follows.
#[inline]
pub(crate) fn is_grpc_status(headers: &HeaderMap) -> bool {
    let grpc = |value: &HeaderValue| family(value.as_bytes()).is_some();
    headers.get(CONTENT_TYPE).is_some_and(grpc) && headers.contains_key(GRPC_STATUS)
}

const GRPC: &str = "application/grpc";

/// The types that mean gRPC, a longer one before what it begins with.
const FAMILIES: [&str; 3] = ["application/grpc-web-text", "application/grpc-web", GRPC];

/// The longest type that is sent back as it came.
const LONGEST: usize = 64;

/// The family of a type that means gRPC, and what follows it.
fn family(value: &[u8]) -> Option<(&'static str, &[u8])> {
    FAMILIES.iter().find_map(|family| {
        let (start, rest) = value.split_at_checked(family.len())?;
        let named = start.eq_ignore_ascii_case(family.as_bytes()) && matches!(rest, [] | [b'+' | b';', ..]);
        named.then_some((*family, rest))
    })
}

/// The type to answer a gRPC request with; `None` if it is none.
fn echo(value: &[u8]) -> Option<HeaderValue> {
    let (family, suffix) = family(value)?;
    let end = suffix.iter().position(|byte| *byte == b';').unwrap_or(suffix.len());
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
    match &suffix[..end] {
        b"+proto" if family == GRPC => Some(HeaderValue::from_static("application/grpc+proto")),
        [_, codec @ ..] if family.len() + end <= LONGEST && !codec.is_empty() && codec.iter().all(harmless) => {
            HeaderValue::from_bytes(&value[..family.len() + end]).ok()
        }
        _ => Some(HeaderValue::from_static(family)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(content_type: &str) -> Option<String> {
        echo(content_type.as_bytes()).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_type_is_grpc_only_if_the_name_ends_where_it_should() {
        for (came, goes) in [
            ("application/grpc", Some("application/grpc")),
            ("application/grpc+proto", Some("application/grpc+proto")),
            ("application/grpc+json", Some("application/grpc+json")),
            ("application/grpc+x.y-z", Some("application/grpc+x.y-z")),
            ("application/grpc;charset=utf-8", Some("application/grpc")),
            ("application/grpc+proto; a=b", Some("application/grpc+proto")),
            ("Application/GRPC", Some("application/grpc")),
            ("application/grpc+", Some("application/grpc")),
            ("application/grpc-web", Some("application/grpc-web")),
            ("application/grpc-web+proto", Some("application/grpc-web+proto")),
            ("application/grpc-web;q=1", Some("application/grpc-web")),
            ("application/grpc-web-text", Some("application/grpc-web-text")),
            ("application/grpc-web-text+proto", Some("application/grpc-web-text+proto")),
            ("application/grpc+a, text/html", Some("application/grpc")),
            ("application/grpcurl", None),
            ("application/grpc-websocket", None),
            ("application/grpc-web-texts", None),
            ("application/grpc ", None),
            ("application/grp", None),
            ("application/json", None),
            ("text/plain; a=application/grpc", None),
            ("", None),
        ] {
            assert_eq!(answered(came).as_deref(), goes, "{came}");
        }
    }

    #[test]
    fn a_long_type_is_not_sent_back() {
        let long = format!("application/grpc+{}", "x".repeat(400_000));
        assert_eq!(answered(&long).unwrap(), "application/grpc");
    }

    #[test]
    fn bytes_that_are_no_text_are_plain_http_or_dropped() {
        assert_eq!(echo(b"\xff\xfe"), None);
        assert_eq!(echo(b"application/grpc+\xff").unwrap(), "application/grpc");
    }
}
