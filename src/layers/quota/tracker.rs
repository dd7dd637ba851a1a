//! The decision on a request: whose account, what it asks for, and what the store says.

use std::{fmt, sync::Arc};

use super::{
    bytes::Bytes,
    job_id::{Bad, Duplicates},
    offer::{Asked, Offer, Plans},
    permit::Held,
    settings::QuotaSettings,
};
use crate::{
    Admit, Answer, Client, Dialect, Digester, Event, Reason, Refusal, RequestHead,
    gate::Terms,
    identify::Whom,
    in_force::InForce,
    quota::Amounts,
    quota_store::{Account, Admission, Near, Order, PlanOf, QuotaStore, Refused, Told},
    rule::quota::{Ask, Duplicate, Job, No, Now, Terms as Books},
};

/// The accounts of a layer, and the plans that they have.
pub struct Tracker {
    pub(super) terms: Terms,
    pub(super) settings: QuotaSettings,
    pub(super) plans: InForce<Plans>,
    pub(super) store: Arc<dyn QuotaStore>,
    whom: Whom,
}

impl Tracker {
    pub(super) fn new(settings: QuotaSettings, terms: Terms) -> Self {
        let books = Books {
            max_hold: settings.max_hold,
            max_stall: settings.max_stall,
            ttl: settings.ttl,
            charge_expired: settings.charges_expired(),
            job_horizon: settings.job_horizon,
            max_jobs: settings.max_jobs,
        };
        let store = settings.store.0.open(settings.max_clients, books, &terms.clock, &settings.on_failure);
        let late = terms.clone();
        store.listen(Arc::new(move |told| tell(&late, told)));
        let plans = InForce::new(Plans::new(&settings));
        let whom = Whom::new(Arc::clone(&settings.identify), settings.strangers);
        Self { plans, store, whom, settings, terms }
    }

    /// The time, read once.
    #[inline]
    pub(super) fn now(&self) -> Now {
        let moment = self.terms.clock.now();
        Now { moment, wall: self.terms.clock.wall_at(moment) }
    }

