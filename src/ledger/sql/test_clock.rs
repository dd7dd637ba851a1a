//! Time of a ledger in a test, which replaces the time of its database.

use std::borrow::Cow;

use super::SqlDialect;
use crate::{ledger::sql::encoding::until, time::Clock};

/// The clock that a test gave the ledger; none in production, where the database's clock counts, which all its
/// processes share.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestClock(pub(crate) Option<Clock>);

impl TestClock {
    /// Returns the time of the test's clock, in microseconds since 1970.
    pub(super) fn micros(&self) -> Option<i64> {
        self.0.as_ref().map(|clock| until(clock.wall_at(clock.now())))
    }

    /// Returns the expression of the present time.
    pub(super) fn sql<S: SqlDialect>(&self) -> Cow<'static, str> {
        match self.micros() {
            Some(micros) => S::time(micros).into(),
            None => S::NOW.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::FakeClock;

    #[test]
    #[cfg(feature = "sqlite")]
    fn time_is_the_tests_or_the_databases() {
        assert_eq!(TestClock::default().micros(), None);
        assert_eq!(TestClock::default().sql::<sqlx::Sqlite>(), <sqlx::Sqlite as SqlDialect>::NOW);
        let fake = FakeClock::new();
        let clock = TestClock(Some(fake.clone().into()));
        fake.advance(Duration::from_micros(5));
        assert_eq!(clock.micros(), Some(1_767_225_600_000_005));
        assert_eq!(clock.sql::<sqlx::Sqlite>(), "1767225600000005");
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn time_of_a_test_is_a_timestamp_in_postgresql() {
        let clock = TestClock(Some(FakeClock::at(Duration::from_micros(5)).into()));
        assert_eq!(clock.sql::<sqlx::Postgres>(), "(timestamptz 'epoch' + interval '5 microseconds')");
        assert_eq!(TestClock::default().sql::<sqlx::Postgres>(), "now()");
    }
}
