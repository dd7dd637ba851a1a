//! The permits of a request: those of all members up to the head of the response, and those in its body.

use http::Response;
use http_body::Frame;

use crate::gate::{CallFacts, Guard, InBody, Outcome, Permit, Watched, pass_head};

/// Permit of a member and those of the members further in, which are dropped first, as nested gates drop theirs.
pub struct CallPermits<P: Permit, Rest> {
    pub(super) rest: Rest,
    pub(super) guard: Guard<P>,
}

/// Permit of a member in a body, if its type may last that long, and those of the members further in, which are dropped
/// first.
pub struct BodyPermits<P: Permit, Rest> {
    rest: Rest,
    held: <P::Lasts as InBody>::Held<P>,
}

/// Facts about a call that are needed at the head of its response.
#[derive(Clone, Copy, Debug)]
pub struct GatesFacts {
    pub(super) call: CallFacts,
    /// Bit `n` is set if member `n` is around a client of the server.
    pub(super) outbound: u32,
}

/// Permits of a request up to the head of the response.
pub trait Permits: Watched + Send + Sized + 'static {
    /// Those of them that last to the end of the body.
    type InBody: PermitsInBody;

    /// Returns the permits of a request that no member has admitted yet.
    fn none() -> Self;

    /// Records that no code inside of the members has panicked.
    fn called(&mut self);

    /// Settles the permits after an error of the inner service.
    fn fail<E: 'static>(&mut self, error: &E);

    /// Passes the head of the response to each permit, that of the innermost member first, as member `at` and further in.
    fn pass_head<B: http_body::Body>(&mut self, at: u32, response: &mut Response<B>, facts: GatesFacts)
    -> Self::InBody;
}

/// Permits in a body.
pub trait PermitsInBody: Watched + Send + 'static {
    /// Returns the permits of a body that needs none.
    fn none() -> Self;

    /// Returns whether one of them is not settled.
    fn are_live(&mut self) -> bool;

    /// Records the result of a poll for the next frame, that of the innermost member first. `data` are the bytes of a data
    /// frame, and whether the body ends with it.
    fn polled<D, E: 'static>(&mut self, frame: &Option<Result<Frame<D>, E>>, data: (usize, bool));
}

impl<P: Permit, Rest: Permits> Permits for CallPermits<P, Rest> {
    type InBody = BodyPermits<P, Rest::InBody>;

    #[inline(always)]
    fn none() -> Self {
        Self { rest: Rest::none(), guard: Guard::new(None) }
    }

    #[inline(always)]
    fn called(&mut self) {
        self.guard.called();
        self.rest.called();
    }

    #[inline]
    fn fail<E: 'static>(&mut self, error: &E) {
        self.rest.fail(error);
        self.guard.settle(Outcome::Failed(error));
    }

    #[inline(always)]
    fn pass_head<B: http_body::Body>(
        &mut self,
        at: u32,
        response: &mut Response<B>,
        facts: GatesFacts,
    ) -> Self::InBody {
        let watch = self.guard.watch();
        let rest = self.rest.pass_head(at + 1, response, facts);
        watch.disarm();
        let call = facts.call.with_outbound(facts.outbound & (1 << at) != 0);
        pass_head(response, &mut self.guard, call, &rest);
        BodyPermits { rest, held: P::Lasts::hold(self.guard.take()) }
    }
}

impl<P: Permit, Rest: Watched> Watched for CallPermits<P, Rest> {
    #[inline(always)]
    fn run<T>(&self, inner: impl FnOnce() -> T) -> T {
        self.guard.run(|| self.rest.run(inner))
    }
}

impl<P: Permit, Rest: PermitsInBody> PermitsInBody for BodyPermits<P, Rest> {
    fn none() -> Self {
        Self { rest: Rest::none(), held: P::Lasts::hold(Guard::new(None)) }
    }

    #[inline]
    fn are_live(&mut self) -> bool {
        P::Lasts::guard(&mut self.held).is_some_and(|guard| guard.is_live()) || self.rest.are_live()
    }

    #[inline]
    fn polled<D, E: 'static>(&mut self, frame: &Option<Result<Frame<D>, E>>, data: (usize, bool)) {
        P::Lasts::run(&self.held, || self.rest.polled(frame, data));
        if let Some(guard) = P::Lasts::guard(&mut self.held) {
            guard.polled(frame, |_, _| data);
        }
    }
}

impl<P: Permit, Rest: Watched> Watched for BodyPermits<P, Rest> {
    #[inline(always)]
    fn run<T>(&self, inner: impl FnOnce() -> T) -> T {
        P::Lasts::run(&self.held, || self.rest.run(inner))
    }
}

/// The end of the members.
impl Permits for () {
    type InBody = ();

    #[inline(always)]
    fn none() {}

    #[inline(always)]
    fn called(&mut self) {}

    #[inline(always)]
    fn fail<E: 'static>(&mut self, _: &E) {}

    #[inline(always)]
    fn pass_head<B: http_body::Body>(&mut self, _: u32, _: &mut Response<B>, _: GatesFacts) {}
}

/// The end of the members.
impl PermitsInBody for () {
    fn none() {}

    #[inline(always)]
    fn are_live(&mut self) -> bool {
        false
    }

    #[inline(always)]
    fn polled<D, E: 'static>(&mut self, _: &Option<Result<Frame<D>, E>>, _: (usize, bool)) {}
}
