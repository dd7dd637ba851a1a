//! The rules of key-value stores over each store, and stores that break a rule and must fail it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tollgate::{
    FakeClock,
    conformance::key_values,
    key_value::{Incremented, KeyValue, MemoryStore, ScanPage, StoreFuture, Ttl},
};

async fn in_memory(clock: FakeClock) -> Arc<dyn KeyValue> {
    Arc::new(MemoryStore::new().clock(clock))
}

/// A store in a file, which is removed with it.
#[cfg(feature = "sqlite")]
async fn in_sqlite(clock: FakeClock) -> Arc<dyn KeyValue> {
    let folder = crate::support::directory::Directory::new();
    let store = Arc::new(tollgate::key_value::SqliteStore::open(folder.0.join("store.db")).clock(clock));
    Arc::new(Liar { store, lie: None, folder: Some(Box::new(folder)) })
}

#[cfg(feature = "postgres")]
async fn in_postgres(clock: FakeClock) -> Arc<dyn KeyValue> {
    let url = crate::support::postgres::Postgres::shared().database();
    Arc::new(tollgate::key_value::PostgresStore::open(&url).unwrap().clock(clock))
}

/// Declares one test for each rule, on a runtime with threads.
macro_rules! follows_every_rule {
    ($store:ident) => {
        follows_every_rule! { $store:
            value_is_read_back missing_key_is_told_from_an_empty_value calls_say_whether_the_key_was_there
            entry_ends_with_its_time expire_replaces_the_time set_replaces_the_time
            bounds_are_errors_that_store_nothing set_nx_stores_once many_at_once_store_once incr_counts_from_nothing
            incr_keeps_the_time_to_live number_is_a_decimal_text value_that_is_no_number_stays
            many_at_once_count_each event_is_processed_once window_admits_its_limit mget_answers_in_order
            mset_stores_all_or_nothing delete_many_counts_what_was_there scan_lists_a_prefix_in_pages
            histories_equal_a_book
        }
    };
    ($store:ident: $($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $rule() {
            super::key_values::$rule(super::$store).await;
        }
    )*};
}

mod memory {
    follows_every_rule!(in_memory);
}

#[cfg(feature = "sqlite")]
mod sqlite {
    follows_every_rule!(in_sqlite);
}

#[cfg(feature = "postgres")]
mod postgres_on_a_server {
    follows_every_rule!(in_postgres);
}

/// A property that a store breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// `set` keeps the old time to live.
    KeepsTime,
    /// `expire` answers yes for a missing key.
    ExpiresNothing,
    /// `set_nx` asks, and then stores.
    AsksThenStores,
    /// `incr` reads, and then stores.
    ReadsThenCounts,
    /// `incr` renews the time to live.
    RenewsTime,
    /// `incr` and its time to live are two steps, of which the second is lost.
    ForgetsTime,
    /// `incr` takes any value for 0.
    CountsWords,
    /// `mset` stores one entry after another.
    StoresOneByOne,
    /// `mset` stores the entries before one that is invalid.
    StoresAPart,
    /// `mget` answers in the order of the keys' bytes.
    Sorts,
    /// `delete_many` counts what it was asked for.
    CountsRequests,
    /// `scan` takes `_` and `%` of a prefix for wildcards.
    HasWildcards,
    /// `scan` begins its pages with the last key of the page before.
    RepeatsKeys,
    /// `get` returns an empty value for a missing key.
    MakesUpValues,
    /// Nothing has a bound.
    TakesAnything,
}

/// A store that breaks at most one property, over one that breaks none.
struct Liar {
    store: Arc<dyn KeyValue>,
    lie: Option<Lie>,
    /// Folder of the store's file, removed after it.
    #[allow(dead_code, reason = "only its drop counts")]
    folder: Option<Box<dyn std::any::Any + Send + Sync>>,
}

async fn lying(lie: Lie, clock: FakeClock) -> Arc<dyn KeyValue> {
    Arc::new(Liar { store: Arc::new(MemoryStore::new().clock(clock)), lie: Some(lie), folder: None })
}

