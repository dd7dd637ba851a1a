//! Accounts in memory answer at once.

use super::{Accounts, CROWD};
use crate::{
    error::ConfigError,
    gate::MaybeFuture,
    identity::Client,
    quota::{
        ActiveGrant, Amounts, Grant, GrantId, Usage,
        account::{Account, Closed, Now, Taken, Warning},
        store::{
            AccountAddress, AccountContext, AdmissionDetails, AdmitError, AdmitRequest, AdmittedCharge, Bookmark,
            CloseResult, NearLimits, Page, PlanLookup, QuotaBackend, Receipt, ReservationKey, Settlement, StoreError,
        },
    },
    sync::Ordering,
};

impl QuotaBackend for Accounts {
    #[inline]
    fn admit(&self, request: &AdmitRequest<'_>) -> MaybeFuture<Result<AdmittedCharge, AdmitError>> {
        let admit = |account: &mut Account, now: Now, address: AccountAddress| {
            let shared = address.shard == CROWD;
            let taken = match account.admit(&request.charge, now, &self.settings) {
                Ok(taken) => taken,
                Err(denial) => return MaybeFuture::Ready(Err(AdmitError::Denied { denial, shared })),
            };
            let Taken { epoch, lease, reservation, .. } = taken;
            let receipt = Receipt {
                address,
                epoch,
                lease,
                reservation,
                job: request.charge.job.cloned(),
                open: request.charge.open,
                shared,
                store_part: None,
            };
            let quiet = !request.wants_usage && !taken.reclaimed && taken.marks.are_none();
            let details = if quiet { None } else { Some(details_of(account, &taken, request, now, shared)) };
            // What a crowd has left is nobody's business.
            let nearest = if request.wants_nearest && !shared { account.nearest(now) } else { None };
            MaybeFuture::Ready(Ok(AdmittedCharge { receipt, nearest, details }))
        };
        self.with(&request.account, admit, || self.with_crowd(&request.account, admit))
    }

    fn settle(&self, receipt: &Receipt, end: &Settlement<'_>, now: Now) -> NearLimits {
        self.at(receipt.address, now, |account, now| {
            if receipt.open {
                account.land();
            }
            if let Some(lease) = receipt.lease {
                account.release(lease);
            }
            match end {
                Settlement::Void(amounts) => {
                    if let Some(hold) = receipt.reservation {
                        account.close(hold, None, true, now, &self.settings);
                    }
                    account.give_back(amounts, receipt.epoch);
                    if let Some(job) = &receipt.job {
                        account.free(job);
                    }
                    0
                }
                Settlement::Served { used, actual } => {
                    let mut warned = 0;
                    if let Some(hold) = receipt.reservation {
                        warned |= account.close(hold, Some(actual), true, now, &self.settings).1;
                    }
                    if !used.is_empty() {
                        warned |= account.record(used, Some(receipt.epoch), now);
                    }
                    if let Some(job) = &receipt.job {
                        account.finish(job, now, &self.settings);
                    }
                    warned
                }
                Settlement::Detached => 0,
            }
        })
    }

    fn watch(&self, receipt: &Receipt, now: Now) {
        let Some(lease) = receipt.lease else { return };
        self.at(receipt.address, now, |account, now| {
            account.watch(lease, now);
            0
        });
    }

    fn progress(&self, receipt: &Receipt, used: &Amounts, now: Now) -> NearLimits {
        self.at(receipt.address, now, |account, now| {
            if let Some(lease) = receipt.lease {
                account.touch(lease, now);
            }
            if let Some(hold) = receipt.reservation {
                account.renew(hold, now, &self.settings);
            }
            if used.is_empty() { 0 } else { account.record(used, Some(receipt.epoch), now) }
        })
    }

    fn reservation_key(&self, receipt: &Receipt) -> ReservationKey {
        let reservation = receipt.reservation.expect("it was reserved");
        ReservationKey::Memory { accounts: self.number, address: receipt.address, reservation }
    }

