//! Finds the client of a request, and decides on requests that name none.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::observe::{Event, Observers};
use crate::{
    head::RequestHead,
    identity::{Client, Digester, Identify, OnUnidentified, anonymous},
    policy_name::PolicyName,
    refusal::{Reason, Refusal},
};

/// Finds the client of a request, and reports once if there is none.
pub(crate) struct ClientResolver {
    identify: Arc<dyn Identify>,
    on_unidentified: OnUnidentified,
    warned: AtomicBool,
}

impl ClientResolver {
    pub(crate) fn new(identify: Arc<dyn Identify>, on_unidentified: OnUnidentified) -> Self {
        Self { identify, on_unidentified, warned: AtomicBool::new(false) }
    }

    /// Does something with the client of a request for the layer `policy`: with `None` where it passes without a limit.
    ///
    /// The client is lent from where it was found: it is large, and each move of it would stall.
    #[inline]
    pub(crate) fn charge<T>(
        &self,
        request: &RequestHead<'_>,
        policy: &PolicyName,
        observers: &Observers,
        work: impl FnOnce(Option<&Client>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let known = self.identify.identify(request, Digester::process());
        let stranger;
        let client = if known.is_some() {
            &known
        } else {
            stranger = self.stranger(policy, observers)?;
            &stranger
        };
        work(client.as_ref())
    }

    #[cold]
    fn stranger(&self, policy: &PolicyName, observers: &Observers) -> Result<Option<Client>, Refusal> {
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
