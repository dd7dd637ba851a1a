//! The accounts of a layer in a ledger: what is counted is decided there, places at a time are held in this process.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    Database, LedgerInner, ReservedAs, Written, digester,
    fallback::{Fallback, Passed, told, work},
    new_id,
    sql::encoding,
    writer::{
        self, AdmitCommand, AdmitReply, CommandKind, JobStatus, Key, NoticeKind, Reply, ReservationTerms,
        SettleCommand, is_within,
    },
};
use crate::{
    error::ConfigError,
    gate::MaybeFuture,
    identity::{Client, Digester},
    kind::Kind,
    quota::{
        ActiveGrant, Amounts, Grant, GrantId, OnFailure, Plan, Usage,
        account::{AccountSettings, Denial, Duplicate, GrantState, Now, Stage, Warning},
        memory::Accounts,
        store::{
            AccountContext, AdmissionDetails, AdmitError, AdmitRequest, AdmittedCharge, Bookmark, CloseResult,
            NearLimits, Page, PlanLookup, QuotaBackend, Receipt, ReservationKey, Settlement, StoreError, StoreEvent,
            StoreListener,
        },
    },
    time::{Clock, from_1970, since_1970},
};

/// The accounts of one layer in a ledger that others use too.
pub(crate) struct LedgerStore<D: Database> {
    owner: Arc<LedgerInner<D>>,
    /// Tells the layers of a ledger apart.
    origin: u32,
    slots: Arc<Slots>,
    settings: AccountSettings,
    /// How it goes on without the ledger, if it does.
    blind: Option<Arc<Fallback>>,
}

/// Places at a time, which a ledger does not hold: a process that dies could not give them back.
struct Slots {
    accounts: Arc<Accounts>,
    plans: Mutex<Vec<PlanOfSlots>>,
}

/// A plan, and what of it is a limit of places.
type PlanOfSlots = (Arc<Plan>, Option<Arc<Plan>>);

/// A place that comes back unless it is kept.
struct Slot {
    slots: Arc<Slots>,
    receipt: Option<Receipt>,
    now: Now,
}

/// So many plans are remembered.
const PLANS: usize = 64;

impl<D: Database> LedgerStore<D> {
    /// Opens the accounts of a layer.
    ///
    /// # Errors
    /// If the layer falls back on a spool and the ledger has none.
    pub(super) fn open(
        owner: &Arc<LedgerInner<D>>,
        most: usize,
        settings: AccountSettings,
        clock: &Clock,
        on_failure: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        let (owner, fallback) = (Arc::clone(owner), Fallback::new(owner.spool.as_ref(), on_failure, most)?);
        if let Some(fallback) = &fallback {
            work(fallback.spool(), &owner.writer);
        }
        let slots = Slots { accounts: Accounts::new(most, settings.clone(), clock), plans: Mutex::new(Vec::new()) };
        owner.upkeep.start();
        let (origin, blind) = (owner.next_origin(), fallback.map(Arc::new));
        Ok(Arc::new(Self { origin, owner, slots: Arc::new(slots), settings, blind }))
    }

    fn command(&self, key: Key, own: bool, kind: CommandKind) -> writer::Command {
        writer::Command { key, id: new_id(), own, origin: self.origin, kind }
    }

    /// An order under an id of its own.
    fn unnamed(&self, account: &AccountContext<'_>, kind: CommandKind) -> Option<writer::Command> {
        Some(self.command(Key { tenant: tenant(account.client)?, job: new_job() }, true, kind))
    }

