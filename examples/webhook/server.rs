//! The HTTP side: layers, handlers, settings.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::net::TcpListener;
use tollgate::{
    ApiKey, Client, Digester, Principal, RequestHead, Secret,
    idempotency::{IdempotencyHandle, IdempotencyLayer, IdempotentExecution, OnRunning},
    key_value::{AfterLease, RecordStore},
};

use crate::shop::Shop;

#[path = "../support/mod.rs"]
pub(crate) mod support;

/// Settings from the environment.
pub(crate) struct Settings {
    pub(crate) place: Place,
    secret: Option<Secret>,
    lease: Duration,
    after_lease: AfterLease,
}

/// Place of payments and records.
pub(crate) enum Place {
    Memory,
    Sqlite(String),
    #[cfg(feature = "postgres")]
    Postgres(String),
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, support::ExampleError> {
        let (file, url) = (support::variable("DB")?, support::variable("DATABASE_URL")?);
        let place = match (file, url) {
            (Some(_), Some(_)) => return Err("set DB or DATABASE_URL, not both".into()),
            (Some(file), None) => Place::Sqlite(file),
            #[cfg(feature = "postgres")]
            (None, Some(url)) => Place::Postgres(url),
            #[cfg(not(feature = "postgres"))]
            (None, Some(_)) => return Err("DATABASE_URL needs --features postgres".into()),
            (None, None) => Place::Memory,
        };
        let lease = support::variable("LEASE_MS")?.unwrap_or_else(|| "30000".into());
        let millis: u64 = lease
            .parse()
            .ok()
            .filter(|millis| *millis > 0)
            .ok_or_else(|| format!("LEASE_MS must be a whole number of milliseconds from 1, got {lease:?}"))?;
        let after_lease = match support::variable("AFTER_LEASE")?.as_deref() {
            None | Some("hold") => AfterLease::Hold,
            Some("rerun") => AfterLease::Rerun,
            Some(other) => return Err(format!("AFTER_LEASE must be hold or rerun, got {other:?}").into()),
        };
        let secret = support::variable("TOLLGATE_SECRET")?.map(|text| text.parse()).transpose();
        let secret = secret.map_err(|error| format!("TOLLGATE_SECRET: {error}"))?;
        if secret.is_none() && !matches!(place, Place::Memory) {
            return Err("a database needs TOLLGATE_SECRET, the same for all its processes: \
                        export TOLLGATE_SECRET=$(openssl rand -hex 16)"
                .into());
        }
        Ok(Self { place, secret, lease: Duration::from_millis(millis), after_lease })
    }

    /// Returns a layer over the store.
    fn layer(&self, who: impl tollgate::Identify, store: &Arc<dyn RecordStore>) -> IdempotencyLayer {
        let layer = match &self.secret {
            Some(secret) => IdempotencyLayer::new(who, Arc::clone(store), secret),
            None => IdempotencyLayer::in_memory(who),
        };
        layer.required().max_body(64 << 10).lease(self.lease)
    }
}

/// Serves until the stop signal; then waits for handlers whose clients are gone.
pub(crate) async fn serve(
    listener: TcpListener,
    shop: Shop,
    store: Arc<dyn RecordStore>,
    settings: &Settings,
    stop: support::Stop,
) -> std::io::Result<()> {
    let keys = |key: &str| {
        let name = [("alice-key", "alice"), ("bob-key", "bob")].into_iter().find(|(known, _)| *known == key)?.1;
        Some(Principal::named(name))
    };
    let payments = settings.layer(ApiKey::header("x-api-key", keys), &store).named("payments");
    let payments = payments.after_lease(settings.after_lease);
    let provider = |_: &RequestHead<'_>, digester: &Digester| -> Option<Client> { Some(digester.named("provider")) };
    let webhooks = settings
        .layer(provider, &store)
        .accept_unverified() // all events come from one provider
        .named("webhooks")
        .header("webhook-id")
        .after_lease(AfterLease::Rerun)
        .on_running(OnRunning::Wait(Duration::from_secs(10)));
    let handles = [payments.handle(), webhooks.handle()];
    let app = Router::new()
        .route("/payments", post(pay).layer(payments))
        .route("/webhook", post(webhook).layer(webhooks))
        .route("/stats", get(stats))
        .route("/operations", get(operations))
        .layer(Extension(handles[0].clone()))
        .with_state(Arc::new(shop));
    support::run(stop, |stop| async { axum::serve(listener, app).with_graceful_shutdown(stop).await }).await?;
    for handle in handles {
        handle.drain(support::GRACE).await;
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct PaymentQuery {
    #[serde(default)]
    ms: u64,
    #[serde(default)]
    fail: u8,
}

async fn pay(
    State(shop): State<Arc<Shop>>,
    Query(query): Query<PaymentQuery>,
    Extension(execution): Extension<IdempotentExecution>,
    amount: String,
) -> Result<Response, Response> {
    if query.fail == 1 {
        tokio::time::sleep(Duration::from_millis(query.ms)).await;
        return Err((StatusCode::INTERNAL_SERVER_ERROR, "the bank is closed\n").into_response());
    }
    let takes = Duration::from_millis(query.ms);
    let id = shop.pay(&execution, &amount, takes).await.map_err(|error| unavailable(format_args!("{error:?}")))?;
    Ok((StatusCode::CREATED, [("location", format!("/payments/{id}"))], format!("payment {id}\n")).into_response())
}

async fn webhook(State(shop): State<Arc<Shop>>, event: String) -> Result<String, Response> {
    let id = shop.process(&event).await.map_err(unavailable)?;
    Ok(format!("processed as {id}\n"))
}

async fn stats(State(shop): State<Arc<Shop>>) -> Result<Json<serde_json::Value>, Response> {
    let (payments, webhooks) = shop.stats().await.map_err(unavailable)?;
    Ok(Json(serde_json::json!({ "payments": payments, "webhooks": webhooks })))
}

async fn operations(Extension(handle): Extension<IdempotencyHandle>) -> Result<Json<serde_json::Value>, Response> {
    let page = handle.unknown(None, 100).await.map_err(unavailable)?;
    let operation = |record: &tollgate::key_value::UnknownRecord| {
        let about = &record.about;
        serde_json::json!({
            "record": record.key.to_string(), "client": about.client, "key": about.key,
            "request": format!("{} {}", about.method, about.route), "attempt": record.attempt,
        })
    };
    Ok(Json(page.records.iter().map(operation).collect()))
}

fn unavailable(error: impl std::fmt::Display) -> Response {
    eprintln!("{error}");
    (StatusCode::SERVICE_UNAVAILABLE, "the database is unavailable\n").into_response()
}
