//! Panics of settings name the place of the caller, which has to change the value.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tollgate::{
    ApiKey, CircuitBreakerLayer, Cost, Direction, Forwarded, Grant, JobIdSource, Kind, PeerIp, Period, Plan,
    PolicyName, Quota, QuotaLayer, Rate, TokenBucketLayer, Trip, Unverified,
    refusal::{Dialect, Fields},
};

/// Returns the text of a panic in `call`, and the line in `file` where it is; 0 if it is in another file.
pub(crate) fn panic_of(file: &'static str, call: impl FnOnce()) -> (String, u32) {
    static HOOK: Mutex<()> = Mutex::new(());
    let _guard = HOOK.lock().unwrap();
    let line = Arc::new(Mutex::new(0));
    let (seen, before) = (Arc::clone(&line), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        // Other tests panic on other threads meanwhile.
        if let Some(place) = info.location().filter(|place| place.file() == file) {
            *seen.lock().unwrap() = place.line();
        }
    }));
    let ended = catch_unwind(AssertUnwindSafe(call));
    std::panic::set_hook(before);
    let Err(payload) = ended else { return (String::from("no panic"), 0) };
    let text = payload.downcast_ref::<String>().cloned();
    let line = *line.lock().unwrap();
    (text.unwrap_or_else(|| payload.downcast_ref::<&str>().unwrap().to_string()), line)
}

macro_rules! assert_named {
    ($($call:expr),+ $(,)?) => {$(
        let (text, line) = panic_of(file!(), || { let _ = $call; });
        assert_ne!(line, 0, "{}: {text}", stringify!($call));
        assert!(text.contains(" must be ") || text.contains("at most") || text.contains("only a quota of bytes"), "{text}");
    )+};
}

#[test]
fn each_wrong_setting_panics_at_its_caller() {
    let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
    let (rate, plan) = (Rate::per_second(1), || Plan::new("free").limit(Quota::concurrent(1)));
    let table = || std::collections::HashMap::<String, tollgate::Principal>::new();
    let (name, tilde) = (PolicyName::try_new("free").unwrap(), "\n");
    let trusted = Forwarded::x_forwarded_for;
    assert_named!(
        Rate::per_second(0),
        Rate::per_minute(0),
        Rate::per_hour(0),
        Rate::per(0, second),
        Rate::every(zero),
        rate.burst(0),
        rate.initial_tokens(2),
        Cost::new(0),
        Period::rolling(zero),
        Kind::units(tilde),
        Fields::new(Dialect::Draft11, &name, 1, second, Some("\n")),
        TokenBucketLayer::new(rate).named(""),
        TokenBucketLayer::new(rate).max_clients(0),
    );
    assert_named!(
        ApiKey::header(" ", table()),
        ApiKey::cookie(" ", table()),
        Unverified::header(" "),
        Unverified::cookie(" "),
        tollgate::identity::LookupLayer::header(" ", async |_: String| None),
        Forwarded::single(" "),
        trusted().from_networks(["10.0.0.0/99"]),
        trusted().through_hops(0),
        PeerIp::new().group_v4(99),
        PeerIp::new().group_v6(200),
    );
    assert_named!(
        Quota::requests(0),
        Quota::bytes(0),
        Quota::units("tokens", 0),
        Quota::units(tilde, 1),
        Quota::concurrent(0),
        Quota::concurrent(1).counting(Direction::Both),
        Quota::concurrent(1).named(""),
        Plan::new(""),
        plan().limit(Quota::concurrent(2)),
        plan().warn_at(101),
        Grant::new("requests_per_hour", 0, SystemTime::UNIX_EPOCH),
        JobIdSource::header(" "),
        JobIdSource::header("id").or_header(" "),
    );
    let quota = || QuotaLayer::new(plan());
    assert_named!(
        quota().cost("requests", |_| None),
        quota().cost(tilde, |_| None),
        quota().max_clients(0),
        quota().max_jobs_per_client(0),
        quota().max_hold(zero),
        quota().max_stall(zero),
        quota().reservations_last(zero),
        quota().max_reservations_per_client(0),
        quota().max_clients_per_network(0),
    );
    let breaker = CircuitBreakerLayer::for_server;
    assert_named!(
        CircuitBreakerLayer::for_client(zero),
        breaker().trip(Trip::consecutive(0)),
        breaker().recovery_timeout(zero),
        breaker().max_open(zero),
        breaker().max_open(second).handle(),
        breaker().probes(0),
        breaker().close_after(0),
        breaker().probe_timeout(zero),
        breaker().max_keys(0),
    );
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn short_horizon_panics_at_its_caller() {
    let ledger = tollgate::Ledger::sqlite_in_memory().open().await.unwrap();
    assert_named!(ledger.with_horizon(Duration::ZERO));
}
