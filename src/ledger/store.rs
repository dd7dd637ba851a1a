//! Accounts of a layer in a ledger. The ledger counts and decides, and this process holds the concurrency slots.

use std::sync::Arc;

use super::{
    Database, LedgerInner, LedgerReceipt, LedgerReservation, digester,
    fallback::FallbackStore,
    new_id, slots,
    sql::encoding,
    writer::{
        self, CREDIT, Command, CommandKind, JobRows, JobStatus, Key, NoticeKind, Reply, SettleCommand, SettleKind,
        Stored,
    },
};
use crate::{
    error::ConfigError,
    gate::MaybeFuture,
    identity::{Client, Digester, Tier},
    kind::Kind,
    quota::{
        ActiveGrant, Amounts, CreditRequest, Credited, Grant, GrantId, JobOutcome, JobState, OnFailure, Usage,
        account::{AccountSettings, CloseResult, Denial, Duplicate, GrantState, Job, Now, Stage},
        memory::{Accounts, RoomSettings},
        store::{
            AccountContext, AdmitError, AdmitRequest, AdmittedCharge, Bookmark, NearLimits, Page, PlanLookup,
            QuotaBackend, Receipt, ReservationKey, Settlement, StoreError, StoreEvent, StoreListener,
        },
    },
};

/// Accounts of one layer in a ledger, which other layers may use too.
pub(crate) struct LedgerStore<D: Database> {
    pub(super) inner: Arc<LedgerInner<D>>,
    /// Number that distinguishes the layers of a ledger.
    pub(super) origin: u32,
    /// Accounts in memory, of which only the slots are used.
    pub(super) slots: Arc<Accounts>,
    pub(super) settings: AccountSettings,
}

impl<D: Database> LedgerStore<D> {
    /// Opens the accounts of a layer.
    ///
    /// # Errors
    /// If the layer falls back on a spool and the ledger has none.
    pub(super) fn open(
        inner: &Arc<LedgerInner<D>>,
        room: RoomSettings,
        settings: AccountSettings,
        on_failure: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        inner.upkeep.start();
        let most = room.most;
        let (inner, slots) = (Arc::clone(inner), Accounts::new(room, settings.clone()));
        FallbackStore::over(Self { origin: inner.next_origin(), inner, slots, settings }, on_failure, most)
    }

    pub(super) fn command(&self, key: Key, own: bool, kind: CommandKind) -> Command {
        Command { key, id: new_id(), own, origin: self.origin, kind }
    }

    /// Returns a command under a job id of its own.
    fn unnamed(&self, account: &AccountContext<'_>, kind: CommandKind) -> Result<Command, StoreError> {
        Ok(self.command(Key { tenant: tenant(account.client)?, job: new_job() }, true, kind))
    }

    /// Reads an account, and returns what `view` makes of the present and the account.
    fn read<T, E: From<StoreError>>(
        &self,
        client: &Client,
        view: impl FnOnce(u64, Stored) -> Result<T, E> + Send + 'static,
    ) -> MaybeFuture<Result<T, E>> {
        let (inner, tenant) = (Arc::clone(&self.inner), tenant(client));
        MaybeFuture::future(async move {
            let (wall, stored) = inner.read(inner.writer.database.account(&tenant?)).await?;
            view(wall, stored)
        })
    }

    /// Submits a command and returns what `read` makes of the reply.
    fn submit<T: Send + 'static>(
        &self,
        command: Result<Command, StoreError>,
        read: impl FnOnce(Reply) -> Option<T> + Send + 'static,
    ) -> MaybeFuture<Result<T, StoreError>> {
        let inner = Arc::clone(&self.inner);
        MaybeFuture::future(async move { read_reply(inner.writer.submit(command?).await, read) })
    }
}

pub(super) fn read_reply<T>(reply: Reply, read: impl FnOnce(Reply) -> Option<T>) -> Result<T, StoreError> {
    match reply {
        Reply::Indeterminate => Err(StoreError::Indeterminate),
        Reply::Rejected(why) => Err(StoreError::Rejected(why)),
        Reply::Invalid(invalid) => Err(StoreError::Invalid(invalid)),
        Reply::UnknownAccount => Err(StoreError::UnknownAccount),
        reply => read(reply).ok_or(StoreError::Unavailable),
    }
}

/// Returns the function that takes a value out of one kind of reply.
macro_rules! only {
    ($reply:pat => $value:expr) => {
        move |reply| if let $reply = reply { Some($value) } else { None }
    };
}

