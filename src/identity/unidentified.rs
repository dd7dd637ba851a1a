//! Requests without an identity.

use std::sync::LazyLock;

use super::{Client, Digester};

/// Decision on a request without an identity.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnidentified {
    /// All of them are one client, with the usual rate or plan: the default, because it neither admits nor refuses
    /// every such request.
    #[default]
    Share,
    /// Refused with 403.
    Refuse,
    /// Admitted without a limit.
    Pass,
}

/// Returns the client that all requests without an identity share.
pub(crate) fn anonymous() -> Client {
    static ANONYMOUS: LazyLock<Client> =
        LazyLock::new(|| Client::from_digest(Digester::process().digest("anonymous", [b""])).with_name("anonymous"));
    ANONYMOUS.clone()
}
