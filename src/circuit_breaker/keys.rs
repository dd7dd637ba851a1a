//! One circuit per key, in bounded memory.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    circuit::{BreakerConfig, Circuit},
    machine::{BreakerMode, CircuitState},
};
use crate::{identity::Digest, sync::Mutex, time::Moment};

/// So many circuits at most. When they are all there, a newcomer takes the place of one that has nothing to remember;
/// only so many are looked at, so that no request pays for a flood of keys.
pub(crate) struct Keys {
    config: Arc<BreakerConfig>,
    shards: Box<[Mutex<Shard>]>,
    live: AtomicUsize,
    max: usize,
}

#[derive(Default)]
struct Shard {
    places: HashMap<Digest, usize>,
    entries: Vec<Entry>,
    /// Where the next search begins.
    hand: usize,
}

struct Entry {
    key: Digest,
    circuit: Arc<Circuit>,
    used: Moment,
}

/// How many circuits a newcomer looks at for one to forget.
const LOOKS: usize = 8;

/// After so long without a call a circuit may be forgotten in any state of its own choosing: its news are old.
const IDLE: Duration = Duration::from_secs(600);

impl Keys {
    pub(crate) fn new(config: Arc<BreakerConfig>, max: usize) -> Self {
        // A newcomer looks for room in its own shard, so each must be sure to get some of it: at 64 on average it does.
        let shards = (max / 64).clamp(1, 16);
        Self {
            config,
            shards: (0..shards).map(|_| Mutex::new(Shard::default())).collect(),
            live: AtomicUsize::new(0),
            max,
        }
    }

    /// The circuit of `key`, or nothing where there is no room for a new one.
    pub(crate) fn circuit(&self, key: Digest, now: Moment) -> Option<Arc<Circuit>> {
        let shard = &self.shards[(key.0 as usize) % self.shards.len()];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let (place, forgotten) = match shard.places.get(&key) {
            Some(&place) => (place, None),
            None => self.settle_in(&mut shard, key, now)?,
        };
        let entry = &mut shard.entries[place];
        entry.used = now;
        let circuit = Arc::clone(&entry.circuit);
        drop(shard);
        if let Some(forgotten) = forgotten {
            forgotten.command(BreakerMode::Automatic, "forgotten"); // nobody's gauge stays up
        }
        Some(circuit)
    }

    /// A place for a newcomer, and whose it was.
    fn settle_in(&self, shard: &mut Shard, key: Digest, now: Moment) -> Option<(usize, Option<Arc<Circuit>>)> {
        let more = |live: usize| (live < self.max).then_some(live + 1);
        let room = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        let place = if room { shard.entries.len() } else { shard.forgettable(now)? };
        let entry = Entry { key, circuit: Circuit::new(Arc::clone(&self.config), 1, Some(key)), used: now };
        shard.places.insert(key, place);
        if room {
            shard.entries.push(entry);
            return Some((place, None));
        }
        let old = std::mem::replace(&mut shard.entries[place], entry);
        shard.places.remove(&old.key);
        Some((place, Some(old.circuit)))
    }
}

impl Shard {
    /// The place of a circuit with nothing to remember, rather one without calls under way whose results would be lost,
    /// else of one that nobody has used for long.
    fn forgettable(&mut self, now: Moment) -> Option<usize> {
        let looks = LOOKS.min(self.entries.len());
        let hand = self.hand;
        self.hand = (hand + looks) % self.entries.len().max(1);
        let seen = (0..looks).map(|step| (hand + step) % self.entries.len());
        // Whoever holds a handle or a probe of a circuit would lose it.
        let loose: Vec<usize> = seen.filter(|&place| Arc::strong_count(&self.entries[place].circuit) == 1).collect();
        let first = |fits: &dyn Fn(&Entry) -> bool| loose.iter().copied().find(|&place| fits(&self.entries[place]));
        first(&|entry| !entry.circuit.has_calls() && entry.circuit.is_clean(now))
            .or_else(|| first(&|entry| entry.circuit.is_clean(now)))
            .or_else(|| {
                first(&|entry| {
                    now.since(entry.used) >= IDLE && {
                        let decides_itself = [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen];
                        decides_itself.contains(&entry.circuit.state())
                    }
                })
            })
    }
}
