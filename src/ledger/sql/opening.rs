//! Opens connections for the writer: connects, migrates the tables, and checks what a ledger needs.

use std::{future::Future, time::Duration};

use sqlx::{Connection as _, Error, SqlSafeStr};
use tokio::time::{Instant, sleep, timeout_at};

use super::{ChargePath, OpenFile, SqlDialect, db_error, safe, schema};
use crate::ledger::{LedgerError, LedgerErrorKind};

/// Options of opening a database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenOptions {
    /// Longest wait for a connection and for locks of other programs.
    pub(crate) timeout: Duration,
    /// Whether the database is opened with the first use.
    pub(crate) lazy: bool,
    /// Whether the storage of a server is durable without `fsync`.
    pub(crate) durable_storage: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), lazy: false, durable_storage: false }
    }
}

/// A connection that can write a ledger.
pub(super) struct OpenConnection<S: ChargePath> {
    pub(super) connection: S::Connection,
    /// File that it has open, if the database is one.
    pub(super) file: Option<OpenFile>,
    /// Id of the ledger, which no other ledger has.
    pub(super) ledger: u128,
}

/// Rest before another attempt while another program holds a lock.
const REST: Duration = Duration::from_millis(20);

/// Opens a connection that can write the ledger. Waits for a connection and for locks at most as long as the options
/// say. `volatile`: the database is one in memory; `migrates`: tables that are missing are created.
///
/// # Cancel safety
/// A migration that has begun is ended by a task of its own.
pub(super) async fn open_connection<S: ChargePath, F>(
    connect: impl Fn() -> F,
    options: OpenOptions,
    volatile: bool,
    migrates: bool,
) -> Result<OpenConnection<S>, LedgerError>
where
    F: Future<Output = Result<S::Connection, Error>>,
{
    let deadline = Instant::now() + options.timeout;
    loop {
        let opened = match timeout_at(deadline, connect()).await {
            Ok(Ok(connection)) => {
                let migrated = if migrates { migrate::<S>(connection, deadline).await } else { Ok(connection) };
                match migrated {
                    Ok(connection) => {
                        let deadline = after_migration(deadline, Instant::now(), options.timeout);
                        checked::<S>(connection, options, volatile, deadline).await
                    }
                    Err(error) => Err(error),
                }
            }
            Ok(Err(error)) => Err(LedgerError::from(db_error::<S>(error))),
            Err(_) => {
                let reason = format!("{}: no answer within {:?}", S::NAME, options.timeout);
                return Err(LedgerError::new(LedgerErrorKind::Unreachable, reason));
            }
        };
        match opened {
            // SQLite does not wait for a connection that changes the journal of a new file.
            Err(error) if error.kind() == LedgerErrorKind::Busy && Instant::now() + REST < deadline => {
                sleep(REST).await;
            }
            opened => return opened,
        }
    }
}

/// Migrates the tables, in a task of its own.
async fn migrate<S: ChargePath>(
    mut connection: S::Connection,
    deadline: Instant,
) -> Result<S::Connection, LedgerError> {
    let migrated = tokio::spawn(async move { apply::<S>(&mut connection, deadline).await.map(|()| connection) });
    migrated.await.unwrap_or_else(|_| {
        Err(LedgerError::new(LedgerErrorKind::Unreachable, "the runtime that opens the ledger has ended"))
    })
}

/// Returns the deadline of the steps after a migration. One that waited for locks has failed; one that took longer than
/// the deadline leaves the next steps the whole time.
fn after_migration(deadline: Instant, now: Instant, timeout: Duration) -> Instant {
    if now < deadline { deadline } else { now + timeout }
}

/// Checks a connection and prepares it for the writer.
async fn checked<S: ChargePath>(
    mut connection: S::Connection,
    options: OpenOptions,
    volatile: bool,
    deadline: Instant,
) -> Result<OpenConnection<S>, LedgerError> {
    let (ledger, file) = unlocked::<S, _>(deadline, async {
        schema::check::<S>(&mut connection, volatile, options.durable_storage).await?;
        S::tune(&mut connection).await?;
        Ok((schema::ledger_id::<S>(&mut connection).await?, S::file(&mut connection).await?))
    })
    .await?;
    Ok(OpenConnection { connection, file, ledger })
}

/// Migrates the tables to the version of this code, one process at a time.
async fn apply<S: SqlDialect>(connection: &mut S::Connection, deadline: Instant) -> Result<(), LedgerError> {
    let present = unlocked::<S, _>(deadline, schema::version::<S>(connection)).await?;
    if !S::PROVES_WRITABLE && present == S::VERSIONS.len() {
        return Ok(()); // a role without the right to create tables may use them
    }
    let mut transaction = unlocked::<S, _>(deadline, async {
        let mut transaction = connection.begin_with(S::BEGIN_WRITE.into_sql_str()).await.map_err(db_error::<S>)?;
        S::run(&mut transaction, S::PREPARE_SCHEMA.into_sql_str()).await?;
        Ok(transaction)
    })
    .await?;
    // A migration takes as long as it needs, but does not wait for locks.
    let wait = deadline.saturating_duration_since(Instant::now()).as_millis().max(1);
    S::run(&mut transaction, safe(S::limit_lock_wait(wait))).await?;
    let present = schema::version::<S>(&mut transaction).await?;
    for (at, tables) in S::VERSIONS.iter().enumerate().skip(present) {
        S::run(&mut transaction, tables.into_sql_str()).await?;
        let applied = format!("INSERT INTO quota_schema (version, applied_at) VALUES ({}, {})", at + 1, S::NOW);
        S::run(&mut transaction, safe(applied)).await?;
    }
    Ok(transaction.commit().await.map_err(db_error::<S>)?)
}

/// Awaits a step that may wait for a lock of another program, until the deadline.
async fn unlocked<S: SqlDialect, T>(
    deadline: Instant,
    step: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    match timeout_at(deadline, step).await {
        Ok(done) => done,
        Err(_) => Err(LedgerError::new(
            LedgerErrorKind::Busy,
            format!(
                "{}: the tables of the ledger must not be locked by another program while it is opened; \
            end that program's transaction, or raise .open_timeout()",
                S::NAME
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_migration_leaves_the_check_its_time() {
        let (began, timeout) = (Instant::now(), Duration::from_secs(10));
        let deadline = began + timeout;
        let after = |seconds| after_migration(deadline, began + Duration::from_secs(seconds), timeout);
        assert_eq!([after(0), after(9)], [deadline; 2]);
        assert_eq!(after(600), began + Duration::from_secs(610));
    }
}
