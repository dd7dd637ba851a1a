//! The spelling of a host by which it has a circuit of its own.

use http::{Uri, header::HOST};
use smallvec::SmallVec;

use crate::{
    head::RequestHead,
    identity::{Digest, Digester},
};

/// Longest name of a host, with a port (RFC 1035, section 2.3.4).
const LONGEST: usize = 255 + ":65535".len();

/// A host and its port in one spelling: lower case, no final dot, and the port of the scheme where no other is given.
/// Without a scheme and a port it is the host alone.
pub(crate) struct HostName(SmallVec<[u8; 64]>);

impl HostName {
    /// Returns the requested host: that of the target, else that of the `Host` field.
    pub(crate) fn of_request(request: &RequestHead<'_>) -> Option<Self> {
        if request.uri.authority().is_some() {
            return Self::of_uri(request.uri);
        }
        let field = request.headers.get(HOST)?.to_str().ok()?;
        let field = field.rsplit_once('@').map_or(field, |(_user, host)| host);
        match field.rsplit_once(':') {
            Some((host, "")) => Self::new(host, None),
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Self::new(host, Some(port.parse().ok()?))
            }
            _ => Self::new(field, None), // without a port, such as an IPv6 address in brackets
        }
    }

    /// Returns the host of a URI.
    pub(crate) fn of_uri(uri: &Uri) -> Option<Self> {
        let default = match uri.scheme_str() {
            Some("http" | "ws") => Some(80),
            Some("https" | "wss") => Some(443),
            _ => None,
        };
        Self::new(uri.host()?, uri.port_u16().or(default))
    }

    fn new(host: &str, port: Option<u16>) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut text = SmallVec::from_slice(host.as_bytes());
        text.make_ascii_lowercase();
        if let Some(port) = port {
            text.push(b':');
            text.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        (!host.is_empty() && text.len() <= LONGEST).then_some(Self(text))
    }

    pub(crate) fn key(&self) -> Digest {
        Digester::process().digest("host", [&*self.0])
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
