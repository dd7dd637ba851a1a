//! Permit of a request: holds its charge until the response has ended.

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderValue, Response, StatusCode};

use super::{
    active_plan::{ActivePlan, Asked},
    bytes::Bytes,
    charge::{self, Charge, ChargedAccount, QuotaStatus},
    report::warn,
    settings::ServedRequest,
};
use crate::{
    gate::{Event, Outcome, Permit, PolicyContext, ToEnd, caught},
    identity::Client,
    quota::{
        Amounts,
        account::Now,
        store::{AdmissionDetails, AdmittedCharge, PlanCharge, Settlement},
    },
    refusal::{NEAR_LIMITS, Refusal, near_limits},
    sync::Pool,
    time::Moment,
};

/// Open charge of a request, or nothing if the request is not charged.
///
/// One word, because a permit moves with the response.
pub struct QuotaPermit(Option<Box<Open>>);

#[derive(Default)]
pub(super) struct Open {
    /// The plan in force; `None` where the request is not charged, but shares idle extensions with the handler.
    active: Option<Arc<ActivePlan>>,
    /// Written by the store where it stays. Its details become `extra`.
    pub(super) admitted: AdmittedCharge,
    asked: Asked,
    extra: Option<Box<Extra>>,
    bytes: Bytes,
    /// Time of the last report to the account.
    reported_at: Moment,
    status: Option<StatusCode>,
    reached: bool,
    /// Whether the method is CONNECT, so that a success is an upgrade.
    connect: bool,
}

/// State that few requests have.
#[derive(Default)]
struct Extra {
    /// Shared with the handler once the request reaches it.
    shared: Option<(ChargedAccount, QuotaStatus)>,
    /// Set once it is shared with the handler.
    charge: Option<Charge>,
    near: Option<HeaderValue>,
}

impl Extra {
    fn new(details: AdmissionDetails, active: &ActivePlan, client: &Client) -> Self {
        let AdmissionDetails { pending, usage, .. } = details;
        let near =
            near_limits(pending.iter().map(|near| (&near.name, near.used, near.limit))).filter(|_| !pending.is_empty());
        let status = || match usage {
            Some(usage) => QuotaStatus { usage, near: pending.into_iter().map(|near| near.name).collect() },
            None => QuotaStatus::unknown(active.plan.name().clone(), active.plan.version()),
        };
        let account = || ChargedAccount { layer: Arc::clone(&active.common), client: client.digest() };
        Self { near, shared: active.common.settings.share.then(|| (account(), status())), charge: None }
    }
}

impl QuotaPermit {
    /// Creates the permit of a request that is not charged.
    pub(super) fn nothing(share: bool) -> Self {
        Self(share.then(|| Pool::take(&SPARE))) // no active plan marks it as uncharged
    }

    #[inline(always)] // it would be copied once more
    pub(super) fn new(
        mut open: Box<Open>,
        active: &Arc<ActivePlan>,
        client: &Client,
        asked: Asked,
        bytes: Bytes,
        connect: bool,
        now: Now,
    ) -> Self {
        active.common.report(&open.admitted);
        if open.admitted.details.is_some() || active.common.settings.share {
            let details = open.admitted.details.take().map(|details| *details).unwrap_or_default();
            open.extra = Some(Box::new(Extra::new(details, active, client)));
        }
        // Field by field: a complete value would be built first and then copied.
        open.active = Some(Arc::clone(active));
        open.asked = asked;
        open.bytes = bytes;
        open.reported_at = now.moment;
        (open.status, open.reached, open.connect) = (None, false, connect);
        Self(Some(open))
    }
}

thread_local!(static SPARE: Pool<Open> = const { Pool::new() });

impl Permit for QuotaPermit {
    type Lasts = ToEnd;

    #[inline]
    fn on_request(&mut self, extensions: &mut Extensions) {
        let Some(open) = &mut self.0 else { return };
        open.reached = true;
        if open.active.is_none() {
            return charge::share_idle(extensions);
        }
        if let Some(extra) = &mut open.extra
            && let Some((account, status)) = extra.shared.take()
        {
            extra.charge = Some(charge::share(extensions, account, status));
        }
    }

