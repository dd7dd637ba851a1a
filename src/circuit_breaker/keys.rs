//! One circuit for each key, in bounded memory.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use dashmap::DashMap;

use super::{
    circuit::{Circuit, CircuitShared},
    host::HostName,
    machine::BreakerMode,
};
use crate::{
    circuit_state::CircuitState,
    gate::PolicyContext,
    head::RequestHead,
    identity::{Digest, Digester},
    sync::Mutex,
    time::Moment,
};

/// Source of the key of a request.
#[derive(Clone)]
pub(crate) enum KeyOf {
    Host,
    Function(Arc<KeyFunction>),
}

type KeyFunction = dyn Fn(&RequestHead<'_>, &Digester) -> Option<Digest> + Send + Sync;

/// At most `max` circuits. When all exist, a newcomer replaces one without information worth keeping. A newcomer
/// examines a bounded number of them, so that no request pays for a flood of keys.
///
/// Locks are taken in this order: the queue, a shard of the map, a circuit. A known key takes only that of its shard,
/// and no guard of the map outlives the method that took it.
pub(crate) struct Keys {
    shared: Arc<CircuitShared>,
    key_of: KeyOf,
    circuits: DashMap<Digest, Arc<Circuit>>,
    /// Keys in the order in which they are examined for eviction. Keys enter and leave the map only under its lock, so
    /// that its length is the number of circuits.
    queue: Mutex<VecDeque<Digest>>,
    max: usize,
}

/// Number of circuits that a newcomer examines for one to evict.
const EXAMINED: usize = 8;

/// Number of keys that are copied under one lock of the queue: 16 kB.
const KEYS_PER_LOCK: usize = 1_024;

/// Time without a call after which a circuit may be evicted in any state of its own: its counts are out of date.
const IDLE: Duration = Duration::from_secs(600);

impl Keys {
    pub(crate) fn new(shared: Arc<CircuitShared>, key_of: KeyOf, max: usize) -> Self {
        Self { shared, key_of, circuits: DashMap::new(), queue: Mutex::new(VecDeque::new()), max }
    }

    /// Returns the circuit of the key of a request, or `None` if it has none. Inside is `None` if there is no room.
    pub(crate) fn of_request(&self, request: &RequestHead<'_>, now: Moment) -> Option<Option<Arc<Circuit>>> {
        match &self.key_of {
            KeyOf::Function(key_of) => Some(self.circuit(key_of(request, Digester::process())?, now)),
            KeyOf::Host => {
                let host = HostName::of_request(request)?;
                let circuit = self.circuit(host.key(), now);
                if let Some(circuit) = &circuit {
                    circuit.host.get_or_init(|| host.as_str().into());
                }
                Some(circuit)
            }
        }
    }

    /// Returns the circuit of `key`, and creates it if there is none; `None` if there is no room for it.
    pub(crate) fn circuit(&self, key: Digest, now: Moment) -> Option<Arc<Circuit>> {
        let circuit = self.known(key).or_else(|| self.create(key, now))?;
        circuit.last_used.store(now.as_nanos(), Ordering::Relaxed);
        Some(circuit)
    }

    /// Returns the context of the breaker.
    pub(crate) fn context(&self) -> &PolicyContext {
        &self.shared.context
    }

    /// Calls `with` with the state of each circuit as a call at `now` would find it. No circuit counts as used by it, and
    /// none is kept from eviction.
    ///
    /// The lock of the queue is held for a copy of at most 1,024 keys, and that of a shard for one state. While newcomers
    /// replace circuits, more keys than that are not one snapshot: a circuit may be missed, or found twice.
    pub(crate) fn states(&self, now: Moment, mut with: impl FnMut(CircuitState)) {
        let mut next = 0;
        loop {
            let keys: Vec<Digest> = {
                let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.range(next.min(queue.len())..queue.len().min(next + KEYS_PER_LOCK)).copied().collect()
            };
            if keys.is_empty() {
                return;
            }
            next += keys.len();
            for key in keys {
                if let Some(circuit) = self.circuits.get(&key) {
                    with(circuit.state_at(now));
                }
            }
        }
    }

    fn known(&self, key: Digest) -> Option<Arc<Circuit>> {
        self.circuits.get(&key).map(|circuit| Arc::clone(&circuit))
    }

    fn create(&self, key: Digest, now: Moment) -> Option<Arc<Circuit>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(circuit) = self.known(key) {
            return Some(circuit); // another thread was first
        }
        let evicted = if queue.len() < self.max { None } else { Some(self.evict(&mut queue, now)?) };
        let circuit = Circuit::new(Arc::clone(&self.shared), 1, Some(key));
        self.circuits.insert(key, Arc::clone(&circuit));
        queue.push_back(key);
        drop(queue);
        if let Some(evicted) = evicted {
            evicted.command(BreakerMode::Automatic, "forgotten"); // so that no gauge stays at its last state
        }
        Some(circuit)
    }

    /// Removes a circuit without information, preferably one without calls whose results would be lost, else one that
    /// has not been used for long. A circuit of which a handle or a probe exists stays.
    fn evict(&self, queue: &mut VecDeque<Digest>, now: Moment) -> Option<Arc<Circuit>> {
        let is_clean = |circuit: &Circuit| circuit.is_clean(now);
        let is_idle = |circuit: &Circuit| {
            let last_used = Moment::from_nanos(circuit.last_used.load(Ordering::Relaxed));
            let decides_itself = [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen];
            now.since(last_used) >= IDLE && decides_itself.contains(&circuit.state())
        };
        let rules: [&dyn Fn(&Circuit) -> bool; 3] =
            [&|circuit| !circuit.fast_paths.has_calls() && is_clean(circuit), &is_clean, &is_idle];
        let examined = EXAMINED.min(queue.len());
        let remove = |place: usize, rule: &dyn Fn(&Circuit) -> bool| {
            let is_evicted = |_: &_, circuit: &Arc<Circuit>| Arc::strong_count(circuit) == 1 && rule(circuit);
            Some((place, self.circuits.remove_if(&queue[place], is_evicted)?.1))
        };
        let found = rules.iter().find_map(|rule| (0..examined).find_map(|place| remove(place, rule)));
        queue.rotate_left(examined);
        let (place, circuit) = found?;
        queue.remove(queue.len() - examined + place);
        Some(circuit)
    }
}

