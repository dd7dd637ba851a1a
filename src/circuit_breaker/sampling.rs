//! Samples of circuits: their states as calls would find them, read without a call.

use std::sync::Arc;

use super::{circuit::Circuit, handle::CircuitBreaker, keys::Keys};
use crate::{
    circuit_state::CircuitState,
    gate::{Sample, Sampled},
};

impl CircuitBreaker {
    /// Creates the breaker of a layer, and attaches its circuits to the observers.
    pub(super) fn new(circuit: Arc<Circuit>, keys: Option<Arc<Keys>>) -> Self {
        let observers = &circuit.shared.context.observers;
        observers.attach(&circuit);
        if let Some(keys) = &keys {
            observers.attach(keys);
        }
        Self { circuit, keys }
    }
}

impl Sampled for Circuit {
    fn sample(&self, report: &mut dyn FnMut(&Sample<'_>)) {
        report(&Sample::Circuit { policy: &self.shared.context.name, state: self.state() });
    }
}

impl Sampled for Keys {
    fn sample(&self, report: &mut dyn FnMut(&Sample<'_>)) {
        let context = self.context();
        let mut found: Vec<(CircuitState, usize)> = Vec::new(); // there are few states
        self.states(context.clock.now(), |state| match found.iter_mut().find(|(known, _)| *known == state) {
            Some((_, circuits)) => *circuits += 1,
            None => found.push((state, 1)),
        });
        for (state, circuits) in found {
            report(&Sample::KeyedCircuits { policy: &context.name, state, circuits });
        }
    }
}
