//! Setters of what an account holds, and for how long.

use std::time::Duration;

use super::{
    builder::QuotaLayer,
    settings::{OnExpiry, check_positive, check_time},
};

impl QuotaLayer {
    /// Sets the time for which a job is remembered after its end; default 24 h.
    ///
    /// The number of remembered jobs of one client has [a limit of its own](Self::max_jobs_per_client). A ledger
    /// remembers a job as long as it stores its rows, so that neither limit applies there.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::{JobIdSource, Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).job_ids(JobIdSource::header("x-job-id")).job_retention(Duration::from_secs(3_600));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn job_retention(self, horizon: Duration) -> Self {
        self.with(|config| config.account.job_horizon = horizon)
    }

    /// Sets the number of jobs of one client that are remembered; default 65,536, which take about 8 MB.
    ///
    /// A client at this number is refused until some of its jobs are [forgotten](Self::job_retention), because a job
    /// that is not remembered could be charged twice.
    ///
    /// # Panics
    /// If `jobs` is 0.
    ///
    /// ```
    /// use tollgate::{JobIdSource, Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).job_ids(JobIdSource::header("x-job-id")).max_jobs_per_client(1_000_000);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn max_jobs_per_client(self, jobs: usize) -> Self {
        check_positive("max_jobs_per_client", jobs);
        self.with(|config| config.account.max_jobs = jobs)
    }

    /// Sets the longest time that a request may hold a concurrency slot; default 1 h.
    ///
    /// A slot held for longer is reclaimed by the next request that finds none free.
    ///
    /// # Panics
    /// If `time` is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::{Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).max_hold(Duration::from_secs(600));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn max_hold(self, time: Duration) -> Self {
        check_time("max_hold", time);
        self.with(|config| config.account.max_hold = time)
    }

    /// Sets the longest time that a response may hold a concurrency slot without progress; default 60 s.
    ///
    /// Progress is a frame of the response body; none is expected before the response head. A slot held for longer is
    /// reclaimed by the next request that finds none free. So a client that stops reading does not lock itself out.
    ///
    /// # Panics
    /// If `time` is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::{Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).max_stall(Duration::from_secs(30));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn max_stall(self, time: Duration) -> Self {
        check_time("max_stall", time);
        self.with(|config| config.account.max_stall = time)
    }

    /// Sets the time for which a reservation by the [handle](Self::handle) may be open; default 5 minutes.
    ///
    /// A reservation for a request stays open until its response ends, however long that takes.
    ///
    /// # Panics
    /// If `ttl` is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::{Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).reservations_last(Duration::from_secs(60));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn reservations_last(self, ttl: Duration) -> Self {
        check_time("time to live of a reservation", ttl);
        self.with(|config| config.account.ttl = ttl)
    }

    /// Sets the number of open reservations by the [handle](Self::handle) that one client may have; default 4,096.
    ///
    /// A client at this number is refused with [`Reason::TooManyReservations`](crate::Reason::TooManyReservations) until
    /// one of them is closed or expires. It bounds the memory of a caller that loses its
    /// [ids](crate::Reservation::detach), and the work of the call that finds them all expired. Requests in flight do
    /// not count. A ledger stores reservations in its database, so that this limit does not apply there.
    ///
    /// # Panics
    /// If `reservations` is 0.
    ///
    /// ```
    /// use tollgate::{Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).max_reservations_per_client(100_000);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn max_reservations_per_client(self, reservations: usize) -> Self {
        check_positive("max_reservations_per_client", reservations);
        self.with(|config| config.account.max_reservations = reservations)
    }

    /// Sets the effect of expiry on a reservation by the [handle](Self::handle). By default memory returns the amounts,
    /// and a ledger charges the estimate.
    #[must_use]
    #[track_caller]
    pub fn on_expiry(self, on_expiry: OnExpiry) -> Self {
        self.with(|config| config.on_expiry = Some(on_expiry))
    }
}
