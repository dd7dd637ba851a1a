//! The breaker as a policy of the gate.

use std::{any::Any, fmt, sync::Arc};

use super::{circuit::Ticket, handle::CircuitBreaker, permit::CircuitBreakerPermit};
use crate::{
    classify::CallOutcome,
    gate::{Admit, Event, MaybeFuture},
    head::RequestHead,
    identity::{Digest, Digester},
    refusal::Refusal,
};

/// How a request's key is found.
pub(crate) type KeyOf = Arc<dyn Fn(&RequestHead<'_>, &Digester) -> Option<Digest> + Send + Sync>;

/// The policy of a [`CircuitBreakerLayer`](crate::CircuitBreakerLayer).
///
/// ```
/// use tollgate::{Gate, circuit_breaker::CircuitBreakerPolicy};
/// type Guarded<S> = Gate<S, CircuitBreakerPolicy>; // what the layer makes of a service
/// ```
pub struct CircuitBreakerPolicy {
    pub(super) breaker: CircuitBreaker,
    pub(super) key: Option<KeyOf>,
}

impl Admit for CircuitBreakerPolicy {
    type Permit = CircuitBreakerPermit;

    #[inline]
    fn admit(self: &Arc<Self>, request: &RequestHead<'_>) -> MaybeFuture<Result<CircuitBreakerPermit, Refusal>> {
        let config = &self.breaker.circuit.config;
        let now = config.clock.now();
        let key = self.key.as_ref().and_then(|key| key(request, Digester::process()));
        let admitted = match (key, &self.breaker.keys) {
            (Some(key), Some(keys)) => match keys.circuit(key, now) {
                Some(circuit) => circuit.admit(now),
                None => {
                    config.observers.emit(&Event::Overflow { policy: &config.name });
                    Ok(Ticket::Uncounted)
                }
            },
            _ => self.breaker.circuit.admit(now),
        };
        MaybeFuture::Ready(match admitted {
            Ok(ticket) => Ok(CircuitBreakerPermit::new(ticket, now)),
            Err(wait) => Err(config.refusal(wait)),
        })
    }

    #[inline]
    fn shut(&self) -> bool {
        // Also while a probe is due or under way: a probe waits for the service on its own lease, and nobody else should.
        // With keys nobody knows yet whose circuit a request will meet.
        self.key.is_none() && self.breaker.circuit.is_shut()
    }

    fn unready(self: &Arc<Self>, error: &dyn Any) {
        let circuit = &self.breaker.circuit;
        if self.key.is_none() {
            let config = &circuit.config;
            circuit.unready(config.classifier.judge(&CallOutcome::Error(error)), config.clock.now());
        }
    }
}

impl fmt::Debug for CircuitBreakerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerPolicy").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}
