//! Windows of wall time.

use std::time::Duration;

/// One repetition of a period: a span of wall time that includes its start and excludes its end.
///
/// ```
/// use std::time::Duration;
/// let window = tollgate::Period::hour().window_at(Duration::from_secs(5_000));
/// assert!(window.contains(window.start()) && !window.contains(window.end()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    start: Duration,
    end: Duration,
}

impl Window {
    pub(super) const fn new(start: Duration, end: Duration) -> Self {
        Self { start, end }
    }

    /// Returns its start, since 1970-01-01 00:00 UTC.
    #[must_use]
    pub const fn start(&self) -> Duration {
        self.start
    }

    /// Returns its end, at which the next window of a calendar period starts.
    #[must_use]
    pub const fn end(&self) -> Duration {
        self.end
    }

    /// Returns whether it contains `wall`.
    #[must_use]
    pub fn contains(&self, wall: Duration) -> bool {
        self.start <= wall && wall < self.end
    }

    /// Returns the time from `wall` to its end, zero after the end.
    #[must_use]
    pub const fn left(&self, wall: Duration) -> Duration {
        self.end.saturating_sub(wall)
    }
}