#[cfg(all(test, not(tollgate_loom)))]
mod tests {
    use std::{collections::HashMap, thread};

    use super::*;
    use crate::{
        backoff::Backoff,
        circuit_breaker::{machine::Recovery, policy::ResultClassifier, trip::Trip},
        classify::{DefaultClassifier, Verdict},
        policy_name::PolicyName,
        time::{Clock, FakeClock},
    };

    const START: Moment = Moment::from_nanos(1);

    fn keys(max: usize) -> Keys {
        let open = Backoff { first: IDLE, longest: IDLE };
        let shared = CircuitShared {
            context: PolicyContext {
                name: PolicyName::try_new("keys").unwrap(),
                clock: Clock::from(FakeClock::new()),
                observers: Default::default(),
                outbound: false,
            },
            trip: Trip::consecutive(1),
            recovery: Recovery { open, probes: 1, close_after: 1, probe_timeout: IDLE },
            classifier: ResultClassifier::new(DefaultClassifier::for_client()),
        };
        Keys::new(Arc::new(shared), KeyOf::Host, max)
    }

    fn of_threads<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let work = &work;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || work(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn concurrent_newcomers_of_one_key_share_its_circuit() {
        for _ in 0..50 {
            let keys = keys(16);
            let take = |thread: usize| {
                let order = (0..64).map(|step| Digest((step * (2 * thread as u128 + 1)) % 64));
                order.filter_map(|key| Some((key, keys.circuit(key, START)?))).collect::<Vec<_>>()
            };
            let mut circuits = HashMap::new();
            for (key, circuit) in of_threads(take).into_iter().flatten() {
                let first = circuits.entry(key).or_insert_with(|| Arc::clone(&circuit));
                assert!(Arc::ptr_eq(first, &circuit));
            }
            assert_eq!(circuits.len(), 16, "circuits in use are not evicted, and the others have no room");
        }
    }

    #[test]
    fn concurrent_evictions_keep_queue_and_map_equal() {
        let keys = keys(8);
        of_threads(|thread| {
            let mut random = fastrand::Rng::with_seed(thread as u64);
            for step in 0..2_000 {
                let now = START + Duration::from_secs(step);
                if let Some(circuit) = keys.circuit(Digest(random.u128(0..24)), now)
                    && let Ok(mut ticket) = circuit.admit(Some(now))
                {
                    ticket.report(
                        if random.u8(..) < 16 { Verdict::Failure } else { Verdict::Success },
                        false,
                        Some(now),
                    );
                }
            }
        });
        let queue = keys.queue.lock().unwrap();
        assert!(queue.len() == 8 && keys.circuits.len() == 8, "{} and {}", queue.len(), keys.circuits.len());
        assert!(queue.iter().all(|key| keys.circuits.contains_key(key)));
    }
}
