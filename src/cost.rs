//! The number of units that one request takes.

use crate::error::ConfigError;

/// Units that one request takes: 1 to 2^53 - 1, the range that memory, Lua and SQL all hold exactly.
///
/// ```
/// use tollgate::Cost;
///
/// const PAGE: Cost = Cost::new(10);
/// assert_eq!(PAGE.get(), 10);
/// assert!(Cost::try_new(1 << 53).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

const RANGE: &str = "be from 1 to 2^53 - 1";

impl Cost {
    /// One unit, the default cost of a request.
    pub const ONE: Self = Self(1);

    /// The largest cost: 2^53 - 1.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// A check that takes nothing: refused exactly when nothing is left.
    ///
    /// ```
    /// use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    ///
    /// let buckets = TokenBucketLayer::new(Rate::per_hour(1)).handle();
    /// let alice = Client::named("alice");
    /// buckets.check(&alice, Cost::PREFLIGHT).unwrap(); // a token is left, ...
    /// buckets.check(&alice, Cost::ONE).unwrap(); // ... which this call takes, ...
    /// assert!(buckets.check(&alice, Cost::PREFLIGHT).is_err()); // ... and now none is left
    /// ```
    pub const PREFLIGHT: Self = Self(0);

    /// Creates a cost of `units`.
    ///
    /// # Panics
    /// If `units` is 0 or above 2^53 - 1; in a `const` that is a compile error.
    ///
    /// ```compile_fail
    /// const FREE: tollgate::Cost = tollgate::Cost::new(0);
    /// ```
    #[must_use]
    #[track_caller]
    pub const fn new(units: u64) -> Self {
        assert!(units > 0 && units <= Self::MAX.0, "cost must be from 1 to 2^53 - 1");
        Self(units)
    }

    /// [`new`](Self::new) for input at run time.
    ///
    /// # Errors
    /// If `units` is 0 or above 2^53 - 1.
    ///
    /// ```
    /// use tollgate::Cost;
    /// assert_eq!(Cost::try_new(7), Ok(Cost::new(7)));
    /// assert_eq!(Cost::try_new(0).unwrap_err().to_string(), "cost must be from 1 to 2^53 - 1, got 0");
    /// ```
    pub fn try_new(units: u64) -> Result<Self, ConfigError> {
        ConfigError::require((1..=Self::MAX.0).contains(&units), "cost", RANGE, units).map(|()| Self(units))
    }

    /// Returns the units, 0 for [`Cost::PREFLIGHT`].
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<i64> for Cost {
    type Error = ConfigError;

    fn try_from(units: i64) -> Result<Self, ConfigError> {
        u64::try_from(units).map_err(|_| ConfigError::new("cost", RANGE, units)).and_then(Self::try_new)
    }
}

impl TryFrom<u64> for Cost {
    type Error = ConfigError;

    fn try_from(units: u64) -> Result<Self, ConfigError> {
        Self::try_new(units)
    }
}

impl TryFrom<f64> for Cost {
    type Error = ConfigError;

    /// Converts a whole number. A fraction, NaN or infinity is an error and is not rounded.
    fn try_from(units: f64) -> Result<Self, ConfigError> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        if (1.0..=9_007_199_254_740_991.0).contains(&units) && units.fract() == 0.0 {
            Ok(Self(units as u64))
        } else {
            Err(ConfigError::new("cost", "be a whole number from 1 to 2^53 - 1", units))
        }
    }
}

impl From<std::num::NonZeroU32> for Cost {
    fn from(units: std::num::NonZeroU32) -> Self {
        Self(u64::from(units.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_type_has_the_same_bounds() {
        assert!(Cost::try_new((1 << 53) - 1).is_ok());
        assert!(Cost::try_from(1_i64).is_ok());
        assert!(Cost::try_from(9_007_199_254_740_991_f64).is_ok());
        for bad in [0_u64, 1 << 53, (1 << 53) + 1, u64::MAX] {
            assert!(Cost::try_new(bad).unwrap_err().to_string().ends_with(&format!("got {bad}")));
        }
        for bad in [0_i64, -1, i64::MIN, i64::MAX] {
            assert!(Cost::try_from(bad).unwrap_err().to_string().ends_with(&format!("got {bad}")));
        }
        for bad in [f64::NAN, f64::INFINITY, -0.0, 0.5, 1.5, 9_007_199_254_740_992.0] {
            assert!(Cost::try_from(bad).is_err(), "{bad}");
        }
    }
}
