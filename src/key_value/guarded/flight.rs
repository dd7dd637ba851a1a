//! Callers of one process that wait for one value.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use dashmap::{DashMap, Entry};
use tokio::{sync::Notify, time::Instant};

use super::GuardedCacheError;
use crate::key_value::{
    owned::OwnedRecord,
    record::{Owner, RecordKey},
};

/// Value of a flight, or the error that all its members get.
pub(super) type FlightResult<E> = Result<Bytes, GuardedCacheError<E>>;

/// Computation of one value in this process, and the callers that wait for it. One of them leads: it asks the store, and
/// computes.
pub(super) struct Flight<E> {
    /// Notified when there is a result, and when the leader is gone.
    pub(super) changed: Notify,
    state: Mutex<FlightState<E>>,
}

struct FlightState<E> {
    members: usize,
    /// Number of the leader, if there is one, and of the last one that there was.
    leader: Option<u64>,
    last: u64,
    /// Time after which a leader that has not been polled since is replaced.
    until: Instant,
    /// Owner of the record. The next leader goes on under it, unless the present one is only late.
    owner: Owner,
    /// The record while it runs.
    running: Option<OwnedRecord>,
    result: Option<FlightResult<E>>,
}

/// State of a flight as a member finds it.
pub(super) enum Joined<E> {
    Ended(FlightResult<E>),
    Leads(Lead<E>),
    Waits { until: Instant },
}

impl<E> Flight<E> {
    fn new() -> Self {
        let state = FlightState {
            members: 0,
            leader: None,
            last: 0,
            until: Instant::now(),
            owner: Owner::random(),
            running: None,
            result: None,
        };
        Self { changed: Notify::new(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, FlightState<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Caller that takes part in a flight, until it is dropped.
pub(super) struct FlightMember<E> {
    pub(super) flight: Arc<Flight<E>>,
    flights: Arc<DashMap<RecordKey, Arc<Flight<E>>>>,
    pub(super) key: RecordKey,
}

impl<E> FlightMember<E> {
    pub(super) fn join(flights: &Arc<DashMap<RecordKey, Arc<Flight<E>>>>, key: RecordKey) -> Self {
        let mut present = flights.entry(key).or_insert_with(|| Arc::new(Flight::new()));
        let is_over = {
            let state = present.state();
            // The store has it, or its leader is gone or hangs.
            state.result.is_some() && (state.leader.is_none() || Instant::now() >= state.until)
        };
        if is_over {
            *present = Arc::new(Flight::new());
        }
        present.state().members += 1;
        let flight = Arc::clone(&present);
        drop(present);
        Self { flight, flights: Arc::clone(flights), key }
    }

    /// Reads the state, and takes the lead if it is free or if the leader's `lease` has passed.
    pub(super) fn joined(&self, lease: Duration) -> Joined<E> {
        let (mut state, now) = (self.flight.state(), Instant::now());
        if let Some(result) = &state.result {
            return Joined::Ended(result.clone());
        }
        if state.leader.is_some() {
            if now < state.until {
                return Joined::Waits { until: state.until };
            }
            // The late leader may still complete, as another owner.
            (state.owner, state.running) = (Owner::random(), None);
        }
        state.last += 1;
        (state.leader, state.until) = (Some(state.last), now + lease);
        Joined::Leads(Lead { flight: Arc::clone(&self.flight), number: state.last, owner: state.owner, lease })
    }
}

impl<E> Drop for FlightMember<E> {
    fn drop(&mut self) {
        let running = {
            // The map first, as in `join`: a flight that it holds has members, or is about to be joined.
            let present = self.flights.entry(self.key);
            let mut state = self.flight.state();
            state.members -= 1;
            if state.members > 0 {
                return;
            }
            if let Entry::Occupied(present) = present
                && Arc::ptr_eq(present.get(), &self.flight)
            {
                present.remove();
            }
            state.running.take()
        };
        if let Some(record) = running {
            record.abandon_detached();
        }
    }
}

/// Lead of a flight, given back when it is dropped: another member takes it at once.
pub(super) struct Lead<E> {
    flight: Arc<Flight<E>>,
    number: u64,
    pub(super) owner: Owner,
    lease: Duration,
}

impl<E> Lead<E> {
    /// Changes the flight, unless another leader has taken it.
    fn change(&self, change: impl FnOnce(&mut FlightState<E>)) {
        let mut state = self.flight.state();
        if state.leader == Some(self.number) {
            change(&mut state);
        }
    }

    /// Keeps the lead for another lease.
    pub(super) fn extend(&self) {
        self.change(|state| state.until = Instant::now() + self.lease);
    }

    /// Notes the record that runs, or that none does any more.
    pub(super) fn runs(&self, record: Option<&OwnedRecord>) {
        self.change(|state| state.running = record.cloned());
    }

    /// Gives all members a result. Also that of a late leader is one.
    pub(super) fn end(&self, result: FlightResult<E>) {
        self.flight.state().result.get_or_insert(result);
        self.flight.changed.notify_waiters();
    }
}

impl<E> Drop for Lead<E> {
    fn drop(&mut self) {
        self.change(|state| state.leader = None);
        self.flight.changed.notify_one();
    }
}
