//! A ledger's place and its contents, read over connections that are not the ledger's.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    path::PathBuf,
    time::Duration,
};

use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::{sleep, timeout};
use tollgate::{Client, JobRun, Ledger, OnFailure, Plan, Quota, QuotaLayer, Quotas, Reason, Refusal};

use crate::support::{MONTH, directory::Directory};

/// After this time a test counts as hung. It asserts no speed: only a hang takes this long.
pub const HUNG: Duration = Duration::from_secs(300);

/// Deadline of callers that an event must answer. Longer than [`HUNG`], so that no answer comes from the deadline.
pub const PATIENT: Duration = Duration::from_secs(3_600);

/// Deadline of callers that cannot be answered, because another session holds what the ledger needs.
pub const BRIEF: Duration = Duration::from_millis(300);

/// A file, or the URL of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    Server(String),
}

/// A charge of a job, as its row states it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub id: i64,
    pub tenant: String,
    pub job: String,
    pub limit: String,
    pub entry: String,
    pub attempt: i64,
    pub amount: i64,
}

const ROWS: &str = "SELECT id, tenant_id, job_id, limit_id, entry, attempt, amount FROM quota_consumption
    WHERE id > $1 AND limit_id <> '' ORDER BY id";

impl Place {
    /// Returns a new file and its directory, which is removed on drop.
    pub fn file() -> (Self, Directory) {
        let directory = Directory::new();
        (Self::File(directory.0.join("quota.db")), directory)
    }

    pub fn parse(text: &str) -> Self {
        if text.starts_with("postgres:") { Self::Server(text.into()) } else { Self::File(text.into()) }
    }

    pub fn text(&self) -> String {
        match self {
            Self::File(path) => path.to_str().unwrap().into(),
            Self::Server(url) => url.clone(),
        }
    }

    /// Opens the ledger; its callers are [`PATIENT`].
    pub async fn open(&self) -> Ledger {
        let ledger = match self {
            Self::File(path) => Ledger::sqlite(path).open_timeout(HUNG).open().await.unwrap(),
            Self::Server(url) => Ledger::postgres(url).open_timeout(HUNG).open().await.unwrap(),
        };
        ledger.deadline(PATIENT)
    }

    /// Returns all rows with an amount after the row with this number.
    pub async fn rows(&self, after: i64) -> Vec<Row> {
        let rows: Vec<(i64, String, String, String, String, i64, i64)> = match self {
            Self::File(_) => {
                sqlx::query_as(ROWS).bind(after).fetch_all(&mut self.file_connection().await).await.unwrap()
            }
            Self::Server(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_as(ROWS).bind(after).fetch_all(&mut connection).await.unwrap()
            }
        };
        let row =
            |(id, tenant, job, limit, entry, attempt, amount)| Row { id, tenant, job, limit, entry, attempt, amount };
        rows.into_iter().map(row).collect()
    }

    /// Returns the counters that are not zero, by tenant and limit.
    pub async fn counts(&self) -> BTreeMap<(String, String), i64> {
        const COUNTS: &str = "SELECT tenant_id, limit_id, CAST(sum(used + reserved) AS bigint) FROM quota_counter
            GROUP BY tenant_id, limit_id HAVING sum(used + reserved) <> 0";
        let counts: Vec<(String, String, i64)> = match self {
            Self::File(_) => sqlx::query_as(COUNTS).fetch_all(&mut self.file_connection().await).await.unwrap(),
            Self::Server(url) => {
                sqlx::query_as(COUNTS).fetch_all(&mut PgConnection::connect(url).await.unwrap()).await.unwrap()
            }
        };
        counts.into_iter().map(|(tenant, limit, sum)| ((tenant, limit), sum)).collect()
    }

    /// Returns the result of a query for one number.
    pub async fn number(&self, query: &'static str) -> i64 {
        match self {
            Self::File(_) => sqlx::query_scalar(query).fetch_one(&mut self.file_connection().await).await.unwrap(),
            Self::Server(url) => {
                sqlx::query_scalar(query).fetch_one(&mut PgConnection::connect(url).await.unwrap()).await.unwrap()
            }
        }
    }

