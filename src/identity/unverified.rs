//! What a request says of itself.

use super::client::{Beginning, Client, Digester, Name};
use super::{
    Identify, IdentityGuarantees,
    credential::{LONGEST, Place},
};
use crate::{error::ConfigError, head::RequestHead};

/// Charges whoever a request says it comes from. **Nobody checks it here.**
///
/// It is for services behind something that has authenticated the request already and lets no other through: an
/// authenticating proxy that sets or removes the field, a layer further out that refuses an unknown token. Anywhere
/// else a client takes a new limit with each value that it makes up, and another's limit with the other's value.
///
/// A value that is empty, longer than 4 KiB or sent twice is no identity. Equal values in different places are
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
    place: Place,
    longest: usize,
    public: bool,
    beginning: Beginning,
}

impl Unverified {
    /// The value of the field `name`.
    ///
    /// # Panics
    /// When `name` is no field name.
    ///
    /// ```
    /// let user = tollgate::Unverified::header("x-authenticated-user");
    /// # let _ = user;
    /// ```
    #[must_use]
    pub fn header(name: impl AsRef<str>) -> Self {
        Self::try_header(name).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// [`header`](Self::header) for input at run time.
    ///
    /// # Errors
    /// When `name` is no field name.
    ///
    /// ```
    /// let error = tollgate::Unverified::try_header("").unwrap_err();
    /// assert_eq!(error.to_string(), "field name must be a token of RFC 9110, got \"\"");
    /// ```
    pub fn try_header(name: impl AsRef<str>) -> Result<Self, ConfigError> {
        Place::try_header(name.as_ref()).map(Self::at)
    }

    /// The token of `Authorization: Bearer`.
    ///
    /// ```
    /// let token = tollgate::Unverified::bearer();
    /// # let _ = token;
    /// ```
    #[must_use]
    pub const fn bearer() -> Self {
        Self::at(Place::Bearer)
    }

    /// The value of the cookie `name`; 32 KiB of cookies are searched.
    ///
    /// # Panics
    /// When `name` is no cookie name.
    ///
    /// ```
    /// let session = tollgate::Unverified::cookie("sid");
    /// # let _ = session;
    /// ```
    #[must_use]
    pub fn cookie(name: impl AsRef<str>) -> Self {
        Self::try_cookie(name).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// [`cookie`](Self::cookie) for input at run time.
    ///
    /// # Errors
    /// When `name` is no cookie name.
    ///
    /// ```
    /// let error = tollgate::Unverified::try_cookie("s id").unwrap_err();
    /// assert_eq!(error.to_string(), "cookie name must be a token of RFC 9110, got \"s id\"");
    /// ```
    pub fn try_cookie(name: impl AsRef<str>) -> Result<Self, ConfigError> {
        Place::try_cookie(name.as_ref()).map(Self::at)
    }

    /// Takes values of at most `bytes` bytes: 4,096 unless said otherwise.
    ///
    /// ```
    /// let user = tollgate::Unverified::header("x-authenticated-user").at_most(64);
    /// # let _ = user;
    /// ```
    #[must_use]
    pub const fn at_most(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }

    /// Takes the value for a public name, which may be shown, logged and billed.
    ///
    /// A value that is not text, or holds what ends a line or moves a cursor, is then no identity.
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

    const fn at(place: Place) -> Self {
        Self { place, longest: LONGEST, public: false, beginning: Beginning::new() }
    }
}

impl Identify for Unverified {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let value = self.place.read(request.headers, self.longest)?;
        let digest = self.beginning.digest(digester, "unverified", || self.place.parts(), value);
        let client = Client::from_digest(digest);
        if !self.public {
            return Some(client);
        }
        let text = std::str::from_utf8(value).ok()?;
        text.chars().all(is_plain).then(|| client.with_name(Name::from(text)))
    }

    fn guarantees(&self) -> IdentityGuarantees {
        IdentityGuarantees { named: self.public, verified: false }
    }
}

/// Whether a character neither ends a line nor steers a terminal.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
