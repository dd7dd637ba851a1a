//! Behaviour of quotas that only their handle shows; `conformance::quotas` specifies the store.

mod amounts;
mod clocks;
mod eviction;
mod exhaustion;
mod explaining;
mod jobs;
mod kinds;
mod plans;
mod races;
mod reservations;
mod running;
mod trackers;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tollgate::{Client, Event, FakeClock, Kind, LimitUsage, Period, Plan, Quota, QuotaLayer, Quotas, Reason, Refusal};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Quotas under a stopped clock at 2026-01-01 00:00 UTC, and the events that they emit.
struct Scene {
    quotas: Quotas,
    clock: FakeClock,
    told: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    fn new(plan: Plan) -> Self {
        Self::of(QuotaLayer::new(plan))
    }

    fn of(layer: QuotaLayer) -> Self {
        let (clock, told) = (FakeClock::new(), Arc::new(Mutex::new(Vec::new())));
        let hears = Arc::clone(&told);
        let layer = layer.clock(clock.clone()).accept_unverified().observe(move |event: &Event<'_>| match event {
            Event::NearLimit { client, limit, used, of, .. } => {
                hears.lock().unwrap().push(format!("{} {limit}: {used} of {of}", client.map_or("crowd".into(), name)));
            }
            Event::Overflow { .. } => hears.lock().unwrap().push("overflow".into()),
            _ => {}
        });
        Self { quotas: layer.handle(), clock, told }
    }

    /// Takes the events emitted since the last call.
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    async fn limit(&self, client: &Client, name: &str) -> LimitUsage {
        self.quotas.usage(client).await.unwrap().get(name).unwrap().clone()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + tollgate::Clock::from(self.clock.clone()).wall()
    }
}

fn name(client: &Client) -> String {
    client.name().map_or("unnamed".into(), ToString::to_string)
}

fn alice() -> Client {
    Client::named("alice")
}

fn bob() -> Client {
    Client::named("bob")
}

fn queries(limit: u64) -> Plan {
    Plan::new("queries").limit(Quota::units("queries", limit).per(Period::hour()))
}

/// Returns kind, current amount and limit of the first violation of a refusal.
fn violated(refusal: &Refusal) -> (Kind, u64, u64) {
    let first = &refusal.violations()[0];
    (first.kind.clone(), first.current, first.limit)
}
