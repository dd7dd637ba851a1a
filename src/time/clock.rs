//! Clocks: monotonic time for rules, wall time for calendars and reports.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// Point on a clock's monotonic scale, in nanoseconds; comparable only with points of the same clock.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Moment;
///
/// let start = Moment::from_nanos(5);
/// assert_eq!((start + Duration::from_nanos(3)).since(start), Duration::from_nanos(3));
/// assert_eq!(start.since(start + Duration::from_nanos(3)), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The latest moment: 2^63 - 1 ns, so that a moment and the fill time of any bucket add up without overflow.
    pub const MAX: Self = Self(u64::MAX >> 1);

    /// Returns the moment `nanos` after the clock's zero, at most [`Moment::MAX`].
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        if nanos < Self::MAX.0 { Self(nanos) } else { Self::MAX }
    }

    /// Returns the nanoseconds since the clock's zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to this moment, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates at [`Moment::MAX`].
    fn add(self, by: Duration) -> Self {
        Self::from_nanos(self.0.saturating_add(nanos(by)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    /// Saturates at zero.
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

/// Returns the whole nanoseconds of a duration, at most `u64::MAX`.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Converts a time into nanoseconds since 1970, the unit of accounts: 0 for an earlier time, `u64::MAX` (2554-07-21)
/// for a later one than fits. The only such conversion.
pub(crate) fn since_1970(time: SystemTime) -> u64 {
    nanos(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Returns the time `nanos` after 1970-01-01 00:00 UTC.
pub(crate) fn from_1970(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// Source of a layer's time; clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{Clock, FakeClock};
///
/// let fake = FakeClock::new();
/// let clock = Clock::from(fake.clone());
/// let before = clock.now();
/// fake.advance(Duration::from_secs(2));
/// assert_eq!(clock.now().since(before), Duration::from_secs(2));
/// ```
#[derive(Clone, Debug)]
pub struct Clock(TimeSource);

#[derive(Clone)]
enum TimeSource {
    /// The processor's counter, and its value at the start.
    System(quanta::Clock, u64),
    /// Time of creation, by tokio's clock and by the wall.
    Tokio(tokio::time::Instant, Duration),
    Fake(FakeClock),
}

/// The system clock, created once a process: calibrating the counter is slow and runs `cpuid`, which is expensive in a
/// virtual machine.
static SYSTEM: LazyLock<Clock> = LazyLock::new(|| {
    let clock = quanta::Clock::new();
    let start = clock.raw();
    Clock(TimeSource::System(clock, start))
});

impl Clock {
    /// Returns the clock that reads the processor's counter, calibrated once a process; the default of every layer.
    #[must_use]
    pub fn system() -> Self {
        SYSTEM.clone()
    }

    /// Creates a clock that follows tokio's time, which tests can pause and advance.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// let clock = tollgate::Clock::tokio();
    /// let before = clock.now();
    /// tokio::time::advance(Duration::from_secs(1)).await;
    /// assert_eq!(clock.now().since(before), Duration::from_secs(1));
    /// # });
    /// ```
    #[must_use]
    pub fn tokio() -> Self {
        Self(TimeSource::Tokio(tokio::time::Instant::now(), system_wall()))
    }

    /// Returns the current moment, on the monotonic scale.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Moment {
        match &self.0 {
            TimeSource::System(clock, start) => Moment::from_nanos(START + clock.delta_as_nanos(*start, clock.raw())),
            TimeSource::Tokio(start, _) => Moment::from_nanos(START.saturating_add(nanos(start.elapsed()))),
            TimeSource::Fake(fake) => fake.now(),
        }
    }

    /// Returns the current wall time, since 1970-01-01 00:00 UTC. It steps when the machine's clock is set.
    ///
    /// ```
    /// let fake = tollgate::FakeClock::new();
    /// assert_eq!(tollgate::Clock::from(fake).wall().as_secs(), 1_767_225_600); // 2026-01-01
    /// ```
    #[must_use]
    pub fn wall(&self) -> Duration {
        match &self.0 {
            TimeSource::Fake(fake) => Duration::from_nanos(fake.0.wall.load(Ordering::Acquire)),
            TimeSource::Tokio(start, wall) => wall.saturating_add(start.elapsed()),
            TimeSource::System(..) => system_wall(),
        }
    }

    /// Returns whether both always show the same time, as clones do.
    #[inline]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (TimeSource::System(..), TimeSource::System(..)) => true, // there is one
            (TimeSource::Tokio(start, wall), TimeSource::Tokio(other, other_wall)) => {
                (start, wall) == (other, other_wall)
            }
            (TimeSource::Fake(fake), TimeSource::Fake(other)) => Arc::ptr_eq(&fake.0, &other.0),
            _ => false,
        }
    }

    /// Returns the wall time at `now`, a recent moment of this clock, in nanoseconds since 1970.
    ///
    /// Reading the wall is expensive. Between two readings the processor's counter measures the time that has passed.
    /// The wall is read again every 5 ms, so that a change of the machine's clock takes effect.
    #[inline]
    pub(crate) fn wall_at(&self, now: Moment) -> u64 {
        match &self.0 {
            TimeSource::System(..) => WALL.at(now, || (self.now(), nanos(system_wall()))),
            _ => nanos(self.wall()).saturating_sub(self.now().0.saturating_sub(now.0)),
        }
    }
}

#[allow(clippy::disallowed_methods)] // the one place that reads it
fn system_wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Difference between the wall and the counter, and the moment at which it was measured.
struct Wall {
    ahead: AtomicU64,
    measured: AtomicU64,
}

static WALL: Wall = Wall { ahead: AtomicU64::new(0), measured: AtomicU64::new(0) };

/// Greatest age of a reading of the wall: 5 ms.
const MAX_AGE: u64 = 5_000_000;

impl Wall {
    #[inline]
    fn at(&self, now: Moment, read: impl FnOnce() -> (Moment, u64)) -> u64 {
        if now.0.saturating_sub(self.measured.load(Ordering::Acquire)) > MAX_AGE {
            // Two threads that read at the same time store almost the same.
            let (measured, wall) = read();
            self.ahead.store(wall.saturating_sub(measured.0), Ordering::Relaxed);
            self.measured.store(measured.0, Ordering::Release);
        }
        now.0.saturating_add(self.ahead.load(Ordering::Relaxed))
    }
}

/// Start of every clock: above zero, so that zero can mean "never".
const START: u64 = 1_000_000_000;

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System(..) => "system",
            Self::Tokio(..) => "tokio",
            Self::Fake(_) => "fake",
        })
    }
}