    fn close(
        &self,
        reserved: &ReservationKey,
        actual: Option<&Amounts>,
        _: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<(CloseResult, NearLimits), StoreError>> {
        let (address, hold) = match *reserved {
            ReservationKey::Memory { accounts, address, reservation: hold } if accounts == self.number => {
                (address, hold)
            }
            _ => return MaybeFuture::Ready(Ok((CloseResult::Unknown, NearLimits::default()))),
        };
        let mut closed = Closed::Unknown;
        let near = self.at(address, now, |account, now| {
            account.expire(now, &self.settings);
            let warned;
            (closed, warned) = account.close(hold, actual, false, now, &self.settings);
            warned
        });
        let ending = match closed {
            Closed::Now(_) => CloseResult::Closed,
            Closed::TooLate(_) => CloseResult::Expired,
            Closed::Before(stage) => CloseResult::AlreadyClosed(stage),
            Closed::Unknown => CloseResult::Unknown,
        };
        MaybeFuture::Ready(Ok((ending, near)))
    }

    fn record(&self, context: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<NearLimits, StoreError>> {
        let record = |account: &mut Account, now: Now, address: AccountAddress| {
            let warned = account.record(amounts, None, now);
            MaybeFuture::Ready(Ok(near((address.shard != CROWD).then_some(context.client), account.warnings(warned))))
        };
        self.with(context, record, || self.with_crowd(context, record))
    }

    fn usage(&self, context: &AccountContext<'_>) -> MaybeFuture<Result<Usage, StoreError>> {
        MaybeFuture::Ready(Ok(self.look(context, |account, now| account.usage(now))))
    }

    fn check(&self, context: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<(), AdmitError>> {
        let (checked, shared) = match self.has_room_for(context) {
            true => (self.look(context, |account, now| account.check(amounts, now)), false),
            false => (self.with_crowd(context, |account, now, _| account.check(amounts, now)), true),
        };
        MaybeFuture::Ready(checked.map_err(|denial| AdmitError::Denied { denial, shared }))
    }

    fn page(
        &self,
        from: Option<&Bookmark>,
        most: usize,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<Page, StoreError>> {
        let from = match from {
            None => 0,
            Some(Bookmark::At(number)) => *number,
            Some(Bookmark::After(_)) => return MaybeFuture::Ready(Ok((Vec::new(), None))), // another store's
        };
        let now = self.present(now);
        let mut page = Vec::new();
        let (mut number, mut slot) = ((from >> 32) as usize, (from & u64::from(u32::MAX)) as usize);
        while let Some(shard) = self.shards.get(number) {
            let mut shard = shard.0.lock();
            // A few at a time: whoever is being decided on waits for no more.
            let end = shard.len().min(slot + super::FEW);
            while slot < end && page.len() < most {
                if let Some((client, account)) = shard.entry(slot) {
                    account.advance(&plan_of(client), now, &self.settings);
                    page.push((client.clone(), account.usage(now)));
                }
                slot += 1;
            }
            if slot >= shard.len() {
                (number, slot) = (number + 1, 0);
            }
            if page.len() >= most {
                let more = number < self.shards.len();
                return MaybeFuture::Ready(Ok((
                    page,
                    more.then_some(Bookmark::At((number as u64) << 32 | slot as u64)),
                )));
            }
        }
        MaybeFuture::Ready(Ok((page, None)))
    }

    fn reset(
        &self,
        context: &AccountContext<'_>,
        limit: Option<&str>,
    ) -> MaybeFuture<Result<Result<(), ConfigError>, StoreError>> {
        MaybeFuture::Ready(Ok(self.look(context, |account, _| account.reset(limit))))
    }

    fn grant(
        &self,
        context: &AccountContext<'_>,
        grant: Grant,
    ) -> MaybeFuture<Result<Result<GrantId, ConfigError>, StoreError>> {
        let id = GrantId(self.shared.granted.fetch_add(1, Ordering::Relaxed));
        let full = || {
            let most = self.most;
            Err(ConfigError::message(format!("no account is free for the client of the grant; max_clients is {most}")))
        };
        MaybeFuture::Ready(Ok(self.with(context, |account, now, _| account.grant(id, grant, now).map(|()| id), full)))
    }

    fn revoke(&self, context: &AccountContext<'_>, id: GrantId) -> MaybeFuture<Result<bool, StoreError>> {
        MaybeFuture::Ready(Ok(self.look(context, |account, _| account.revoke(id))))
    }

    fn grants(&self, context: &AccountContext<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, StoreError>> {
        MaybeFuture::Ready(Ok(self.look(context, |account, _| account.grants())))
    }

    fn population(&self) -> (usize, usize) {
        (self.shared.live.load(Ordering::Relaxed), self.most)
    }
}

/// What there is to tell of an admission; of an account that is shared, not context it is and what is left.
#[cold]
fn details_of(
    account: &Account,
    taken: &Taken,
    request: &AdmitRequest<'_>,
    now: Now,
    shared: bool,
) -> Box<AdmissionDetails> {
    let (reclaimed, warned) = (taken.reclaimed, account.warnings(taken.marks.warned));
    Box::new(match shared {
        true => AdmissionDetails { reclaimed, near: near(None, warned), ..AdmissionDetails::default() },
        false => AdmissionDetails {
            reclaimed,
            near: near(Some(request.account.client), warned),
            pending: account.warnings(taken.marks.pending),
            usage: request.wants_usage.then(|| account.usage(now)),
        },
    })
}

fn near(client: Option<&Client>, limits: Vec<Warning>) -> NearLimits {
    // Who it is only matters where there is something to say.
    NearLimits { client: if limits.is_empty() { None } else { client.cloned() }, limits }
}
