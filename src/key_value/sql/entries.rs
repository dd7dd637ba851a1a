//! Key-value operations. Each is one statement; a write also removes two other entries that have expired.

use std::time::Duration;

use bytes::Bytes;

use super::{
    SqlStore,
    driver::{Parameter, SqlDriver},
    statement::StoreTable,
};
use crate::key_value::{
    error::KeyValueError,
    limits,
    port::{Incremented, ScanPage, Ttl},
};

/// Columns of a value: bytes or a number.
fn columns(value: &[u8]) -> [Parameter<'_>; 2] {
    match limits::number(value) {
        Some(number) => [Parameter::NoBytes, Parameter::Number(Some(number))],
        None => [Parameter::Bytes(value), Parameter::Number(None)],
    }
}

/// Returns `count` placeholders, the first with this number.
fn placeholders(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

/// Returns the least key that is greater than each key with this prefix; `None` if there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn left(micros: Option<i64>) -> Ttl {
    micros.map_or(Ttl::Forever, |micros| Ttl::Left(Duration::from_micros(micros.max(0).cast_unsigned())))
}

impl<D: SqlDriver> SqlStore<D> {
    /// Returns the condition on entries that have not expired.
    fn live(&self) -> String {
        format!("(expires_at IS NULL OR expires_at > {})", self.now())
    }

