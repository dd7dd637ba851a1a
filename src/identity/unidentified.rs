//! Requests without an identity.

use std::{cell::Cell, sync::LazyLock};

use http::HeaderValue;

use super::{Client, Cohort, Digester};

/// Decision on a request without an identity, set by a layer's `on_unidentified`.
///
/// A layer that sets none decides by the [cause](MissingIdentity).
///
/// ```
/// # use tollgate::{Rate, OnUnidentified, TokenBucketLayer};
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let service = ServiceBuilder::new()
///     .layer(TokenBucketLayer::new(Rate::per_second(5)).on_unidentified(OnUnidentified::Refuse))
///     .service(service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(String::new())) }));
/// let response = service.oneshot(Request::new(String::new())).await.unwrap(); // has no peer address
/// assert_eq!(response.status(), 403);
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnidentified {
    /// All of them are one client, with the usual rate or plan.
    Share,
    /// Refused with 403.
    Refuse,
    /// Admitted without a limit.
    Pass,
}

/// Cause of a request without an identity, as far as the type of the identity shows it.
///
/// ```
/// use tollgate::{ApiKey, Identify, PeerIp, identity::MissingIdentity};
///
/// let key = ApiKey::bearer(|_: &str| None);
/// assert!(matches!(key.missing(), MissingIdentity::Credential { .. }));
/// assert_eq!(key.or(PeerIp::new()).missing(), MissingIdentity::PeerAddress);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingIdentity {
    /// The identity is optional. All requests without it are one client, as under [`OnUnidentified::Share`].
    #[default]
    Optional,
    /// The client sent no credential that the table knows: 401, `UNAUTHENTICATED`.
    ///
    /// A CORS preflight carries no credential either; [`exempt`](crate::TokenBucketLayer::exempt) it.
    Credential {
        /// Value of `WWW-Authenticate` (RFC 9110, section 11.6.1).
        challenge: HeaderValue,
    },
    /// The server inserted no peer address that the identity reads: 500, `INTERNAL`.
    PeerAddress,
    /// No layer further out inserted the extension that the identity reads: 500, `INTERNAL`.
    Principal,
}

impl MissingIdentity {
    /// Returns the cause if both identities of a chain find no client.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Credential { challenge: one }, Self::Credential { challenge: two }) => {
                let both = [one.as_bytes(), two.as_bytes()].join(&b", "[..]);
                Self::Credential { challenge: HeaderValue::try_from(both).unwrap_or(one) }
            }
            (sent @ Self::Credential { .. }, Self::Principal) | (Self::Principal, sent @ Self::Credential { .. }) => {
                sent
            }
            (_, other) => other,
        }
    }
}

thread_local!(static REPORTS_ARE_OFF: Cell<bool> = const { Cell::new(false) });

/// Runs `identify` without the reports that are made once, so that a read does not use them up.
pub(crate) fn without_reports<T>(identify: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            REPORTS_ARE_OFF.set(self.0);
        }
    }
    let restore = Restore(REPORTS_ARE_OFF.replace(true));
    let identified = identify();
    drop(restore);
    identified
}

/// Returns whether the request is identified for a read.
pub(super) fn reports_are_off() -> bool {
    REPORTS_ARE_OFF.get()
}

/// Returns the client that all requests without an identity share.
pub(crate) fn anonymous() -> Client {
    static ANONYMOUS: LazyLock<Client> = LazyLock::new(|| {
        let digest = Digester::process().digest("anonymous", [b""]);
        Client::from_digest(digest).with_name("anonymous").of_cohort(Cohort::VOUCHED) // there is one, and no more
    });
    ANONYMOUS.clone()
}
