//! Circuit breaker: stops calling a service that fails, and probes for its recovery.
//!
//! There are two constructors. [`for_server`](crate::CircuitBreakerLayer::for_server) is for routes of your own server,
//! and what a stranger can cause does not open its circuit. [`for_client`](crate::CircuitBreakerLayer::for_client) is for
//! calls to a service that your program depends on. With the defaults of a client (10 s open, one probe):
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response, StatusCode};
//! use tollgate::CircuitBreakerLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(CircuitBreakerLayer::for_client(Duration::from_secs(2)))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, ()>(Response::builder().status(StatusCode::BAD_GATEWAY).body(String::new()).unwrap())
//!     }));
//! for _ in 0..5 {
//!     let _ = service.clone().oneshot(Request::new(())).await;
//! }
//! let refused = service.oneshot(Request::new(())).await.unwrap();
//! assert_eq!(refused.extensions().get::<tollgate::Refusal>().unwrap().reason(), tollgate::Reason::CircuitOpen);
//! # });
//! ```
//!
//! One circuit per host, rules of your own, and the handle:
//!
//! ```
//! use std::time::Duration;
//! use tollgate::{CircuitBreakerLayer, CircuitState, Event, Trip};
//!
//! let layer = CircuitBreakerLayer::for_client(Duration::from_secs(2))
//!     .trip(Trip::failure_rate(0.3).or(Trip::slow_rate(0.8)).over_time(Duration::from_secs(30)).min_requests(50))
//!     .recovery_timeout(Duration::from_secs(5))
//!     .max_open(Duration::from_secs(300))
//!     .probes(3)
//!     .per_host()
//!     .named("upstream")
//!     .observe(|event: &Event<'_>| {
//!         if let Event::Transition { policy, from, to, cause, .. } = event {
//!             println!("{policy}: {from} -> {to} ({cause})");
//!         }
//!     });
//! let host = layer.handle().key(CircuitBreakerLayer::host_key("https://example.org").unwrap()).unwrap();
//! assert_eq!(host.state(), CircuitState::Closed);
//! ```
//!
//! # Results that count
//! A result is judged **as soon as it is known**, by [`DefaultClassifier`](crate::DefaultClassifier) or your own. An HTTP
//! response is judged at its head, and a good one completes a probe at once. A gRPC call is judged at its trailers. A
//! body that fails after a good head is a failure too.
//!
//! Two ends of a call are not results: a refusal by a layer further in, and a drop before the head. On a client a drop
//! counts as a failure if the call has lasted for [`slow_after`](crate::Trip::slow_after). So a service that hangs opens
//! the circuit even if every caller gives up. On a server it never counts: a stranger can hang up at any time.
//! [`Trip`] says where a time-out belongs.
//!
//! # Half-open
//! When the open time is over, the next call is a probe. At most [`probes`](crate::CircuitBreakerLayer::probes) are
//! under way at once, those of earlier openings included. A cancelled probe releases its slot; one that hangs loses it
//! after [`probe_timeout`](crate::CircuitBreakerLayer::probe_timeout).
//!
//! One failure opens the circuit again, for longer. So does a slow response if the circuit has a
//! [`slow_rate`](crate::Trip::slow_rate). A gRPC stream that delivers and then pauses until its time-out counts as a
//! success, unless it was slow.
//!
//! # Services that are not ready
//! While the circuit is closed, a caller waits for the service's readiness as it would without a breaker. No call has
//! begun that could be judged. A service that hangs **before** it takes a request, such as a pool that cannot connect,
//! therefore opens no circuit. Nor does a circuit that other calls open wake a caller that already waits there.
//!
//! Put a layer with an end inside the breaker: `load_shed` fails at once when the service is not ready, which counts.
//! `buffer` takes the request and waits inside the call, which is timed. Clients that connect in the call (hyper's
//! pooled client, tonic's channel) and handlers are always ready. While the circuit is open, no caller waits.
//!
//! # Late results
//! Each state begins a generation with its own counts, and a call reports to the generation that admitted it. A call
//! that was admitted before a trip can therefore neither close the circuit nor open it again.

mod circuit;
mod generation;
mod handle;
mod host;
mod keys;
mod layer;
mod machine;
mod policy;
mod sampling;
mod settings;
#[cfg(test)]
mod tests;
mod trip;
mod window;

pub use crate::circuit_state::CircuitState;
pub use handle::{CallError, CircuitBreaker, Counts};
pub use layer::{CircuitBreakerLayer, CircuitBreakerService};
pub use policy::{CircuitBreakerPermit, CircuitBreakerPolicy};
pub use trip::Trip;
#[allow(unused_imports, reason = "only a feature writes the length of a window")]
pub(crate) use trip::WindowLength;
