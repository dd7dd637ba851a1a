//! Errors of a store that does not answer, as callers see them.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};

use super::{OnFailure, QuotaError, ReservationError};
use super::{QuotaLayer, Quotas, policy::QuotaPolicy};
use crate::{
    error::ConfigError,
    gate::{GateLayer, MaybeFuture},
    head::RequestHead,
    identity::{Client, OnUnidentified},
    quota::{
        ActiveGrant, Amounts, CreditRequest, Credited, Grant, GrantId, JobOutcome, JobState, Plan, Usage,
        account::{AccountSettings, CloseResult, Job, Now},
        memory::RoomSettings,
        store::{
            AccountContext, AdmitError, AdmitRequest, AdmittedCharge, BackendFactory, Bookmark, NearLimits, Page,
            PlanLookup, QuotaBackend, QuotaStore, Receipt, ReservationKey, Settlement, StoreError,
        },
    },
    refusal::Reason,
};

/// A store that always fails in the same way, after a wait.
struct Troubled(StoreError);

impl Troubled {
    fn late<T: Send + 'static>(&self) -> MaybeFuture<Result<T, StoreError>> {
        let trouble = self.0.clone();
        MaybeFuture::future(async move {
            tokio::task::yield_now().await;
            Err(trouble)
        })
    }

    fn refused<T: Send + 'static>(&self) -> MaybeFuture<Result<T, AdmitError>> {
        let late = self.late();
        MaybeFuture::future(async move { late.await.map_err(AdmitError::from) })
    }
}

impl QuotaBackend for Troubled {
    fn admit(&self, _: &AdmitRequest<'_>) -> MaybeFuture<Result<AdmittedCharge, AdmitError>> {
        self.refused()
    }

    fn settle(&self, _: &Receipt, _: &Settlement<'_>, _: Now) -> NearLimits {
        unreachable!("nothing was admitted")
    }

    fn watch(&self, _: &Receipt, _: Now) {
        unreachable!("nothing was admitted")
    }

    fn unwatch(&self, _: &Receipt) {
        unreachable!("nothing was admitted")
    }

    fn progress(&self, _: &mut Receipt, _: &Amounts, _: Now) -> NearLimits {
        unreachable!("nothing was admitted")
    }

    fn reservation_key(&self, _: &Receipt) -> ReservationKey {
        unreachable!("nothing was admitted")
    }

    fn close(
        &self,
        _: &ReservationKey,
        _: Option<&Amounts>,
        _: PlanLookup,
        _: Now,
    ) -> MaybeFuture<Result<(CloseResult, NearLimits), StoreError>> {
        self.late()
    }

    fn settle_job(
        &self,
        _: &AccountContext<'_>,
        _: &Job,
        _: JobOutcome,
    ) -> MaybeFuture<Result<Option<JobState>, StoreError>> {
        self.late()
    }

    fn record(&self, _: &AccountContext<'_>, _: &Amounts) -> MaybeFuture<Result<NearLimits, StoreError>> {
        self.late()
    }

    fn usage(&self, _: &AccountContext<'_>) -> MaybeFuture<Result<Usage, StoreError>> {
        self.late()
    }

    fn check(&self, _: &AccountContext<'_>, _: &Amounts) -> MaybeFuture<Result<(), AdmitError>> {
        self.refused()
    }

    fn page(&self, _: Option<&Bookmark>, _: usize, _: PlanLookup, _: Now) -> MaybeFuture<Result<Page, StoreError>> {
        self.late()
    }

    fn reset(&self, _: &AccountContext<'_>, _: Option<&str>) -> MaybeFuture<Result<(), StoreError>> {
        self.late()
    }

    fn credit(&self, _: &AccountContext<'_>, _: &CreditRequest) -> MaybeFuture<Result<Credited, StoreError>> {
        self.late()
    }

    fn grant(&self, _: &AccountContext<'_>, _: Grant) -> MaybeFuture<Result<GrantId, StoreError>> {
        self.late()
    }

    fn revoke(&self, _: &AccountContext<'_>, _: GrantId) -> MaybeFuture<Result<bool, StoreError>> {
        self.late()
    }

    fn grants(&self, _: &AccountContext<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, StoreError>> {
        self.late()
    }

    fn population(&self) -> (usize, usize) {
        (0, 0)
    }
}

impl BackendFactory for Troubled {
    fn open(&self, _: RoomSettings, _: AccountSettings, _: OnFailure) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        Ok(Arc::new(Self(self.0.clone())))
    }

