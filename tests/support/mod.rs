//! Helpers of several test binaries.
#![allow(dead_code, reason = "each binary uses a part of it")]

pub(crate) mod directory;
pub(crate) mod fixed;
pub(crate) mod gate;
pub(crate) mod postgres;

use std::time::Duration;

use tollgate::{Clock, Period};

/// A month from a client's first charge, which ends in no test. A month of the calendar may end between any two calls,
/// where a ledger's database has the time.
pub(crate) const MONTH: Period = Period::rolling(Duration::from_secs(30 * 86_400));

/// Waits until midnight UTC if less than five minutes are left of the day, which is more than any test takes. For tests
/// of a program that counts by the calendar and whose clock they cannot stop.
pub(crate) fn stay_within_a_day() {
    let now = Clock::system().wall();
    let left = Period::day().window_at(now).left(now);
    if left < Duration::from_secs(300) {
        std::thread::sleep(left);
    }
}
