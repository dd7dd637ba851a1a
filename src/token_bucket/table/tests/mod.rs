//! The table against a plain map, under threads, under a flood, and in every interleaving.

#[cfg(not(tollgate_loom))]
mod flood;
#[cfg(tollgate_loom)]
mod interleavings;
#[cfg(not(tollgate_loom))]
mod model;
#[cfg(not(tollgate_loom))]
mod threads;

use super::{Bucket, Revision};
use crate::time::Moment;

/// A key as the digester would make it: all bits look alike.
#[cfg(not(tollgate_loom))]
fn key(number: u64) -> u64 {
    let mix = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    };
    mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

fn until(until: u64) -> Bucket {
    Bucket { until, limit: 0 }
}

/// The rates that a layer begins with.
fn unchanged() -> Revision {
    Revision::default()
}
