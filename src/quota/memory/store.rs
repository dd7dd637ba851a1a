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
            Account as Whose, Admission, Bookmark, End, Ending, Near, News, Order, Page, Place, PlanOf, QuotaBackend,
            Receipt, Refused, Reserved, Trouble,
        },
    },
    sync::Ordering,
};

impl QuotaBackend for Accounts {
    #[inline]
    fn admit(&self, order: &Order<'_>) -> MaybeFuture<Result<Admission, Refused>> {
        let admit = |account: &mut Account, now: Now, place: Place| {
            let shared = place.shard == CROWD;
            let taken = match account.admit(&order.ask, now, &self.settings) {
                Ok(taken) => taken,
                Err(no) => return MaybeFuture::Ready(Err(Refused::Account { no, shared })),
            };
            let Taken { turn, lease, hold, .. } = taken;
            let receipt = Receipt {
                place,
                turn,
                lease,
                hold,
                job: order.ask.job.cloned(),
                open: order.ask.open,
                shared,
                store_part: None,
            };
            let quiet = !order.usage && !taken.reclaimed && taken.marks.are_none();
            let news = if quiet { None } else { Some(news(account, &taken, order, now, shared)) };
            // What a crowd has left is nobody's business.
            let nearest = if order.told && !shared { account.nearest(now) } else { None };
            MaybeFuture::Ready(Ok(Admission { receipt, nearest, news }))
        };
        self.with(&order.account, admit, || self.with_crowd(&order.account, admit))
    }

    fn settle(&self, receipt: &Receipt, end: &End<'_>, now: Now) -> Near {
        self.at(receipt.place, now, |account, now| {
            if receipt.open {
                account.land();
            }
            if let Some(lease) = receipt.lease {
                account.release(lease);
            }
            match end {
                End::Void(amounts) => {
                    if let Some(hold) = receipt.hold {
                        account.close(hold, None, true, now, &self.settings);
                    }
                    account.give_back(amounts, receipt.turn);
                    if let Some(job) = &receipt.job {
                        account.free(job);
                    }
                    0
                }
                End::Served { used, actual } => {
                    let mut warned = 0;
                    if let Some(hold) = receipt.hold {
                        warned |= account.close(hold, Some(actual), true, now, &self.settings).1;
                    }
                    if !used.is_empty() {
                        warned |= account.record(used, Some(receipt.turn), now);
                    }
                    if let Some(job) = &receipt.job {
                        account.finish(job, now, &self.settings);
                    }
                    warned
                }
                End::Detached => 0,
            }
        })
    }

    fn watch(&self, receipt: &Receipt, now: Now) {
        let Some(lease) = receipt.lease else { return };
        self.at(receipt.place, now, |account, now| {
            account.watch(lease, now);
            0
        });
    }

    fn go_on(&self, receipt: &Receipt, used: &Amounts, now: Now) -> Near {
        self.at(receipt.place, now, |account, now| {
            if let Some(lease) = receipt.lease {
                account.touch(lease, now);
            }
            if let Some(hold) = receipt.hold {
                account.renew(hold, now, &self.settings);
            }
            if used.is_empty() { 0 } else { account.record(used, Some(receipt.turn), now) }
        })
    }

    fn reserved(&self, receipt: &Receipt) -> Reserved {
        let hold = receipt.hold.expect("it was reserved");
        Reserved::Here { accounts: self.number, place: receipt.place, hold }
    }

    fn close(
        &self,
        reserved: &Reserved,
        actual: Option<&Amounts>,
        _: PlanOf,
        now: Now,
    ) -> MaybeFuture<Result<(Ending, Near), Trouble>> {
        let (place, hold) = match *reserved {
            Reserved::Here { accounts, place, hold } if accounts == self.number => (place, hold),
            _ => return MaybeFuture::Ready(Ok((Ending::Unknown, Near::default()))),
        };
        let mut closed = Closed::Unknown;
        let near = self.at(place, now, |account, now| {
            account.expire(now, &self.settings);
            let warned;
            (closed, warned) = account.close(hold, actual, false, now, &self.settings);
            warned
        });
        let ending = match closed {
            Closed::Now(_) => Ending::Now,
            Closed::TooLate(_) => Ending::TooLate,
            Closed::Before(stage) => Ending::Before(stage),
            Closed::Unknown => Ending::Unknown,
        };
        MaybeFuture::Ready(Ok((ending, near)))
    }

