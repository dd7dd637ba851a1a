//! Rate limit fields, read by an independent parser of structured fields.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
use proptest::prelude::*;
use tollgate::{
    Dialect,
    refusal::{EXPOSED_HEADERS, Fields, Reset},
};

use crate::support::fixed::{Fixed, answer, name, seconds, text};

type Item = (String, Vec<(String, sfv::BareItem)>);

fn list(headers: &HeaderMap, name: &str) -> Vec<Item> {
    let list: sfv::List = sfv::Parser::new(text(headers, name)).parse().unwrap();
    list.into_iter()
        .map(|entry| match entry {
            sfv::ListEntry::Item(item) => {
                let policy = item.bare_item.as_string().unwrap().as_str().to_owned();
                (policy, item.params.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
            }
            sfv::ListEntry::InnerList(inner) => panic!("not an item: {inner:?}"),
        })
        .collect()
}

fn integer(key: &str, value: u64) -> (String, sfv::BareItem) {
    let clamped = i64::try_from(value.min(999_999_999_999_999)).unwrap();
    (key.to_owned(), sfv::BareItem::Integer(sfv::Integer::try_from(clamped).unwrap()))
}

fn ceil(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

#[derive(Clone, Debug)]
struct Told {
    policy: String,
    quota: u64,
    window: Duration,
    unit: Option<&'static str>,
    remaining: u64,
    reset: Duration,
}

fn told() -> impl Strategy<Value = Told> {
    let number = || prop_oneof![any::<u64>(), 0..1_000_u64, Just(u64::MAX), Just(999_999_999_999_999)];
    let unit = prop::option::of(prop::sample::select(vec!["content-bytes", "say \"x\"", "back\\slash"]));
    ("[ -~]{1,64}|[\"\\\\]{1,64}", number(), any::<Duration>(), unit, number(), any::<Duration>()).prop_map(
        |(policy, quota, window, unit, remaining, reset)| Told { policy, quota, window, unit, remaining, reset },
    )
}

proptest! {
    #[test]
    fn every_field_is_a_structured_one(stack in prop::collection::vec(told(), 1..4)) {
        let mut headers = HeaderMap::new();
        for told in &stack {
            let fields = Fields::new(Dialect::Draft11, &name(&told.policy), told.quota, told.window, told.unit);
            fields.write(&mut headers, told.remaining, told.reset, || unreachable!("Draft 11 does not read the time"));
        }
        let (policies, left) = (list(&headers, "ratelimit-policy"), list(&headers, "ratelimit"));
        prop_assert_eq!((policies.len(), left.len()), (stack.len(), stack.len()));
        prop_assume!((1..stack.len()).all(|at| stack[..at].iter().all(|other| other.policy != stack[at].policy)));
        for ((told, policy), left) in stack.into_iter().zip(policies).zip(left) {
            let mut parameters = vec![integer("q", told.quota), integer("w", ceil(told.window).max(1))];
            if let Some(unit) = told.unit {
                parameters.push(("qu".into(), sfv::BareItem::String(sfv::String::from_string(unit.into()).unwrap())));
            }
            prop_assert_eq!(policy, (told.policy.clone(), parameters));
            let parameters = vec![integer("r", told.remaining), integer("t", ceil(told.reset))];
            prop_assert_eq!(left, (told.policy, parameters));
        }
    }

    #[test]
    fn fields_stay_readable_after_any_existing_value(
        before in prop::collection::vec("[ -~\\t\u{a0}]{0,20}|\"[a-z]\";r=[0-9]{1,3}", 0..3),
        remaining: u64,
        reset: Duration,
        wall: Duration,
        dialect in prop::sample::select(vec![
            Dialect::Draft11, Dialect::XRateLimit { reset: Reset::Epoch }, Dialect::XRateLimit { reset: Reset::Delta },
        ]),
    ) {
        let mut headers = HeaderMap::new();
        for name in EXPOSED_HEADERS {
            for line in before.iter().filter_map(|line| HeaderValue::from_bytes(line.as_bytes()).ok()) {
                headers.append(&name, line);
            }
        }
        Fields::new(dialect, &name("mine"), 5, seconds(1), None).write(&mut headers, remaining, reset, || wall);
        if dialect == Dialect::Draft11 {
            for name in ["ratelimit", "ratelimit-policy"] {
                let list: sfv::List = sfv::Parser::new(text(&headers, name)).parse().unwrap();
                prop_assert!(!list.is_empty());
            }
        } else {
            for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
                text(&headers, name).parse::<u64>().unwrap();
            }
        }
    }
}

#[tokio::test]
async fn three_layers_share_one_list_with_the_handlers_items() {
    let stack = [
        Fixed::admits(Dialect::Draft11, "day", 900, seconds(40_000)),
        Fixed::admits(Dialect::Draft11, "hour", 90, seconds(1_800)),
        Fixed::admits(Dialect::Draft11, "say \"now\"", 9, seconds(1)),
    ];
    let own = [("ratelimit-policy", "\"own\";q=3"), ("ratelimit", "\"own\";r=1"), ("ratelimit", " \"two\";r=2 ")];
    let answer = answer(&stack, &own).await;
    assert_eq!(
        text(answer.headers(), "ratelimit"),
        r#""own";r=1, "two";r=2, "say \"now\"";r=9;t=1, "hour";r=90;t=1800, "day";r=900;t=40000"#
    );
    let told: Vec<_> = list(answer.headers(), "ratelimit-policy").into_iter().map(|(policy, _)| policy).collect();
    assert_eq!(told, ["own", "say \"now\"", "hour", "day"]);
}

#[tokio::test]
async fn unnamed_layers_and_the_handler_have_items_of_their_own() {
    let unnamed = |remaining| Fixed::admits(Dialect::Draft11, "default", remaining, seconds(1));
    let three = answer(&[unnamed(3), unnamed(2), unnamed(1)], &[]).await;
    assert_eq!(
        text(three.headers(), "ratelimit-policy"),
        r#""default";q=100;w=60, "default-2";q=100;w=60, "default-3";q=100;w=60"#
    );
    assert_eq!(text(three.headers(), "ratelimit"), r#""default";r=1;t=1, "default-2";r=2;t=1, "default-3";r=3;t=1"#);

    let own = answer(&[unnamed(7)], &[("ratelimit", "\"default\";r=5")]).await;
    assert_eq!(text(own.headers(), "ratelimit-policy"), r#""default-2";q=100;w=60"#);
    assert_eq!(text(own.headers(), "ratelimit"), r#""default";r=5, "default-2";r=7;t=1"#);
    let own = answer(&[unnamed(7)], &[("ratelimit-policy", "\"default\";q=5")]).await;
    assert_eq!(text(own.headers(), "ratelimit-policy"), r#""default";q=5, "default-2";q=100;w=60"#);
    assert_eq!(text(own.headers(), "ratelimit"), r#""default-2";r=7;t=1"#);
}

#[tokio::test]
async fn inner_refusal_keeps_one_retry_after_the_largest() {
    let refuses = Fixed::refuses(Dialect::Draft11, "second", seconds(1));
    let spent = Fixed::admits(Dialect::Draft11, "hour", 0, seconds(1_800));
    let ample = Fixed::admits(Dialect::Draft11, "day", 12, seconds(40_000));

    let both = answer(&[ample.clone(), spent, refuses.clone()], &[]).await;
    assert_eq!(text(both.headers(), "retry-after"), "1800");
    assert_eq!(text(both.headers(), "ratelimit"), r#""second";r=0;t=1, "hour";r=0;t=1800, "day";r=12;t=40000"#);

    let short = answer(&[ample, refuses], &[]).await;
    assert_eq!(text(short.headers(), "retry-after"), "1");
}

#[tokio::test]
async fn retry_after_of_the_handler_is_raised_unless_a_date() {
    let spent = Fixed::admits(Dialect::XRateLimit { reset: Reset::Epoch }, "hour", 0, Duration::from_millis(29_001));
    let date = "Wed, 21 Oct 2026 07:28:00 GMT";
    for (said, goes) in [("3", "30"), ("31", "31"), (date, date)] {
        let answer = answer(std::slice::from_ref(&spent), &[("retry-after", said)]).await;
        assert_eq!(text(answer.headers(), "retry-after"), goes);
    }
    let answer = answer(&[spent], &[]).await;
    assert!(!answer.headers().contains_key("retry-after"), "an admitted response does not ask to come back");
}

#[tokio::test]
async fn single_valued_dialects_report_the_narrowest_limit() {
    for (reset, told) in [(Reset::Delta, "2"), (Reset::Epoch, "1790000002")] {
        let dialect = Dialect::XRateLimit { reset };
        let narrow = Fixed::admits(dialect, "narrow", 3, Duration::from_millis(1_200));
        let wide = |remaining| Fixed::admits(dialect, "wide", remaining, seconds(60));
        let answer = answer(&[wide(40), narrow, wide(50)], &[("x-ratelimit-remaining", "garbage")]).await;
        assert_eq!(text(answer.headers(), "x-ratelimit-limit"), "100");
        assert_eq!(text(answer.headers(), "x-ratelimit-remaining"), "3");
        assert_eq!(text(answer.headers(), "x-ratelimit-reset"), told);
        assert!(!answer.headers().contains_key("ratelimit"));
    }
}

#[tokio::test]
async fn malformed_inner_field_does_not_spoil_the_list() {
    let garbage = [("ratelimit", "limit=100, remaining=5"), ("ratelimit-policy", "100;w=\"")];
    let answer = answer(&[Fixed::admits(Dialect::Draft11, "default", 7, seconds(3))], &garbage).await;
    assert_eq!(text(answer.headers(), "ratelimit"), r#""default";r=7;t=3"#);
    assert_eq!(text(answer.headers(), "ratelimit-policy"), r#""default";q=100;w=60"#);
}

#[tokio::test]
async fn growing_list_is_cut() {
    let fields = Fields::new(Dialect::Draft11, &name("default"), 100, seconds(60), None);
    let mut headers = HeaderMap::new();
    for _ in 0..10_000 {
        fields.write(&mut headers, 7, seconds(3), || Duration::ZERO);
        assert!(text(&headers, "ratelimit").len() < 5_000 && text(&headers, "ratelimit-policy").len() < 5_000);
    }
}

#[tokio::test]
async fn dialect_none_writes_no_field() {
    let answer = answer(&[Fixed::refuses(Dialect::None, "default", seconds(5))], &[]).await;
    assert_eq!(text(answer.headers(), "retry-after"), "5");
    assert!(EXPOSED_HEADERS.iter().all(|name| *name == RETRY_AFTER || !answer.headers().contains_key(name)));
}

#[test]
fn concurrency_limits_have_no_reset() {
    let mut headers = HeaderMap::new();
    Fields::concurrent(Dialect::Draft11, &name("scans"), 5).write_without_reset(&mut headers, 2);
    assert_eq!(text(&headers, "ratelimit-policy"), r#""scans";q=5;qu="concurrent-requests""#);
    assert_eq!(text(&headers, "ratelimit"), r#""scans";r=2"#);

    let mut headers = HeaderMap::new();
    let dialect = Dialect::XRateLimit { reset: Reset::Delta };
    Fields::concurrent(dialect, &name("scans"), 5).write_without_reset(&mut headers, 2);
    assert_eq!(headers.len(), 2);
}
