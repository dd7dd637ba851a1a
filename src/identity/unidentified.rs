//! Requests that name no client.

use std::sync::LazyLock;

use super::client::{Client, Digester};

/// Decision on a request without an identity.
///
/// ```
/// # use tollgate::{Rate, OnUnidentified, TokenBucketLayer};
/// let layer = TokenBucketLayer::new(Rate::per_second(5)).on_unidentified(OnUnidentified::Refuse);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnidentified {
    /// All of them are one client, with the usual rate or plan: the default, because it neither opens nor shuts the door.
    #[default]
    Share,
    /// Refused with 403.
    Refuse,
    /// Let through without a limit.
    Pass,
}

/// The client of all requests that name none.
pub(crate) fn anonymous() -> Client {
    static ANONYMOUS: LazyLock<Client> =
        LazyLock::new(|| Client::from_digest(Digester::process().digest("anonymous", [b""])).with_name("anonymous"));
    ANONYMOUS.clone()
}
