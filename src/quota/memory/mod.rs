//! Accounts in memory.
//!
//! The digest of a client selects its shard. Each shard has one lock, under which everything about a client is decided,
//! and no thread holds two locks. An account in which nothing is used, reserved, granted or remembered equals a new
//! one, and later requests forget it. If there is no room, new clients share one account for each plan.
//!
//! Wall clocks are set back, at times by hours. A counter that has seen a later time stays in the window of that time,
//! and its client waits for the end of that window; other clients do not. So that a forgotten client gets no window
//! twice, its account is forgotten only once its windows have passed by the monotonic clock too.

mod shard;
mod store;
#[cfg(test)]
mod tests;

use std::{
    hash::RandomState,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use shard::Shard;

use super::{
    account::{Account, AccountSettings, Now},
    layer::OnFailure,
    store::{AccountAddress, AccountContext, BackendFactory, NearLimits, QuotaBackend},
};
use crate::{
    error::ConfigError,
    identity::Client,
    sync::{AtomicU64, AtomicUsize, Ordering, Spin, SpinGuard},
    time::Clock,
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
    /// Set once the task that forgets idle accounts runs, or cannot run.
    swept: AtomicBool,
    me: Weak<Accounts>,
    clock: Clock,
}

#[repr(align(64))]
struct Padded(Spin<Shard>);

struct SharedState {
    live: AtomicUsize,
    /// Number of grants so far, so that no id is used twice.
    granted: AtomicU64,
    /// One account for each plan, for the clients without room.
    shared_accounts: Spin<Vec<Account>>,
}

/// Factory of accounts in memory.
pub(crate) struct InMemory;

impl BackendFactory for InMemory {
    fn open(
        &self,
        most: usize,
        settings: AccountSettings,
        clock: &Clock,
        _: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        Ok(Accounts::new(most, settings, clock))
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
    pub(crate) fn new(most: usize, settings: AccountSettings, clock: &Clock) -> Arc<Self> {
        let shared = SharedState {
            live: AtomicUsize::new(0),
            granted: AtomicU64::new(1),
            shared_accounts: Spin::new(Vec::new()),
        };
        let shards = (most / CLIENTS_OF_SHARD).next_power_of_two().clamp(1, MOST_SHARDS);
        let shards = (0..shards).map(|_| Padded(Spin::new(Shard::default()))).collect();
        Arc::new_cyclic(|me| Self {
            number: fastrand::u64(..),
            proofs: RandomState::new(),
            shards,
            shared: Box::new(shared),
            settings,
            most,
            swept: AtomicBool::new(false),
            me: Weak::clone(me),
            clock: clock.clone(),
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
        if !self.swept.load(Ordering::Relaxed) {
            self.sweep_in_background(); // without the lock: spawning may call hooks of the runtime
        }
        let (number, mut shard) = self.shard(context.client);
        let now = context.now;
        // Before the work, so that afterwards its result is only passed on: each move of it costs.
        if shard.turn_of_sweep() {
            self.forget_one(&mut shard, now, false);
        }
        let slot = shard.find(context.client.digest()).or_else(|| self.insert(&mut shard, context, now));
        let Some(slot) = slot else {
            drop(shard);
            return full();
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
        let mut shared_accounts = self.shared.shared_accounts.lock();
        let at = shared_accounts.iter().position(|account| account.plan.name() == context.plan.name());
        let slot = at.unwrap_or_else(|| {
            shared_accounts.push(Account::new(context.plan));
            shared_accounts.len() - 1
        });
        let now = context.now;
        shared_accounts[slot].advance(context.plan, now, &self.settings);
        let address = AccountAddress { shard: CROWD, slot: u32::try_from(slot).unwrap_or(CROWD), generation: 0 };
        work(&mut shared_accounts[slot], now, address)
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

    /// Forgets all blank accounts, a few per lock, so that no request waits long.
    pub(crate) fn sweep(&self, now: Now) {
        for Padded(shard) in &self.shards {
            let mut left = shard.lock().len();
            while left > 0 {
                let mut shard = shard.lock();
                for _ in 0..left.min(CHUNK) {
                    self.forget_one(&mut shard, now, false);
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
