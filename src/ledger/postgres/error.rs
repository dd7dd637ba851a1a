//! Classification of PostgreSQL errors by their effect on a transaction.

use sqlx::{
    error::DatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};

use crate::ledger::DbError;

/// Classifies by SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn reported(error: &dyn DatabaseError) -> DbError {
    let code = error.code().unwrap_or_default();
    let postgres = error.try_downcast_ref::<PgDatabaseError>();
    let fatal = postgres.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic));
    let of_value = postgres.is_some_and(|error| error.table().is_some() || error.file() == Some(INDEX_ROWS));
    by_code(&code, fatal, of_value)(format!("PostgreSQL: {error} (SQLSTATE {code})"))
}

/// Source file of the server that reports a value too large for any index, without the name of its table.
const INDEX_ROWS: &str = "indextuple.c";

/// Classifies a SQLSTATE. `fatal`: the server ends the connection. `of_value`: the error names the table whose limits
/// the value exceeds.
fn by_code(code: &str, fatal: bool, of_value: bool) -> fn(String) -> DbError {
    match code {
        // A serialization failure, a deadlock, a lock that did not come in time, a statement that took too long.
        "40001" | "40P01" | "55P03" | "57014" if !fatal => DbError::Again,
        // The size of an index row is a limit that one value exceeds. A server that has run out of transaction ids
        // reports the same code for every statement, until a VACUUM.
        _ if !fatal && !of_value && code.starts_with("54") => DbError::Refused,
        // Data exceptions, integrity constraints, and exceptions that a trigger or a view raises: the values are at
        // fault.
        _ if !fatal && ["21", "22", "23", "27", "44", "54", "P0"].iter().any(|class| code.starts_with(class)) => {
            DbError::Rejected
        }
        // A wrong password, role or database is not resolved by a retry.
        _ if code.starts_with("28") || code == "3D000" || code == "42501" => DbError::Refused,
        // The server stops, starts, or has no free connection; the connection is gone; the transaction was idle for
        // too long; or even the server does not know whether a commit took place.
        "40003" | "53300" => DbError::Lost,
        _ if fatal || code.starts_with("08") || code.starts_with("57P") => DbError::Lost,
        _ => DbError::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_documentation_says() {
        let of = |code: &str, fatal| by_code(code, fatal, false)(String::new());
        for again in ["40001", "40P01", "55P03", "57014"] {
            assert_eq!(of(again, false), DbError::Again(String::new()), "{again}");
        }
        for rejected in ["21000", "22003", "22021", "23502", "23505", "23514", "27000", "44000", "P0001", "P0004"] {
            assert_eq!(of(rejected, false), DbError::Rejected(String::new()), "{rejected}");
        }
        for (lost, fatal) in [
            ("57P01", true),
            ("57P02", true),
            ("57P03", true),
            ("08006", false),
            ("08P01", false),
            ("25P03", true),
            ("53300", true),
            ("40003", false),
            ("XX000", true),
        ] {
            assert_eq!(of(lost, fatal), DbError::Lost(String::new()), "{lost}");
        }
        for (refused, fatal) in [("53100", false), ("25006", false), ("42703", false), ("28P01", true), ("3D000", true)]
        {
            assert_eq!(of(refused, fatal), DbError::Refused(String::new()), "{refused}");
        }
        assert_eq!(of("54000", false), DbError::Refused(String::new()), "no transaction ids are left");
        assert_eq!(of("54000", true), DbError::Lost(String::new()));
        assert_eq!(by_code("54000", false, true)(String::new()), DbError::Rejected(String::new()), "an index row");
    }
}