impl<D: Database> QuotaBackend for LedgerStore<D> {
    fn admit(&self, request: &AdmitRequest<'_>) -> MaybeFuture<Result<AdmittedCharge, AdmitError>> {
        let (command, admitted) = match self.prepare(request, false) {
            Ok(prepared) => prepared,
            Err(error) => return MaybeFuture::Ready(Err(error)),
        };
        // A layer that fails open may have let the job pass.
        if let (CommandKind::Admit(admit), false, Some(spool)) = (&command.kind, command.own, &self.inner.spool)
            && let Some(known) = spool.queue().passed(&command.key, admit.fingerprint)
        {
            return MaybeFuture::Ready(Err(AdmitError::Denied { denial: Denial::Job(known), shared: false }));
        }
        let inner = Arc::clone(&self.inner);
        MaybeFuture::future(async move {
            match inner.writer.submit(command).await {
                Reply::Admitted(reply) => Ok(admitted(*reply, false)),
                reply => Err(admit_error(reply)),
            }
        })
    }

    fn settle(&self, receipt: &Receipt, end: &Settlement<'_>, now: Now) -> NearLimits {
        if let Some(command) = self.settlement(receipt, end, now) {
            self.inner.writer.enqueue(command);
        }
        NearLimits::default() // listeners are notified once it is written
    }

    fn watch(&self, receipt: &Receipt, now: Now) {
        self.slots.watch(receipt, now);
    }

    fn unwatch(&self, receipt: &Receipt) {
        self.slots.unwatch(receipt);
    }

    fn progress(&self, receipt: &mut Receipt, used: &Amounts, now: Now) -> NearLimits {
        if let Some(command) = self.addition(receipt, used, now) {
            self.inner.writer.enqueue(command);
        }
        NearLimits::default()
    }

    fn reservation_key(&self, receipt: &Receipt) -> ReservationKey {
        let text = LedgerReceipt::of(receipt).map(|written| written.id.to_string());
        ReservationKey::Named(text.unwrap_or_default().into())
    }

    fn close(
        &self,
        reserved: &ReservationKey,
        actual: Option<&Amounts>,
        plan_of: PlanLookup,
        _: Now,
    ) -> MaybeFuture<Result<(CloseResult, NearLimits), StoreError>> {
        let unknown = Ok((CloseResult::Unknown, NearLimits::default()));
        let Some(LedgerReservation { key, command: of, since, .. }) = LedgerReservation::of(reserved) else {
            return MaybeFuture::Ready(unknown);
        };
        let unseen = Client::named(Arc::clone(&key.tenant));
        let end = actual.map_or(SettleKind::Void, |actual| SettleKind::Commit(actual.clone()));
        let (plan, used) = (plan_of(&unseen), Amounts::new());
        let settle = SettleCommand { plan, attempt: 0, since, end, job: None, used, part: 0, whole: true };
        let mut command = self.command(key, false, CommandKind::SettleOf { of, settle });
        let inner = Arc::clone(&self.inner);
        MaybeFuture::future(async move {
            // The id comes from a caller. Whether its reservation was made is read without a lock, and so is its time,
            // which lies in all of its windows: the writer reads all counters since then.
            let rows = inner.read(inner.writer.database.job(&command.key.tenant, &command.key.job)).await?.rows;
            let made = rows.iter().filter(|row| row.command == of);
            let Some(began) = made.map(|row| row.window).max() else { return unknown };
            let (_, stored) = inner.read(inner.writer.database.account(&command.key.tenant)).await?;
            let client = last_seen(&command.key.tenant, &stored);
            if let CommandKind::SettleOf { settle, .. } = &mut command.kind {
                settle.since.at = if began > 0 { began } else { u64::MAX };
                settle.plan = plan_of(&client);
            }
            let key = command.key.clone();
            let reply = inner.writer.submit(command).await;
            if let Reply::TooLarge(amount) = reply {
                return Ok((CloseResult::TooLarge(amount), NearLimits::default()));
            }
            let (job, near) = read_reply(reply, only!(Reply::Settled(job, near) => (job, near)))?;
            let charged = match job {
                // Nothing changes what it has charged.
                JobStatus::Committed | JobStatus::Late => {
                    let rows = inner.read(inner.writer.database.job(&key.tenant, &key.job)).await?.rows;
                    let attempt = JobRows(&rows).attempt_of(of);
                    attempt.map_or_else(Amounts::new, |attempt| JobRows(&rows).amounts(attempt).positive())
                }
                _ => Amounts::new(),
            };
            Ok((close_result(job, charged), NearLimits::of(Some(&client), near)))
        })
    }

