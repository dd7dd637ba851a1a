//! The names of the fields that refusals and limits are written in.

use http::{HeaderName, header::RETRY_AFTER};

/// The fields that a browser hides from scripts of another origin unless CORS exposes them.
///
/// Without them a script cannot know when to come back, and a gRPC-Web client does not even learn that it was refused.
/// CORS goes outside the limiter, so that refusals have its fields too.
///
/// ```
/// use tollgate::refusal::EXPOSED_HEADERS;
/// let cors = tower_http::cors::CorsLayer::new().expose_headers(EXPOSED_HEADERS);
/// ```
pub const EXPOSED_HEADERS: [HeaderName; 10] = [
    RETRY_AFTER,
    RATELIMIT,
    RATELIMIT_POLICY,
    X_RATELIMIT_LIMIT,
    X_RATELIMIT_REMAINING,
    X_RATELIMIT_RESET,
    NEAR_LIMITS,
    GRPC_STATUS,
    GRPC_MESSAGE,
    GRPC_STATUS_DETAILS_BIN,
];

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// Of limits that a client has come near to.
pub(crate) const NEAR_LIMITS: HeaderName = HeaderName::from_static("quota-near-limits");
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(super) const GRPC_STATUS_DETAILS_BIN: HeaderName = HeaderName::from_static("grpc-status-details-bin");
pub(super) const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
