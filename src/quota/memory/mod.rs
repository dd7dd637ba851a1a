//! Accounts in memory.
//!
//! The digest of a client selects its shard. Each shard has one lock, under which everything about a client is decided.
//! A thread that holds a shard waits for no other one. If there is no room, new clients share one account for each plan.
//! The shared accounts have one lock, and a thread that holds it takes no other.
//!
//! # Idle accounts
//! An account in which nothing is used, reserved, granted or remembered equals a new one. Requests forget such accounts
//! in passing, so that no task and no timer is needed: every sixteenth request to a shard visits one account of the next
//! shard, and a newcomer visits some of its own. Without requests, [`QuotaBackend::forget_idle`] forgets them.
//!
//! # Cohorts
//! A stranger with a network has more addresses than there is room for accounts. Each [cohort](crate::identity::Cohort) of
//! clients therefore has room for a part of the accounts. When it has that, its newcomers share accounts with each other,
//! and those of other cohorts have accounts of their own. No account that exists is merged or lost. Counts of cohorts have
//! locks of their own, under which no other lock is taken.
//!
//! # Work under a lock
//! A lock is held for a bounded number of steps. If more reservations of a client are overdue than one call expires, the
//! call releases the lock, lets other threads in, and goes on, before it decides. Each reservation expires once, and a
//! client has a bounded number of them.
//!
//! Wall clocks are set back, at times by hours. A counter that has seen a later time stays in the window of that time,
//! and its client waits for the end of that window; other clients do not. So that a forgotten client gets no window
//! twice, its account is forgotten only once its windows have passed by the monotonic clock too.

mod jobs;
mod reported_usage;
mod room;
mod shard;
mod shared;
mod store;
#[cfg(test)]
mod tests;

use std::{
    hash::RandomState,
    sync::{Arc, OnceLock},
};

pub(crate) use room::RoomSettings;
use room::{NoRoom, Place, Room};
use shard::Shard;
use shared::SharedAccounts;

use super::{
    Plan,
    account::{Account, AccountSettings, Changed, Grants, Now},
    layer::OnFailure,
    store::{AccountAddress, AccountContext, BackendFactory, NearLimits, QuotaBackend, StoreEvent, StoreListener},
};
use crate::{
    error::ConfigError,
    identity::Client,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering, Spin, SpinGuard, yield_now},
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
}

#[repr(align(64))]
struct Padded<T>(Spin<T>);

struct SharedState {
    /// Number of shards swept in passing; the next one is at this index, modulo the number of shards.
    hand: AtomicUsize,
    /// Number of grants so far, so that no id is used twice.
    granted: AtomicU64,
    accounts: Spin<SharedAccounts>,
    /// Set while a shared account may have a job.
    has_jobs: AtomicBool,
}

/// Factory of accounts in memory.
pub(crate) struct InMemory;

