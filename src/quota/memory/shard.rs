//! A shard: a part of the accounts behind one lock.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use super::room::{NoRoom, Place};
use crate::{
    identity::{Client, Digest},
    quota::{
        Plan,
        account::{Account, AccountSettings, Now},
    },
};

/// Accounts by digest, and by a number that stays the same while they live.
#[derive(Default)]
pub(super) struct Shard {
    index: HashMap<Digest, u32, BuildHasherDefault<Bits>>,
    slots: Vec<AccountSlot>,
    free: Vec<u32>,
    hand: usize,
    operations: u32,
}

#[derive(Default)]
struct AccountSlot {
    generation: u32,
    entry: Option<Box<ClientAccount>>,
}

struct ClientAccount {
    client: Client,
    account: Account,
    place: Place,
}

/// Number of operations between two visits to other accounts.
const SWEEP_EVERY: u32 = 16;

impl Shard {
    #[inline]
    pub(super) fn find(&self, digest: Digest) -> Option<u32> {
        self.index.get(&digest).copied()
    }

    /// Returns the account in a slot that was just [found](Self::find), and the generation of the slot.
    #[inline]
    pub(super) fn account(&mut self, slot: u32) -> (&mut Account, u32) {
        let AccountSlot { generation, entry } = &mut self.slots[slot as usize];
        (&mut entry.as_mut().expect("what the index knows is there").account, *generation)
    }

    /// Returns the client and the account in a slot, if the generation is still the same.
    #[inline]
    pub(super) fn entry_of(&mut self, slot: u32, generation: u32) -> Option<(&Client, &mut Account)> {
        let slot = self.slots.get_mut(slot as usize).filter(|slot| slot.generation == generation)?;
        slot.entry.as_mut().map(|entry| (&entry.client, &mut entry.account))
    }

    /// Stores the tier under which a client was seen last, if it is known.
    #[inline]
    pub(super) fn see(&mut self, slot: u32, client: &Client) {
        if let Some(entry) = &mut self.slots[slot as usize].entry
            && entry.client.tier() != client.tier()
            && client.has_known_tier()
        {
            entry.client.clone_from(client);
        }
    }

    /// Creates an account in a place that it gives back when it is forgotten.
    pub(super) fn insert(&mut self, client: &Client, plan: &Arc<Plan>, place: Place) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(AccountSlot::default());
            u32::try_from(self.slots.len() - 1).expect("there are fewer than 2^32 clients")
        });
        self.slots[slot as usize].entry =
            Some(Box::new(ClientAccount { client: client.clone(), account: Account::new(plan), place }));
        self.index.insert(client.digest(), slot);
        slot
    }

    /// Returns whether it is time to visit another account.
    #[inline]
    pub(super) fn turn_of_sweep(&mut self) -> bool {
        self.operations = self.operations.wrapping_add(1);
        self.operations.is_multiple_of(SWEEP_EVERY)
    }

    /// Moves the hand to the next account, and forgets that account if it is blank: once its windows have passed by the
    /// monotonic clock too, or at once if its room is `needed`. Returns whether it did.
    #[cold]
    pub(super) fn sweep_one(&mut self, now: Now, settings: &AccountSettings, needed: Option<NoRoom>) -> bool {
        if self.slots.is_empty() {
            return false;
        }
        self.hand = (self.hand + 1) % self.slots.len();
        let AccountSlot { generation, entry } = &mut self.slots[self.hand];
        let Some(there) = entry else { return false };
        let is_needed = needed.is_some_and(|needed| there.place.makes_room(needed));
        if !there.account.expire(now, settings)
            || !there.account.is_blank(now.wall)
            || !(is_needed || there.account.is_stale(now.moment))
        {
            return false;
        }
        self.index.remove(&there.client.digest());
        *entry = None;
        *generation = generation.wrapping_add(1);
        self.free.push(u32::try_from(self.hand).expect("there are fewer than 2^32 clients"));
        if self.index.len() < self.index.capacity() / 8 {
            self.index.shrink_to(self.index.len() * 2);
            self.free.shrink_to(self.free.len() * 2);
        }
        true
    }

    /// Returns the number of slots, occupied or not.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the place of each account.
    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref()).map(|entry| &entry.place)
    }

    /// Returns the client and the account in a slot.
    pub(super) fn entry(&mut self, slot: usize) -> Option<(&Client, &mut Account)> {
        self.slots.get_mut(slot)?.entry.as_mut().map(|entry| (&entry.client, &mut entry.account))
    }
}

/// Hasher of digests, which are keyed: it uses their bits as the hash.
#[derive(Default)]
struct Bits(u64);

impl Hasher for Bits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.0 ^= chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
    }

    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }
}
