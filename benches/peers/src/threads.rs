//! Requests on several threads at once.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
    time::Instant,
};

use axum::body::Body;
use http::Request;
use tokio::runtime::Builder;

use crate::{drive::request, lap::Lap};

/// The same on two threads at once, each with its own clone of `through`; the time is the mean of both.
pub fn pair<F>(through: impl FnMut(Request<Body>) -> F + Clone + Send + 'static) -> Lap
where
    F: Future<Output: Send> + Send,
{
    let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let chunk = move |operations| {
        let started = Arc::new(AtomicUsize::new(0));
        let both = [(); 2].map(|()| {
            let mut through = through.clone();
            let started = Arc::clone(&started);
            runtime.spawn(async move {
                let batch: Vec<_> = (0..operations).map(request).collect();
                started.fetch_add(1, AcqRel);
                while started.load(Acquire) < 2 {
                    tokio::task::yield_now().await;
                }
                let start = Instant::now();
                for request in batch {
                    black_box(through(request).await);
                }
                start.elapsed()
            })
        });
        runtime.block_on(async {
            let [one, other] = both;
            (one.await.expect("no panic") + other.await.expect("no panic")) / 2
        })
    };
    // Few enough at a time not to fill the memory.
    Box::new(move |operations| (0..operations).step_by(1_024).map(|done| chunk((operations - done).min(1_024))).sum())
}