    fn record(&self, whose: &Whose<'_>, amounts: &Amounts) -> MaybeFuture<Result<Near, Trouble>> {
        let record = |account: &mut Account, now: Now, place: Place| {
            let warned = account.record(amounts, None, now);
            MaybeFuture::Ready(Ok(near((place.shard != CROWD).then_some(whose.client), account.warnings(warned))))
        };
        self.with(whose, record, || self.with_crowd(whose, record))
    }

    fn usage(&self, whose: &Whose<'_>) -> MaybeFuture<Result<Usage, Trouble>> {
        MaybeFuture::Ready(Ok(self.look(whose, |account, now| account.usage(now))))
    }

    fn check(&self, whose: &Whose<'_>, amounts: &Amounts) -> MaybeFuture<Result<(), Refused>> {
        let (checked, shared) = match self.has_room_for(whose) {
            true => (self.look(whose, |account, now| account.check(amounts, now)), false),
            false => (self.with_crowd(whose, |account, now, _| account.check(amounts, now)), true),
        };
        MaybeFuture::Ready(checked.map_err(|no| Refused::Account { no, shared }))
    }

    fn page(
        &self,
        from: Option<&Bookmark>,
        most: usize,
        plan_of: PlanOf,
        now: Now,
    ) -> MaybeFuture<Result<Page, Trouble>> {
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

    fn reset(&self, whose: &Whose<'_>, limit: Option<&str>) -> MaybeFuture<Result<Result<(), ConfigError>, Trouble>> {
        MaybeFuture::Ready(Ok(self.look(whose, |account, _| account.reset(limit))))
    }

    fn grant(&self, whose: &Whose<'_>, grant: Grant) -> MaybeFuture<Result<Result<GrantId, ConfigError>, Trouble>> {
        let id = GrantId(self.shared.granted.fetch_add(1, Ordering::Relaxed));
        let full = || {
            Err(ConfigError::new(
                "client",
                "have an account to be granted more, and there is room for no more",
                self.most,
            ))
        };
        MaybeFuture::Ready(Ok(self.with(whose, |account, now, _| account.grant(id, grant, now).map(|()| id), full)))
    }

    fn revoke(&self, whose: &Whose<'_>, id: GrantId) -> MaybeFuture<Result<bool, Trouble>> {
        MaybeFuture::Ready(Ok(self.look(whose, |account, _| account.revoke(id))))
    }

    fn grants(&self, whose: &Whose<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, Trouble>> {
        MaybeFuture::Ready(Ok(self.look(whose, |account, _| account.grants())))
    }

    fn population(&self) -> (usize, usize) {
        (self.shared.live.load(Ordering::Relaxed), self.most)
    }
}

/// What there is to tell of an admission; of an account that is shared, not whose it is and what is left.
#[cold]
fn news(account: &Account, taken: &Taken, order: &Order<'_>, now: Now, shared: bool) -> Box<News> {
    let (reclaimed, warned) = (taken.reclaimed, account.warnings(taken.marks.warned));
    Box::new(match shared {
        true => News { reclaimed, near: near(None, warned), ..News::default() },
        false => News {
            reclaimed,
            near: near(Some(order.account.client), warned),
            untold: account.warnings(taken.marks.untold),
            usage: order.usage.then(|| account.usage(now)),
        },
    })
}

fn near(client: Option<&Client>, limits: Vec<Warning>) -> Near {
    // Who it is only matters where there is something to say.
    Near { client: if limits.is_empty() { None } else { client.cloned() }, limits }
}
