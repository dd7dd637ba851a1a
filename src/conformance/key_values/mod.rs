//! Rules that every key-value store must follow.
//!
//! `make` returns an empty store whose time is that of the clock that it receives, once for each rule or a few times. A rule
//! may be run alone; [`all`] runs every one. They need a tokio runtime; one with several threads finds more.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use tollgate::{FakeClock, conformance::key_values, key_value::{KeyValue, MemoryStore}};
//!
//! let make = async |clock: FakeClock| Arc::new(MemoryStore::new().clock(clock)) as Arc<dyn KeyValue>;
//! key_values::incr_keeps_the_time_to_live(make).await;
//! key_values::all(make).await;
//! # });
//! ```

mod batches;
mod entries;
mod histories;
mod numbers;

use std::{fmt::Debug, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    key_value::{KeyValue, KeyValueError, KeyValueErrorKind},
    time::FakeClock,
};

const MINUTE: Duration = Duration::from_secs(60);
const MICROSECOND: Duration = Duration::from_micros(1);

/// Exports rules, and declares the function that runs them all.
macro_rules! rules {
    ($($module:ident { $($rule:ident)* })*) => {
        $(pub use $module::{$($rule),*};)*

        /// Runs every rule.
        ///
        /// ```
        /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        /// use std::sync::Arc;
        /// use tollgate::{FakeClock, conformance::key_values, key_value::{KeyValue, MemoryStore}};
        ///
        /// let make = async |clock: FakeClock| Arc::new(MemoryStore::new().clock(clock)) as Arc<dyn KeyValue>;
        /// key_values::all(make).await;
        /// # });
        /// ```
        pub async fn all(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
            $($($rule(&make).await;)*)*
        }
    };
}

rules! {
    entries {
        value_is_read_back missing_key_is_told_from_an_empty_value calls_say_whether_the_key_was_there
        entry_ends_with_its_time expire_replaces_the_time set_replaces_the_time bounds_are_errors_that_store_nothing
        set_nx_stores_once many_at_once_store_once
    }
    numbers {
        incr_counts_from_nothing incr_keeps_the_time_to_live number_is_a_decimal_text
        value_that_is_no_number_stays many_at_once_count_each event_is_processed_once window_admits_its_limit
    }
    batches {
        mget_answers_in_order mset_stores_all_or_nothing delete_many_counts_what_was_there
        scan_lists_a_prefix_in_pages
    }
    histories { histories_equal_a_book }
}

/// An empty store, and its clock.
struct EmptyStore {
    store: Arc<dyn KeyValue>,
    clock: FakeClock,
}

impl EmptyStore {
    async fn new(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) -> Self {
        let clock = FakeClock::new();
        let store = make(clock.clone()).await;
        store.connect().await.expect("the store can be reached");
        Self { store, clock }
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) {
        self.store.set(key, Bytes::copy_from_slice(value), ttl).await.expect("a valid entry is stored");
    }

    async fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.store.get(key).await.expect("a valid key is read")
    }
}

/// Checks that a call failed with an error of this kind, and returns its text.
#[track_caller]
fn fails<T: Debug>(result: Result<T, KeyValueError>, kind: KeyValueErrorKind) -> String {
    let error = result.expect_err("an error");
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}
