//! An axum app of one route, and one behind a layer.

use std::convert::Infallible;

use axum::{
    Router,
    extract::Request,
    response::IntoResponse,
    routing::{Route, get},
};
use tower::{Layer, Service};

/// Returns an app that answers with two bytes.
pub fn app() -> Router {
    Router::new().route("/", get(|| async { "ok" }))
}

/// Returns the same app behind a layer.
pub fn behind<L>(layer: L) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Response: IntoResponse, Error: Into<Infallible>> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Future: Send,
{
    app().layer(layer)
}
