//! Settings from files: what is read, what is written back, and errors with the value and the way out.

use std::time::Duration;

use serde_json::{from_str, json};
use tollgate::{CircuitBreakerLayer, Period, Plan, Quota, Rate, Trip};

#[path = "../fuzz/engine.rs"]
mod engine;

use engine::{Fuzz, fuzz, summary};

const PLAN: &str = r#"{"name":"free","version":3,"warn_at":80,"limits":[
    {"kind":"requests","limit":3600,"per":"hour"},
    {"kind":"tokens","limit":1000000,"per":"month in Europe/Berlin","name":"budget"},
    {"kind":"response_bytes","limit":1073741824,"per":"rolling 1d"},
    {"kind":"concurrent_requests","limit":5}]}"#;

#[test]
fn plan_is_read_and_written_back() {
    let plan: Plan = from_str(PLAN).unwrap();
    let same = Plan::new("free")
        .numbered(3)
        .warn_at(80)
        .limit(Quota::requests(3_600).per(Period::hour()))
        .limit(Quota::units("tokens", 1_000_000).per(Period::month().in_zone("Europe/Berlin").unwrap()).named("budget"))
        .limit(
            Quota::bytes(1 << 30)
                .per(Period::rolling(Duration::from_secs(86_400)))
                .counting(tollgate::Direction::Response),
        )
        .limit(Quota::concurrent(5));
    assert_eq!(plan, same);
    let written = serde_json::to_value(&plan).unwrap();
    assert_eq!(written, from_str::<serde_json::Value>(PLAN).unwrap());
    let fresh: Plan = from_str(r#"{"name":"a","starting_fresh":true,"limits":[]}"#).unwrap();
    assert_eq!(serde_json::to_value(&fresh).unwrap()["starting_fresh"], json!(true));
}

#[test]
fn rate_and_rules_are_read() {
    assert_eq!(from_str::<Rate>("\"1000/h burst 50\"").unwrap(), Rate::per_hour(1_000).burst(50));
    assert_eq!(serde_json::to_string(&Rate::per_second(50)).unwrap(), "\"50/s burst 50\"");
    let text = r#"{"failure_rate":0.5,"consecutive":5,"min_requests":20,"over_time":"10s","slow_after":"2s"}"#;
    let same = Trip::failure_rate(0.5).or(Trip::consecutive(5)).min_requests(20);
    let same = same.over_time(Duration::from_secs(10)).slow_after(Duration::from_secs(2));
    let trip: Trip = from_str(text).unwrap();
    assert_eq!(trip, same);
    let _ = CircuitBreakerLayer::for_server().trip(trip);
}

#[test]
fn rules_are_written_and_read_back() {
    let second = Duration::from_secs(1);
    let rates = |failure: Trip, slow: Trip| failure.or(slow).over_calls(500);
    let (failure, slow) = (Trip::failure_rate(0.5), Trip::slow_rate(0.8));
    for (trip, written) in [
        (failure, json!({ "failure_rate": 0.5 })),
        (Trip::consecutive(5), json!({ "consecutive": 5 })),
        (Trip::on_classifier(), json!({ "on_classifier": true })),
        (Trip::on_classifier().slow_after(second), json!({ "on_classifier": true, "slow_after": "1s" })),
        (slow.over_time(second / 2), json!({ "slow_rate": 0.8, "over_time": "500ms" })),
        (slow.min_requests(7), json!({ "slow_rate": 0.8, "min_requests": 7 })),
        (
            rates(failure, slow).min_requests(9),
            json!({ "failure_rate": 0.5, "slow_rate": 0.8, "min_requests": 9, "over_calls": 500 }),
        ),
        (
            rates(failure.min_requests(9), slow.min_requests(8)),
            json!({
                "failure_rate": 0.5, "slow_rate": 0.8, "over_calls": 500,
                "failure_min_requests": 9, "slow_min_requests": 8,
            }),
        ),
        (
            rates(failure, slow.min_requests(8)),
            json!({ "failure_rate": 0.5, "slow_rate": 0.8, "over_calls": 500, "slow_min_requests": 8 }),
        ),
    ] {
        let text = serde_json::to_string(&trip).unwrap();
        assert_eq!(from_str::<serde_json::Value>(&text).unwrap(), written);
        assert_eq!(from_str::<Trip>(&text).unwrap(), trip, "{text}");
    }
    let error = |trip: Trip| serde_json::to_string(&trip).unwrap_err().to_string();
    assert_eq!(error(Trip::failure_rate(2.0)), "failure rate must be above 0 and at most 1, got 2");
    assert!(error(slow.over_time(Duration::MAX)).starts_with("over_time must be at most 2^64 - 1 ns"));
    assert!(error(Trip::consecutive(1).or(Trip::consecutive(2))).starts_with("number of consecutive failures must be"));
}

#[test]
fn wrong_plan_is_an_error_with_the_value() {
    for (limits, wanted) in [
        (r#"{"kind":"tokens","limit":5}"#, "limit of tokens must have a period, such as per = \"month\", got none"),
        (r#"{"kind":"tokens","limit":0,"per":"day"}"#, "limit of tokens must be from 1 to 2^53 - 1, got 0"),
        (r#"{"kind":"","limit":1,"per":"day"}"#, "unit must be 1 to 64 visible ASCII"),
        (r#"{"kind":"tokens","limit":1,"per":"daily"}"#, "period must be hour, day, week, month,"),
        (r#"{"kind":"tokens","limit":1,"perr":"day"}"#, "unknown field `perr`"),
        (r#"{"kind":"tokens","limit":-1,"per":"day"}"#, "invalid value"),
        (r#"{"kind":"tokens","limit":1,"per":"day","name":"\n"}"#, "name of a limit must be 1 to 64 visible ASCII"),
        (r#"{"kind":"concurrent_requests","limit":1,"per":"day"}"#, "use Quota::concurrent"),
        (
            r#"{"kind":"a","limit":1,"per":"day"},{"kind":"a","limit":2,"per":"day"}"#,
            "name of a limit must be unique in plan \"free\", got \"a_per_day\"",
        ),
    ] {
        let error = from_str::<Plan>(&format!(r#"{{"name":"free","limits":[{limits}]}}"#)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{limits}: {error}");
    }
    let error = from_str::<Plan>(r#"{"name":"free","warn_at":101,"limits":[]}"#).unwrap_err().to_string();
    assert!(error.starts_with("warn_at must be from 0 to 100 percent, got 101"), "{error}");
}

#[test]
fn wrong_rules_are_an_error_with_the_value() {
    for (rules, wanted) in [
        ("{}", "a circuit needs a rule, got none: set failure_rate"),
        (r#"{"failure_rate":1.5}"#, "failure rate must be above 0 and at most 1, got 1.5"),
        (r#"{"consecutive":0}"#, "consecutive failures must be positive, got 0"),
        (r#"{"consecutive":1,"over_calls":9,"over_time":"1s"}"#, "the window has over_calls and over_time; remove one"),
        (r#"{"slow_rate":0.5,"slow_after":"2"}"#, "unit of the slow_after must be ns, us, ms, s, min, h or d, got"),
        (r#"{"slow_rat":0.5}"#, "unknown field `slow_rat`"),
    ] {
        let error = from_str::<Trip>(rules).unwrap_err().to_string();
        assert!(error.contains(wanted), "{rules}: {error}");
    }
}

const CONFIGS: Fuzz = Fuzz {
    corpus: &[
        PLAN.as_bytes(),
        br#"{"name":"a","starting_fresh":true,"limits":[]}"#,
        br#"{"failure_rate":0.5,"consecutive":5,"min_requests":20,"over_time":"10s","slow_after":"2s"}"#,
        br#""1000/h burst 50 initial 3""#,
        br#""billing_month from 1767225600 in America/New_York""#,
    ],
    words: &[
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"1e400",
        b"0.5",
        b"-1",
        b"\"per\":\"month\"",
        b"\"kind\":",
        b"\"limit\":",
        b"\"name\":",
        b"rolling ",
        b" in UTC",
        b" burst ",
        b"/s",
        b"18446744073709551615",
        b"\\u0000",
        b"ns",
    ],
};

/// Reads bytes as each setting. One that is read is written and read back as the same.
fn config(bytes: &[u8]) -> u64 {
    let plan = serde_json::from_slice::<Plan>(bytes);
    if let Ok(plan) = &plan {
        let text = serde_json::to_string(plan).unwrap();
        assert_eq!(from_str::<Plan>(&text).unwrap(), *plan, "{text}");
    }
    let rate = serde_json::from_slice::<Rate>(bytes);
    if let Ok(rate) = rate {
        assert_eq!(from_str::<Rate>(&serde_json::to_string(&rate).unwrap()).unwrap(), rate);
        let _ = tollgate::TokenBucketLayer::new(rate).handle();
    }
    let period = serde_json::from_slice::<Period>(bytes);
    if let Ok(period) = &period {
        assert_eq!(from_str::<Period>(&serde_json::to_string(period).unwrap()).unwrap(), *period);
        let _ = period.window_at(Duration::from_secs(1_793_491_200));
    }
    let trip = serde_json::from_slice::<Trip>(bytes);
    if let Ok(trip) = trip {
        let text = serde_json::to_string(&trip).unwrap();
        assert_eq!(from_str::<Trip>(&text).unwrap().to_string(), trip.to_string(), "{text}");
        let _ = CircuitBreakerLayer::for_server().trip(trip).handle();
    }
    let error = plan.as_ref().err().map(|error| error.to_string().split(['"', '`']).next().map(String::from));
    summary((error, plan.map(|plan| plan.limits().count()).ok(), rate.is_ok(), period.is_ok(), trip.is_ok()))
}
fuzz!(plans_from_config, 20_000, CONFIGS, config);