impl BackendFactory for InMemory {
    fn open(
        &self,
        room: RoomSettings,
        settings: AccountSettings,
        _: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        Ok(Accounts::new(room, settings))
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
    pub(crate) fn new(room: RoomSettings, settings: AccountSettings) -> Arc<Self> {
        let shared = SharedState {
            hand: AtomicUsize::new(0),
            granted: AtomicU64::new(1),
            accounts: Spin::new(SharedAccounts::default()),
            has_jobs: AtomicBool::new(false),
        };
        let shards = (room.most / CLIENTS_OF_SHARD).next_power_of_two().clamp(1, MOST_SHARDS);
        let (room, overflow) = (Arc::new(Room::new(&room, shards)), room.overflow);
        let shards = (0..shards).map(|_| Padded(Spin::new(Shard::default()))).collect();
        Arc::new(Self {
            number: fastrand::u64(..),
            proofs: RandomState::new(),
            shards,
            room,
            shared: Box::new(shared),
            settings,
            overflow,
            listener: OnceLock::new(),
        })
    }

    /// Runs `work` on a client's account, which is created if there is none; runs `full` if there is no room. A cohort that
    /// begins to share accounts is reported. The one that runs receives `place`.
    #[inline]
    fn with<P, T>(
        &self,
        context: &AccountContext<'_>,
        place: P,
        work: impl FnOnce(&mut Account, Now, AccountAddress, P) -> T,
        full: impl FnOnce(NoRoom, P) -> T,
    ) -> T {
        let now = context.now;
        loop {
            let (number, mut shard) = self.shard(context.client);
            // Before the work, so that afterwards its result is only passed on: each move of it costs.
            if shard.turn_of_sweep() {
                self.sweep_next(&mut shard, now);
            }
            let slot = match shard.find(context.client.digest()) {
                Some(slot) => slot,
                None => match self.insert(&mut shard, context, now) {
                    Ok(slot) => slot,
                    Err(no_room) => {
                        drop(shard);
                        self.report(no_room); // without a lock: an observer may ask for an account itself
                        return full(no_room, place);
                    }
                },
            };
            shard.see(slot, context.client);
            let (account, generation) = shard.account(slot);
            if account.advance(context.plan, now, &self.settings) {
                return work(account, now, AccountAddress { shard: number, slot, generation }, place);
            }
            drop(shard);
            yield_now(); // other threads wait for this lock
        }
    }

    /// Runs `work` on a client's account as the plan of the context sees it and on its grants as they are stored, or on a
    /// new one. Nothing changes.
    fn look<T>(&self, context: &AccountContext<'_>, work: impl FnOnce(&Account, &Grants) -> T) -> T {
        loop {
            let (_, mut shard) = self.shard(context.client);
            let Some(slot) = shard.find(context.client.digest()) else { break };
            let (account, _) = shard.account(slot);
            if account.expire(context.now, &self.settings) {
                return account.look(context.plan, context.now, work);
            }
            drop(shard);
            yield_now(); // other threads wait for this lock
        }
        work(&Account::new(context.plan), &Grants::default())
    }

    /// Runs `work` on a client's account; `None` if it has none.
    fn change<T>(&self, context: &AccountContext<'_>, work: impl FnOnce(&mut Account) -> T) -> Option<T> {
        loop {
            let (_, mut shard) = self.shard(context.client);
            let (account, _) = shard.find(context.client.digest()).map(|slot| shard.account(slot))?;
            if account.advance(context.plan, context.now, &self.settings) {
                return Some(work(account));
            }
            drop(shard);
            yield_now(); // other threads wait for this lock
        }
    }

    /// Returns the bound that leaves a client without an account of its own, if there is one.
    fn lacks_room(&self, context: &AccountContext<'_>) -> Option<NoRoom> {
        let (_, mut shard) = self.shard(context.client);
        match shard.find(context.client.digest()) {
            Some(_) => None,
            None => self.make_room(&mut shard, context.client, context.now).err(),
        }
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

    /// Runs `work` on the account that clients without room share.
    #[cold]
    fn with_shared<T>(
        &self,
        context: &AccountContext<'_>,
        no_room: NoRoom,
        mut work: impl FnMut(&mut Account, Now, AccountAddress) -> T,
    ) -> T {
        loop {
            if let Some(done) = self.try_shared(context, no_room, &mut work) {
                return done;
            }
            yield_now(); // other threads wait for this lock
        }
    }

    /// As [`with_shared`](Self::with_shared), but for one turn of the lock; `None` if another one is needed.
    fn try_shared<T>(
        &self,
        context: &AccountContext<'_>,
        no_room: NoRoom,
        work: impl FnOnce(&mut Account, Now, AccountAddress) -> T,
    ) -> Option<T> {
        let cohort = match no_room {
            NoRoom::InAll => None,
            NoRoom::InCohort(cohort) => Some(cohort),
        };
        let (plan, now) = (self.overflow.as_ref().unwrap_or(context.plan), context.now);
        let mut accounts = self.shared.accounts.lock();
        let (account, slot, generation) = accounts.of(cohort, plan, now, &self.settings);
        let is_present = account.advance(plan, now, &self.settings);
        is_present.then(|| work(account, now, AccountAddress { shard: CROWD, slot, generation }))
    }

    /// Runs `work` on the account at an address if it is still the same; returns the limits that the client came near.
    #[inline]
    fn at(&self, address: AccountAddress, work: impl FnOnce(Option<&Client>, &mut Account) -> Changed) -> NearLimits {
        if address.shard == CROWD {
            let mut accounts = self.shared.accounts.lock();
            let Some(account) = accounts.get_mut(address.slot, address.generation) else {
                return NearLimits::default();
            };
            let changed = work(None, account);
            return NearLimits::after(None, account, changed);
        }
        let mut shard = self.shards[address.shard as usize & (self.shards.len() - 1)].0.lock();
        let Some((client, account)) = shard.entry_of(address.slot, address.generation) else {
            return NearLimits::default();
        };
        let changed = work(Some(client), account);
        NearLimits::after(Some(client), account, changed)
    }

    fn insert(&self, shard: &mut Shard, context: &AccountContext<'_>, now: Now) -> Result<u32, NoRoom> {
        for _ in 0..VISITED_BY_NEWCOMER {
            shard.sweep_one(now, &self.settings, None);
        }
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

    /// Visits one account of the next shard, or of this one if the next one is in use.
    #[cold]
    fn sweep_next(&self, shard: &mut Shard, now: Now) {
        // This thread holds a shard, so it waits for no other one.
        let next = self.shared.hand.fetch_add(1, Ordering::Relaxed) & (self.shards.len() - 1);
        match self.shards[next].0.try_lock() {
            Some(mut next) => next.sweep_one(now, &self.settings, None),
            None => shard.sweep_one(now, &self.settings, None),
        };
    }

    #[inline]
    fn shard(&self, client: &Client) -> (u32, SpinGuard<'_, Shard>) {
        // The shard's own table uses the other bits.
        let number = (client.digest().0 >> 64) as usize & (self.shards.len() - 1);
        (number as u32, self.shards[number].0.lock())
    }
}

/// Number of accounts that a new client visits if there is no room.
const LOOK_AT: usize = 8;

/// Number of accounts that a new client visits in any case, so that a third of all accounts at most are idle while
/// clients come and go.
const VISITED_BY_NEWCOMER: usize = 4;

/// Accounts that [`forget_idle`](QuotaBackend::forget_idle) visits before it releases a lock. They are few, because each of
/// them may have reservations, jobs and credits to forget.
const CHUNK: usize = 8;

/// Accounts that one call of it visits, and one call that lists clients: less than a millisecond of work.
const ACCOUNTS_PER_STEP: usize = 4_096;

/// Accounts that a page reads before it releases the lock.
const ACCOUNTS_PER_LOCK_OF_PAGE: usize = 16;

/// Clients that one call lists.
const CLIENTS_PER_STEP: usize = 256;
