//! Jobs begin one at a time for each client, whichever account is charged.
//!
//! A job is remembered in the account that it is charged to: that of its client, or a shared one. Two requests of one
//! client can be charged to different accounts, because a place has become free in between, or the plan is another one.
//! Each account has a lock of its own, so none of these locks alone makes a job begin once. The lock of the client's
//! shard does: a job is looked up in all accounts and begun under it, also where a shared account is charged.

use super::{Accounts, shard::Shard};
use crate::{
    quota::{
        account::{Account, Duplicate, Job, Now},
        store::{AccountAddress, AccountContext},
    },
    sync::{Ordering, SpinGuard, yield_now},
};

impl Accounts {
    /// Runs `work`, which begins a job, on the account that its client's charges go to now.
    ///
    /// # Errors
    /// If the job was begun in a shared account. An account of the client's own is up to `work`.
    #[cold]
    pub(super) fn begin<T>(
        &self,
        context: &AccountContext<'_>,
        job: &Job,
        mut work: impl FnMut(&mut Account, Now, AccountAddress) -> T,
    ) -> Result<T, Duplicate> {
        loop {
            let (number, mut shard) = self.shard(context.client);
            if let Some(begun) = self.begun_in_shared(&shard, job, context.now) {
                return Err(begun);
            }
            if shard.turn_of_sweep() {
                self.sweep_next(&mut shard, context.now);
            }
            let known = shard.find(context.client.digest());
            let slot = known.map_or_else(|| self.insert(&mut shard, context, context.now), Ok);
            let (done, no_room) = match slot {
                Ok(slot) => (self.try_own(&mut shard, number, slot, context, &mut work), None),
                Err(no_room) => (self.try_shared(context, no_room, &mut work), Some(no_room)),
            };
            drop(shard);
            if let Some(done) = done {
                // Without a lock: an observer may ask for an account itself.
                no_room.into_iter().for_each(|no_room| self.report(no_room));
                return Ok(done);
            }
            yield_now(); // other threads wait for these locks
        }
    }

    /// Runs `work` on an account of its client's own, for one turn of the lock; `None` if another one is needed.
    fn try_own<T>(
        &self,
        shard: &mut Shard,
        number: u32,
        slot: u32,
        context: &AccountContext<'_>,
        work: impl FnOnce(&mut Account, Now, AccountAddress) -> T,
    ) -> Option<T> {
        shard.see(slot, context.client);
        let (account, generation) = shard.account(slot);
        let is_present = account.advance(context.plan, context.now, &self.settings);
        is_present.then(|| work(account, context.now, AccountAddress { shard: number, slot, generation }))
    }

    /// Returns the reason why a job may not begin that was begun in a shared account.
    ///
    /// The guard of its client's shard shows that no other thread begins it meanwhile. It also makes the mark of a shared
    /// account visible if an earlier job of the client set it.
    fn begun_in_shared(&self, _: &SpinGuard<'_, Shard>, job: &Job, now: Now) -> Option<Duplicate> {
        if !self.shared.has_jobs.load(Ordering::Relaxed) {
            return None;
        }
        let mut accounts = self.shared.accounts.lock();
        let (begun, more) = accounts.begun_job(job, now, &self.settings);
        self.shared.has_jobs.store(more, Ordering::Relaxed); // under the lock, as each job begins
        begun
    }
}