    /// Asks and gives what `read` makes of the answer.
    fn ask<T: Send + 'static>(
        &self,
        command: Option<writer::Command>,
        read: impl FnOnce(Reply) -> Option<T> + Send + 'static,
    ) -> MaybeFuture<Result<T, StoreError>> {
        let Some(command) = command else { return MaybeFuture::Ready(Err(StoreError::Nameless)) };
        let owner = Arc::clone(&self.owner);
        MaybeFuture::future(async move {
            match owner.writer.submit(command).await {
                Reply::Indeterminate => Err(StoreError::Indeterminate),
                Reply::Rejected(why) => Err(StoreError::Rejected(why)),
                reply => read(reply).ok_or(StoreError::Unavailable),
            }
        })
    }

    /// A place, where the plan limits them and one is asked for.
    fn slot(&self, request: &AdmitRequest<'_>) -> Result<Option<Slot>, AdmitError> {
        let asked = request.charge.amounts.get(&Kind::Concurrent);
        let (Some(asked), Some(plan)) = (asked, self.slots.plan(request.account.plan)) else { return Ok(None) };
        let amounts = Amounts::from((Kind::Concurrent, asked));
        let mut request = *request;
        (request.account.plan, request.charge.amounts, request.charge.each) = (&plan, &amounts, &[]);
        (request.charge.job, request.charge.reserve, request.wants_usage) = (None, false, false);
        match self.slots.accounts.admit(&request) {
            MaybeFuture::Ready(Ok(admission)) => Ok(Some(Slot {
                slots: Arc::clone(&self.slots),
                receipt: Some(admission.receipt),
                now: request.account.now,
            })),
            MaybeFuture::Ready(Err(refused)) => Err(refused),
            MaybeFuture::Future(_) => Err(AdmitError::Store(StoreError::Unavailable)), // memory never waits
        }
    }

    /// Usage of the places, in place of what the ledger, which knows none, has said.
    fn with_slots(slots: &Slots, client: &Client, plan: &Arc<Plan>, now: Now, mut usage: Usage) -> Usage {
        if let Some(plan) = slots.plan(plan)
            && let MaybeFuture::Ready(Ok(held)) = slots.accounts.usage(&AccountContext { client, plan: &plan, now })
            && let (Some(last), Some(held)) = (usage.limits.last_mut(), held.limits.into_iter().next_back())
        {
            *last = held;
        }
        usage
    }
}

impl Slots {
    /// What of a plan is a limit of places.
    fn plan(&self, plan: &Arc<Plan>) -> Option<Arc<Plan>> {
        let limit = plan.concurrent()?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slots)) = plans.iter().find(|(known, _)| Arc::ptr_eq(known, plan)) {
            return slots.clone();
        }
        let name = plan.name().as_str();
        let slots = Plan::try_new(name).and_then(|slots| slots.try_limit(limit.quota.clone())).ok().map(Arc::new);
        if plans.len() == PLANS {
            plans.remove(0);
        }
        plans.push((Arc::clone(plan), slots.clone()));
        slots
    }
}

impl Slot {
    fn keep(mut self) -> Option<Receipt> {
        self.receipt.take()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.slots.accounts.settle(&receipt, &Settlement::Void(&Amounts::new()), self.now);
        }
    }
}

