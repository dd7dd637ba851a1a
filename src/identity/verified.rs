//! What an authentication layer found out.

use std::{any::type_name, fmt, sync::Arc};

use http::Extensions;

use super::client::{Client, Digester};
use super::{Identify, IdentityGuarantees, Principal, Reader};
use crate::head::RequestHead;

/// Charges the account in a request extension that your own authentication layer has put there.
///
/// The authentication layer has to be further out, so that it runs first. Where the extension is missing nobody is
/// identified.
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
#[derive(Clone)]
pub struct Verified {
    read: Reader<Principal>,
    extension: &'static str,
    named_only: bool,
}

impl Verified {
    /// The account that `read` finds in the request extension of type `T`.
    ///
    /// [`Principal::unnamed`] is no client here: there is no credential that could stand for it.
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
        let read = move |extensions: &Extensions| read(extensions.get::<T>()?);
        Self { read: Arc::new(read), extension: type_name::<T>(), named_only: false }
    }

    /// Takes an account without a public name for no identity, so that all clients are
    /// [`named`](crate::IdentityGuarantees::named).
    ///
    /// ```
    /// use tollgate::{Principal, Identify, Verified};
    /// let who = Verified::from_extension(|name: &String| Some(Principal::named(name.as_str()))).named_only();
    /// assert!(who.guarantees().named);
    /// ```
    #[must_use]
    pub fn named_only(self) -> Self {
        Self { named_only: true, ..self }
    }
}

impl Identify for Verified {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let account = (self.read)(request.extensions)?;
        if self.named_only && !account.is_named() {
            return None;
        }
        account.into_client(None, digester)
    }

    fn guarantees(&self) -> IdentityGuarantees {
        IdentityGuarantees { named: self.named_only, verified: true }
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("extension", &self.extension).finish_non_exhaustive()
    }
}
