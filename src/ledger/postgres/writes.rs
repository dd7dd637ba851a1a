//! Writes of a transaction: one statement for the rows of several tables.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use super::{PostgresQuery, values::Time};
use crate::ledger::{
    DbError,
    sql::{COUNT, SqlValue, WRITES, db_error, encoding::text, safe},
};

/// Returns the statement for each of [`WRITES`].
pub(super) fn statements() -> impl Iterator<Item = Arc<str>> {
    (0..COUNT).map(|at| joined(&[at]))
}

/// Writes the values of all rows, in as few statements as possible: each is a round trip.
pub(super) async fn put(connection: &mut PgConnection, values: &[Vec<SqlValue<'_>>; COUNT]) -> Result<(), DbError> {
    for group in groups((0..COUNT).filter(|at| !values[*at].is_empty())) {
        let mut query = sqlx::query(safe(joined(&group)));
        for at in group {
            let columns = &WRITES[at].columns;
            for (column, (_, kind)) in columns.iter().enumerate() {
                query = bind_column(query, kind, values[at].iter().skip(column).step_by(columns.len()));
            }
        }
        query.execute(&mut *connection).await.map_err(db_error::<Postgres>)?;
    }
    Ok(())
}

/// Groups statements that can be joined. The parts of a joined statement see the rows as they were before it, so that it
/// has at most one for each table; those of one table keep their order.
fn groups(statements: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for at in statements {
        let is_of_table = |other: &usize| WRITES[*other].table == WRITES[at].table;
        let group = groups.iter().filter(|group| group.iter().any(is_of_table)).count();
        match groups.get_mut(group) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

/// Returns one text for these statements. Each text is made once.
fn joined(group: &[usize]) -> Arc<str> {
    static TEXTS: Mutex<BTreeMap<u16, Arc<str>>> = Mutex::new(BTreeMap::new());
    let key = group.iter().fold(0, |key, at| key | 1 << at);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(texts.entry(key).or_insert_with(|| join(group).into()))
}

fn join(group: &[usize]) -> String {
    let mut values = 0;
    let mut parts: Vec<_> = group.iter().map(|at| part(*at, &mut values)).collect();
    let last = parts.pop().unwrap_or_default();
    let parts: Vec<_> = parts.iter().enumerate().map(|(at, part)| format!("part{at} AS ({part})")).collect();
    if parts.is_empty() { last } else { format!("WITH {} {last}", parts.join(", ")) }
}

/// Returns the text of a statement whose first value follows these `values`.
fn part(at: usize, values: &mut usize) -> String {
    let columns = &WRITES[at].columns;
    let arrays: Vec<_> = columns
        .iter()
        .map(|(_, kind)| {
            *values += 1;
            format!("${values}::{kind}[]")
        })
        .collect();
    let names: Vec<_> = (1..=columns.len()).map(|at| format!("column{at}")).collect();
    WRITES[at].sql(&format!("SELECT * FROM unnest({}) AS rows ({})", arrays.join(", "), names.join(", ")))
}

/// Binds a column of all rows as an array.
fn bind_column<'a>(query: PostgresQuery, kind: &str, values: impl Iterator<Item = &'a SqlValue<'a>>) -> PostgresQuery {
    macro_rules! array {
        ($variant:ident, $value:ident => $of:expr) => {
            values
                .map(|value| if let SqlValue::$variant($value) = *value { Some($of) } else { None })
                .collect::<Vec<_>>()
        };
    }
    match kind {
        "text" => query.bind(array!(Text, value => text(value))),
        "int8" => query.bind(array!(Number, value => value)),
        "bool" => query.bind(array!(Flag, value => value)),
        "timestamptz" => query.bind(array!(Time, value => Time(value))),
        _ => query.bind(array!(Digest, value => Uuid::from_u128(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(group: &[usize]) -> Vec<&'static str> {
        group.iter().map(|at| WRITES[*at].table).collect()
    }

    #[test]
    fn statement_has_at_most_one_part_for_each_table() {
        let groups = groups(0..COUNT);
        for group in &groups {
            let mut tables = tables(group);
            tables.sort_unstable();
            tables.dedup();
            assert_eq!(tables.len(), group.len(), "{groups:?}");
        }
        assert_eq!(groups.len(), 3, "three statements change the reservations: {groups:?}");
    }

    #[test]
    fn statements_of_one_table_keep_their_order() {
        let groups = groups(0..COUNT);
        for table in tables(&(0..COUNT).collect::<Vec<_>>()) {
            let of_table: Vec<_> = groups.iter().flatten().filter(|at| WRITES[**at].table == table).collect();
            assert!(of_table.is_sorted(), "{table}: {groups:?}");
        }
    }

    #[test]
    fn rows_and_counters_are_written_by_one_statement() {
        let groups = groups([0, 1].into_iter());
        assert_eq!(groups, [[0, 1]]);
        let text = joined(&groups[0]);
        assert!(text.starts_with("WITH part0 AS (INSERT INTO quota_consumption "), "{text}");
        assert!(text.contains("INSERT INTO quota_counter ") && text.contains("$19::text[]"), "{text}");
    }
}
