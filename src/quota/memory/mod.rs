//! Accounts in memory.
//!
//! The digest of a client selects its shard. Each shard has one lock, under which everything about a client is decided.
//! A thread that holds a shard waits for no other one. If there is no room, new clients share one account for each plan.
//!
//! # Idle accounts
//! An account in which nothing is used, reserved, granted or remembered equals a new one. Requests forget such accounts
//! in passing, so that no task and no timer is needed: every sixteenth request to a shard visits one account of the next
//! shard, and a newcomer visits some of its own. Without requests, [`QuotaBackend::forget_idle`] forgets them.
//!
//! # Work under a lock
//! A lock is held for a bounded number of steps. If more reservations of a client are overdue than one call expires, the
//! call releases the lock, lets other threads in, and goes on, before it decides. Each reservation expires once, and a
//! client has a bounded number of them.
//!
//! Wall clocks are set back, at times by hours. A counter that has seen a later time stays in the window of that time,
//! and its client waits for the end of that window; other clients do not. So that a forgotten client gets no window
//! twice, its account is forgotten only once its windows have passed by the monotonic clock too.

mod shard;
mod store;
#[cfg(test)]
mod tests;

use std::{hash::RandomState, sync::Arc};

use shard::Shard;

use super::{
    account::{Account, AccountSettings, Now},
    layer::OnFailure,
    store::{AccountAddress, AccountContext, BackendFactory, NearLimits, QuotaBackend},
};
use crate::{
    error::ConfigError,
    identity::Client,
    sync::{AtomicU64, AtomicUsize, Ordering, Spin, SpinGuard, yield_now},
};

/// Accounts of a layer.
pub(crate) struct Accounts {
    /// Number of these accounts, by which they recognize their reservations. Those of other accounts, as of this
    /// process before a restart, are unknown.
    number: u64,
    /// Key of the proofs in the ids of reservations.
    proofs: RandomState,
    shards: Box<[Padded]>,
    shared: Box<SharedState>,
    settings: AccountSettings,
    most: usize,
}

#[repr(align(64))]
struct Padded(Spin<Shard>);

struct SharedState {
    live: AtomicUsize,
    /// Number of shards swept in passing; the next one is at this index, modulo the number of shards.
    hand: AtomicUsize,
    /// Number of grants so far, so that no id is used twice.
    granted: AtomicU64,
    /// One account for each plan, for the clients without room.
    shared_accounts: Spin<Vec<Account>>,
}

/// Factory of accounts in memory.
pub(crate) struct InMemory;

impl BackendFactory for InMemory {
    fn open(&self, most: usize, settings: AccountSettings, _: OnFailure) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        Ok(Accounts::new(most, settings))
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
    /// Creates accounts with room for `most` clients.
    pub(crate) fn new(most: usize, settings: AccountSettings) -> Arc<Self> {
        let shared = SharedState {
            live: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            granted: AtomicU64::new(1),
            shared_accounts: Spin::new(Vec::new()),
        };
        let shards = (most / CLIENTS_OF_SHARD).next_power_of_two().clamp(1, MOST_SHARDS);
        let shards = (0..shards).map(|_| Padded(Spin::new(Shard::default()))).collect();
        Arc::new(Self {
            number: fastrand::u64(..),
            proofs: RandomState::new(),
            shards,
            shared: Box::new(shared),
            settings,
            most,
        })
    }

    /// Runs `work` on a client's account, which is created if there is none; runs `full` if there is no room.
    #[inline]
    fn with<T>(
        &self,
        context: &AccountContext<'_>,
        work: impl FnOnce(&mut Account, Now, AccountAddress) -> T,
        full: impl FnOnce() -> T,
    ) -> T {
        let now = context.now;
        loop {
            let (number, mut shard) = self.shard(context.client);
            // Before the work, so that afterwards its result is only passed on: each move of it costs.
            if shard.turn_of_sweep() {
                self.sweep_next(&mut shard, now);
            }
            let slot = shard.find(context.client.digest()).or_else(|| self.insert(&mut shard, context, now));
            let Some(slot) = slot else {
                drop(shard);
                return full();
            };
            shard.see(slot, context.client);
            let (account, generation) = shard.account(slot);
            if account.advance(context.plan, now, &self.settings) {
                return work(account, now, AccountAddress { shard: number, slot, generation });
            }
            drop(shard);
            yield_now(); // other threads wait for this lock
        }
    }