    fn settle_job(
        &self,
        account: &AccountContext<'_>,
        job: &Job,
        outcome: JobOutcome,
    ) -> MaybeFuture<Result<Option<JobState>, StoreError>> {
        self.settle_unknown(account, job, outcome)
    }

    fn record(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<NearLimits, StoreError>> {
        let mut amounts = amounts.clone();
        amounts.leave_out(&Kind::Concurrent);
        if amounts.iter().all(|(_, amount)| amount == 0) {
            return MaybeFuture::Ready(Ok(NearLimits::default()));
        }
        let client = account.client.clone();
        let kind = CommandKind::Record { plan: Arc::clone(account.plan), amounts };
        self.submit(self.unnamed(account, kind), only!(Reply::Recorded(near) => NearLimits::of(Some(&client), near)))
    }

    fn usage(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Usage, StoreError>> {
        let (slots, now) = (Arc::clone(&self.slots), account.now);
        let (client, plan) = (account.client.clone(), Arc::clone(account.plan));
        self.read(account.client, move |wall, stored| {
            let usage = writer::account_view(stored, &plan, wall).usage(wall);
            Ok(slots::merge_usage(&slots, &client, &plan, now, usage))
        })
    }

    fn last_tier(&self, client: &Client) -> MaybeFuture<Result<Option<Tier>, StoreError>> {
        self.read(client, |_, stored| Ok((!stored.tier.is_empty()).then(|| stored.tier.into())))
    }

    fn check(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<(), AdmitError>> {
        let (plan, slots) = (Arc::clone(account.plan), slots::check(&self.slots, account, amounts));
        let mut amounts = amounts.clone();
        amounts.leave_out(&Kind::Concurrent);
        self.read(account.client, move |wall, stored| {
            let mut violations = writer::violations(stored, &plan, &amounts, wall);
            violations.extend(slots);
            AdmitError::unless_none(violations, false)
        })
    }

    fn page(
        &self,
        from: Option<&Bookmark>,
        most: usize,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<Page, StoreError>> {
        let after = match from {
            Some(Bookmark::After(name)) => Some(name.clone()),
            _ => None,
        };
        let (inner, slots) = (Arc::clone(&self.inner), Arc::clone(&self.slots));
        MaybeFuture::future(async move {
            let database = &inner.writer.database;
            let tenants = inner.read(database.tenants(after.as_deref(), most)).await?;
            let next = tenants.last().filter(|_| tenants.len() == most).map(|last| Bookmark::After((**last).into()));
            let mut page = Vec::with_capacity(tenants.len());
            for tenant in tenants {
                let (wall, stored) = inner.read(database.account(&tenant)).await?;
                let client = last_seen(&tenant, &stored);
                let plan = plan_of(&client);
                let usage = writer::account_view(stored, &plan, wall).usage(wall);
                let usage = slots::merge_usage(&slots, &client, &plan, now, usage);
                page.push((client, usage));
            }
            Ok((page, next))
        })
    }

    fn reset(&self, account: &AccountContext<'_>, limit: Option<&str>) -> MaybeFuture<Result<(), StoreError>> {
        let kind = CommandKind::Reset { plan: Arc::clone(account.plan), limit: limit.map(Into::into) };
        self.submit(self.unnamed(account, kind), only!(Reply::Done => ()))
    }

    fn credit(
        &self,
        account: &AccountContext<'_>,
        request: &CreditRequest,
    ) -> MaybeFuture<Result<Credited, StoreError>> {
        let kind = CommandKind::Credit { plan: Arc::clone(account.plan), request: Box::new(request.clone()) };
        let command = tenant(account.client).map(|tenant| {
            let job = format!("{CREDIT}{}", request.id).into();
            self.command(Key { tenant, job }, false, kind)
        });
        self.submit(command, only!(Reply::Credited(credited) => credited))
    }

    fn grant(&self, account: &AccountContext<'_>, grant: Grant) -> MaybeFuture<Result<GrantId, StoreError>> {
        // The kind is that of the plan's limit.
        let mut state = GrantState::new(GrantId(fastrand::u64(1..=i64::MAX as u64)), &grant, "".into(), "".into());
        state.until = encoding::whole(state.until);
        let kind = CommandKind::Grant { plan: Arc::clone(account.plan), grant: Box::new(state) };
        self.submit(self.unnamed(account, kind), only!(Reply::Granted(id) => id))
    }

    fn revoke(&self, account: &AccountContext<'_>, id: GrantId) -> MaybeFuture<Result<bool, StoreError>> {
        self.submit(self.unnamed(account, CommandKind::Revoke { grant: id.0 }), only!(Reply::Revoked(was) => was))
    }

    fn grants(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, StoreError>> {
        let plan = Arc::clone(account.plan);
        self.read(account.client, move |wall, stored| Ok(writer::account_view(stored, &plan, wall).grants.active(wall)))
    }

    fn forget_idle(&self, from: u64, now: Now) -> Option<u64> {
        self.slots.forget_idle(from, now)
    }

    fn population(&self) -> (usize, usize) {
        self.slots.population()
    }

    fn digester(&self) -> &Digester {
        digester()
    }

    fn listen(&self, listener: StoreListener) {
        let (origin, refused) = (self.origin, Arc::clone(&listener));
        let refused = move |why: &Arc<str>| refused(&StoreEvent::Lost(Arc::clone(why)));
        self.inner.writer.database.on_refusal(Box::new(refused));
        self.inner.writer.listen(move |notice| {
            // Work for no layer, such as a merge of the spool, may be of each.
            let of_any = notice.origin == 0 && matches!(notice.what, NoticeKind::Cut(_));
            if notice.origin == origin || of_any {
                let client = Client::named(Arc::clone(&notice.key.tenant));
                listener(&match &notice.what {
                    NoticeKind::Near(near) => StoreEvent::Near(NearLimits::of(Some(&client), near.clone())),
                    NoticeKind::Cut(cut) => StoreEvent::Cut(cut.clone()),
                    NoticeKind::Rejected(why) => StoreEvent::Rejected { client, why: Arc::clone(why) },
                });
            }
        });
    }
}

/// Greatest length of a name in bytes. Encoded with twice as many bytes, if all are NUL, it fits the 2,704 bytes of an
/// index row in PostgreSQL, with the longest job id, limit and kind.
const LONGEST_NAME: usize = 1_024;

/// Whether a tenant's name is short enough for the indexes.
pub(super) fn is_short(name: &str) -> bool {
    name.len() <= LONGEST_NAME
}

/// Returns the name by which a client is billed.
pub(super) fn tenant(client: &Client) -> Result<Arc<str>, StoreError> {
    let name = client.name().map(ToString::to_string).filter(|name| is_short(name));
    name.map(Into::into).ok_or(StoreError::Nameless)
}

/// Returns a job id for a request without one. Such ids are ordered by time.
pub(super) fn new_job() -> Arc<str> {
    (&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())).into()
}

pub(super) fn admit_error(reply: Reply) -> AdmitError {
    let denial = match reply {
        Reply::Replay(known) => Denial::Job(known),
        Reply::Conflict => Denial::Job(Duplicate::Conflict),
        Reply::Stale => Denial::Job(Duplicate::Stale),
        Reply::Refused(violations) => Denial::Limits(violations),
        Reply::Indeterminate => return AdmitError::Store(StoreError::Indeterminate),
        Reply::Rejected(why) => return AdmitError::Store(StoreError::Rejected(why)),
        _ => return AdmitError::Store(StoreError::Unavailable),
    };
    AdmitError::Denied { denial, shared: false }
}

/// Returns the client of an account under its last tier.
fn last_seen(tenant: &Arc<str>, stored: &Stored) -> Client {
    let client = Client::named(Arc::clone(tenant));
    if stored.tier.is_empty() { client } else { client.with_tier(Arc::clone(&stored.tier)) }
}

fn close_result(standing: JobStatus, charged: Amounts) -> CloseResult {
    match standing {
        JobStatus::Open => CloseResult::Closed,
        JobStatus::Expired => CloseResult::Expired,
        JobStatus::Committed | JobStatus::Late => CloseResult::AlreadyClosed(Stage::Committed, charged),
        JobStatus::Voided => CloseResult::AlreadyClosed(Stage::RolledBack, charged),
        JobStatus::Charged | JobStatus::Unknown => CloseResult::Unknown,
    }
}
