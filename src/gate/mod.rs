//! The one service behind every layer: a policy decides before the request and receives its outcome after it.
//!
//! A policy is a value that implements [`Admit`]. [`GateLayer::new`] creates a layer of it:
//!
//! ```
//! use std::sync::Arc;
//! use http::{Request, Response, StatusCode};
//! use tollgate::{Admit, Client, GateLayer, MaybeFuture, PolicyName, Reason, Refusal, RequestHead};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! /// Refuses requests over plain text.
//! struct HttpsOnly(PolicyName);
//!
//! impl Admit for HttpsOnly {
//!     type Permit = ();
//!     fn admit(
//!         self: &Arc<Self>,
//!         request: &RequestHead<'_>,
//!         _: Option<&Client>,
//!     ) -> MaybeFuture<Result<(), Refusal>> {
//!         MaybeFuture::Ready(match request.uri.scheme_str() {
//!             Some("https") => Ok(()),
//!             _ => Err(Refusal::new(Reason::Unidentified, self.0.clone())),
//!         })
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let policy = HttpsOnly(PolicyName::try_new("https only").unwrap());
//! let service = ServiceBuilder::new()
//!     .layer(GateLayer::new(policy))
//!     .service(service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(String::from("hello"))) }));
//! let answer = service.oneshot(Request::get("http://example.org/").body(String::new()).unwrap()).await.unwrap();
//! assert_eq!(answer.status(), StatusCode::FORBIDDEN);
//! # });
//! ```

mod admit;
mod body;
mod clients;
mod future;
mod guard;
mod lasts;
mod layer;
mod maybe_future;
mod member;
mod observe;
mod panics;
mod sample;
mod service;
mod setters;

pub use admit::{Admit, Outcome, Permit};
pub use body::Body;
pub(crate) use clients::{ClientConfig, ClientResolver, Tiered};
pub use future::GateFuture;
pub(crate) use future::{CallFacts, DecisionFuture, begin, pass_head};
pub(crate) use guard::{Guard, Watched};
pub(crate) use lasts::InBody;
pub use lasts::{Lasts, ToEnd, ToHead};
pub use layer::GateLayer;
pub(crate) use layer::{ConfiguredLayer, GateShared, PolicyConfig, PolicyContext};
pub use maybe_future::MaybeFuture;
pub(crate) use member::{AskPolicy, MemberDecision, PolicyLayer, RequestTimes};
#[allow(unused_imports, reason = "only a ledger names it")]
pub(crate) use observe::Observers;
pub use observe::{Event, Observer};
pub(crate) use panics::caught;
pub(crate) use sample::Sampled;
pub use sample::{Sample, Sampler};
pub use service::Gate;
pub(crate) use setters::{client_setters, gate_layer};
