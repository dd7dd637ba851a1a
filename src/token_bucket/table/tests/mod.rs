//! The table against a plain map, under threads, under a flood, and in every interleaving.

#[cfg(not(tollgate_loom))]
mod flood;
#[cfg(tollgate_loom)]
mod interleavings;
#[cfg(not(tollgate_loom))]
mod model;
#[cfg(not(tollgate_loom))]
mod threads;

use super::Bucket;
use crate::time::Moment;

/// A key as the digester would make it: all bits look alike.
#[cfg(not(tollgate_loom))]
fn key(number: u64) -> crate::identity::Digest {
    let mix = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    };
    let high = mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15));
    crate::identity::Digest(u128::from(high) << 64 | u128::from(mix(high)))
}

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

fn until(full_at: u64) -> Bucket {
    Bucket { full_at, span: 100 }
}
