//! Accounts in memory.
//!
//! The digest of a client selects its shard. Each shard has one lock, under which everything about a client is decided,
//! and no thread holds two of these locks. An account in which nothing is used, reserved, granted or remembered equals a new
//! one, and later requests forget it. If there is no room, new clients share one account for each plan.
//!
//! A stranger with a network has more addresses than there is room for accounts. Each [cohort](Cohort) of clients therefore
//! has room for a part of the accounts. When it has that, its newcomers share accounts with each other, and those of other
//! cohorts have accounts of their own. No account that exists is merged or lost. Counts of cohorts have locks of their own,
//! under which no other lock is taken.
//!
//! Wall clocks are set back, at times by hours. A counter that has seen a later time stays in the window of that time,
//! and its client waits for the end of that window; other clients do not. So that a forgotten client gets no window
//! twice, its account is forgotten only once its windows have passed by the monotonic clock too.

mod room;
mod shard;
mod shared;
mod store;
#[cfg(test)]
mod tests;

use std::{
    hash::RandomState,
    sync::{Arc, OnceLock, Weak, atomic::AtomicBool},
    time::Duration,
};

pub(crate) use room::RoomSettings;
use room::{NoRoom, Place, Room};
use shard::Shard;
use shared::SharedAccounts;

use super::{
    Plan,
    account::{Account, AccountSettings, Now},
    layer::OnFailure,
    store::{AccountAddress, AccountContext, BackendFactory, NearLimits, QuotaBackend, StoreEvent, StoreListener},
};
use crate::{
    error::ConfigError,
    identity::Client,
    sync::{AtomicU64, Ordering, Spin, SpinGuard},
    time::Clock,
};

/// Accounts of a layer.
pub(crate) struct Accounts {
    /// Number of these accounts, by which they recognize their reservations. Those of other accounts, as of this
    /// process before a restart, are unknown.
    number: u64,
    /// Key of the proofs in the ids of reservations.
    proofs: RandomState,
    shards: Box<[Padded<Shard>]>,
    room: Arc<Room>,
    shared: Box<SharedState>,
    settings: AccountSettings,
    /// Plan of shared accounts; `None` for the plan of each client.
    overflow: Option<Arc<Plan>>,
    listener: OnceLock<StoreListener>,
    /// Set once the task that forgets idle accounts runs, or cannot run.
    swept: AtomicBool,
    me: Weak<Accounts>,
    clock: Clock,
}

#[repr(align(64))]
struct Padded<T>(Spin<T>);

struct SharedState {
    /// Number of grants so far, so that no id is used twice.
    granted: AtomicU64,
    accounts: Spin<SharedAccounts>,
}

/// Factory of accounts in memory.
pub(crate) struct InMemory;

impl BackendFactory for InMemory {
    fn open(
        &self,
        room: RoomSettings,
        settings: AccountSettings,
        clock: &Clock,
        _: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        Ok(Accounts::new(room, settings, clock))
    }

    fn bills(&self) -> bool {
        false
    }
}

/// Shard number of a shared account.
const CROWD: u32 = u32::MAX;

/// Greatest number of shards, and least number of clients per shard. A client without room looks for an account to
/// forget only in its own shard.
const MOST_SHARDS: usize = 64;
const CLIENTS_OF_SHARD: usize = 256;

impl Accounts {
    /// Creates accounts with this room.
    pub(crate) fn new(room: RoomSettings, settings: AccountSettings, clock: &Clock) -> Arc<Self> {
        let shared = SharedState { granted: AtomicU64::new(1), accounts: Spin::new(SharedAccounts::default()) };
        let shards = (room.most / CLIENTS_OF_SHARD).next_power_of_two().clamp(1, MOST_SHARDS);
        let (room, overflow) = (Arc::new(Room::new(&room, shards)), room.overflow);
        let shards = (0..shards).map(|_| Padded(Spin::new(Shard::default()))).collect();
        Arc::new_cyclic(|me| Self {
            number: fastrand::u64(..),
            proofs: RandomState::new(),
            shards,
            room,
            shared: Box::new(shared),
            settings,
            overflow,
            listener: OnceLock::new(),
            swept: AtomicBool::new(false),
            me: Weak::clone(me),
            clock: clock.clone(),
        })
    }

    /// Runs `work` on a client's account, which is created if there is none; runs `full` if there is no room. A cohort that
    /// begins to share accounts is reported.
    #[inline]
    fn with<T>(
        &self,
        context: &AccountContext<'_>,
        work: impl FnOnce(&mut Account, Now, AccountAddress) -> T,
        full: impl FnOnce(NoRoom) -> T,
    ) -> T {
        if !self.swept.load(Ordering::Relaxed) {
            self.sweep_in_background(); // without the lock: spawning may call hooks of the runtime
        }
        let (number, mut shard) = self.shard(context.client);
        let now = context.now;
        // Before the work, so that afterwards its result is only passed on: each move of it costs.
        if shard.turn_of_sweep() {
            shard.sweep_one(now, &self.settings, None);
        }
        let slot = match shard.find(context.client.digest()) {
            Some(slot) => slot,
            None => match self.insert(&mut shard, context, now) {
                Ok(slot) => slot,
                Err(no_room) => {
                    drop(shard);
                    self.report(no_room); // without a lock: an observer may ask for an account itself
                    return full(no_room);
                }
            },
        };
        shard.see(slot, context.client);
        let (account, generation) = shard.account(slot);
        account.advance(context.plan, now, &self.settings);
        work(account, now, AccountAddress { shard: number, slot, generation })
    }