    /// Runs `work` on a client's account as the plan of the context sees it, or on a new one. Nothing changes.
    fn look<T>(&self, context: &AccountContext<'_>, work: impl FnOnce(&Account) -> T) -> T {
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
        work(&Account::new(context.plan))
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

    /// Whether a client has an account, or there is room to create it.
    fn has_room_for(&self, context: &AccountContext<'_>) -> bool {
        let (_, mut shard) = self.shard(context.client);
        shard.find(context.client.digest()).is_some()
            || self.shared.live.load(Ordering::Relaxed) < self.most
            || self.sweep_some(&mut shard, context.now)
    }

    /// Runs `work` on the account that clients without room share.
    #[cold]
    fn with_shared<T>(
        &self,
        context: &AccountContext<'_>,
        work: impl FnOnce(&mut Account, Now, AccountAddress) -> T,
    ) -> T {
        let now = context.now;
        loop {
            let mut shared_accounts = self.shared.shared_accounts.lock();
            let at = shared_accounts.iter().position(|account| account.plan.name() == context.plan.name());
            let slot = at.unwrap_or_else(|| {
                shared_accounts.push(Account::new(context.plan));
                shared_accounts.len() - 1
            });
            let account = &mut shared_accounts[slot];
            if account.advance(context.plan, now, &self.settings) {
                let slot = u32::try_from(slot).unwrap_or(CROWD);
                return work(account, now, AccountAddress { shard: CROWD, slot, generation: 0 });
            }
            drop(shared_accounts);
            yield_now(); // other threads wait for this lock
        }
    }

    /// Runs `work` on the account at an address if it is still the same; returns the limits that the client came near.
    #[inline]
    fn at(&self, address: AccountAddress, work: impl FnOnce(Option<&Client>, &mut Account) -> u64) -> NearLimits {
        if address.shard == CROWD {
            let mut shared_accounts = self.shared.shared_accounts.lock();
            let Some(account) = shared_accounts.get_mut(address.slot as usize) else { return NearLimits::default() };
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

    fn insert(&self, shard: &mut Shard, context: &AccountContext<'_>, now: Now) -> Option<u32> {
        // Counted before it is created, so that the bound holds.
        let more = |live| (live < self.most).then_some(live + 1);
        let count = || self.shared.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        for _ in 0..VISITED_BY_NEWCOMER {
            self.forget_one(shard, now, false);
        }
        let has_room = count() || (self.sweep_some(shard, now) && count());
        has_room.then(|| shard.insert(context.client, context.plan))
    }

    /// Visits some accounts to forget one; returns whether it did.
    fn sweep_some(&self, shard: &mut Shard, now: Now) -> bool {
        (0..LOOK_AT).any(|_| self.forget_one(shard, now, true))
    }

    /// Visits one account, and forgets it if it is blank.
    #[cold]
    fn forget_one(&self, shard: &mut Shard, now: Now, needed: bool) -> bool {
        let forgotten = shard.sweep_one(now, &self.settings, needed);
        if forgotten {
            self.shared.live.fetch_sub(1, Ordering::Relaxed);
        }
        forgotten
    }

    /// Visits one account of the next shard, or of this one if the next one is in use.
    #[cold]
    fn sweep_next(&self, shard: &mut Shard, now: Now) {
        // This thread holds a shard, so it waits for no other one.
        let next = self.shared.hand.fetch_add(1, Ordering::Relaxed) & (self.shards.len() - 1);
        match self.shards[next].0.try_lock() {
            Some(mut next) => self.forget_one(&mut next, now, false),
            None => self.forget_one(shard, now, false),
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

/// Accounts that [`forget_idle`](QuotaBackend::forget_idle) visits before it releases a lock.
const CHUNK: usize = 64;

/// Accounts that one call of it visits: less than a millisecond of work.
const ACCOUNTS_PER_STEP: usize = 4_096;

/// Accounts that a page reads before it releases the lock.
const ACCOUNTS_PER_LOCK_OF_PAGE: usize = 16;
