//! The server: its environment, routes and shutdown.

mod admin;
mod jobs;
mod parameters;
mod problem;
mod reports;
#[path = "../../support/mod.rs"]
pub(crate) mod support;

use std::{error::Error, io, net::SocketAddr, path::PathBuf};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tollgate::{Ledger, OnFailure, Period, Plan, Quota, QuotaLayer, Quotas};

/// Kind of the billed units, and the name of its limit.
const UNITS: &str = "units";
const DAILY: &str = "units_per_day";

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
        let location = match (support::variable("DB")?, support::variable("DATABASE_URL")?) {
            (Some(_), Some(_)) => return Err("set DB for a file or DATABASE_URL for a server, not both".into()),
            (None, Some(url)) => Location::Postgres(url),
            (file, None) => Location::File(file.map_or_else(|| "billing.db".into(), PathBuf::from)),
        };
        let limit = match support::variable("LIMIT")? {
            Some(text) => parameters::amount("LIMIT", &text)?,
            None => 1_000,
        };
        Ok(Self { location, limit, admin_token: support::variable("ADMIN_TOKEN")? })
    }

    pub(crate) async fn open(&self) -> Result<Ledger, Box<dyn Error>> {
        match &self.location {
            Location::File(path) => Ok(Ledger::sqlite(path).open().await?),
            Location::Postgres(url) => postgres(url).await,
        }
    }

    /// Prints the address and the most important settings.
    pub(crate) fn introduce(&self, address: SocketAddr) {
        println!("listening on http://{address}");
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
            None => println!(
                "administration is off: /grants, /reconcile and /settle answer 403 until ADMIN_TOKEN=... is set"
            ),
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
        .route("/settle/{tenant}", post(admin::settle))
        .with_state(shop))
}

/// Serves until `stop` completes; then finishes running requests and writes all rows.
pub(crate) async fn serve(listener: TcpListener, ledger: Ledger, setup: &Setup, stop: support::Stop) -> io::Result<()> {
    let app = app(ledger.clone(), setup).map_err(io::Error::other)?;
    let server = |stop| axum::serve(listener, app).with_graceful_shutdown(stop).into_future();
    let served = support::run(stop, server).await;
    ledger.shut_down(support::GRACE).await;
    served
}
