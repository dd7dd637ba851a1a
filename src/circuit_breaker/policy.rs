//! Policy of a circuit breaker, by which the gate asks it.

use std::{any::Any, fmt, sync::Arc};

use super::{circuit::Ticket, handle::CircuitBreaker, permit::CircuitBreakerPermit};
use crate::{
    classify::CallOutcome,
    gate::{Admit, Event, MaybeFuture, PolicyContext},
    head::RequestHead,
    identity::{Client, Digest, Digester},
    refusal::Refusal,
};

/// Function that returns the key of a request.
pub(super) type KeyOf = Arc<dyn Fn(&RequestHead<'_>, &Digester) -> Option<Digest> + Send + Sync>;

/// Policy of a [`CircuitBreakerLayer`](crate::CircuitBreakerLayer).
///
/// ```
/// use tollgate::{Gate, circuit_breaker::CircuitBreakerPolicy};
/// type Guarded<S> = Gate<S, CircuitBreakerPolicy>; // the service behind the layer
/// ```
pub struct CircuitBreakerPolicy {
    pub(super) breaker: CircuitBreaker,
    pub(super) key: Option<KeyOf>,
}

impl Admit for CircuitBreakerPolicy {
    type Permit = CircuitBreakerPermit;

    #[inline]
    fn admit(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        _: Option<&Client>,
    ) -> MaybeFuture<Result<CircuitBreakerPermit, Refusal>> {
        let config = &self.breaker.circuit.config;
        let PolicyContext { name: policy, clock, observers, .. } = &config.context;
        let now = clock.now();
        let key = self.key.as_ref().and_then(|key| key(request, Digester::process()));
        let admitted = match (key, &self.breaker.keys) {
            (Some(key), Some(keys)) => match keys.circuit(key, now) {
                Some(circuit) => circuit.admit(now),
                None => {
                    observers.emit(&Event::Overflow { policy });
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
        // Also while a probe is due or under way: a probe waits for readiness on its own lease, and no other call
        // should wait. With keys, the circuit is known only with the request.
        self.key.is_none() && self.breaker.circuit.is_shut()
    }

    fn unready(self: &Arc<Self>, error: &dyn Any) {
        let config = &self.breaker.circuit.config;
        if self.key.is_none() {
            let verdict = config.classifier.judge(&CallOutcome::Error(error));
            self.breaker.circuit.unready(verdict, config.context.clock.now());
        }
    }
}

impl fmt::Debug for CircuitBreakerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerPolicy").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}