    async fn file_connection(&self) -> SqliteConnection {
        let Self::File(path) = self else { panic!("{self:?} is no file") };
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(HUNG);
        SqliteConnection::connect_with(&options).await.unwrap()
    }
}

/// A plan of two limits: a number of `tokens`, and `requests` that no test exhausts.
pub fn plan(tokens: u64) -> Plan {
    Plan::new("paid")
        .limit(Quota::units("tokens", tokens).per(MONTH).named("tokens"))
        .limit(Quota::requests(1_000_000).per(MONTH).named("requests"))
}

pub fn quotas(ledger: &Ledger, tokens: u64) -> Quotas {
    QuotaLayer::new(plan(tokens)).store_in(ledger, OnFailure::FailClosed).handle()
}

/// Runs a job of one token.
pub async fn job(quotas: &Quotas, tenant: &str, id: &str) -> Result<JobRun<()>, Refusal> {
    quotas.run_job(&Client::named(tenant), id, [("tokens", 1), ("requests", 1)], async {}).await
}

/// Sets the deadline of a ledger's callers from now on.
pub fn wait(ledger: &Ledger, deadline: Duration) {
    drop(ledger.clone().deadline(deadline));
}

/// Returns whether the outcome is unknown; a refusal for another reason is an answer.
pub fn is_trouble<T>(answer: &Result<T, Refusal>) -> bool {
    answer.as_ref().is_err_and(|refusal| matches!(refusal.reason(), Reason::Unavailable | Reason::Indeterminate))
}

/// Repeats a job until the ledger reports its outcome.
pub async fn job_at_last(quotas: &Quotas, tenant: &str, id: &str) -> Result<JobRun<()>, Refusal> {
    answered(async {
        loop {
            let answer = job(quotas, tenant, id).await;
            if !is_trouble(&answer) {
                return answer;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Waits until a condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let held = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(HUNG, held).await.unwrap_or_else(|_| panic!("{what}: not within {HUNG:?}"));
}

/// Returns the output of a future; panics if it hangs. For a [`PATIENT`] caller this shows that the answer does not
/// wait for its deadline, for a [`BRIEF`] one that it does not outlast its deadline.
pub async fn answered<T>(future: impl Future<Output = T>) -> T {
    timeout(HUNG, future).await.expect("an answer")
}

/// Asserts that each counter is the sum of its rows, no limit is exceeded and no job is charged twice; returns the
/// charges of the jobs.
pub async fn audit(
    place: &Place,
    ledger: &Ledger,
    limits: impl Fn(&str, &str) -> u64,
) -> HashMap<(String, String), i64> {
    let report = ledger.reconcile().await.unwrap();
    assert!(report.drifts.is_empty(), "{report}");
    let (mut sums, mut charged) = (BTreeMap::<_, i64>::new(), HashMap::<_, i64>::new());
    let mut standing = HashMap::<_, i64>::new();
    for row in place.rows(0).await {
        *sums.entry((row.tenant.clone(), row.limit.clone())).or_default() += row.amount;
        let job = (row.tenant, row.job);
        *standing.entry((job.clone(), row.limit.clone())).or_default() += match &*row.entry {
            "charge" | "reserve" => 1,
            "void" => -1,
            _ => 0,
        };
        if row.limit == "tokens" {
            *charged.entry(job).or_default() += row.amount;
        }
    }
    sums.retain(|_, sum| *sum != 0);
    assert_eq!(place.counts().await, sums);
    for ((tenant, limit), sum) in &sums {
        let most = limits(tenant, limit);
        assert!((0..=most).contains(&u64::try_from(*sum).unwrap()), "{tenant}: {sum} of {most} {limit}");
    }
    for (job, times) in standing {
        assert!((0..=1).contains(&times), "{job:?} stands {times} times");
    }
    charged
}
