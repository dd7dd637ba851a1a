//! Borrowed heads of requests and responses.

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request,
    response,
};

/// Head of a request, borrowed: the input of a policy.
///
/// It has the fields of [`http::request::Parts`], by reference. To pass `Parts` to a policy, the gate would have to
/// take each request apart and put it together again, which costs more than most decisions.
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
    /// Method.
    pub method: &'a Method,
    /// Target.
    pub uri: &'a Uri,
    /// Version of HTTP.
    pub version: Version,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// Values that the server and outer layers inserted, such as the peer's address.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// Borrows the head of a request.
    #[must_use]
    #[inline]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let (method, uri, version) = (request.method(), request.uri(), request.version());
        Self { method, uri, version, headers: request.headers(), extensions: request.extensions() }
    }
}

impl<'a> From<&'a request::Parts> for RequestHead<'a> {
    fn from(parts: &'a request::Parts) -> Self {
        let request::Parts { method, uri, version, headers, extensions, .. } = parts;
        Self { method, uri, version: *version, headers, extensions }
    }
}

/// Head of a response, borrowed: the input of a [classifier](crate::Classify).
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
    /// Status.
    pub status: StatusCode,
    /// Version of HTTP.
    pub version: Version,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// Values that the handler and inner layers inserted.
    pub extensions: &'a Extensions,
}

impl<'a> ResponseHead<'a> {
    /// Borrows the head of a response.
    #[must_use]
    #[inline]
    pub fn of<B>(response: &'a Response<B>) -> Self {
        let (status, version) = (response.status(), response.version());
        Self { status, version, headers: response.headers(), extensions: response.extensions() }
    }
}

impl<'a> From<&'a response::Parts> for ResponseHead<'a> {
    fn from(parts: &'a response::Parts) -> Self {
        let response::Parts { status, version, headers, extensions, .. } = parts;
        Self { status: *status, version: *version, headers, extensions }
    }
}

/// Returns the value of a field that is present once.
///
/// A lookup suffices if no field of the map is repeated, as usual; it costs less than to walk along the values of one.
#[inline]
pub(crate) fn only_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    if headers.len() == headers.keys_len() { headers.get(name) } else { only(headers.get_all(name)) }
}

/// Returns the only one of several values, such as the line of a field that must be present once.
pub(crate) fn only<T>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut values = values.into_iter();
    let only = values.next()?;
    values.next().is_none().then_some(only)
}
