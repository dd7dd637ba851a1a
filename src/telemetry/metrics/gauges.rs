//! Gauges that are set when the layers are sampled, and the state of circuits, which events set too.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::metrics::{Gauge, Label, gauge};

use super::label;
use crate::{
    circuit_state::CircuitState,
    gate::{Sample, Sampler},
    policy_name::PolicyName,
};

/// Samplers of the layers, and the gauges that show their samples.
#[derive(Default)]
pub(super) struct SampledGauges {
    layers: Mutex<Vec<Sampler>>,
    levels: Mutex<BTreeMap<LevelKey, Gauge>>,
    circuits: Mutex<CircuitGauges>,
}

/// A metric and its labels behind `policy`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LevelKey {
    metric: &'static str,
    policy: PolicyName,
    labels: [Option<(&'static str, Arc<str>)>; 2],
}

/// One-hot gauges of each policy's one circuit.
#[derive(Default)]
struct CircuitGauges {
    /// Number of transitions that were shown. A state that was read before the last of them is out of date.
    transitions: u64,
    policies: BTreeMap<PolicyName, StateGauges>,
}

#[derive(Default)]
struct StateGauges {
    states: Vec<(CircuitState, Gauge)>,
    /// State whose gauge is 1.
    present: Option<CircuitState>,
    /// Whether the circuit was attached or sampled since the last sample began.
    is_sampled: bool,
}

impl SampledGauges {
    /// Adds a layer, and forgets those that are gone.
    pub(super) fn add(&self, layer: &Sampler) {
        // So that a state which events show goes with its layer, even if that was never sampled since.
        layer.sample(&mut |sample| {
            if let Sample::Circuit { policy, .. } = *sample {
                locked(&self.circuits).policies.entry(policy.clone()).or_default().is_sampled = true;
            }
        });
        let mut layers = locked(&self.layers);
        layers.retain(Sampler::is_live);
        layers.push(layer.clone());
    }

    /// Returns the layers that are not gone.
    pub(super) fn layers(&self) -> Vec<Sampler> {
        let mut layers = locked(&self.layers);
        layers.retain(Sampler::is_live);
        layers.clone()
    }

    /// Shows the new state of a policy's one circuit.
    pub(super) fn enter(&self, policy: &PolicyName, from: CircuitState, to: CircuitState) {
        let mut circuits = locked(&self.circuits);
        circuits.transitions += 1;
        let gauges = circuits.policies.entry(policy.clone()).or_default();
        gauges.gauge(policy, from);
        gauges.set(policy, Some(to));
    }

    /// Reads all layers and sets the gauges. Those of a value that no layer has any more are 0.
    pub(super) fn sample(&self) {
        let mut values = BTreeMap::<LevelKey, f64>::new();
        let mut policies = Vec::new();
        for layer in self.layers() {
            let transitions = locked(&self.circuits).transitions;
            layer.sample(&mut |sample| {
                if let Sample::Circuit { policy, state } = *sample {
                    policies.push(policy.clone());
                    self.show(policy, state, transitions);
                }
                for (key, value) in levels(sample).into_iter().flatten() {
                    *values.entry(key).or_default() += value; // layers of one name add up
                }
            });
        }
        let mut circuits = locked(&self.circuits);
        for (policy, gauges) in &mut circuits.policies {
            if mem::replace(&mut gauges.is_sampled, policies.contains(policy)) && !gauges.is_sampled {
                gauges.set(policy, None);
            }
        }
        drop(circuits);
        let mut gauges = locked(&self.levels);
        for (key, gauge) in &*gauges {
            gauge.set(values.remove(key).unwrap_or(0.0));
        }
        for (key, value) in values {
            let gauge = key.register();
            gauge.set(value);
            gauges.insert(key, gauge);
        }
    }

    /// Shows the state that a sample has read after `transitions` transitions, unless an event has shown a later one.
    fn show(&self, policy: &PolicyName, state: CircuitState, transitions: u64) {
        let mut circuits = locked(&self.circuits);
        if circuits.transitions == transitions {
            circuits.policies.entry(policy.clone()).or_default().set(policy, Some(state));
        }
    }
}

impl StateGauges {
    /// Sets the gauge of `present` to 1 and that of the state before to 0.
    fn set(&mut self, policy: &PolicyName, present: Option<CircuitState>) {
        let before = mem::replace(&mut self.present, present);
        if before != present {
            before.into_iter().for_each(|state| self.gauge(policy, state).set(0.0));
            present.into_iter().for_each(|state| self.gauge(policy, state).set(1.0));
        }
    }

    /// Returns the gauge of a state, which is registered as 0.
    fn gauge(&mut self, policy: &PolicyName, state: CircuitState) -> &Gauge {
        let known = self.states.iter().position(|(known, _)| *known == state);
        let index = known.unwrap_or_else(|| {
            let gauge = gauge!("tollgate.circuit.state", "policy" => label(policy), "state" => state.as_str());
            gauge.set(0.0);
            self.states.push((state, gauge));
            self.states.len() - 1
        });
        &self.states[index].1
    }
}

impl LevelKey {
    fn register(&self) -> Gauge {
        let mut labels = vec![Label::new("policy", label(&self.policy))];
        labels.extend(self.labels.iter().flatten().map(|(name, value)| Label::new(*name, Arc::clone(value))));
        gauge!(self.metric, labels)
    }
}

/// Returns the gauges of a sample and their values. That of a circuit's state is none: it is one-hot.
#[expect(clippy::cast_precision_loss, reason = "a gauge is an f64")]
fn levels(sample: &Sample<'_>) -> [Option<(LevelKey, f64)>; 2] {
    let level =
        |metric, policy: &PolicyName, labels, value| Some((LevelKey { metric, policy: policy.clone(), labels }, value));
    match *sample {
        Sample::Clients { policy, live, most } => {
            let of = |metric, value: usize| level(metric, policy, [None, None], value as f64);
            [of("tollgate.clients", live), of("tollgate.clients.max", most)]
        }
        Sample::KeyedCircuits { policy, state, circuits } => {
            let labels = [Some(("state", state.as_str().into())), None];
            [level("tollgate.circuit.keys", policy, labels, circuits as f64), None]
        }
        Sample::PlanUsage { policy, plan, limit, used, of } => {
            let labels = [Some(("plan", label(plan))), Some(("limit", label(limit)))];
            let usage = |metric, amount: u64| level(metric, policy, labels.clone(), amount as f64);
            [usage("tollgate.quota.used", used), usage("tollgate.quota.limit", of)]
        }
        Sample::Circuit { .. } => [None, None],
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_read_before_a_transition_does_not_replace_it() {
        let (gauges, policy) = (SampledGauges::default(), PolicyName::try_new("upstream").unwrap());
        let present = || locked(&gauges.circuits).policies[&policy].present;
        let read_after = locked(&gauges.circuits).transitions;
        gauges.enter(&policy, CircuitState::Open, CircuitState::HalfOpen);
        gauges.show(&policy, CircuitState::Open, read_after);
        assert_eq!(present(), Some(CircuitState::HalfOpen));
        gauges.show(&policy, CircuitState::Closed, read_after + 1);
        assert_eq!(present(), Some(CircuitState::Closed));
    }
}
