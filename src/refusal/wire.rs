//! Detection of the protocol of a request.

use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{CONTENT_TYPE, TE},
};

use super::grpc::GRPC_STATUS;
use crate::head::RequestHead;

/// Protocol of a request, which decides the form of a refusal.
///
/// ```
/// use http::{HeaderValue, Request, Version};
/// use tollgate::{RequestHead, refusal::Wire};
///
/// let call = Request::post("/grpc.health.v1.Health/Check")
///     .version(Version::HTTP_2)
///     .header("content-type", "application/grpc+proto")
///     .body(())
///     .unwrap();
/// let content_type = HeaderValue::from_static("application/grpc+proto");
/// assert_eq!(Wire::of(&RequestHead::of(&call)), Wire::Grpc { content_type });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wire {
    /// Plain HTTP.
    Http,
    /// gRPC or gRPC-Web. Without a message their responses differ only in the content type.
    Grpc {
        /// Content type of the response: the request's own, without parameters.
        content_type: HeaderValue,
    },
}

impl Wire {
    /// Returns the protocol of a request.
    ///
    /// - gRPC is a POST of `application/grpc` over HTTP/2 or later. Over HTTP/1.1 it is one with `te: trailers`, which
    ///   layers that translate gRPC-Web, such as tonic-web's, pass inwards.
    /// - gRPC-Web is a POST of `application/grpc-web` or `application/grpc-web-text` over any version.
    ///
    /// The type ends there or continues with `+` or `;`. Everything else is plain HTTP, because a refusal of gRPC has
    /// the status 200. Any client can send gRPC's content type with a GET, and caches would store the response.
    ///
    /// ```
    /// # use http::Request;
    /// # use tollgate::{RequestHead, refusal::Wire};
    /// let script = Request::get("/app.js").header("content-type", "application/grpc").body(()).unwrap();
    /// assert_eq!(Wire::of(&RequestHead::of(&script)), Wire::Http);
    /// ```
    #[must_use]
    pub fn of(request: &RequestHead<'_>) -> Self {
        if request.method != Method::POST {
            return Self::Http;
        }
        let echoed = |value: &HeaderValue| {
            let (family, suffix) = family(value.as_bytes())?;
            (family != GRPC || carries_trailers(request)).then(|| echo(value.as_bytes(), family, suffix))
        };
        match request.headers.get(CONTENT_TYPE).and_then(echoed) {
            Some(content_type) => Self::Grpc { content_type },
            None => Self::Http,
        }
    }
}

/// Returns whether the client can receive gRPC's trailers.
fn carries_trailers(request: &RequestHead<'_>) -> bool {
    let accepts = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    request.version >= Version::HTTP_2 || request.headers.get(TE).is_some_and(accepts)
}

/// Returns whether a message is of gRPC itself, whose trailers are fields. Those of gRPC-Web are in the body, which is
/// not read.
#[inline]
pub(crate) fn has_grpc_trailers(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    family(value.as_bytes()).is_some_and(|(family, _)| family == GRPC)
}

/// Head of a response of gRPC or gRPC-Web.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrpcHead {
    /// As [`has_grpc_trailers`].
    pub(crate) has_trailers: bool,
    /// Whether it has the status of the call, so that none follows.
    pub(crate) has_status: bool,
}

impl GrpcHead {
    /// Returns `None` for a response that is not gRPC; only one that is is searched for its status.
    #[inline]
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let (family, _) = family(headers.get(CONTENT_TYPE)?.as_bytes())?;
        Some(Self { has_trailers: family == GRPC, has_status: headers.contains_key(GRPC_STATUS) })
    }
}

const GRPC: &str = "application/grpc";

/// Content types of gRPC, a longer one before its own prefix.
const FAMILIES: [&str; 3] = ["application/grpc-web-text", "application/grpc-web", GRPC];

/// Greatest length of a content type that is echoed, in bytes.
const LONGEST: usize = 64;

/// Splits a content type of gRPC into its family and its suffix.
fn family(value: &[u8]) -> Option<(&'static str, &[u8])> {
    FAMILIES.iter().find_map(|family| {
        let (start, rest) = value.split_at_checked(family.len())?;
        let named = start.eq_ignore_ascii_case(family.as_bytes()) && matches!(rest, [] | [b'+' | b';', ..]);
        named.then_some((*family, rest))
    })
}

/// Returns the content type of the response to a gRPC request of the type `value`, which is `family` and `suffix`.
fn echo(value: &[u8], family: &'static str, suffix: &[u8]) -> HeaderValue {
    let end = suffix.iter().position(|byte| *byte == b';').unwrap_or(suffix.len());
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
    let echoed = match &suffix[..end] {
        b"+proto" if family == GRPC => return HeaderValue::from_static("application/grpc+proto"),
        [_, codec @ ..] if family.len() + end <= LONGEST && !codec.is_empty() && codec.iter().all(harmless) => {
            HeaderValue::from_bytes(&value[..family.len() + end]).ok()
        }
        _ => None,
    };
    echoed.unwrap_or(HeaderValue::from_static(family))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Returns the content type of the response to a POST of `content_type` over HTTP/2.
    fn echoed(content_type: &[u8]) -> Option<HeaderValue> {
        let request = Request::post("/").version(Version::HTTP_2).header(CONTENT_TYPE, content_type).body(()).unwrap();
        match Wire::of(&RequestHead::of(&request)) {
            Wire::Grpc { content_type } => Some(content_type),
            Wire::Http => None,
        }
    }

    fn answered(content_type: &str) -> Option<String> {
        echoed(content_type.as_bytes()).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn type_is_grpc_only_if_its_name_ends_there() {
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
    fn long_type_is_not_echoed() {
        let long = format!("application/grpc+{}", "x".repeat(400_000));
        assert_eq!(answered(&long).unwrap(), "application/grpc");
    }

    #[test]
    fn bytes_that_are_not_text_are_never_echoed() {
        assert_eq!(echoed(b"\xff\xfe"), None);
        assert_eq!(echoed(b"application/grpc+\xff").unwrap(), "application/grpc");
    }
}