impl<D: Database> QuotaBackend for LedgerStore<D> {
    fn admit(&self, request: &AdmitRequest<'_>) -> MaybeFuture<Result<AdmittedCharge, AdmitError>> {
        let Some(tenant) = tenant(request.account.client) else {
            return MaybeFuture::Ready(Err(AdmitError::Store(StoreError::Nameless)));
        };
        self.owner.upkeep.start();
        if let (Some(job), Some(horizon)) = (request.charge.job, self.owner.horizon())
            && !is_within(&job.text, request.account.now.wall, horizon)
        {
            return MaybeFuture::Ready(Err(AdmitError::Denied {
                denial: Denial::Job(Duplicate::Stale),
                shared: false,
            }));
        }
        let slot = match self.slot(request) {
            Ok(slot) => slot,
            Err(refused) => return MaybeFuture::Ready(Err(refused)),
        };
        let (ask, plan) = (&request.charge, Arc::clone(request.account.plan));
        let mut amounts = ask.amounts.clone();
        amounts.leave_out(&Kind::Concurrent);
        let (job, fingerprint) = match ask.job {
            Some(job) => (job.text.as_ref().into(), Some(job.fingerprint.0)),
            None => (new_job(), None),
        };
        let key = Key { tenant, job };
        let reserve = ask.reserve.then_some(ReservationTerms { ttl: self.ttl(), charge: self.settings.charge_expired });
        let blind = self.blind.clone();
        let (told, shown) = (request.wants_nearest, request.wants_usage);
        let usage = shown || blind.as_ref().is_some_and(|blind| blind.learns());
        let admit = AdmitCommand { plan: Arc::clone(&plan), amounts, fingerprint, reserve, told, usage };
        let asked = self.command(key.clone(), ask.job.is_none(), CommandKind::Admit(admit));
        let (id, named, lasting) = (asked.id, ask.job.cloned(), ask.reserve && ask.lasting);
        let (owner, slots, client) = (Arc::clone(&self.owner), Arc::clone(&self.slots), request.account.client.clone());
        let (ttl, now, open) = (self.settings.ttl, request.account.now, ask.open);
        MaybeFuture::future(async move {
            let passed = match &blind {
                Some(blind) => blind.decide(&owner.writer, asked, now.wall).await?,
                None => match owner.writer.submit(asked).await {
                    Reply::Admitted(admitted) => Passed::Written(*admitted),
                    reply => return Err(refused(reply)),
                },
            };
            let (admitted, passed) = match passed {
                Passed::Written(admitted) => (admitted, false),
                Passed::Fallback(at) => (AdmitReply::blind(at), true),
            };
            let AdmitReply { attempt, since, nearest, near, untold, usage } = admitted;
            let usage = usage.filter(|_| shown);
            let slot = slot.and_then(Slot::keep);
            if lasting && !passed {
                owner.upkeep.add(id, &key, attempt, since, ttl);
            }
            let mut written = Written::new(key, attempt, since, plan, id, now.moment);
            (written.passed, written.reserved) = (passed, reserve.is_some());
            let usage = usage.map(|usage| Self::with_slots(&slots, &client, &written.plan, now, usage));
            let details = AdmissionDetails { reclaimed: false, near: of(&client, near), pending: untold, usage };
            let quiet = details.near.limits.is_empty() && details.pending.is_empty() && details.usage.is_none();
            let receipt = Receipt {
                address: slot.as_ref().map_or_else(Default::default, |slot| slot.address),
                epoch: 0,
                lease: slot.and_then(|slot| slot.lease),
                reservation: None,
                job: named,
                open: open || reserve.is_some(),
                shared: false,
                store_part: Some(Box::new(written)),
            };
            Ok(AdmittedCharge { receipt, nearest, details: (!quiet).then(|| Box::new(details)) })
        })
    }

    fn settle(&self, receipt: &Receipt, end: &Settlement<'_>, now: Now) -> NearLimits {
        if receipt.lease.is_some() {
            let slot = Receipt { job: None, store_part: None, ..*receipt };
            self.slots.accounts.settle(&slot, &Settlement::Detached, now);
        }
        let Some(written) = written(receipt) else { return NearLimits::default() };
        self.owner.upkeep.remove(written.command);
        let (end, used) = match end {
            // Work that was begun and left stays charged: nothing goes back but its place.
            Settlement::Void(nothing) if nothing.is_empty() && !written.reserved && receipt.job.is_none() => {
                (writer::SettleKind::Add, Amounts::new())
            }
            Settlement::Void(_) => (writer::SettleKind::Void, Amounts::new()),
            Settlement::Served { used, actual } if written.reserved => {
                (writer::SettleKind::Commit((*actual).clone()), (*used).clone())
            }
            Settlement::Served { used, .. } => (writer::SettleKind::Add, (*used).clone()),
            Settlement::Detached => return NearLimits::default(),
        };
        if receipt.job.is_some() {
            // What goes back is running until its id is free: duplicates must not be told in between that it is done.
            if end != writer::SettleKind::Void {
                self.owner.writer.finish(&written.key, written.command);
            }
            match &self.blind {
                Some(blind) if end == writer::SettleKind::Void => blind.spool().forget(&written.key),
                Some(blind) if written.passed => blind.spool().finish(&written.key, written.command),
                _ => {}
            }
        }
        let (used, part) = written.take(used);
        if end == writer::SettleKind::Add && used.is_empty() {
            return NearLimits::default();
        }
        self.tell(written, written.settle(end, used, part));
        NearLimits::default() // who has come near its limits is told when it is written
    }

