//! Classification of SQLite errors by their effect on a transaction.

use sqlx::error::DatabaseError;

use crate::ledger::DbError;

/// Classifies by the primary code, the last eight bits: <https://www.sqlite.org/rescode.html>.
pub(super) fn reported(error: &dyn DatabaseError) -> DbError {
    let code = error.code().and_then(|code| code.parse().ok()).unwrap_or(1);
    by_code(code)(format!("SQLite: {error}"))
}

fn by_code(code: i32) -> fn(String) -> DbError {
    const READONLY_DBMOVED: i32 = 1032;
    match code {
        // The file was replaced under this connection: a new one opens the present file.
        READONLY_DBMOVED => DbError::Lost,
        code => match code & 0xff {
            // ABORT, BUSY, LOCKED, INTERRUPT, PROTOCOL: another connection was in the way.
            4 | 5 | 6 | 9 | 15 => DbError::Again,
            // IOERR: after a failed fsync the contents of the disk are unknown. CANTOPEN: the process may have run
            // out of file descriptors.
            10 | 14 => DbError::Lost,
            // TOOBIG, CONSTRAINT (also raised by a trigger), MISMATCH: the values are at fault.
            18..=20 => DbError::Rejected,
            // FULL, READONLY, CORRUPT, NOTADB, NOMEM, an altered table: none of them resolves by itself. FULL in a
            // commit is a known failure: the frame that would commit was not written completely.
            _ => DbError::Refused,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_documentation_says() {
        let of = |code: i32| by_code(code)(String::new());
        for again in [5, 261, 517, 6, 262, 4, 15] {
            assert_eq!(of(again), DbError::Again(String::new()), "{again}");
        }
        for rejected in [18, 19, 20, 275, 1299, 1555, 1811, 2067, 2579] {
            assert_eq!(of(rejected), DbError::Rejected(String::new()), "{rejected}");
        }
        for lost in [10, 1034, 14, 1032] {
            assert_eq!(of(lost), DbError::Lost(String::new()), "{lost}");
        }
        for refused in [1, 7, 8, 11, 13, 26] {
            assert_eq!(of(refused), DbError::Refused(String::new()), "{refused}");
        }
    }
}
