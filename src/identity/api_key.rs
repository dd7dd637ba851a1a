//! API keys, looked up in your own table.

use std::{fmt, sync::Arc};

use super::{
    Client, Digester, Identify, IdentityGuarantees, Lookup, MissingIdentity,
    credential::{Credential, Location, token},
};
use crate::{error::ConfigError, head::RequestHead};

/// Charges the principal whose key a request carries, if your table has the key.
///
/// A key that is unknown, empty, longer than 4 KiB, sent twice or not text is **no identity**. With
/// [`.or(PeerIp)`](Identify::or) its sender is charged under its address, so that guessing keys gains nothing. Alone, it
/// is refused with 401. Keys are neither stored nor shown.
///
/// # CORS
/// A preflight carries no key: exempt it, as by `.exempt(|request| request.method == http::Method::OPTIONS)`.
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use tollgate::{Principal, ApiKey, Identify, PeerIp};
///
/// let keys = Arc::new(HashMap::from([
///     ("k-7f3a".to_owned(), Principal::named("alice").in_tier("pro")),
///     ("k-91cc".to_owned(), Principal::named("alice").in_tier("pro")), // the same limits as her other key
/// ]));
/// let who = ApiKey::header("x-api-key", keys.clone()).or(ApiKey::bearer(keys)).or(PeerIp::new());
/// # let _ = who;
/// ```
#[derive(Clone)]
pub struct ApiKey {
    credential: Credential,
    table: Arc<dyn Lookup>,
    named_only: bool,
}

impl ApiKey {
    /// Looks up the value of the field `name` in `table`.
    ///
    /// # Panics
    /// If `name` is not a field name.
    ///
    /// ```
    /// use tollgate::{Principal, ApiKey};
    /// let key = ApiKey::header("x-api-key", |key: &str| (key == "k-7f3a").then(|| Principal::named("alice")));
    /// # let _ = key;
    /// ```
    #[must_use]
    #[track_caller]
    pub fn header(name: impl AsRef<str>, table: impl Lookup) -> Self {
        ConfigError::or_panic(Self::try_header(name, table))
    }

    /// [`header`](Self::header) for input at run time.
    ///
    /// # Errors
    /// If `name` is not a field name.
    ///
    /// ```
    /// let error = tollgate::ApiKey::try_header("x api key", |_: &str| None).unwrap_err();
    /// assert_eq!(error.to_string(), "field name must be a token of RFC 9110, got \"x api key\"");
    /// ```
    pub fn try_header(name: impl AsRef<str>, table: impl Lookup) -> Result<Self, ConfigError> {
        token("field name", name.as_ref()).map(|name| Self::new(Location::Header(name), table))
    }

    /// Looks up the token of `Authorization: Bearer` in `table`.
    ///
    /// ```
    /// use tollgate::{Principal, ApiKey};
    /// let key = ApiKey::bearer(|token: &str| (token == "k-7f3a").then(|| Principal::named("alice")));
    /// # let _ = key;
    /// ```
    #[must_use]
    pub fn bearer(table: impl Lookup) -> Self {
        Self::new(Location::Bearer, table)
    }

    /// Looks up the value of the cookie `name` in `table`. At most 32 KiB of cookies are searched.
    ///
    /// # Panics
    /// If `name` is not a cookie name.
    ///
    /// ```
    /// use tollgate::{Principal, ApiKey};
    /// let key = ApiKey::cookie("sid", |sid: &str| (sid == "s-7f3a").then(|| Principal::named("alice")));
    /// # let _ = key;
    /// ```
    #[must_use]
    #[track_caller]
    pub fn cookie(name: impl AsRef<str>, table: impl Lookup) -> Self {
        ConfigError::or_panic(Self::try_cookie(name, table))
    }

    /// [`cookie`](Self::cookie) for input at run time.
    ///
    /// # Errors
    /// If `name` is not a cookie name.
    pub fn try_cookie(name: impl AsRef<str>, table: impl Lookup) -> Result<Self, ConfigError> {
        let name = name.as_ref();
        token("cookie name", name).map(|_| Self::new(Location::Cookie(name.into()), table))
    }

    /// Sets the greatest length of a key, in bytes; the default is 4,096.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.credential.longest = bytes;
        self
    }

    /// Treats a principal without a public name as no identity, so that all clients are
    /// [`named`](crate::IdentityGuarantees::named).
    ///
    /// A hash map of named principals does not need it.
    ///
    /// ```
    /// use tollgate::{Principal, ApiKey, Identify};
    /// let table = |key: &str| (key == "k-7f3a").then(|| Principal::named("alice"));
    /// assert!(!ApiKey::bearer(table).guarantees().named);
    /// assert!(ApiKey::bearer(table).named_only().guarantees().named);
    /// ```
    #[must_use]
    pub fn named_only(self) -> Self {
        Self { named_only: true, ..self }
    }

    fn new(location: Location, table: impl Lookup) -> Self {
        Self { credential: Credential::at(location), table: Arc::new(table), named_only: false }
    }
}

impl Identify for ApiKey {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let key = self.credential.read(request.headers)?;
        let principal = self.table.look_up(std::str::from_utf8(key).ok()?)?;
        principal.into_client(self.named_only, Some(key), digester)
    }

    fn guarantees(&self) -> IdentityGuarantees {
        IdentityGuarantees {
            named: self.named_only || self.table.is_all_named(),
            verified: true,
            personal: true,
            one_kind: true,
        }
    }

    fn missing(&self) -> MissingIdentity {
        MissingIdentity::Credential { challenge: self.credential.challenge() }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("credential", &self.credential).finish_non_exhaustive()
    }
}
