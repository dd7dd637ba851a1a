//! Where the time comes from: a monotonic clock for rules, a wall clock for what people read.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use governor::clock::{Clock as _, QuantaClock, QuantaInstant, Reference as _};

/// A point on a clock's monotonic scale, in nanoseconds; comparable only with points of the same clock.
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
    ///
    /// ```
    /// assert_eq!(tollgate::Moment::from_nanos(u64::MAX), tollgate::Moment::MAX);
    /// ```
    pub const MAX: Self = Self(u64::MAX >> 1);

    /// `nanos` after the clock's zero, at most [`Moment::MAX`].
    ///
    /// ```
    /// assert_eq!(tollgate::Moment::from_nanos(5).as_nanos(), 5);
    /// ```
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        if nanos < Self::MAX.0 { Self(nanos) } else { Self::MAX }
    }

    /// Nanoseconds since the clock's zero.
    ///
    /// ```
    /// assert_eq!(tollgate::Moment::default().as_nanos(), 0);
    /// ```
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to here, zero when `earlier` is later.
    ///
    /// ```
    /// use tollgate::Moment;
    /// assert_eq!(Moment::from_nanos(7).since(Moment::from_nanos(2)).as_nanos(), 5);
    /// ```
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Stops at [`Moment::MAX`].
    fn add(self, by: Duration) -> Self {
        Self::from_nanos(self.0.saturating_add(nanos(by)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    /// Stops at zero.
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

/// Whole nanoseconds of a duration, at most `u64::MAX`.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An instant in nanoseconds since 1970, as accounts hold it: 0 for one that is earlier, `u64::MAX` (2554-07-21) for one that
/// is later than they can hold. The only such conversion.
pub(crate) fn since_1970(time: SystemTime) -> u64 {
    nanos(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// The instant that lies `nanos` after 1970-01-01 00:00 UTC.
pub(crate) fn from_1970(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// Where a layer takes its time from; clones tell the same time.
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
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System(QuantaClock, QuantaInstant),
    /// When it was made, by tokio's clock and by the wall.
    Tokio(tokio::time::Instant, Duration),
    Fake(FakeClock),
}

/// Made once a process: calibrating the counter takes a while and runs `cpuid`, which is dear in a virtual machine.
static SYSTEM: LazyLock<Clock> = LazyLock::new(|| {
    let clock = QuantaClock::default();
    let start = clock.now();
    Clock(Kind::System(clock, start))
});

impl Clock {
    /// The processor's counter, calibrated once a process; the default of every layer.
    ///
    /// ```
    /// let clock = tollgate::Clock::system();
    /// assert!(clock.now() <= clock.now());
    /// ```
    #[must_use]
    pub fn system() -> Self {
        SYSTEM.clone()
    }

    /// Follows tokio's time, which tests can pause and advance.
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
        Self(Kind::Tokio(tokio::time::Instant::now(), system_wall()))
    }

    /// The time now, on the monotonic scale.
    ///
    /// ```
    /// let now = tollgate::Clock::system().now();
    /// # assert!(now.as_nanos() > 0);
    /// ```
    #[must_use]
    #[inline]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Kind::System(clock, start) => Moment::from_nanos(ZERO + clock.now().duration_since(*start).as_u64()),
            Kind::Tokio(start, _) => Moment::from_nanos(ZERO.saturating_add(nanos(start.elapsed()))),
            Kind::Fake(fake) => fake.now(),
        }
    }

    /// The time now on the wall, since 1970-01-01 00:00 UTC; may step when the machine's clock is set.
    ///
    /// ```
    /// let fake = tollgate::FakeClock::new();
    /// assert_eq!(tollgate::Clock::from(fake).wall().as_secs(), 1_767_225_600); // 2026-01-01
    /// ```
    #[must_use]
    pub fn wall(&self) -> Duration {
        match &self.0 {
            Kind::Fake(fake) => Duration::from_nanos(fake.0.wall.load(Ordering::Acquire)),
            Kind::Tokio(start, wall) => wall.saturating_add(start.elapsed()),
            Kind::System(..) => system_wall(),
        }
    }

    /// What the wall showed at `now`, a moment of this clock's just past, in nanoseconds since 1970.
    ///
    /// Reading the wall is dear. The processor's counter tells how much time has gone by since it was last read, and it is
    /// read again every few milliseconds, so that a clock that was set is noticed.
    #[inline]
    pub(crate) fn wall_at(&self, now: Moment) -> u64 {
        match &self.0 {
            Kind::System(..) => WALL.at(now, || (self.now(), nanos(system_wall()))),
            _ => nanos(self.wall()),
        }
    }
}

#[allow(clippy::disallowed_methods)] // the one place that reads it
fn system_wall() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// How far the wall is ahead of the counter, and when that was last looked at.
struct Wall {
    ahead: AtomicU64,
    looked: AtomicU64,
}

static WALL: Wall = Wall { ahead: AtomicU64::new(0), looked: AtomicU64::new(0) };

/// So old may a reading of the wall be: 5 ms.
const OLD: u64 = 5_000_000;

impl Wall {
    #[inline]
    fn at(&self, now: Moment, read: impl FnOnce() -> (Moment, u64)) -> u64 {
        if now.0.saturating_sub(self.looked.load(Ordering::Acquire)) > OLD {
            // Two threads that look at the same time write almost the same.
            let (looked, wall) = read();
            self.ahead.store(wall.saturating_sub(looked.0), Ordering::Relaxed);
            self.looked.store(looked.0, Ordering::Release);
        }
        now.0.saturating_add(self.ahead.load(Ordering::Relaxed))
    }
}

/// What every clock shows at its start: above zero, so that zero can mean "never".
const ZERO: u64 = 1_000_000_000;

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System(..) => "system",
            Self::Tokio(..) => "tokio",
            Self::Fake(_) => "fake",
        })
    }
}

