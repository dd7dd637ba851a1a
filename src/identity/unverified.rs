//! Identities that a request claims.

use super::{
    Client, Digester, Identify, IdentityGuarantees, Name,
    credential::{Credential, Location, token},
    digester::DigestPrefix,
    name::is_public,
};
use crate::{error::ConfigError, head::RequestHead};

/// Charges the identity that a request claims. **This crate does not check the claim.**
///
/// It is for services behind a component that has authenticated every request. Examples are an authenticating proxy
/// that sets or removes the field, and an outer layer that refuses an unknown token. Anywhere else a client obtains a
/// new limit with each value that it makes up, and another client's limit with that client's value.
///
/// A value that is empty, longer than 4 KiB or sent twice is no identity. Equal values in different locations are
/// different clients.
///
/// ```
/// use tollgate::{Digester, Identify, RequestHead, Unverified};
///
/// let user = Unverified::header("x-authenticated-user").public();
/// let request = http::Request::builder().header("x-authenticated-user", "alice").body(()).unwrap();
/// let client = user.identify(&RequestHead::of(&request), Digester::process()).unwrap();
/// assert_eq!(client.name().unwrap().to_string(), "alice");
/// ```
#[derive(Clone, Debug)]
pub struct Unverified {
    credential: Credential,
    public: bool,
    prefix: DigestPrefix,
}

impl Unverified {
    /// Takes the value of the field `name`.
    ///
    /// # Panics
    /// If `name` is not a field name.
    #[must_use]
    #[track_caller]
    pub fn header(name: impl AsRef<str>) -> Self {
        ConfigError::or_panic(Self::try_header(name))
    }

    /// [`header`](Self::header) for input at run time.
    ///
    /// # Errors
    /// If `name` is not a field name.
    pub fn try_header(name: impl AsRef<str>) -> Result<Self, ConfigError> {
        token("field name", name.as_ref()).map(|name| Self::new(Location::Header(name)))
    }

    /// Takes the token of `Authorization: Bearer`.
    #[must_use]
    pub const fn bearer() -> Self {
        Self::new(Location::Bearer)
    }

    /// Takes the value of the cookie `name`. At most 32 KiB of cookies are searched.
    ///
    /// # Panics
    /// If `name` is not a cookie name.
    #[must_use]
    #[track_caller]
    pub fn cookie(name: impl AsRef<str>) -> Self {
        ConfigError::or_panic(Self::try_cookie(name))
    }

    /// [`cookie`](Self::cookie) for input at run time.
    ///
    /// # Errors
    /// If `name` is not a cookie name.
    ///
    /// ```
    /// let error = tollgate::Unverified::try_cookie("s id").unwrap_err();
    /// assert_eq!(error.to_string(), "cookie name must be a token of RFC 9110, got \"s id\"");
    /// ```
    pub fn try_cookie(name: impl AsRef<str>) -> Result<Self, ConfigError> {
        let name = name.as_ref();
        token("cookie name", name).map(|_| Self::new(Location::Cookie(name.into())))
    }

    /// Sets the greatest length of a value, in bytes; the default is 4,096.
    #[must_use]
    pub const fn at_most(mut self, bytes: usize) -> Self {
        self.credential.longest = bytes;
        self
    }

    /// Treats the value as a public name, which may be shown, logged and billed.
    ///
    /// A value that is not text, or contains a control character or an invisible one, is then no identity.
    ///
    /// ```
    /// use tollgate::{Identify, Unverified};
    /// assert!(Unverified::header("x-authenticated-user").public().guarantees().named);
    /// ```
    #[must_use]
    pub const fn public(mut self) -> Self {
        self.public = true;
        self
    }

    const fn new(location: Location) -> Self {
        Self { credential: Credential::at(location), public: false, prefix: DigestPrefix::new() }
    }
}

impl Identify for Unverified {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let value = self.credential.read(request.headers)?;
        let [kind, name] = self.credential.parts();
        let digest = self.prefix.digest(digester, "unverified", [kind, name, value]);
        let client = Client::from_digest(digest);
        if !self.public {
            return Some(client);
        }
        let text = std::str::from_utf8(value).ok()?;
        is_public(text).then(|| client.with_name(Name::from(text)))
    }

    fn guarantees(&self) -> IdentityGuarantees {
        IdentityGuarantees { named: self.public, verified: false, personal: false, one_kind: true }
    }
}