    /// Runs `work` on a client's account as the plan of the context sees it, or on a new one. Nothing changes.
    fn look<T>(&self, context: &AccountContext<'_>, work: impl FnOnce(&Account) -> T) -> T {
        let (_, mut shard) = self.shard(context.client);
        match shard.find(context.client.digest()) {
            Some(slot) => shard.account(slot).0.look(context.plan, context.now, &self.settings, work),
            None => work(&Account::new(context.plan)),
        }
    }

    /// Runs `work` on a client's account; `None` if it has none.
    fn change<T>(&self, context: &AccountContext<'_>, work: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let (_, mut shard) = self.shard(context.client);
        let (account, _) = shard.find(context.client.digest()).map(|slot| shard.account(slot))?;
        account.advance(context.plan, context.now, &self.settings);
        Some(work(account))
    }

    /// Returns the bound that leaves a client without an account of its own, if there is one.
    fn lacks_room(&self, context: &AccountContext<'_>) -> Option<NoRoom> {
        let (_, mut shard) = self.shard(context.client);
        match shard.find(context.client.digest()) {
            Some(_) => None,
            None => self.make_room(&mut shard, context.client, context.now).err(),
        }
    }

    /// Runs `work` on the account that clients without room share.
    #[cold]
    fn with_shared<T>(
        &self,
        context: &AccountContext<'_>,
        no_room: NoRoom,
        work: impl FnOnce(&mut Account, Now, AccountAddress) -> T,
    ) -> T {
        let cohort = match no_room {
            NoRoom::InAll => None,
            NoRoom::InCohort(cohort) => Some(cohort),
        };
        let (plan, now) = (self.overflow.as_ref().unwrap_or(context.plan), context.now);
        let mut accounts = self.shared.accounts.lock();
        let (account, slot, generation) = accounts.of(cohort, plan, now, &self.settings);
        account.advance(plan, now, &self.settings);
        work(account, now, AccountAddress { shard: CROWD, slot, generation })
    }

    /// Reports a cohort that has its part of the accounts, once until it has half of it.
    #[cold]
    fn report(&self, no_room: NoRoom) {
        if let (NoRoom::InCohort(cohort), Some(listener)) = (no_room, self.listener.get())
            && self.room.begins_to_share(cohort)
        {
            listener(&StoreEvent::CohortFull(cohort));
        }
    }

    /// Runs `work` on the account at an address if it is still the same; returns the limits that the client came near.
    #[inline]
    fn at(&self, address: AccountAddress, work: impl FnOnce(Option<&Client>, &mut Account) -> u64) -> NearLimits {
        if address.shard == CROWD {
            let mut accounts = self.shared.accounts.lock();
            let Some(account) = accounts.get_mut(address.slot, address.generation) else {
                return NearLimits::default();
            };
            let warned = work(None, account);
            return NearLimits::of(None, account.warnings(warned));
        }
        let mut shard = self.shards[address.shard as usize & (self.shards.len() - 1)].0.lock();
        let Some((client, account)) = shard.entry_of(address.slot, address.generation) else {
            return NearLimits::default();
        };
        let warned = work(Some(client), account);
        NearLimits::of(Some(client), account.warnings(warned))
    }

    fn insert(&self, shard: &mut Shard, context: &AccountContext<'_>, now: Now) -> Result<u32, NoRoom> {
        let place = self.make_room(shard, context.client, now)?;
        Ok(shard.insert(context.client, context.plan, place))
    }

    /// Takes the place of a client's account. If there is none, it visits some accounts to forget one that makes room.
    fn make_room(&self, shard: &mut Shard, client: &Client, now: Now) -> Result<Place, NoRoom> {
        let mut taken = self.room.take(client);
        for _ in 0..LOOK_AT {
            let Err(no_room) = taken else { break };
            if shard.sweep_one(now, &self.settings, Some(no_room)) {
                taken = self.room.take(client);
            }
        }
        taken
    }

    /// Forgets all blank accounts, a few per lock, so that no request waits long.
    pub(crate) fn sweep(&self, now: Now) {
        for Padded(shard) in &self.shards {
            let mut left = shard.lock().len();
            while left > 0 {
                let mut shard = shard.lock();
                for _ in 0..left.min(CHUNK) {
                    shard.sweep_one(now, &self.settings, None);
                }
                left = left.saturating_sub(CHUNK);
            }
        }
    }

    /// Starts the task that forgets idle accounts, if there is a runtime for it. It ends with the accounts.
    #[cold]
    fn sweep_in_background(&self) {
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (me, clock) = (Weak::clone(&self.me), self.clock.clone());
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(accounts) = me.upgrade() else { return };
                let moment = clock.now();
                accounts.sweep(Now { moment, wall: clock.wall_at(moment) });
            }
        });
    }

    #[inline]
    fn shard(&self, client: &Client) -> (u32, SpinGuard<'_, Shard>) {
        // The shard's own table uses the other bits.
        let number = (client.digest().0 >> 64) as usize & (self.shards.len() - 1);
        (number as u32, self.shards[number].0.lock())
    }
}

/// Interval at which idle accounts are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Number of accounts that a new client visits if there is no room.
const LOOK_AT: usize = 8;

/// Accounts that a sweep visits before it releases the lock.
const CHUNK: usize = 64;

/// Accounts that a page reads before it releases the lock.
const ACCOUNTS_PER_LOCK_OF_PAGE: usize = 16;
