//! The two traits that a policy consists of: a decision before the request, and a permit until its outcome.

use std::{any::Any, sync::Arc};

use http::{Extensions, HeaderMap, Response};

use super::{
    MaybeFuture,
    lasts::{InBody, Lasts, ToHead},
    member::{MemberDecision, RequestTimes},
};
use crate::{head::RequestHead, identity::Client, refusal::Refusal, time::Clock};

/// Decides whether a request may reach the inner service.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
/// use tollgate::{Admit, Client, MaybeFuture, PolicyName, Reason, Refusal, RequestHead};
///
/// /// Refuses all requests while the switch is set.
/// struct Maintenance(AtomicBool);
///
/// impl Admit for Maintenance {
///     type Permit = ();
///     fn admit(
///         self: &Arc<Self>,
///         _: &RequestHead<'_>,
///         _: Option<&Client>,
///     ) -> MaybeFuture<Result<(), Refusal>> {
///         MaybeFuture::Ready(if self.0.load(Ordering::Relaxed) {
///             Err(Refusal::new(Reason::Capacity, PolicyName::try_new("maintenance").unwrap()))
///         } else {
///             Ok(())
///         })
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults do nothing")]
pub trait Admit: Send + Sync + 'static {
    /// Held by an admitted request until its outcome.
    type Permit: Permit;

    /// Returns the client of a request, for [`admit`](Self::admit) and for [events](crate::Event); `None` by default.
    #[inline]
    fn identify(&self, request: &RequestHead<'_>) -> Option<Client> {
        None
    }

    /// Decides on one request from its head and its [client](Self::identify).
    ///
    /// # Cancel safety
    /// The gate settles every permit that it receives. If the caller leaves, a [`MaybeFuture::Future`] is dropped: it must
    /// release what it holds by then, such as a reservation in a store.
    fn admit(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        client: Option<&Client>,
    ) -> MaybeFuture<Result<Self::Permit, Refusal>>;

    /// Returns the clock that every decision reads. It is read before the client is identified: a clock waits for all
    /// work before it.
    #[doc(hidden)]
    #[inline]
    fn decision_clock(&self) -> Option<&Clock> {
        None
    }

    /// As [`admit`](Self::admit), for gates: takes the time from `times`, and writes the permit where it stays. A move of
    /// what was just written stalls.
    #[doc(hidden)]
    #[inline(always)]
    fn admit_in_place<'a>(
        self: &'a Arc<Self>,
        request: &RequestHead<'_>,
        client: Option<&Client>,
        times: &mut RequestTimes<'a>,
        permit: &mut Option<Self::Permit>,
    ) -> MemberDecision<Self>
    where
        Self: Sized,
    {
        let _ = times;
        match self.admit(request, client) {
            MaybeFuture::Ready(decision) => decision.map(|admitted| *permit = Some(admitted)).into(),
            MaybeFuture::Future(decision) => MemberDecision::Pending(decision),
        }
    }

    /// Decides without a request, if the decision does not depend on one. Returns `None` by default: the policy needs the
    /// request.
    ///
    /// For calls that are not HTTP requests, or whose head would have to be made up. The gate itself always calls
    /// [`admit`](Self::admit). A caller of this method settles the permit itself, also when it is cancelled.
    fn admit_any(self: &Arc<Self>) -> Option<MaybeFuture<Result<Self::Permit, Refusal>>> {
        None
    }

    /// Returns whether the policy would refuse every request now, as an open circuit does. Then the gate is ready without
    /// polling the inner service, because a dead service never becomes ready.
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
    /// use tollgate::{Admit, Client, MaybeFuture, Outcome, Permit, Refusal, RequestHead, ToHead};
    ///
    /// /// Handlers take the deadline as `Extension<DeadlineMs>`.
    /// #[derive(Clone)]
    /// struct DeadlineMs(u64);
    ///
    /// struct Granted(u64);
    /// impl Permit for Granted {
    ///     type Lasts = ToHead;
    ///     fn on_request(&mut self, extensions: &mut Extensions) {
    ///         extensions.insert(DeadlineMs(self.0));
    ///     }
    ///     fn settle(self, _: Outcome<'_>) {}
    /// }
    ///
    /// struct Deadlines;
    /// impl Admit for Deadlines {
    ///     type Permit = Granted;
    ///     fn admit(
    ///         self: &Arc<Self>,
    ///         request: &RequestHead<'_>,
    ///         _: Option<&Client>,
    ///     ) -> MaybeFuture<Result<Granted, Refusal>> {
    ///         MaybeFuture::Ready(Ok(Granted(if request.uri.path() == "/search" { 500 } else { 5_000 })))
    ///     }
    ///     fn on_bypass(&self, extensions: &mut Extensions) {
    ///         extensions.insert(DeadlineMs(u64::MAX));
    ///     }
    /// }
    /// ```
    fn on_bypass(&self, extensions: &mut Extensions) {}

    /// Runs if the inner service fails before it accepts a request; does nothing by default.
    fn unready(self: &Arc<Self>, error: &dyn Any) {}
}

