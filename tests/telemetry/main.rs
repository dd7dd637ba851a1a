//! Observers for metrics and logs: each event is counted and logged, and none shows a client.

mod counters;
mod logs;
mod samples;
mod secrets;

#[path = "../../examples/metrics/recorder.rs"]
mod recorder;

use std::time::Duration;

use tollgate::{Client, Event, Name, Observer, PolicyName, Reason, Refusal};

fn name(text: &str) -> PolicyName {
    PolicyName::try_new(text).unwrap()
}

/// Emits every event but transitions, which layers emit in `secrets`, once.
fn emit_all(observer: &impl Observer) {
    let (policy, limit, client) = (&name("plan"), &name("tokens"), &Client::named("alice"));
    let refusal = |reason| Refusal::new(reason, policy.clone()).with_retry_after(Duration::from_secs(3));
    let events = [
        Event::Admitted { policy, client: Some(client) },
        Event::Refused { refusal: &refusal(Reason::RateLimited), client: Some(client), shadow: false },
        Event::Refused { refusal: &refusal(Reason::TooLarge), client: None, shadow: true },
        Event::Unidentified { policy },
        Event::UnreadableForwarded { policy, field: &http::header::FORWARDED },
        Event::Overflow { policy },
        Event::CohortFull { policy, network: Some(&Name::network("192.0.2.0".parse().unwrap(), 16)) },
        Event::Reclaimed { policy },
        Event::NearLimit { policy, client: Some(client), limit, used: 80, of: 100 },
        Event::UpgradeReleasedSlot { policy },
        Event::UnknownUnit { policy, unit: "token" },
        Event::AmountCut { policy, kind: "tokens", amount: 1 << 53 },
        Event::StoreRejected { policy, client, why: "a constraint" },
        Event::AccountHeld { policy, client },
        Event::StoreLost { policy, why: "connection refused" },
        Event::SpoolFull { policy },
        Event::SpoolMerged { policy, records: 7, duplicates: 2 },
        Event::StoreStep { store: "sqlite", operation: "commit", took: Duration::from_millis(250), failed: false },
        Event::Reconciled { store: "sqlite", compared: 100, drifts: 0 },
        Event::Reconciled { store: "sqlite", compared: 100, drifts: 3 },
    ];
    events.iter().for_each(|event| observer.observe(event));
}