    fn on_response<B>(&mut self, response: &mut Response<B>) {
        let Some(open) = self.0.as_deref_mut() else { return };
        let Some(active) = &open.active else { return };
        open.status = Some(response.status());
        if let Some(nearest) = &open.admitted.nearest
            && let Some(fields) = active.fields.get(nearest.index)
        {
            // A request that an inner layer refused is refunded, so that more remains.
            let refused = Refusal::further_in(response.extensions(), active.common.context.outbound).is_some();
            let limit = if refused && !open.has_recorded() { active.plan.all().nth(nearest.index) } else { None };
            let back = limit.map_or(0, |limit| open.asked.amounts(active).counted(limit.kind()));
            let remaining = nearest.remaining.saturating_add(back);
            match nearest.reset {
                Some(reset) => {
                    fields.write(response.headers_mut(), remaining, reset, || active.common.context.clock.wall())
                }
                None => fields.write_without_reset(response.headers_mut(), remaining),
            }
        }
        if let Some(near) = open.extra.as_mut().and_then(|extra| extra.near.take()) {
            let _ = response.headers_mut().try_append(NEAR_LIMITS, near);
        }
    }

    /// A charge that was complete at admission needs no end.
    #[inline]
    fn ends_at_head(&self) -> bool {
        let Some(open) = &self.0 else { return true };
        open.active.as_ref().is_none_or(|active| active.ends_at_head && !open.admitted.receipt.open)
    }

    #[inline]
    fn on_body(&mut self) {
        if let Some(open) = &mut self.0
            && let Some(active) = &open.active
            && open.admitted.receipt.lease.is_some()
        {
            let now = active.common.now();
            active.common.store.watch(&open.admitted.receipt, now);
            open.reported_at = now.moment;
        }
    }

    /// Reports progress and usage to the account. Not at each frame, because a report takes a lock.
    fn on_data(&mut self, bytes: usize) {
        let Some(open) = self.0.as_deref_mut() else { return };
        let Some(active) = &open.active else { return };
        if active.response_bytes {
            open.bytes.answered(bytes);
        }
        let much = open.bytes.are_due();
        if !much && open.admitted.receipt.lease.is_none() {
            return;
        }
        let common = &*active.common;
        let now = common.now();
        if much || now.moment.since(open.reported_at) >= common.settings.account.max_stall / REPORTS_PER_STALL {
            let near = common.store.progress(&mut open.admitted.receipt, &open.bytes.report(), now);
            warn(&common.context, &near);
            open.reported_at = now.moment;
        }
    }

    #[inline]
    fn settle(self, outcome: Outcome<'_>) {
        let Some(mut open) = self.0 else { return };
        if let Some(end) = open.end(&outcome) {
            if let Some(charge) = open.kept() {
                return open.close_later(&charge, end, is_whole(&outcome));
            }
            open.close(end, is_whole(&outcome));
        }
        open.recycle();
    }
}

/// End of a request, as it is reported to the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is not charged.
    Returned,
    Charged,
    /// It is charged, and the outcome of its job is unknown.
    Interrupted,
}

/// Whether a response has ended by itself. A refusal that the handler has passed on is a whole response.
#[inline]
const fn is_whole(outcome: &Outcome<'_>) -> bool {
    matches!(outcome, Outcome::Complete { .. } | Outcome::Refused(_))
}

impl Open {
    /// Returns a charge into which a store may write.
    #[inline]
    pub(super) fn blank() -> Box<Self> {
        Pool::take(&SPARE)
    }

    /// Returns the end of the request; `None` if there is nothing to report.
    #[inline]
    fn end(&self, outcome: &Outcome<'_>) -> Option<End> {
        let active = self.active.as_ref()?;
        let refused = matches!(outcome, Outcome::Refused(_));
        let served = self.reached && (!refused || self.has_recorded());
        let complete = matches!(outcome, Outcome::Complete { .. });
        let charged = served && self.keeps_job(active, complete) && self.is_charged(active, complete);
        if charged && !self.admitted.receipt.open && self.bytes.are_all_reported() {
            return None; // everything was charged at admission
        }
        Some(if charged { self.charged(is_whole(outcome)) } else { End::Returned })
    }

    /// Returns the end of a request that is charged.
    #[inline]
    fn charged(&self, whole: bool) -> End {
        if self.admitted.receipt.job.is_some() && !whole { End::Interrupted } else { End::Charged }
    }