    fn ttl_of(ttl: Option<Duration>) -> Result<Parameter<'static>, KeyValueError> {
        Ok(Parameter::Number(ttl.map(limits::ttl).transpose()?))
    }

    fn value(row: &D::Row, at: usize) -> Result<Bytes, KeyValueError> {
        match (Self::bytes(row, at)?, Self::number(row, at + 1)?) {
            (Some(bytes), None) => Ok(bytes.into()),
            (None, Some(number)) => Ok(Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes())),
            (bytes, _) => {
                let got = if bytes.is_some() { "both" } else { "neither" };
                Err(Self::damaged(StoreTable::Entries, "have a value or a number", got))
            }
        }
    }

    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KeyValueError> {
        limits::key(key)?;
        let sql = format!("SELECT value, number FROM tollgate_key_value WHERE key = $1 AND {}", self.live());
        let rows = self.read(sql, &[Parameter::Bytes(key)]).await?;
        rows.first().map(|row| Self::value(row, 0)).transpose()
    }

    pub(super) async fn set(&self, key: &[u8], value: Bytes, ttl: Option<Duration>) -> Result<(), KeyValueError> {
        self.store(key, &value, ttl, false).await.map(drop)
    }

    pub(super) async fn set_nx(&self, key: &[u8], value: Bytes, ttl: Option<Duration>) -> Result<bool, KeyValueError> {
        self.store(key, &value, ttl, true).await
    }

    async fn store(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        if_absent: bool,
    ) -> Result<bool, KeyValueError> {
        limits::key(key)?;
        limits::value(value, self.max_value)?;
        let now = self.now();
        let condition = if if_absent { format!("WHERE kv.expires_at <= {now}") } else { String::new() };
        let sql = format!(
            "INSERT INTO tollgate_key_value AS kv (key, value, number, expires_at) VALUES ($1, $2, $3, {now} + $4)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, number = excluded.number,
                expires_at = {now} + $4 {condition}
             RETURNING key"
        );
        let [bytes, number] = columns(value);
        let rows =
            self.write(StoreTable::Entries, sql, &[Parameter::Bytes(key), bytes, number, Self::ttl_of(ttl)?]).await?;
        Ok(!rows.is_empty())
    }

    pub(super) async fn delete(&self, key: &[u8]) -> Result<bool, KeyValueError> {
        Ok(self.delete_many(&[key]).await? > 0)
    }

    pub(super) async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64, KeyValueError> {
        limits::keys(keys.iter().copied())?;
        if keys.is_empty() {
            return Ok(0);
        }
        let (live, named, locked) = (self.live(), placeholders(1, keys.len()), D::FOR_UPDATE);
        // In the order of the keys, in which a batch stores too: neither waits for the other in a circle.
        let sql = format!(
            "DELETE FROM tollgate_key_value WHERE key IN
                (SELECT key FROM tollgate_key_value WHERE key IN ({named}) ORDER BY key{locked})
             RETURNING CAST(CASE WHEN {live} THEN 1 ELSE 0 END AS bigint)"
        );
        let keys: Vec<_> = keys.iter().copied().map(Parameter::Bytes).collect();
        let rows = self.write(StoreTable::Entries, sql, &keys).await?;
        rows.iter().try_fold(0, |removed, row| Ok(removed + u64::from(Self::number(row, 0)? == Some(1))))
    }

    pub(super) async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, KeyValueError> {
        limits::keys(keys.iter().copied())?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (live, named) = (self.live(), placeholders(1, keys.len()));
        let sql = format!("SELECT key, value, number FROM tollgate_key_value WHERE key IN ({named}) AND {live}");
        let values: Vec<_> = keys.iter().copied().map(Parameter::Bytes).collect();
        let mut found = std::collections::HashMap::new();
        for row in &self.read(sql, &values).await? {
            let key = Self::bytes(row, 0)?;
            found.insert(key.unwrap_or_default(), Self::value(row, 1)?);
        }
        Ok(keys.iter().map(|key| found.get(*key).cloned()).collect())
    }

    pub(super) async fn mset(&self, entries: &[(&[u8], Bytes)], ttl: Option<Duration>) -> Result<(), KeyValueError> {
        let (entries, ttl) = (limits::entries(entries, self.max_value)?, Self::ttl_of(ttl)?);
        if entries.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let row = |at: usize| format!("(${}, ${}, ${}, {now} + $1)", 3 * at + 2, 3 * at + 3, 3 * at + 4);
        let sql = format!(
            "INSERT INTO tollgate_key_value AS kv (key, value, number, expires_at) VALUES {}
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, number = excluded.number,
                expires_at = {now} + $1",
            (0..entries.len()).map(row).collect::<Vec<_>>().join(", ")
        );
        let mut values = vec![ttl];
        for (key, value) in entries {
            values.push(Parameter::Bytes(key));
            values.extend(columns(value));
        }
        self.write(StoreTable::Entries, sql, &values).await.map(drop)
    }

    pub(super) async fn ttl(&self, key: &[u8]) -> Result<Ttl, KeyValueError> {
        limits::key(key)?;
        let (now, live) = (self.now(), self.live());
        let sql = format!("SELECT expires_at - {now} FROM tollgate_key_value WHERE key = $1 AND {live}");
        let rows = self.read(sql, &[Parameter::Bytes(key)]).await?;
        rows.first().map_or(Ok(Ttl::Missing), |row| Ok(left(Self::number(row, 0)?)))
    }

    pub(super) async fn expire(&self, key: &[u8], ttl: Option<Duration>) -> Result<bool, KeyValueError> {
        limits::key(key)?;
        let (now, live) = (self.now(), self.live());
        let sql =
            format!("UPDATE tollgate_key_value SET expires_at = {now} + $2 WHERE key = $1 AND {live} RETURNING key");
        Ok(!self.write(StoreTable::Entries, sql, &[Parameter::Bytes(key), Self::ttl_of(ttl)?]).await?.is_empty())
    }

    pub(super) async fn incr(&self, key: &[u8], ttl: Option<Duration>) -> Result<Incremented, KeyValueError> {
        limits::key(key)?;
        let (now, most) = (self.now(), i64::MAX);
        let over = format!("kv.expires_at <= {now}");
        // The clock of a server goes on within a statement: one reading, after the wait for the row, decides on both.
        let sql = format!(
            "INSERT INTO tollgate_key_value AS kv (key, value, number, expires_at) VALUES ($1, NULL, 1, {now} + $2)
             ON CONFLICT (key) DO UPDATE SET value = NULL, (number, expires_at) =
                (SELECT CASE WHEN kv.expires_at <= at THEN 1 ELSE kv.number + 1 END,
                        CASE WHEN kv.expires_at <= at THEN at + $2 ELSE kv.expires_at END
                 FROM (SELECT {now} AS at LIMIT 1) AS clock)
             WHERE {over} OR (kv.number IS NOT NULL AND kv.number < {most})
             RETURNING number, expires_at - {now}"
        );
        let rows = self.write(StoreTable::Entries, sql, &[Parameter::Bytes(key), Self::ttl_of(ttl)?]).await?;
        match rows.first() {
            Some(row) => {
                Ok(Incremented { number: Self::number(row, 0)?.unwrap_or_default(), ttl: left(Self::number(row, 1)?) })
            }
            None => Err(KeyValueError::not_a_number()),
        }
    }

    pub(super) async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<ScanPage, KeyValueError> {
        limits::scan(prefix, limit)?;
        let (live, end) = (self.live(), end_of(prefix));
        let (from, first) = match after.filter(|after| *after >= prefix) {
            Some(after) => ("key >", after),
            None => ("key >=", prefix),
        };
        let to = if end.is_some() { "AND key < $2" } else { "" };
        let sql = format!(
            "SELECT key FROM tollgate_key_value WHERE {from} $1 {to} AND {live} ORDER BY key LIMIT {}",
            limit + 1
        );
        let values: Vec<_> = [Some(first), end.as_deref()].into_iter().flatten().map(Parameter::Bytes).collect();
        let mut keys = Vec::new();
        for row in &self.read(sql, &values).await? {
            keys.extend(Self::bytes(row, 0)?.map(Bytes::from));
        }
        Ok(ScanPage::of(keys, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_prefix_is_the_next_key_without_it() {
        assert_eq!(end_of(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"\xff"), None);
        assert_eq!(end_of(b""), None);
    }
}