/// Held by an admitted request. The gate settles it exactly once, whatever happens, so that policies need no `Drop`.
///
/// ```
/// use tollgate::{Outcome, Permit, ToEnd};
///
/// struct Logged;
/// impl Permit for Logged {
///     type Lasts = ToEnd;
///     fn settle(self, outcome: Outcome<'_>) {
///         println!("{outcome:?}");
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults do nothing")]
pub trait Permit: Send + 'static {
    /// The end of the permit's work: [`ToHead`](crate::ToHead) or [`ToEnd`](crate::ToEnd).
    ///
    /// A permit that lasts to the head takes no room in the body and costs nothing for each frame.
    type Lasts: Lasts;

    /// Runs after admission, before the inner service is called, and may insert extensions for the handler.
    ///
    /// [`Admit::on_bypass`] does the same for requests without a permit.
    fn on_request(&mut self, extensions: &mut Extensions) {}

    /// Runs on the head of the response: may add fields, may read the status. Its body is of any type.
    ///
    /// After a panic in it the permit is settled when the response future is dropped.
    fn on_response<B>(&mut self, response: &mut Response<B>) {}

    /// Returns whether the permit's work ends at the head of this one response, though its type may last
    /// [to the end](crate::ToEnd); called after [`on_response`](Self::on_response). By default the type decides.
    ///
    /// A circuit breaker needs the trailers of a gRPC response, for instance, but nothing after the head of a failed one.
    #[inline]
    fn ends_at_head(&self) -> bool {
        <Self::Lasts as InBody>::ENDS_AT_HEAD
    }

    /// Runs before the first frame, if a body follows the head and the permit lasts to its end. From now on the client
    /// must read.
    fn on_body(&mut self) {}

    /// Runs after a frame of `bytes` body bytes was handed to the transport.
    fn on_data(&mut self, bytes: usize) {}

    /// Ends the permit, once. It must not block. A panic is caught.
    fn settle(self, outcome: Outcome<'_>);

    /// Returns whether [`settle`](Self::settle) would only drop the permit, which is then dropped where it is: moving one
    /// that was just written costs more than the end itself.
    #[doc(hidden)]
    #[inline]
    fn is_settled_by(&self, outcome: &Outcome<'_>) -> bool {
        let _ = outcome;
        false
    }
}

/// A permit that holds nothing.
impl Permit for () {
    type Lasts = ToHead;

    fn settle(self, _: Outcome<'_>) {}
}

/// The end of an admitted request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// The response has a head, and the permit lasts no longer.
    Responded,
    /// The whole response was handed to the transport.
    Complete {
        /// The trailers, if there were any.
        trailers: Option<&'a HeaderMap>,
    },
    /// The inner service failed before it had a response.
    Failed(&'a dyn Any),
    /// The response's body failed.
    BodyFailed(&'a dyn Any),
    /// A layer further in refused the request: the handler never received it.
    Refused(&'a Refusal),
    /// The caller left.
    Cancelled {
        /// Whether the head of the response had been passed on by then.
        head_sent: bool,
    },
    /// The inner service or its body panicked, even if an outer layer caught it. A panic while they are dropped does not
    /// count.
    Panicked,
}