    /// Returns the charge by which the handler keeps the request open after its response. Reports an upgrade that has none.
    #[inline]
    fn kept(&self) -> Option<Charge> {
        let charge = self.extra.as_ref().and_then(|extra| extra.charge.as_ref()).filter(|charge| charge.is_kept());
        if charge.is_none() && self.admitted.receipt.lease.is_some() {
            self.report_upgrade();
        }
        charge.cloned()
    }

    #[inline]
    fn report_upgrade(&self) {
        let Some((active, status)) = self.active.as_ref().zip(self.status) else { return };
        if status == StatusCode::SWITCHING_PROTOCOLS || self.connect && status.is_success() {
            let PolicyContext { name: policy, observers, .. } = &active.common.context;
            observers.emit(&Event::UpgradeReleasedSlot { policy });
        }
    }

    /// Leaves the report to the end of the connection that the request has become.
    #[cold]
    fn close_later(mut self: Box<Self>, charge: &Charge, end: End, whole: bool) {
        if let Some(active) = &self.active {
            active.common.store.unwatch(&self.admitted.receipt); // no reader is left that could stall
        }
        let settlement = Box::new(move || {
            self.close(end, whole);
            self.recycle();
        });
        charge.settle_later(settlement).into_iter().for_each(|settle| settle());
    }

    #[inline]
    pub(super) fn recycle(self: Box<Self>) {
        Pool::keep(&SPARE, self, |open| {
            (open.active, open.extra) = (None, None);
            open.admitted = AdmittedCharge::default();
            (open.asked, open.bytes) = (Asked::default(), Bytes::default());
        });
    }

    /// Whether the handler recorded an amount, even of 0: then it received the request, whatever the response says.
    fn has_recorded(&self) -> bool {
        self.extra.as_ref().and_then(|extra| extra.charge.as_ref()).is_some_and(Charge::has_recorded)
    }

    /// Reports the end to the account. A request that would be returned is charged if the handler has recorded an amount
    /// since that was decided.
    #[inline(never)]
    fn close(&mut self, end: End, whole: bool) {
        let Some(active) = &self.active else { return };
        let charge = self.extra.as_ref().and_then(|extra| extra.charge.as_ref());
        let mut actual = charge.map(Charge::settle).unwrap_or_default(); // if nothing is charged too: a later record must fail
        let end = if actual.is_empty() { end } else { self.charged(whole) };
        if end == End::Charged {
            let used = self.bytes.report();
            self.bytes.correct_declared(&mut actual, &self.asked.amounts(active));
            return active.common.settle(&self.admitted.receipt, &Settlement::Served { used: &used, actual: &actual });
        }
        let (none, asked) = (Amounts::new(), self.asked.amounts(active));
        let charged = if self.admitted.receipt.reservation.is_none() { &*asked } else { &none };
        let charged = PlanCharge { amounts: charged, plan: &active.plan };
        if end == End::Returned {
            return active.common.settle(&self.admitted.receipt, &Settlement::Void(Some(charged)));
        }
        let used = self.bytes.report();
        self.bytes.correct_declared(&mut actual, &asked);
        let (used, actual) = (&used, &actual);
        active.common.settle(&self.admitted.receipt, &Settlement::Interrupted { used, actual, charged });
    }

    /// Whether a request that reached the service keeps its job id and its charge, by the table of
    /// [`JobIdSource`](crate::JobIdSource#outcomes).
    #[inline]
    fn keeps_job(&self, active: &ActivePlan, complete: bool) -> bool {
        let settings = &active.common.settings;
        let failed = || self.status.is_some_and(|status| status.is_server_error());
        settings.job_id.is_none() || self.has_recorded() || !failed() && (complete || !settings.free_unfinished)
    }

    /// Whether a request that reached the service is charged; yes if the handler recorded an amount, or if `charge_when`
    /// panics.
    #[inline]
    fn is_charged(&self, active: &ActivePlan, complete: bool) -> bool {
        let Some(charge_when) = &active.common.settings.charge_when else { return true };
        let served = ServedRequest { status: self.status, complete };
        self.has_recorded() || caught(|| charge_when(&served)).unwrap_or(true)
    }
}

/// Progress reports within the stall time of a slot: enough that a request that makes progress never loses its slot.
const REPORTS_PER_STALL: u32 = 4;

impl fmt::Debug for QuotaPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuotaPermit").field(&self.0.as_ref().is_some_and(|open| open.active.is_some())).finish()
    }
}
