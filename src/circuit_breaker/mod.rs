//! Circuit breaker: stops calling a service that fails, and finds out when it is well again.
//!
//! With what stands by default (ten seconds open, one probe, server errors count):
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tollgate::{CircuitBreakerLayer, Trip};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(CircuitBreakerLayer::new(Trip::failure_rate(0.5).or(Trip::consecutive(5))))
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
//! Changed, with one circuit for each host, and with its handle:
//!
//! ```
//! use std::time::Duration;
//! use tollgate::{CircuitBreakerLayer, CircuitState, Event, Trip};
//!
//! let trip = Trip::failure_rate(0.3)
//!     .or(Trip::slow_rate(0.8).slow_after(Duration::from_secs(2)))
//!     .over_time(Duration::from_secs(30))
//!     .min_requests(50);
//! let layer = CircuitBreakerLayer::new(trip)
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
//! let host = layer.handle().key(CircuitBreakerLayer::host_key("example.org").unwrap()).unwrap();
//! assert_eq!(host.state(), CircuitState::Closed);
//! ```
//!
//! # What counts
//! A result is judged **as soon as it is known**: an error or a status from 500 at the head is a failure, any other head
//! a success, and answers a probe at once. gRPC waits for its trailers. A body that fails after a good head is a failure
//! too. What a layer further in refused is no result. A call that is dropped before its head is none either, unless it
//! has lasted for [`slow_after`](crate::circuit_breaker::trip::Trip::slow_after): so a service that hangs opens the circuit although every
//! caller gives up.
//!
//! # Half-open
//! When the open time is over the next call is a probe; [`probes`](crate::CircuitBreakerLayer::probes) may be under way
//! at once. A probe that is cancelled gives its place back, one that hangs loses it after
//! [`probe_timeout`](crate::CircuitBreakerLayer::probe_timeout). One failure opens the circuit again, for longer. So does a
//! slow answer where the circuit has a [`slow_rate`](crate::circuit_breaker::trip::Trip::slow_rate); a gRPC stream that delivers and then falls
//! silent answers well for its time-out, unless it was slow.
//!
//! # Services that are not ready
//! While the circuit is closed a caller waits for the service to be ready as it would without a breaker, and no call has
//! begun that could be judged: a service that hangs **before** it takes a request, as a pool does that cannot connect,
//! opens no circuit, and a circuit that others open does not wake who waits there already. Give such a service an end
//! further in: `load_shed` fails at once when it is not ready, which counts, and `buffer` takes the request and waits
//! inside the call, where the clock runs. Clients that connect in the call (hyper's pooled client, tonic's channel) and
//! handlers are always ready. While the circuit is open nobody waits.
//!
//! # Late results
//! Each state begins a generation with counts of its own, and a call writes into the generation that admitted it. So
//! what was admitted before a trip can neither close a circuit nor open it again.

mod circuit;
mod classifier;
mod handle;
mod keys;
mod layer;
mod machine;
mod per_key;
mod permit;
mod policy;
#[cfg(test)]
mod tests;
mod trip;
mod window;

pub use handle::{CallError, CircuitBreaker, Counts};
pub use layer::{CircuitBlueprint, CircuitBreakerLayer};
pub use machine::CircuitState;
pub use permit::CircuitPermit;
pub use policy::CircuitPolicy;
pub use trip::Trip;