    pub(super) fn digester(&self) -> &'static Digester {
        Digester::process()
    }

    /// The plan of each client, for whoever asks later.
    pub(super) fn plan_of(self: &Arc<Self>) -> PlanOf {
        let me = Arc::clone(self);
        Arc::new(move |client: &Client| Arc::clone(&me.plans.present().of(client).plan))
    }

    /// Tells whoever listens that a client has come near to its limits.
    #[inline]
    pub(super) fn warn(&self, near: &Near) {
        warn(&self.terms, near);
    }

    /// Whom to charge; `None` where nobody is.
    pub(super) fn client(&self, request: &RequestHead<'_>) -> Result<Option<Client>, Refusal> {
        self.whom.to_charge(request, &self.terms.name, &self.terms.audience)
    }

    /// The job that a request names; where it names one badly, or it is no job at all, why.
    fn job(&self, request: &RequestHead<'_>, client: &Client, amounts: &Amounts) -> Result<Option<Arc<Job>>, Refusal> {
        let Some(ids) = &self.settings.job_id else { return Ok(None) };
        let read = ids.read(request, client, amounts, self.store.digester());
        read.map_err(|Bad| self.bad_job_id())
    }

    pub(super) fn bad_job_id(&self) -> Refusal {
        Refusal::new(Reason::InvalidJobId, self.terms.name.clone())
    }

    fn decide(self: &Arc<Self>, request: &RequestHead<'_>) -> Result<Answer<Result<Held, Refusal>>, Refusal> {
        let Some(client) = self.client(request)? else { return Ok(Answer::Now(Ok(self.let_pass()))) };
        let now = self.now();
        let plans = self.plans.present();
        let offer = plans.of(&client);
        let (asked, bytes) = (offer.asked(request, &self.settings), Bytes::new(offer, request));
        let amounts = asked.amounts(offer);
        let job = self.job(request, &client, &amounts)?;
        let open = offer.open || bytes.counts_request();
        let order = Order {
            account: Account { client: &client, plan: &offer.plan, now },
            ask: Ask { amounts: &amounts, reserve: self.settings.share, lasting: true, open, job: job.as_ref() },
            told: self.settings.dialect != Dialect::None,
            usage: self.settings.share,
        };
        let decided = self.store.admit(&order);
        drop(amounts);
        Ok(match decided {
            Answer::Now(Ok(admission)) => Answer::Now(Ok(self.hold(offer, asked, bytes, admission, now))),
            Answer::Now(Err(refused)) => Answer::Now(self.turn_down(offer, &client, refused, now)),
            Answer::Later(decision) => {
                let (tracker, offer) = (Arc::clone(self), Arc::clone(offer));
                Answer::later(async move {
                    match decision.await {
                        Ok(admission) => Ok(tracker.hold(&offer, asked, bytes, admission, now)),
                        Err(refused) => tracker.turn_down(&offer, &client, refused, now),
                    }
                })
            }
        })
    }

    /// Tells whoever listens what is special about an admission.
    #[inline]
    pub(super) fn tell(&self, admission: &Admission) {
        if let Some(news) = &admission.news {
            self.warn(&news.near);
            if news.reclaimed {
                self.terms.audience.tell(&Event::Reclaimed { policy: &self.terms.name });
            }
        }
        if admission.receipt.shared {
            self.terms.audience.tell(&Event::Overflow { policy: &self.terms.name });
        }
    }

    /// Tells whoever listens of a refusal for the sake of all newcomers.
    pub(super) fn tell_overflow(&self, refused: &Refused) {
        if let Refused::Account { shared: true, .. } = refused {
            self.terms.audience.tell(&Event::Overflow { policy: &self.terms.name });
        }
    }

    fn hold(self: &Arc<Self>, offer: &Arc<Offer>, asked: Asked, bytes: Bytes, admission: Admission, now: Now) -> Held {
        self.tell(&admission);
        Held::new(self, offer, asked, bytes, admission, now)
    }

    /// Nobody is charged.
    fn let_pass(&self) -> Held {
        Held::nothing(self.settings.share)
    }

    fn turn_down(
        self: &Arc<Self>,
        offer: &Offer,
        client: &Client,
        refused: Refused,
        now: Now,
    ) -> Result<Held, Refusal> {
        self.tell_overflow(&refused);
        let done_before = matches!(refused, Refused::Account { no: No::Job(Duplicate::Running | Duplicate::Done), .. });
        if done_before && self.settings.duplicates == Duplicates::Pass {
            return Ok(self.let_pass());
        }
        Err(self.refusal(offer, client, refused, now))
    }
}

/// What the store tells when nobody waits for it.
fn tell(terms: &Terms, told: &Told) {
    let policy = &terms.name;
    let event = match told {
        Told::Near(near) => return warn(terms, near),
        Told::Lost(why) => Event::StoreLost { policy, why },
        Told::Back => Event::StoreBack { policy },
        Told::Full => Event::SpoolFull { policy },
        Told::Merged { records, duplicates } => {
            Event::SpoolMerged { policy, records: *records, duplicates: *duplicates }
        }
    };
    terms.audience.tell(&event);
}

fn warn(terms: &Terms, near: &Near) {
    for warning in &near.limits {
        terms.audience.tell(&Event::NearLimit {
            policy: &terms.name,
            client: near.client.as_ref(),
            limit: &warning.name,
            used: warning.used,
            of: warning.limit,
        });
    }
}

impl Admit for Tracker {
    type Permit = Held;

    fn admit(self: &Arc<Self>, request: &RequestHead<'_>) -> Answer<Result<Held, Refusal>> {
        self.decide(request).unwrap_or_else(|refusal| Answer::Now(Err(refusal)))
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker").field("terms", &self.terms).finish_non_exhaustive()
    }
}
