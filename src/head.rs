//! The head of a request, borrowed.

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, request};

/// The head of a request, borrowed: what a policy decides by.
///
/// It has the fields of [`http::request::Parts`], by reference. A policy that was shown `Parts` would make the gate take
/// each request apart and put it together again, which costs more than most decisions.
///
/// ```
/// use http::Request;
/// use tollgate::RequestHead;
///
/// let request = Request::get("/search?q=tower").header("x-user", "alice").body("a body").unwrap();
/// let head = RequestHead::of(&request);
/// assert_eq!(head.uri.path(), "/search");
/// assert_eq!(head.headers["x-user"], "alice");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// The version of HTTP.
    pub version: Version,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// What other layers and the server have left, such as the peer's address.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// The head of this request.
    ///
    /// ```
    /// let request = http::Request::new("a body");
    /// assert_eq!(tollgate::RequestHead::of(&request).method, "GET");
    /// ```
    #[must_use]
    #[inline]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl<'a> From<&'a request::Parts> for RequestHead<'a> {
    fn from(parts: &'a request::Parts) -> Self {
        let request::Parts { method, uri, version, headers, extensions, .. } = parts;
        Self { method, uri, version: *version, headers, extensions }
    }
}