impl KeyValue for Liar {
    fn connect(&self) -> StoreFuture<'_, ()> {
        self.store.connect()
    }

    fn disconnect(&self) -> StoreFuture<'_, ()> {
        self.store.disconnect()
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, Option<Bytes>> {
        match self.lie {
            Some(Lie::MakesUpValues) => Box::pin(async { Ok(self.store.get(key).await?.or(Some(Bytes::new()))) }),
            Some(Lie::TakesAnything) if key.is_empty() => Box::pin(async { Ok(None) }),
            _ => self.store.get(key),
        }
    }

    fn set<'a>(&'a self, key: &'a [u8], value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let before = self.store.ttl(key).await;
            self.store.set(key, value, ttl).await?;
            if let (Some(Lie::KeepsTime), Ok(Ttl::Left(left))) = (self.lie, before) {
                self.store.expire(key, Some(left)).await?;
            }
            Ok(())
        })
    }

    fn delete<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, bool> {
        self.store.delete(key)
    }

    fn exists<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, bool> {
        self.store.exists(key)
    }

    fn mget<'a>(&'a self, keys: &'a [&'a [u8]]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(async move {
            let mut keys = keys.to_vec();
            if self.lie == Some(Lie::Sorts) {
                keys.sort_unstable();
            }
            if self.lie == Some(Lie::StoresOneByOne) {
                let mut values = Vec::new();
                for key in keys {
                    values.push(self.store.get(key).await?);
                    tokio::task::yield_now().await;
                }
                return Ok(values);
            }
            self.store.mget(&keys).await
        })
    }

    fn mset<'a>(&'a self, entries: &'a [(&'a [u8], Bytes)], ttl: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            if !matches!(self.lie, Some(Lie::StoresOneByOne | Lie::StoresAPart)) {
                return self.store.mset(entries, ttl).await;
            }
            for (key, value) in entries {
                self.store.set(key, value.clone(), ttl).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        })
    }

    fn delete_many<'a>(&'a self, keys: &'a [&'a [u8]]) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let removed = self.store.delete_many(keys).await?;
            Ok(if self.lie == Some(Lie::CountsRequests) { keys.len() as u64 } else { removed })
        })
    }

    fn ttl<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, Ttl> {
        self.store.ttl(key)
    }

    fn expire<'a>(&'a self, key: &'a [u8], ttl: Option<Duration>) -> StoreFuture<'a, bool> {
        Box::pin(async move { Ok(self.store.expire(key, ttl).await? || self.lie == Some(Lie::ExpiresNothing)) })
    }

    fn set_nx<'a>(&'a self, key: &'a [u8], value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            if self.lie != Some(Lie::AsksThenStores) {
                return self.store.set_nx(key, value, ttl).await;
            }
            if self.store.exists(key).await? {
                return Ok(false);
            }
            tokio::task::yield_now().await;
            self.store.set(key, value, ttl).await?;
            Ok(true)
        })
    }

    fn incr<'a>(&'a self, key: &'a [u8], ttl_if_created: Option<Duration>) -> StoreFuture<'a, Incremented> {
        Box::pin(async move {
            match self.lie {
                Some(Lie::ReadsThenCounts) => {
                    let before = self.store.get(key).await?;
                    let text = before.as_deref().map_or("0", |text| std::str::from_utf8(text).unwrap_or("0"));
                    let number = text.parse::<i64>().unwrap_or(0) + 1;
                    let ttl = self.store.ttl(key).await?;
                    tokio::task::yield_now().await;
                    let left = if let Ttl::Left(left) = ttl { Some(left) } else { ttl_if_created };
                    self.store.set(key, number.to_string().into(), left).await?;
                    Ok(Incremented { number, ttl: self.store.ttl(key).await? })
                }
                Some(Lie::RenewsTime) => {
                    let counted = self.store.incr(key, ttl_if_created).await?;
                    if ttl_if_created.is_some() {
                        self.store.expire(key, ttl_if_created).await?;
                    }
                    Ok(Incremented { ttl: self.store.ttl(key).await?, ..counted })
                }
                Some(Lie::ForgetsTime) => self.store.incr(key, None).await,
                Some(Lie::CountsWords) => {
                    if let Err(error) = self.store.incr(key, ttl_if_created).await {
                        drop(error);
                        self.store.delete(key).await?;
                        return self.store.incr(key, ttl_if_created).await;
                    }
                    Ok(Incremented { number: 1, ttl: self.store.ttl(key).await? })
                }
                _ => self.store.incr(key, ttl_if_created).await,
            }
        })
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], after: Option<&'a [u8]>, limit: usize) -> StoreFuture<'a, ScanPage> {
        Box::pin(async move {
            let plain = prefix.iter().position(|byte| b"%_".contains(byte)).unwrap_or(prefix.len());
            let prefix = if self.lie == Some(Lie::HasWildcards) { &prefix[..plain] } else { prefix };
            let mut page = self.store.scan(prefix, after, limit).await?;
            if let (Some(Lie::RepeatsKeys), Some(after)) = (self.lie, after) {
                page.keys.insert(0, Bytes::copy_from_slice(after));
                page.keys.truncate(limit);
            }
            Ok(page)
        })
    }
}

/// Declares a test for each lie: the rule finds it.
macro_rules! finds {
    ($($test:ident: $lie:ident by $rule:ident;)*) => {$(
        #[tokio::test] // on one thread, so that steps of callers always interleave
        #[should_panic]
        async fn $test() {
            super::key_values::$rule(async |clock: super::FakeClock| super::lying(super::Lie::$lie, clock).await).await;
        }
    )*};
}

mod lies {
    finds! {
        set_that_keeps_the_old_time: KeepsTime by set_replaces_the_time;
        expire_of_nothing_that_says_yes: ExpiresNothing by calls_say_whether_the_key_was_there;
        set_nx_in_two_steps: AsksThenStores by many_at_once_store_once;
        incr_in_two_steps: ReadsThenCounts by many_at_once_count_each;
        incr_that_renews_the_time: RenewsTime by incr_keeps_the_time_to_live;
        incr_that_loses_its_time: ForgetsTime by incr_counts_from_nothing;
        window_without_an_end: ForgetsTime by window_admits_its_limit;
        incr_of_words: CountsWords by value_that_is_no_number_stays;
        mset_in_several_steps: StoresOneByOne by mset_stores_all_or_nothing;
        mset_of_a_part: StoresAPart by bounds_are_errors_that_store_nothing;
        mget_in_another_order: Sorts by mget_answers_in_order;
        delete_many_that_counts_requests: CountsRequests by delete_many_counts_what_was_there;
        scan_with_wildcards: HasWildcards by scan_lists_a_prefix_in_pages;
        scan_that_repeats_keys: RepeatsKeys by scan_lists_a_prefix_in_pages;
        value_of_a_missing_key: MakesUpValues by missing_key_is_told_from_an_empty_value;
        store_without_bounds: TakesAnything by bounds_are_errors_that_store_nothing;
        history_with_a_lost_time: KeepsTime by histories_equal_a_book;
    }
}
