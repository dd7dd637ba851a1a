//! Keys that your own table knows.

use std::{fmt, sync::Arc};

use super::client::{Client, Digester};
use super::{
    Identify, IdentityGuarantees, Lookup,
    credential::{LONGEST, Place},
};
use crate::{error::ConfigError, head::RequestHead};

/// Charges the account whose key a request carries, if your table knows the key.
///
/// A key that is unknown, empty, longer than 4 KiB, sent twice or not text is **no identity**: with
/// [`.or(PeerIp)`](Identify::or) its sender is charged under its address, so that guessing keys gains nothing. Keys are
/// neither kept nor shown.
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
    place: Place,
    table: Arc<dyn Lookup>,
    longest: usize,
    named_only: bool,
}

impl ApiKey {
    /// The key in the field `name`, looked up in `table`.
    ///
    /// # Panics
    /// When `name` is no field name.
    ///
    /// ```
    /// use tollgate::{Principal, ApiKey};
    /// let key = ApiKey::header("x-api-key", |key: &str| (key == "k-7f3a").then(|| Principal::named("alice")));
    /// # let _ = key;
    /// ```
    #[must_use]
    pub fn header(name: impl AsRef<str>, table: impl Lookup) -> Self {
        Self::try_header(name, table).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// [`header`](Self::header) for input at run time.
    ///
    /// # Errors
    /// When `name` is no field name.
    ///
    /// ```
    /// let error = tollgate::ApiKey::try_header("x api key", |_: &str| None).unwrap_err();
    /// assert_eq!(error.to_string(), "field name must be a token of RFC 9110, got \"x api key\"");
    /// ```
    pub fn try_header(name: impl AsRef<str>, table: impl Lookup) -> Result<Self, ConfigError> {
        Place::try_header(name.as_ref()).map(|place| Self::at(place, table))
    }

    /// The token of `Authorization: Bearer`, looked up in `table`.
    ///
    /// ```
    /// use tollgate::{Principal, ApiKey};
    /// let key = ApiKey::bearer(|token: &str| (token == "k-7f3a").then(|| Principal::named("alice")));
    /// # let _ = key;
    /// ```
    #[must_use]
    pub fn bearer(table: impl Lookup) -> Self {
        Self::at(Place::Bearer, table)
    }

    /// The value of the cookie `name`, looked up in `table`; 32 KiB of cookies are searched.
    ///
    /// # Panics
    /// When `name` is no cookie name.
    ///
    /// ```
    /// use tollgate::{Principal, ApiKey};
    /// let key = ApiKey::cookie("sid", |sid: &str| (sid == "s-7f3a").then(|| Principal::named("alice")));
    /// # let _ = key;
    /// ```
    #[must_use]
    pub fn cookie(name: impl AsRef<str>, table: impl Lookup) -> Self {
        Self::try_cookie(name, table).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// [`cookie`](Self::cookie) for input at run time.
    ///
    /// # Errors
    /// When `name` is no cookie name.
    ///
    /// ```
    /// let error = tollgate::ApiKey::try_cookie("s=id", |_: &str| None).unwrap_err();
    /// assert_eq!(error.to_string(), "cookie name must be a token of RFC 9110, got \"s=id\"");
    /// ```
    pub fn try_cookie(name: impl AsRef<str>, table: impl Lookup) -> Result<Self, ConfigError> {
        Place::try_cookie(name.as_ref()).map(|place| Self::at(place, table))
    }

    /// Looks up keys of at most `bytes` bytes: 4,096 unless said otherwise.
    ///
    /// ```
    /// let key = tollgate::ApiKey::bearer(|_: &str| None).at_most(64);
    /// # let _ = key;
    /// ```
    #[must_use]
    pub fn at_most(self, bytes: usize) -> Self {
        Self { longest: bytes, ..self }
    }

    /// Takes an account without a public name for no identity, so that all clients are
    /// [`named`](crate::IdentityGuarantees::named).
    ///
    /// A hash map of named accounts does not need it.
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

    fn at(place: Place, table: impl Lookup) -> Self {
        Self { place, table: Arc::new(table), longest: LONGEST, named_only: false }
    }
}

impl Identify for ApiKey {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let key = self.place.read(request.headers, self.longest)?;
        let account = self.table.look_up(std::str::from_utf8(key).ok()?)?;
        if self.named_only && !account.is_named() {
            return None;
        }
        account.into_client(Some(key), digester)
    }

    fn guarantees(&self) -> IdentityGuarantees {
        IdentityGuarantees { named: self.named_only || self.table.is_all_named(), verified: true }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("place", &self.place).field("longest", &self.longest).finish_non_exhaustive()
    }
}
