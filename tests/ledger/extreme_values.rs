//! Extreme values, and checks that each of them is answered.

use std::time::{Duration, SystemTime};

use tollgate::{QuotaError, Reason, Refusal};

use crate::*;

pub(super) const MOST: u64 = (1 << 53) - 1;

pub(super) const AMOUNTS: [u64; 7] = [0, 1, MOST - 1, MOST, MOST + 1, i64::MAX as u64, u64::MAX];

/// Latest time that a ledger stores, in microseconds since 1970.
pub(super) const LAST_MICRO: u64 = u64::MAX / 1_000 - 1;

pub(super) fn at(since_1970: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + since_1970
}

/// Instants on both sides of each bound: 1970, the range of i64 nanoseconds (2262), that of u64 nanoseconds (2554),
/// years of four digits, and the range of `SystemTime`.
pub(super) fn instants() -> Vec<SystemTime> {
    let micros = |micros: u64| Duration::from_micros(micros);
    let mut all: Vec<_> = [
        Duration::ZERO,
        Duration::from_nanos(1),
        micros(1),
        Duration::from_nanos(i64::MAX as u64),
        Duration::from_nanos(1 << 63),
        micros(LAST_MICRO - 1),
        micros(LAST_MICRO),
        micros(LAST_MICRO + 1),
        Duration::from_nanos(u64::MAX - 1),
        Duration::from_nanos(u64::MAX),
        micros(LAST_MICRO + 2),
        Duration::from_secs(253_402_300_799),
        Duration::from_secs(253_402_300_800),
        Duration::from_micros(i64::MAX as u64),
        Duration::new(i64::MAX as u64, 999_999_999),
    ]
    .map(at)
    .into();
    all.extend([Duration::from_nanos(1), Duration::from_secs(1)].map(|before| SystemTime::UNIX_EPOCH - before));
    all.extend(SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(i64::MAX as u64)));
    all.extend([now(), now() + Duration::from_secs(3_600)]);
    all
}

/// Durations from 1 ns to the longest.
pub(super) fn durations() -> [Duration; 8] {
    let nanos = Duration::from_nanos;
    [
        nanos(1),
        nanos(999),
        nanos(1_000_000),
        Duration::from_secs(1),
        nanos(1 << 63),
        nanos(u64::MAX),
        Duration::from_secs(i64::MAX as u64),
        Duration::MAX,
    ]
}

/// Texts with all that a database, a format or an id may treat specially.
pub(super) fn texts() -> Vec<String> {
    let mut all: Vec<String> = [
        "",
        " ",
        "a",
        "\0",
        "\u{1}",
        "\u{1}\u{1}",
        "\u{1}\u{2}",
        "a\0b",
        "'",
        "\"",
        "''; DROP TABLE quota_hold; --",
        "%_\\",
        "a.b",
        "l.0.0.0.YQ.YQ",
        "archive 1",
        "$1 ?1 :a",
        "\r\n",
        "\u{e4}\u{1F980}",
        "\u{feff}",
        "\u{10ffff}",
    ]
    .map(String::from)
    .into();
    all.extend(
        [255, 256, 1_023, 1_024, 1_025, 2_048, 70_000]
            .map(|length| mixed(length, b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
    );
    all.push("\u{1F980}".repeat(256));
    all.extend([512, 513, 600, 1_024].map(|length| mixed(length, b"\0\x01")));
    all
}

/// Returns an incompressible text, which no index can shorten.
pub(super) fn mixed(length: usize, letters: &[u8]) -> String {
    let mut random = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| char::from(letters[random.usize(..letters.len())])).collect()
}

/// Returns whether the database, not the caller, is at fault, which must not occur here.
pub(super) fn is_fault(reason: Reason) -> bool {
    matches!(reason, Reason::Unavailable | Reason::Indeterminate | Reason::Rejected)
}

/// Returns the answer, or `None` if the caller's input was refused.
#[track_caller]
pub(super) fn answered<T>(what: &str, answer: Result<T, Refusal>) -> Option<T> {
    match answer {
        Err(refusal) if is_fault(refusal.reason()) => panic!("{what}: {refusal}"),
        answer => answer.ok(),
    }
}

/// Returns the result, or `None` if the input was rejected with a reason.
#[track_caller]
pub(super) fn done<T>(what: &str, answer: Result<T, QuotaError>) -> Option<T> {
    match answer {
        Ok(done) => Some(done),
        Err(QuotaError::Invalid(invalid)) => {
            let explains = [", got ", "by public name"].iter().any(|part| invalid.reason().contains(part));
            assert!(explains, "{what}: {invalid}");
            None
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Resets an account, if there is one.
pub(super) async fn reset(what: &str, quotas: &Quotas, client: &Client) {
    let reset = quotas.reset_all(client).await;
    assert!(matches!(reset, Ok(()) | Err(QuotaError::UnknownAccount)), "{what}: {reset:?}");
}

/// Asserts that each call on the account and on a neighbour's is still answered.
pub(super) async fn all_work(what: &str, ledger: &Ledger, quotas: &Quotas, client: &Client) {
    settled(ledger).await;
    let neighbour = Client::named("neighbour");
    for client in [client, &neighbour] {
        let fails = |call: &str, error: &dyn std::fmt::Display| -> ! { panic!("{what}: {call}: {error}") };
        quotas.usage(client).await.unwrap_or_else(|error| fails("usage", &error));
        quotas.grants(client).await.unwrap_or_else(|error| fails("grants", &error));
        reset(what, quotas, client).await;
        quotas.charge(client, ("tokens", 1)).await.unwrap_or_else(|error| fails("charge", &error));
        quotas.record(client, ("tokens", 1)).await.unwrap_or_else(|error| fails("record", &error));
        let held = quotas.reserve(client, ("tokens", 1)).await.unwrap_or_else(|error| fails("reserve", &error));
        drop(held);
        let name = client.name().unwrap().to_string();
        rows(ledger, &name).await;
        ledger.usage_at(&name, now()).await.unwrap_or_else(|error| fails("usage_at", &error));
        quotas.reset_all(client).await.unwrap_or_else(|error| fails("reset_all", &error));
    }
    let (mut from, mut seen) = (None, 0);
    loop {
        let page = quotas.usage_page(from, 7).await.unwrap_or_else(|error| panic!("{what}: usage_page: {error}"));
        seen += page.clients.iter().filter(|(of, _)| of == client || *of == neighbour).count();
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(seen, 2, "{what}: both are listed");
    settled(ledger).await;
    assert_eq!(ledger.reconcile().await.unwrap().drifts, [], "{what}");
}
