//! One gate for several layers: the meaning of nested gates at less than their sum.
//!
//! [`Gates`] is the layer. Its service asks the members in their order, holds their permits together in one future and one body, and
//! passes the head and the frames of the response to each of them, the innermost first.
//!
//! ```
//! use http::{Request, Response};
//! use tollgate::{CircuitBreakerLayer, Gates, Rate, TokenBucketLayer, gates::GatesService};
//! use tower::{Layer, service_fn};
//!
//! /// A server over any handler.
//! struct Server<S> {
//!     service: GatesService<S, (TokenBucketLayer, CircuitBreakerLayer)>,
//! }
//!
//! let layers = (TokenBucketLayer::new(Rate::per_second(50)), CircuitBreakerLayer::for_server());
//! let handler = service_fn(async |_: Request<String>| Ok::<_, ()>(Response::new(String::from("hello"))));
//! let server = Server { service: Gates::new(layers).layer(handler) };
//! ```

mod body;
#[expect(missing_debug_implementations, reason = "callers cannot name these types")]
mod chain;
mod future;
mod layer;
mod members;
#[expect(missing_debug_implementations, reason = "callers cannot name these types")]
mod permits;
mod readiness;
mod service;
#[expect(missing_debug_implementations, reason = "callers cannot name these types")]
mod waiting;

pub use body::GatesBody;
pub use future::GatesFuture;
pub use layer::Gates;
pub use members::Members;
pub use service::GatesService;
