//! Identities from request extensions, which an authentication layer inserts.

use std::{any::type_name, fmt, sync::Arc};

use http::{Extensions, HeaderValue};

use super::{Client, Digester, Identify, IdentityGuarantees, MissingIdentity, Principal};
use crate::head::RequestHead;

/// Charges the principal in a request extension that your own authentication layer inserts.
///
/// The authentication layer must be further out, so that it runs first. Otherwise no request has the extension, and
/// this layer refuses all of them with a 500 that says so. Where requests without a principal are usual, set
/// `on_unidentified` or add an identity for them, as by [`.or(PeerIp)`](Identify::or).
///
/// ```
/// use std::sync::Arc;
/// use tollgate::{Principal, Digester, Identify, RequestHead, Verified};
///
/// #[derive(Clone)]
/// struct User { name: Arc<str>, paying: bool }
///
/// let who = Verified::from_extension(|user: &User| {
///     Some(Principal::named(user.name.clone()).in_tier(if user.paying { "pro" } else { "free" }))
/// });
/// let request = http::Request::builder().extension(User { name: "alice".into(), paying: true }).body(()).unwrap();
/// let client = who.identify(&RequestHead::of(&request), Digester::process()).unwrap();
/// assert_eq!(client.tier().unwrap().as_str(), "pro");
/// ```
#[derive(Clone, Debug)]
pub struct Verified {
    principal: ExtensionReader<Principal>,
    named_only: bool,
    missing: MissingIdentity,
}

impl Verified {
    /// Charges the principal that `read` finds in the request extension of type `T`.
    ///
    /// [`Principal::unnamed`] is no client here, because there is no credential to identify it by.
    ///
    /// ```
    /// use tollgate::{Principal, Verified};
    /// # struct User { email: String }
    /// let who = Verified::from_extension(|user: &User| Some(Principal::private(user.email.as_str())));
    /// # let _ = who;
    /// ```
    #[must_use]
    pub fn from_extension<T>(read: impl Fn(&T) -> Option<Principal> + Send + Sync + 'static) -> Self
    where
        T: Send + Sync + 'static,
    {
        Self { principal: ExtensionReader::new(read), named_only: false, missing: MissingIdentity::Principal }
    }

    /// Charges the [`Principal`] among the request's extensions, as [`LookupLayer`](crate::identity::LookupLayer) leaves
    /// it.
    #[must_use]
    pub fn principal() -> Self {
        Self::from_extension(|principal: &Principal| Some(principal.clone()))
    }

    /// Says that a request without a principal lacks a credential, so that it is refused with 401.
    pub(super) fn asking(self, challenge: HeaderValue) -> Self {
        Self { missing: MissingIdentity::Credential { challenge }, ..self }
    }

    /// Treats a principal without a public name as no identity, so that all clients are
    /// [`named`](crate::IdentityGuarantees::named).
    #[must_use]
    pub fn named_only(self) -> Self {
        Self { named_only: true, ..self }
    }
}

impl Identify for Verified {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        self.principal.read(request.extensions)?.into_client(self.named_only, None, digester)
    }

    fn guarantees(&self) -> IdentityGuarantees {
        IdentityGuarantees { named: self.named_only, verified: true, personal: true, one_kind: true }
    }

    fn missing(&self) -> MissingIdentity {
        self.missing.clone()
    }
}

type ReadValue<V> = Arc<dyn Fn(&Extensions) -> Option<V> + Send + Sync>;

/// Reads a value from the request extension of one type. `Debug` shows that type.
#[derive(Clone)]
pub(super) struct ExtensionReader<V> {
    read: ReadValue<V>,
    extension: &'static str,
}

impl<V> ExtensionReader<V> {
    pub(super) fn new<T: Send + Sync + 'static>(read: impl Fn(&T) -> Option<V> + Send + Sync + 'static) -> Self {
        let read = move |extensions: &Extensions| read(extensions.get::<T>()?);
        Self { read: Arc::new(read), extension: type_name::<T>() }
    }

    /// Tries `other` if this reader finds no value.
    pub(super) fn or(self, other: Self) -> Self
    where
        V: 'static,
    {
        let read = move |extensions: &Extensions| (self.read)(extensions).or_else(|| (other.read)(extensions));
        Self { read: Arc::new(read), extension: self.extension }
    }

    pub(super) fn read(&self, extensions: &Extensions) -> Option<V> {
        (self.read)(extensions)
    }
}

impl<V> fmt::Debug for ExtensionReader<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension)
    }
}