    fn watch(&self, receipt: &Receipt, now: Now) {
        if receipt.lease.is_some() {
            self.slots.accounts.watch(&Receipt { job: None, store_part: None, ..*receipt }, now);
        }
    }

    fn progress(&self, receipt: &Receipt, used: &Amounts, now: Now) -> NearLimits {
        if receipt.lease.is_some() {
            let slot = Receipt { job: None, store_part: None, ..*receipt };
            self.slots.accounts.progress(&slot, &Amounts::new(), now);
        }
        if let Some(written) = written(receipt)
            && let Some((used, part)) = written.add(used, now.moment)
        {
            let kind = written.settle(writer::SettleKind::Add, used, part);
            self.tell(written, kind);
        }
        NearLimits::default()
    }

    fn reservation_key(&self, receipt: &Receipt) -> ReservationKey {
        let text = written(receipt).map(|written| written.reserved_as().to_string());
        ReservationKey::Named(text.unwrap_or_default().into())
    }

    fn close(
        &self,
        reserved: &ReservationKey,
        actual: Option<&Amounts>,
        plan_of: PlanLookup,
        _: Now,
    ) -> MaybeFuture<Result<(CloseResult, NearLimits), StoreError>> {
        let known = match reserved {
            ReservationKey::Named(text) => ReservedAs::parse(text),
            ReservationKey::Memory { .. } => None,
        };
        let Some(ReservedAs { key, command, since, passed }) = known else {
            return MaybeFuture::Ready(Ok((CloseResult::Unknown, NearLimits::default())));
        };
        // Ids come from callers. No account has such a name, and to look for it would make one.
        if !is_short(&key.tenant) {
            return MaybeFuture::Ready(Ok((CloseResult::Unknown, NearLimits::default())));
        }
        // While it waits to be brought to the ledger, the ledger knows nothing of it.
        if passed && self.blind.as_ref().is_some_and(|blind| !blind.spool().is_empty()) {
            return MaybeFuture::Ready(Err(StoreError::Unavailable));
        }
        let client = Client::named(Arc::clone(&key.tenant));
        let end = actual.map_or(writer::SettleKind::Void, |actual| writer::SettleKind::Commit(actual.clone()));
        let settle = SettleCommand { plan: plan_of(&client), attempt: 0, since, end, used: Amounts::new(), part: 0 };
        let command = self.command(key, false, CommandKind::SettleOf { of: command, settle });
        self.ask(Some(command), move |reply| match reply {
            Reply::Settled(standing, near) => Some((ending(standing), of(&client, near))),
            _ => None,
        })
    }