    fn bills(&self) -> bool {
        false
    }
}

fn in_trouble(trouble: StoreError) -> Arc<QuotaPolicy> {
    let layer = QuotaLayer::new(Plan::standard()).accept_unverified().on_unidentified(OnUnidentified::Share);
    let usual = layer.handle().0;
    let mut settings = usual.common.settings.clone();
    settings.store = QuotaStore(Arc::new(Troubled(trouble)));
    Arc::new(QuotaPolicy::new(settings, usual.common.context.clone()).unwrap())
}

/// Every failure, and the errors that it becomes.
fn troubles() -> [(StoreError, Reason, QuotaError, ReservationError); 3] {
    let rejected = (StoreError::Rejected("CHECK failed".into()), QuotaError::Rejected("CHECK failed".into()));
    [
        (StoreError::Unavailable, Reason::Unavailable, QuotaError::Unavailable, ReservationError::Unavailable),
        (StoreError::Indeterminate, Reason::Indeterminate, QuotaError::Indeterminate, ReservationError::Indeterminate),
        (rejected.0, Reason::Rejected, rejected.1, ReservationError::Rejected),
    ]
}

#[tokio::test]
async fn failed_store_refuses_calls_with_retry_after() {
    for (trouble, reason, ..) in troubles() {
        let (quotas, alice) = (Quotas(in_trouble(trouble)), Client::named("alice"));
        for refusal in [
            quotas.check(&alice, ("queries", 1)).await.unwrap_err(),
            quotas.charge(&alice, ("queries", 1)).await.unwrap_err(),
            quotas.reserve(&alice, ("queries", 1)).await.unwrap_err(),
            quotas.run(&alice, ("queries", 1), async { panic!("polled") }).await.unwrap_err(),
            quotas.run_job(&alice, "7", ("queries", 1), async { panic!("polled") }).await.unwrap_err(),
        ] {
            let wait = (reason != Reason::Rejected).then_some(1);
            assert_eq!((refusal.reason(), refusal.retry_after_seconds()), (reason, wait));
        }
    }
}

#[tokio::test]
async fn failed_store_returns_errors_from_reads_and_changes() {
    let elsewhere = QuotaLayer::new(Plan::standard()).handle();
    for (trouble, _, error, unended) in troubles() {
        let (quotas, alice) = (Quotas(in_trouble(trouble)), Client::named("alice"));
        let grant = Grant::new("queries_per_day", 5, SystemTime::UNIX_EPOCH);
        let request = Request::get("/").body(()).unwrap();
        for said in [
            quotas.usage(&alice).await.map(drop),
            quotas.usage_page(None, 10).await.map(drop),
            quotas.grants(&alice).await.map(drop),
            quotas.explain(&RequestHead::of(&request)).await.map(drop),
            quotas.record(&alice, ("queries", 1)).await,
            quotas.reset(&alice, "queries").await,
            quotas.reset_all(&alice).await,
            quotas.credit(&alice, "7", "queries", 1, "").await.map(drop),
            quotas.grant(&alice, grant).await.map(drop),
            quotas.revoke(&alice, GrantId(1)).await.map(drop),
        ] {
            assert_eq!(said, Err(error.clone()));
        }
        let id = elsewhere.reserve(&alice, ("queries", 1)).await.unwrap().detach();
        assert_eq!(quotas.commit(&id, ("queries", 1)).await, Err(unended));
        assert_eq!(quotas.roll_back(&id).await, Err(unended));
    }
}

#[tokio::test]
async fn failed_store_answers_5xx_without_calling_the_handler() {
    for (trouble, reason, ..) in troubles() {
        let layer = GateLayer::from_arc(in_trouble(trouble));
        let service = layer.layer(service_fn(|_: Request<()>| async {
            panic!("reached");
            #[expect(unreachable_code, reason = "its type is needed")]
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
        let answer = service.oneshot(Request::new(())).await.unwrap();
        let (status, wait) = match reason {
            Reason::Rejected => (StatusCode::INTERNAL_SERVER_ERROR, None),
            _ => (StatusCode::SERVICE_UNAVAILABLE, Some("1")),
        };
        let after = answer.headers().get("retry-after").map(|after| after.to_str().unwrap());
        assert_eq!((answer.status(), after), (status, wait));
        assert_eq!(answer.extensions().get::<crate::refusal::Refusal>().unwrap().reason(), reason);
    }
}