/// Clock of tests, which stands still until it is moved; clones are the same clock.
///
/// ```
/// use std::time::Duration;
/// let clock = tollgate::FakeClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_millis(5));
/// assert_eq!(clock.now().since(before), Duration::from_millis(5));
/// ```
#[derive(Clone, Debug)]
pub struct FakeClock(Arc<FakeTimes>);

#[derive(Debug)]
struct FakeTimes {
    now: AtomicU64,
    wall: AtomicU64,
}

impl FakeClock {
    /// Creates a clock at one second after its zero and at the wall time 2026-01-01 00:00 UTC.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Duration::from_secs(1_767_225_600))
    }

    /// Creates a clock at one second after its zero and at the wall time `wall` after 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn at(wall: Duration) -> Self {
        Self(Arc::new(FakeTimes { now: AtomicU64::new(START), wall: AtomicU64::new(nanos(wall)) }))
    }

    /// Moves the moment and the wall forward.
    pub fn advance(&self, by: Duration) {
        self.update(|time| time.saturating_add(nanos(by)));
    }

    /// Moves the moment and the wall back, as a faulty clock would.
    pub fn set_back(&self, by: Duration) {
        self.update(|time| time.saturating_sub(nanos(by)));
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        for time in [&self.0.now, &self.0.wall] {
            let _ = time.fetch_update(Ordering::AcqRel, Ordering::Acquire, |time| Some(change(time)));
        }
    }

    /// Returns the current moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::from_nanos(self.0.now.load(Ordering::Acquire))
    }
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl From<FakeClock> for Clock {
    fn from(fake: FakeClock) -> Self {
        Self(TimeSource::Fake(fake))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_times_saturate() {
        assert_eq!(Moment::MAX + Duration::MAX, Moment::MAX);
        assert_eq!(Moment::default() - Duration::MAX, Moment::default());
        let fake = FakeClock::new();
        fake.advance(Duration::MAX);
        assert_eq!(fake.now(), Moment::MAX);
        fake.set_back(Duration::MAX);
        assert_eq!(fake.now().as_nanos(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_is_the_same_as_its_clones_only() {
        let fake = FakeClock::new();
        let first = Clock::tokio();
        tokio::time::advance(Duration::from_secs(1)).await;
        let all = [Clock::system(), first, Clock::tokio(), fake.into(), FakeClock::new().into()];
        for (at, clock) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(clock.is_same(&other.clone()), at == other_at, "{clock:?} {at}, {other:?} {other_at}");
            }
        }
    }

    #[test]
    fn debug_names_the_source_alone() {
        assert_eq!(format!("{:?}", Clock::system()), "Clock(system)");
    }
}
