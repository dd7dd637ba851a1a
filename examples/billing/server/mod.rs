//! The server: its environment, routes and shutdown.

mod admin;
mod jobs;
mod parameters;
mod problem;
mod reports;

use std::{error::Error, future::Future, io, net::SocketAddr, path::PathBuf, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::oneshot};
use tollgate::{Ledger, OnFailure, Period, Plan, Quota, QuotaLayer, Quotas};

/// Kind of the billed units, and the name of its limit.
const UNITS: &str = "units";
const DAILY: &str = "units_per_day";

/// Longest time for running requests, and for pending rows, after a stop signal.
const GRACE: Duration = Duration::from_secs(10);

/// Settings from the environment.
pub(crate) struct Setup {
    location: Location,
    limit: u64,
    admin_token: Option<String>,
}

/// Location of the ledger.
enum Location {
    File(PathBuf),
    Postgres(String),
}

/// State of the handlers.
#[derive(Clone)]
struct Shop {
    ledger: Ledger,
    quotas: Quotas,
    admin_token: Option<String>,
}

impl Setup {
    pub(crate) fn from_env() -> Result<Self, String> {
        let value = |name: &str| match std::env::var(name) {
            Ok(text) if text.is_empty() => Err(format!("{name} must not be empty: set it, or leave it out")),
            Ok(text) => Ok(Some(text)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(_) => Err(format!("{name} must be text")),
        };
        let location = match (value("DB")?, value("DATABASE_URL")?) {
            (Some(_), Some(_)) => return Err("set DB for a file or DATABASE_URL for a server, not both".into()),
            (None, Some(url)) => Location::Postgres(url),
            (file, None) => Location::File(file.map_or_else(|| "billing.db".into(), PathBuf::from)),
        };
        let limit = match value("LIMIT")? {
            Some(text) => parameters::amount("LIMIT", &text)?,
            None => 1_000,
        };
        Ok(Self { location, limit, admin_token: value("ADMIN_TOKEN")? })
    }

    pub(crate) async fn open(&self) -> Result<Ledger, Box<dyn Error>> {
        match &self.location {
            Location::File(path) => Ok(Ledger::sqlite(path).open().await?),
            Location::Postgres(url) => postgres(url).await,
        }
    }

    /// Prints the most important settings.
    pub(crate) fn introduce(&self, address: SocketAddr) {
        match &self.location {
            Location::File(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                println!("the ledger is the file {} (DB=... for another)", path.display());
            }
            Location::Postgres(_) => println!("the ledger is in the database of DATABASE_URL"),
        }
        println!("a tenant has {} units a day in UTC (LIMIT=... for more or less)", self.limit);
        match self.admin_token {
            Some(_) => println!("administration is on: send the ADMIN_TOKEN as a bearer token"),
            None => println!("administration is off: /grants and /reconcile answer 403 until ADMIN_TOKEN=... is set"),
        }
        println!("curl -i -X POST -H 'x-tenant: acme' -H 'x-job-id: order-17' 'http://{address}/jobs?amount=20'");
        println!(
            "curl 'http://{address}/usage/acme'; curl 'http://{address}/ledger/acme'; curl 'http://{address}/invoice/acme'"
        );
    }
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str) -> Result<Ledger, Box<dyn Error>> {
    Ok(tollgate::Ledger::postgres(url).open().await?)
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &str) -> Result<Ledger, Box<dyn Error>> {
    Err("DATABASE_URL needs the feature postgres: cargo run --example billing --features sqlite,postgres".into())
}

fn app(ledger: Ledger, setup: &Setup) -> Result<Router, tollgate::ConfigError> {
    let daily = Quota::try_of(UNITS.into(), setup.limit)?.per(Period::day()).named(DAILY);
    let plan = Plan::new("daily").try_limit(daily)?;
    let quotas = QuotaLayer::new(plan).store_in(&ledger, OnFailure::FailClosed).handle();
    let shop = Shop { ledger, quotas, admin_token: setup.admin_token.clone() };
    Ok(Router::new()
        .route("/jobs", post(jobs::job))
        .route("/usage/{tenant}", get(reports::usage))
        .route("/ledger/{tenant}", get(reports::ledger))
        .route("/invoice/{tenant}", get(reports::invoice))
        .route("/grants/{tenant}", post(admin::grant))
        .route("/reconcile", post(admin::reconcile))
        .with_state(shop))
}

/// Serves until `stop` completes; then finishes running requests and writes all rows.
pub(crate) async fn serve(
    listener: TcpListener,
    ledger: Ledger,
    setup: &Setup,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let app = app(ledger.clone(), setup).map_err(io::Error::other)?;
    let (stopping, told) = oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop.await;
        let _ = stopping.send(());
    });
    let too_long = async {
        let _ = told.await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = server.into_future() => served,
        () = too_long => Ok(()),
    };
    ledger.shut_down(GRACE).await;
    served
}

/// Completes on Ctrl-C or on the signal of a supervisor.
pub(crate) async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
