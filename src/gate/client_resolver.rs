//! Identifies the client of a request, and decides on unidentified requests.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{layer::PolicyContext, observe::Event};
use crate::{
    head::RequestHead,
    identity::{Client, Digester, Identify, OnUnidentified, anonymous},
    refusal::{Reason, Refusal},
};

/// Identifies the client of a request. Reports the first unidentified request, once.
pub(crate) struct ClientResolver {
    identify: Arc<dyn Identify>,
    on_unidentified: OnUnidentified,
    warned: AtomicBool,
}

impl ClientResolver {
    pub(crate) fn new(identify: Arc<dyn Identify>, on_unidentified: OnUnidentified) -> Self {
        Self { identify, on_unidentified, warned: AtomicBool::new(false) }
    }

    /// Returns the client of a request. Callers borrow it from where this call wrote it: it is large, and each move of
    /// it would stall.
    #[inline]
    pub(crate) fn identify(&self, request: &RequestHead<'_>) -> Option<Client> {
        self.identify.identify(request, Digester::process())
    }

    /// Calls `decide` with the client to charge: the one of the request, or the one that all unidentified requests share.
    /// `None` if the request passes uncharged.
    #[inline]
    pub(crate) fn resolve<T>(
        &self,
        client: Option<&Client>,
        context: &PolicyContext,
        decide: impl FnOnce(Option<&Client>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let shared;
        let client = if client.is_some() {
            client
        } else {
            shared = self.unidentified(context)?;
            shared.as_ref()
        };
        decide(client)
    }

    #[cold]
    fn unidentified(&self, context: &PolicyContext) -> Result<Option<Client>, Refusal> {
        let PolicyContext { name: policy, observers, .. } = context;
        if !self.warned.load(Ordering::Relaxed) && !self.warned.swap(true, Ordering::Relaxed) {
            observers.emit(&Event::Unidentified { policy });
            if observers.is_empty() {
                // Not `eprintln!`, which panics on a closed pipe.
                let _ = writeln!(
                    io::stderr(),
                    "tollgate: policy {policy:?} found no client in a request; told once, true for all such requests: \
                     {:?}. Does the server put the peer's address where the layer looks for it?",
                    self.on_unidentified
                );
            }
        }
        match self.on_unidentified {
            OnUnidentified::Share => Ok(Some(anonymous())),
            OnUnidentified::Pass => Ok(None),
            OnUnidentified::Refuse => Err(Refusal::new(Reason::Unidentified, policy.clone())),
        }
    }
}

impl fmt::Debug for ClientResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientResolver").field("on_unidentified", &self.on_unidentified).finish_non_exhaustive()
    }
}
