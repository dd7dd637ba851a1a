//! PostgreSQL.

use std::time::Duration;

use bytes::Bytes;
use sqlx::{
    Executor, PgConnection, PgPool, Postgres, Row as _, SqlSafeStr, SqlStr,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions, PgSeverity},
};

use super::{
    SqlStore,
    driver::{self, Parameter, Reported, SqlDriver, driver_calls},
    opening::PoolSource,
    sql_store,
};
use crate::{
    error::ConfigError,
    key_value::{
        error::{KeyValueError, KeyValueErrorKind},
        port::{Incremented, ScanPage, StoreFuture, Ttl},
        record::{
            Answer, Begun, Claim, Committed, Completion, OpenTransaction, Owner, Ownership, RecordKey, RecordStore,
            RecordTransactions, UnknownPage,
        },
    },
};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A key-value store and a record store in PostgreSQL, which a fleet shares.
///
/// It creates the tables `tollgate_key_value`, `tollgate_record` and `tollgate_key_value_version` with its first operation. Times are those of
/// the server's clock.
///
/// ```no_run
/// # async fn example(pool: sqlx::PgPool) -> Result<(), tollgate::key_value::KeyValueError> {
/// use std::time::Duration;
/// use tollgate::key_value::{PostgresStore, fixed_window};
///
/// let store = PostgresStore::new(pool);
/// let decision = fixed_window(&store, b"login:alice", 5, Duration::from_secs(60)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresStore(SqlStore<Postgres>);

impl PostgresStore {
    /// Creates a store in the database at `url`, with connections of its own, which are made with the first operation.
    ///
    /// # Errors
    /// If the URL is invalid.
    pub fn open(url: &str) -> Result<Self, ConfigError> {
        let invalid = |error: sqlx::Error| {
            ConfigError::message(format!(
                "invalid URL of a key-value store, pass postgres://user@host/database: {error}"
            ))
        };
        let server: PgConnectOptions = url.parse().map_err(invalid)?;
        // A call that waits for a lock fails, so that a row that another program holds does not use up the connections.
        let server = server.options([("lock_timeout", "5s"), ("default_transaction_isolation", "read committed")]);
        let make = move || {
            let options = PgPoolOptions::new().max_connections(4).acquire_timeout(CONNECT_TIMEOUT);
            options.connect_lazy_with(server.clone())
        };
        Ok(Self(SqlStore::new(PoolSource::own(make))))
    }

    /// Creates a store in the database of a pool that the program has.
    ///
    /// The first operation is [`Refused`](KeyValueErrorKind::Refused) if the server would lose what was acknowledged:
    /// `synchronous_commit` and `fsync` must not be off.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self(SqlStore::new(PoolSource::Given(pool)))
    }
}

sql_store!(PostgresStore);

impl SqlDriver for Postgres {
    const NOW: &'static str = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)";
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";
    const MAX_TRANSACTION: Duration = Duration::from_secs(30);
    const BEGIN_WRITE: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    // The lock is a number that stands for these tables.
    const PREPARE_VERSIONS: &'static str = "SELECT pg_advisory_xact_lock(8389754629021267046);
        CREATE TABLE IF NOT EXISTS tollgate_key_value_version (version bigint NOT NULL PRIMARY KEY)";
    const HAS_VERSIONS: &'static str = "SELECT count(to_regclass('tollgate_key_value_version'))";
    const VERSIONS: &'static [&'static str] = &[
        "CREATE TABLE tollgate_key_value (
            key bytea NOT NULL PRIMARY KEY,
            value bytea,
            number bigint,
            expires_at bigint,
            CHECK ((value IS NULL) <> (number IS NULL)));
        CREATE INDEX tollgate_key_value_expires_at ON tollgate_key_value (expires_at) WHERE expires_at IS NOT NULL",
        "CREATE TABLE tollgate_record (
            key bytea NOT NULL PRIMARY KEY CHECK (octet_length(key) = 16),
            state bigint NOT NULL CHECK (state IN (0, 1, 2)), -- running, done, answer not retained
            owner bytea CHECK (octet_length(owner) = 16),
            attempt bigint NOT NULL,
            hold bigint NOT NULL CHECK (hold IN (0, 1)), -- whether the outcome is unknown when the lease is over
            lease_until bigint NOT NULL,
            expires_at bigint,
            fingerprint bytea CHECK (octet_length(fingerprint) = 16),
            status bigint,
            fields bytea,
            body bytea,
            first_at bigint NOT NULL,
            format bigint NOT NULL,
            policy text NOT NULL,
            client text NOT NULL,
            method text NOT NULL,
            route text NOT NULL,
            client_key text NOT NULL,
            CHECK ((state = 1) = (status IS NOT NULL AND fields IS NOT NULL AND body IS NOT NULL)));
        CREATE INDEX tollgate_record_expires_at ON tollgate_record (expires_at) WHERE expires_at IS NOT NULL;
        CREATE INDEX tollgate_record_held ON tollgate_record (key) WHERE state = 0 AND hold = 1",
    ];

    driver_calls!();

    /// Classifies by SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn reported(error: &dyn DatabaseError) -> Reported {
        let code = error.code().unwrap_or_default();
        let postgres = error.try_downcast_ref::<PgDatabaseError>();
        let fatal = postgres.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic));
        match &*code {
            // A serialization failure, a deadlock, a lock that did not come in time, a statement that took too long.
            "40001" | "40P01" | "55P03" | "57014" if !fatal => Reported::Again,
            "40003" | "53300" => Reported::Lost,
            code if code.starts_with("28") || code == "3D000" || code == "42501" => Reported::Refused,
            code if fatal || code.starts_with("08") || code.starts_with("57P") => Reported::Lost,
            _ => Reported::Refused,
        }
    }

    /// No active transaction, or no such savepoint.
    fn no_savepoint(error: &dyn DatabaseError) -> bool {
        matches!(&*error.code().unwrap_or_default(), "25P01" | "3B001")
    }

    async fn check_durable(connection: &mut PgConnection) -> Result<(), KeyValueError> {
        let sql = "SELECT current_setting('synchronous_commit'), current_setting('fsync')";
        let rows = Self::fetch(connection, sql.into_sql_str(), &[]).await;
        let rows = rows.map_err(|error| driver::error::<Self>(error, false))?;
        for (at, name) in ["synchronous_commit", "fsync"].into_iter().enumerate() {
            let value: Option<String> = rows.first().and_then(|row| row.try_get(at).ok());
            if value.as_deref() == Some("off") {
                let reason = format!("{name} must be on, got off: entries that were acknowledged could be lost");
                return Err(KeyValueError::new(KeyValueErrorKind::Refused, reason));
            }
        }
        Ok(())
    }
}
