//! A stretch of time.

use std::time::Duration;

/// A stretch of time on the wall, up to its end and without it.
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

    /// When it begins, since 1970-01-01 00:00 UTC.
    ///
    /// ```
    /// # use std::time::Duration;
    /// assert_eq!(tollgate::Period::hour().window_at(Duration::from_secs(5_000)).start().as_secs(), 3_600);
    /// ```
    #[must_use]
    pub const fn start(&self) -> Duration {
        self.start
    }

    /// When it ends, and the next one begins.
    ///
    /// ```
    /// # use std::time::Duration;
    /// assert_eq!(tollgate::Period::hour().window_at(Duration::from_secs(5_000)).end().as_secs(), 7_200);
    /// ```
    #[must_use]
    pub const fn end(&self) -> Duration {
        self.end
    }

    /// Whether `wall` lies in it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let noon = Duration::from_secs(12 * 3_600);
    /// assert!(tollgate::Period::day().window_at(noon).contains(noon));
    /// ```
    #[must_use]
    pub fn contains(&self, wall: Duration) -> bool {
        self.start <= wall && wall < self.end
    }

    /// How much of it is left at `wall`; nothing after its end.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let noon = Duration::from_secs(12 * 3_600);
    /// assert_eq!(tollgate::Period::day().window_at(noon).left(noon), noon);
    /// ```
    #[must_use]
    pub const fn left(&self, wall: Duration) -> Duration {
        self.end.saturating_sub(wall)
    }
}