    fn record(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<NearLimits, StoreError>> {
        let mut amounts = amounts.clone();
        amounts.leave_out(&Kind::Concurrent);
        if amounts.iter().all(|(_, amount)| amount == 0) {
            return MaybeFuture::Ready(Ok(NearLimits::default()));
        }
        let client = account.client.clone();
        let kind = CommandKind::Record { plan: Arc::clone(account.plan), amounts };
        self.ask(self.unnamed(account, kind), move |reply| match reply {
            Reply::Recorded(near) => Some(of(&client, near)),
            _ => None,
        })
    }

    fn usage(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Usage, StoreError>> {
        let Some(tenant) = tenant(account.client) else { return MaybeFuture::Ready(Err(StoreError::Nameless)) };
        let (owner, slots, now) = (Arc::clone(&self.owner), Arc::clone(&self.slots), account.now);
        let (client, plan) = (account.client.clone(), Arc::clone(account.plan));
        MaybeFuture::future(async move {
            let (wall, stored) = owner.read(owner.writer.database.account(&tenant)).await?;
            let usage = writer::account_view(stored, &plan, wall).usage(wall);
            Ok(Self::with_slots(&slots, &client, &plan, now, usage))
        })
    }

    fn check(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<(), AdmitError>> {
        let Some(tenant) = tenant(account.client) else {
            return MaybeFuture::Ready(Err(AdmitError::Store(StoreError::Nameless)));
        };
        let mut places = Vec::new();
        if let (Some(asked), Some(plan)) = (amounts.get(&Kind::Concurrent), self.slots.plan(account.plan)) {
            let (asked, account) =
                (Amounts::from((Kind::Concurrent, asked)), AccountContext { plan: &plan, ..*account });
            if let MaybeFuture::Ready(Err(AdmitError::Denied { denial: Denial::Limits(violations), .. })) =
                self.slots.accounts.check(&account, &asked)
            {
                places = violations;
            }
        }
        let (owner, plan, mut amounts) = (Arc::clone(&self.owner), Arc::clone(account.plan), amounts.clone());
        let blind = self.blind.is_some();
        amounts.leave_out(&Kind::Concurrent);
        MaybeFuture::future(async move {
            let mut violations = match owner.read(owner.writer.database.account(&tenant)).await {
                Ok((wall, stored)) => writer::account_view(stored, &plan, wall).check(&amounts, wall),
                Err(StoreError::Unavailable) if blind => Vec::new(), // whoever comes to be admitted passes too
                Err(trouble) => return Err(trouble.into()),
            };
            violations.extend(places);
            if violations.is_empty() {
                return Ok(());
            }
            Err(AdmitError::Denied { denial: Denial::Limits(violations), shared: false })
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
        let (owner, slots) = (Arc::clone(&self.owner), Arc::clone(&self.slots));
        MaybeFuture::future(async move {
            let database = &owner.writer.database;
            let tenants = owner.read(database.tenants(after.as_deref(), most)).await?;
            let next = tenants.last().filter(|_| tenants.len() == most).map(|last| Bookmark::After((**last).into()));
            let mut page = Vec::with_capacity(tenants.len());
            for tenant in tenants {
                let (wall, stored) = owner.read(database.account(&tenant)).await?;
                let client = Client::named(tenant);
                let plan = plan_of(&client);
                let usage = writer::account_view(stored, &plan, wall).usage(wall);
                let usage = Self::with_slots(&slots, &client, &plan, now, usage);
                page.push((client, usage));
            }
            Ok((page, next))
        })
    }

    fn reset(
        &self,
        account: &AccountContext<'_>,
        limit: Option<&str>,
    ) -> MaybeFuture<Result<Result<(), ConfigError>, StoreError>> {
        let kind = CommandKind::Reset { plan: Arc::clone(account.plan), limit: limit.map(Into::into) };
        self.ask(self.unnamed(account, kind), |reply| match reply {
            Reply::Done => Some(Ok(())),
            Reply::Invalid(invalid) => Some(Err(invalid)),
            _ => None,
        })
    }

    fn grant(
        &self,
        account: &AccountContext<'_>,
        grant: Grant,
    ) -> MaybeFuture<Result<Result<GrantId, ConfigError>, StoreError>> {
        let state = GrantState {
            id: fastrand::u64(1..=i64::MAX as u64),
            limit: grant.limit().into(),
            kind: "".into(), // that of the plan's limit
            amount: grant.amount(),
            until: encoding::whole(since_1970(grant.until())),
            approver: grant.approver().into(),
            reason: grant.reason().into(),
            before: 0,
            current: 0,
            window: 0,
            epoch: 0,
            ended: false,
        };
        let kind = CommandKind::Grant { plan: Arc::clone(account.plan), grant: Box::new(state) };
        self.ask(self.unnamed(account, kind), |reply| match reply {
            Reply::Granted(id) => Some(Ok(id)),
            Reply::Invalid(invalid) => Some(Err(invalid)),
            _ => None,
        })
    }

    fn revoke(&self, account: &AccountContext<'_>, id: GrantId) -> MaybeFuture<Result<bool, StoreError>> {
        self.ask(self.unnamed(account, CommandKind::Revoke { grant: id.0 }), |reply| match reply {
            Reply::Revoked(was) => Some(was),
            _ => None,
        })
    }

    fn grants(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, StoreError>> {
        let Some(tenant) = tenant(account.client) else { return MaybeFuture::Ready(Err(StoreError::Nameless)) };
        let owner = Arc::clone(&self.owner);
        MaybeFuture::future(async move {
            let (wall, stored) = owner.read(owner.writer.database.account(&tenant)).await?;
            let mut live: Vec<_> =
                stored.grants.into_iter().filter(|state| !state.ended && state.until > wall).collect();
            live.sort_by_key(|state| (state.until, state.id));
            Ok(live.into_iter().filter_map(granted).collect())
        })
    }

    fn population(&self) -> (usize, usize) {
        self.slots.accounts.population()
    }

    fn digester(&self) -> &Digester {
        digester()
    }

    fn listen(&self, listener: StoreListener) {
        let origin = self.origin;
        if let Some(blind) = &self.blind {
            let listener = Arc::clone(&listener);
            blind.spool().listen(move |heard| listener(&told(heard)));
        }
        self.owner.writer.listen(move |notice| {
            if notice.origin == origin {
                let client = Client::named(Arc::clone(&notice.key.tenant));
                listener(&match &notice.what {
                    NoticeKind::Near(near) => StoreEvent::Near(of(&client, near.clone())),
                    NoticeKind::Rejected(why) => StoreEvent::Rejected { client, why: Arc::clone(why) },
                });
            }
        });
    }
}

impl<D: Database> LedgerStore<D> {
    /// Leaves what settles a charge where the charge is.
    fn tell(&self, written: &Written, kind: CommandKind) {
        let command = self.command(written.key.clone(), false, kind);
        match &self.blind {
            Some(blind) if written.passed => {
                blind.spool().settle(command);
                work(blind.spool(), &self.owner.writer);
            }
            _ => self.owner.writer.enqueue(command),
        }
    }

    fn ttl(&self) -> u64 {
        crate::time::nanos(self.settings.ttl)
    }
}

/// Longest name in bytes. Written with twice as many, all of them NUL, it fits the 2,704 bytes of a row in an index of
/// PostgreSQL, beside the longest job id, limit and kind.
const LONGEST_NAME: usize = 1_024;

/// Returns what the ledger left in a receipt.
fn written(receipt: &Receipt) -> Option<&Written> {
    receipt.store_part.as_ref()?.downcast_ref()
}

fn is_short(name: &str) -> bool {
    name.len() <= LONGEST_NAME
}

/// By what a client is billed.
fn tenant(client: &Client) -> Option<Arc<str>> {
    client.name().map(ToString::to_string).filter(|name| is_short(name)).map(Into::into)
}

/// An id for what has none, in the order of time.
fn new_job() -> Arc<str> {
    (&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())).into()
}

fn of(client: &Client, limits: Vec<Warning>) -> NearLimits {
    NearLimits { client: if limits.is_empty() { None } else { Some(client.clone()) }, limits }
}

pub(super) fn refused(reply: Reply) -> AdmitError {
    let denial = match reply {
        Reply::Replay { running: true, .. } => Denial::Job(Duplicate::Running),
        Reply::Replay { .. } => Denial::Job(Duplicate::Done),
        Reply::Conflict => Denial::Job(Duplicate::Conflict),
        Reply::Stale => Denial::Job(Duplicate::Stale),
        Reply::Refused(violations) => Denial::Limits(violations),
        Reply::Indeterminate => return AdmitError::Store(StoreError::Indeterminate),
        Reply::Rejected(why) => return AdmitError::Store(StoreError::Rejected(why)),
        _ => return AdmitError::Store(StoreError::Unavailable),
    };
    AdmitError::Denied { denial, shared: false }
}

fn ending(standing: JobStatus) -> CloseResult {
    match standing {
        JobStatus::Open => CloseResult::Closed,
        JobStatus::Expired => CloseResult::Expired,
        JobStatus::Committed | JobStatus::Late => CloseResult::AlreadyClosed(Stage::Committed),
        JobStatus::Voided => CloseResult::AlreadyClosed(Stage::RolledBack),
        JobStatus::Charged | JobStatus::Unknown => CloseResult::Unknown,
    }
}

fn granted(state: GrantState) -> Option<ActiveGrant> {
    let grant = Grant::try_new(&state.limit, state.amount, from_1970(state.until)).ok()?;
    let grant = grant.approved_by(state.approver).because(state.reason);
    Some(ActiveGrant { id: GrantId(state.id), grant, used: state.before.saturating_add(state.current) })
}
