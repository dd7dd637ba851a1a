//! Refusals as responses of axum's handlers (feature `axum`).

use axum_core::{
    body::Body,
    response::{IntoResponse, Response},
};

use crate::{
    circuit_breaker::CallError,
    quota::JobError,
    refusal::{Refusal, respond},
    time::Clock,
};

/// The response that a layer gives over plain HTTP: a problem document with `Retry-After`, `Cache-Control: no-store` and
/// the rate limit fields, and the refusal in its extensions.
///
/// Layers around the handler see a refusal, not a failure: breakers do not judge the response, and quotas refund a
/// request for which the handler [recorded](crate::Charge#refusals-that-the-handler-passes-on) nothing. A refusal by a
/// layer of an [outbound](Refusal::is_outbound) client is a response like any other to them.
///
/// A handler does not know the caller's protocol, so that a gRPC client receives a problem document too. For gRPC leave
/// the decision to a layer, or return a `tonic::Status`.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use tollgate::{Client, Plan, QuotaLayer, Quotas, Refusal};
///
/// async fn search(Extension(quotas): Extension<Quotas>) -> Result<&'static str, Refusal> {
///     quotas.charge(&Client::named("alice"), ("queries", 20)).await?; // known only here
///     Ok("rows")
/// }
///
/// let quotas = QuotaLayer::new(Plan::standard()).handle();
/// let app: Router = Router::new().route("/search", get(search)).layer(Extension(quotas));
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let decided_at =
            self.resets_at().zip(self.retry_after()).map(|(resets_at, wait)| resets_at.saturating_sub(wait));
        respond(self, || decided_at.unwrap_or_else(|| Clock::system().wall())).map(Body::from)
    }
}

/// The response of the refusal, or of the inner error.
///
/// ```
/// use axum::http::StatusCode;
/// use tollgate::{CallError, CircuitBreaker};
///
/// async fn item(inventory: CircuitBreaker) -> Result<String, CallError<StatusCode>> {
///     inventory.call(async { Err(StatusCode::BAD_GATEWAY) }).await // 502, and 503 once the circuit is open
/// }
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<E: IntoResponse> IntoResponse for CallError<E> {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Inner(error) => error.into_response(),
        }
    }
}

/// The response of the refusal, or of the work's error.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<E: IntoResponse> IntoResponse for JobError<E> {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Failed(error) => error.into_response(),
        }
    }
}
