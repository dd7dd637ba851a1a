//! The two traits that a policy consists of: the question before a request, and what an admitted request holds.

use std::{any::Any, fmt, sync::Arc};

use http::{Extensions, HeaderMap, Response};

use super::MaybeFuture;
use crate::{head::RequestHead, refusal::Refusal};

/// Decides whether a request may reach the inner service.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
/// use tollgate::{Admit, MaybeFuture, PolicyName, Reason, Refusal, RequestHead};
///
/// /// Refuses everyone while the switch is set.
/// struct Maintenance(AtomicBool);
///
/// impl Admit for Maintenance {
///     type Permit = ();
///     fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<(), Refusal>> {
///         MaybeFuture::Ready(if self.0.load(Ordering::Relaxed) {
///             Err(Refusal::new(Reason::Capacity, PolicyName::try_new("maintenance").unwrap()))
///         } else {
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait Admit: Send + Sync + 'static {
    /// What an admitted request holds.
    type Permit: Permit;

    /// Decides on one request from its head.
    ///
    /// # Cancel safety
    /// The gate settles a permit from the moment it has it. A [`MaybeFuture::Future`] is dropped when its caller leaves:
    /// what its future holds by then, such as a reservation in a store, it has to give back itself.
    fn admit(self: &Arc<Self>, request: &RequestHead<'_>) -> MaybeFuture<Result<Self::Permit, Refusal>>;

    /// Whether it would refuse everyone now, as an open circuit does: then the inner service is not asked if it is
    /// ready, because a dead one never is.
    fn shut(&self) -> bool {
        false
    }

    /// Runs before the inner service is called with a request that has no permit; does nothing by default.
    ///
    /// A request has no permit where the layer is [switched off](crate::GateLayer::enabled), where it is
    /// [exempt](crate::GateLayer::exempt), and where it was refused under [`shadow`](crate::GateLayer::shadow). If
    /// [`Permit::on_request`] inserts an extension that handlers rely on, this method inserts one too. Otherwise a switch
    /// of the layer makes those handlers fail.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use http::Extensions;
    /// use tollgate::{Admit, MaybeFuture, Outcome, Permit, Refusal, RequestHead};
    ///
    /// /// Handlers take the deadline as `Extension<DeadlineMs>`.
    /// #[derive(Clone)]
    /// struct DeadlineMs(u64);
    ///
    /// struct Granted(u64);
    /// impl Permit for Granted {
    ///     fn on_request(&mut self, extensions: &mut Extensions) {
    ///         extensions.insert(DeadlineMs(self.0));
    ///     }
    ///     fn settle(self, _: Outcome<'_>) {}
    /// }
    ///
    /// struct Deadlines;
    /// impl Admit for Deadlines {
    ///     type Permit = Granted;
    ///     fn admit(self: &Arc<Self>, request: &RequestHead<'_>) -> MaybeFuture<Result<Granted, Refusal>> {
    ///         MaybeFuture::Ready(Ok(Granted(if request.uri.path() == "/search" { 500 } else { 5_000 })))
    ///     }
    ///     fn on_bypass(&self, extensions: &mut Extensions) {
    ///         extensions.insert(DeadlineMs(u64::MAX));
    ///     }
    /// }
    /// ```
    fn on_bypass(&self, extensions: &mut Extensions) {
        let _ = extensions;
    }

    /// Hears that the inner service failed before it could take a request.
    fn unready(self: &Arc<Self>, error: &dyn Any) {
        let _ = error;
    }
}

/// What an admitted request holds. The gate settles it exactly once, whatever happens; policies need no `Drop`.
///
/// ```
/// use tollgate::{Outcome, Permit};
///
/// struct Logged;
/// impl Permit for Logged {
///     fn settle(self, outcome: Outcome<'_>) {
///         println!("{outcome:?}");
///     }
/// }
/// ```
pub trait Permit: Send + 'static {
    /// Runs after admission, before the inner service is called, and may insert extensions for the handler.
    ///
    /// [`Admit::on_bypass`] does the same for requests without a permit.
    fn on_request(&mut self, extensions: &mut Extensions) {
        let _ = extensions;
    }

    /// When the head of the response is there: may add fields, may read the status. Its body is of any type.
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        let _ = response;
    }

    /// After [`on_response`](Self::on_response), where a body follows the head: from now on somebody has to take it.
    fn on_body(&mut self) {}

    /// A frame of `bytes` body bytes was handed to the transport.
    fn on_data(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// The end, once: must not block. A panic in here is caught.
    fn settle(self, outcome: Outcome<'_>);
}

/// A permit that holds nothing.
impl Permit for () {
    fn settle(self, _: Outcome<'_>) {}
}

/// How an admitted request ended.
///
/// ```
/// use tollgate::Outcome;
/// let gone = Outcome::Cancelled { head_sent: false };
/// assert_eq!(format!("{gone:?}"), "Cancelled { head_sent: false }");
/// ```
#[non_exhaustive]
pub enum Outcome<'a> {
    /// The whole response was handed to the transport.
    Complete {
        /// The trailers, where there were any.
        trailers: Option<&'a HeaderMap>,
    },
    /// The inner service failed before it had a response.
    Failed(&'a dyn Any),
    /// The response's body failed.
    BodyFailed(&'a dyn Any),
    /// A layer further in refused the request: the handler never saw it.
    Refused(&'a Refusal),
    /// Whoever waited went away.
    Cancelled {
        /// Whether the head of the response had been passed on by then.
        head_sent: bool,
    },
    /// The inner service or its body panicked, even if an outer layer caught it. A panic while they are dropped does not
    /// count.
    Panicked,
}

impl fmt::Debug for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete { trailers } => f.debug_struct("Complete").field("trailers", &trailers.is_some()).finish(),
            Self::Failed(_) => f.write_str("Failed"),
            Self::BodyFailed(_) => f.write_str("BodyFailed"),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
            Self::Cancelled { head_sent } => f.debug_struct("Cancelled").field("head_sent", head_sent).finish(),
            Self::Panicked => f.write_str("Panicked"),
        }
    }
}
