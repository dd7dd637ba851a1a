//! Transactions of handlers, which end with the end of the operation's record.

use std::{sync::Arc, time::Duration};

use sqlx::{Error, SqlSafeStr, Transaction};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    SqlStore,
    driver::{self, Parameter, Reported, SqlDriver, safe},
};
use crate::key_value::{
    error::{KeyValueError, KeyValueErrorKind},
    limits,
    record::{Committed, Completion, OpenTransaction, Owner, RecordKey},
};

/// Connections of the pool that stay for the records themselves.
const OWN_CONNECTIONS: u32 = 2;

/// Longest wait for a place among the transactions, and for the lock that begins one.
const WAIT: Duration = Duration::from_secs(5);

const SAVEPOINT: &str = "SAVEPOINT tollgate";
const RELEASE: &str = "RELEASE SAVEPOINT tollgate";
const UNDO: &str = "ROLLBACK TO SAVEPOINT tollgate";

impl<D: SqlDriver> SqlStore<D> {
    fn error(kind: KeyValueErrorKind, reason: String) -> KeyValueError {
        KeyValueError::new(kind, format!("{}: {reason}", D::NAME))
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, KeyValueError> {
        let most = self.pool().options().get_max_connections();
        let places =
            self.transactions.get_or_init(|| Arc::new(Semaphore::new(most.saturating_sub(OWN_CONNECTIONS) as usize)));
        if most <= OWN_CONNECTIONS {
            let reason = format!(
                "a pool whose transactions handlers share must have 3 connections, got {most}; raise max_connections"
            );
            return Err(Self::error(KeyValueErrorKind::Refused, reason));
        }
        let busy = || {
            let reason = format!("no connection for a transaction is free within {WAIT:?}; raise max_connections");
            Self::error(KeyValueErrorKind::Unavailable, reason)
        };
        timeout(WAIT, Arc::clone(places).acquire_owned()).await.ok().and_then(Result::ok).ok_or_else(busy)
    }

    pub(super) async fn begin_transaction(&self) -> Result<OpenTransaction, KeyValueError> {
        let permit = self.place().await?;
        let unavailable = |error| driver::error::<D>(error, false);
        let mut transaction = self.pool().begin_with(D::BEGIN_WRITE.into_sql_str()).await.map_err(unavailable)?;
        D::run(&mut transaction, SAVEPOINT.into_sql_str()).await.map_err(unavailable)?;
        Ok(OpenTransaction { inner: Box::new(transaction), database: D::NAME, permit: Some(permit) })
    }

    fn own(
        transaction: OpenTransaction,
    ) -> Result<(Transaction<'static, D>, Option<OwnedSemaphorePermit>), KeyValueError> {
        let OpenTransaction { inner, database, permit } = transaction;
        let own = inner.downcast::<Transaction<'static, D>>();
        own.map(|own| (*own, permit)).map_err(|_| {
            Self::error(
                KeyValueErrorKind::Invalid,
                format!("the transaction must be of this store, got one of {database}"),
            )
        })
    }

    pub(super) async fn commit_transaction(
        &self,
        transaction: OpenTransaction,
        undo: bool,
        key: &RecordKey,
        owner: &Owner,
        completion: &Completion,
        life: Duration,
    ) -> Result<Committed, KeyValueError> {
        limits::answer(completion, self.max_value)?;
        let life = limits::time("life", life)?;
        let (mut transaction, _permit) = Self::own(transaction)?;
        let failed = |error| driver::error::<D>(error, false);
        if undo {
            match D::run(&mut transaction, UNDO.into_sql_str()).await {
                Err(Error::Database(error)) if D::no_savepoint(&*error) => return Ok(Committed::EndedByHandler),
                result => result.map_err(failed)?,
            }
        }
        match D::run(&mut transaction, RELEASE.into_sql_str()).await {
            Err(Error::Database(error)) if D::no_savepoint(&*error) => return Ok(Committed::EndedByHandler),
            result => result.map_err(failed)?,
        }
        let (sql, values) = (self.completion_statement(), Self::completion_values(key, owner, completion, life));
        let rows = D::fetch(&mut transaction, safe(sql), &values).await.map_err(failed)?;
        if rows.is_empty() {
            let _ = transaction.rollback().await;
            return Ok(Committed::Lost);
        }
        match transaction.commit().await {
            Ok(()) => Ok(Committed::Stored),
            Err(Error::Database(error)) if D::reported(&*error) == Reported::Refused => {
                Err(driver::error::<D>(Error::Database(error), false))
            }
            Err(error) => self.resolve(error, key, owner).await,
        }
    }

    /// Finds out whether a transaction was committed whose reply was lost. The lock waits for a commit that is under way: a
    /// plain read would find the state before it.
    async fn resolve(&self, lost: Error, key: &RecordKey, owner: &Owner) -> Result<Committed, KeyValueError> {
        let lost = driver::error::<D>(lost, true);
        let state = async {
            let mut transaction = self.pool().begin_with(D::BEGIN_WRITE.into_sql_str()).await?;
            let sql = format!("SELECT state FROM tollgate_record WHERE key = $1 AND owner = $2{}", D::FOR_UPDATE);
            let values = [Parameter::Bytes(&key.0), Parameter::Bytes(&owner.0)];
            let rows = D::fetch(&mut transaction, safe(sql), &values).await?;
            let state = rows.first().map_or(Ok(None), |row| D::number(row, 0));
            transaction.rollback().await?;
            state
        };
        match state.await {
            Ok(None) => Ok(Committed::Lost),
            Ok(Some(0)) => {
                let reason = format!("the transaction was not committed: {lost}");
                Err(Self::error(KeyValueErrorKind::Unavailable, reason))
            }
            Ok(Some(_)) => Ok(Committed::Stored),
            Err(_) => Err(lost),
        }
    }

    pub(super) async fn roll_back_transaction(&self, transaction: OpenTransaction) -> Result<(), KeyValueError> {
        let (transaction, _permit) = Self::own(transaction)?;
        transaction.rollback().await.map_err(|error| driver::error::<D>(error, false))
    }
}
