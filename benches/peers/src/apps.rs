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
    prepared(route())
}

/// Returns the same app behind a layer.
pub fn behind<L>(layer: L) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Response: IntoResponse, Error: Into<Infallible>> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Future: Send,
{
    prepared(route().layer(layer))
}

fn route() -> Router {
    Router::new().route("/", get(|| async { "ok" }))
}

/// Makes the routes once, as `axum::serve` does; a router without state makes them for each request, and clones its
/// layers for it.
fn prepared(app: Router) -> Router {
    app.with_state(())
}
