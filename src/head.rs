//! The heads of requests and responses, borrowed.

use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request, response};

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

/// The head of a response, borrowed: what a [classifier](crate::Classify) judges by.
///
/// It has the fields of [`http::response::Parts`], by reference, for the same reason as [`RequestHead`].
///
/// ```
/// use http::Response;
/// use tollgate::ResponseHead;
///
/// let response = Response::builder().status(503).header("x-degraded", "1").body("a body").unwrap();
/// let head = ResponseHead::of(&response);
/// assert_eq!(head.status, 503);
/// assert_eq!(head.headers["x-degraded"], "1");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResponseHead<'a> {
    /// The status.
    pub status: StatusCode,
    /// The version of HTTP.
    pub version: Version,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// What layers further in and the handler have left.
    pub extensions: &'a Extensions,
}

impl<'a> ResponseHead<'a> {
    /// The head of this response.
    ///
    /// ```
    /// let response = http::Response::new("a body");
    /// assert_eq!(tollgate::ResponseHead::of(&response).status, 200);
    /// ```
    #[must_use]
    #[inline]
    pub fn of<B>(response: &'a Response<B>) -> Self {
        Self {
            status: response.status(),
            version: response.version(),
            headers: response.headers(),
            extensions: response.extensions(),
        }
    }
}

impl<'a> From<&'a response::Parts> for ResponseHead<'a> {
    fn from(parts: &'a response::Parts) -> Self {
        let response::Parts { status, version, headers, extensions, .. } = parts;
        Self { status: *status, version: *version, headers, extensions }
    }
}