/// A clock that stands still until a test moves it; clones are the same clock.
///
/// ```
/// use std::time::Duration;
/// let clock = tollgate::FakeClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_millis(5));
/// assert_eq!(clock.now().since(before), Duration::from_millis(5));
/// ```
#[derive(Clone, Debug)]
pub struct FakeClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    now: AtomicU64,
    wall: AtomicU64,
}

impl FakeClock {
    /// A clock that stands at one second; its wall shows 2026-01-01 00:00 UTC.
    ///
    /// ```
    /// assert_eq!(tollgate::FakeClock::new().now().as_nanos(), 1_000_000_000);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::at(Duration::from_secs(1_767_225_600))
    }

    /// A clock that stands at one second; its wall shows `wall` after 1970-01-01 00:00 UTC.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let clock = tollgate::FakeClock::at(Duration::from_secs(86_400));
    /// assert_eq!(tollgate::Clock::from(clock).wall().as_secs(), 86_400);
    /// ```
    #[must_use]
    pub fn at(wall: Duration) -> Self {
        Self(Arc::new(Hands { now: AtomicU64::new(ZERO), wall: AtomicU64::new(nanos(wall)) }))
    }

    /// Moves both hands forward.
    ///
    /// ```
    /// # use std::time::Duration;
    /// tollgate::FakeClock::new().advance(Duration::from_secs(1));
    /// ```
    pub fn advance(&self, by: Duration) {
        for hand in [&self.0.now, &self.0.wall] {
            let _ = hand.fetch_update(Ordering::AcqRel, Ordering::Acquire, |t| Some(t.saturating_add(nanos(by))));
        }
    }

    /// Moves both hands back, as a faulty clock would.
    ///
    /// ```
    /// # use std::time::Duration;
    /// tollgate::FakeClock::new().set_back(Duration::from_millis(1));
    /// ```
    pub fn set_back(&self, by: Duration) {
        for hand in [&self.0.now, &self.0.wall] {
            let _ = hand.fetch_update(Ordering::AcqRel, Ordering::Acquire, |t| Some(t.saturating_sub(nanos(by))));
        }
    }

    /// What the clock shows.
    ///
    /// ```
    /// # let clock = tollgate::FakeClock::new();
    /// assert_eq!(clock.now(), tollgate::Clock::from(clock.clone()).now());
    /// ```
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
        Self(Kind::Fake(fake))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_of_times_overflows() {
        assert_eq!(Moment::MAX + Duration::MAX, Moment::MAX);
        assert_eq!(Moment::default() - Duration::MAX, Moment::default());
        let fake = FakeClock::new();
        fake.advance(Duration::MAX);
        assert_eq!(fake.now(), Moment::MAX);
        fake.set_back(Duration::MAX);
        assert_eq!(fake.now().as_nanos(), 0);
    }
}
