//! Refusals over HTTP, read by an independent parser.

use std::time::Duration;

use http::{HeaderMap, Request, Response};
use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate::{
    Dialect, GateLayer, PolicyName, Reason, Refusal,
    refusal::{self, Fields},
};
use tower::{ServiceBuilder, ServiceExt};

use crate::support::fixed::{Fixed, collected, handler, name, seconds, text};

const REASONS: [Reason; 19] = [
    Reason::Unauthenticated,
    Reason::NoPeerAddress,
    Reason::NoPrincipal,
    Reason::RateLimited,
    Reason::Capacity,
    Reason::CircuitOpen,
    Reason::Unavailable,
    Reason::Indeterminate,
    Reason::Rejected,
    Reason::UnknownUnit,
    Reason::TooLarge,
    Reason::JobRunning,
    Reason::DuplicateJob,
    Reason::JobOutcomeUnknown,
    Reason::JobConflict,
    Reason::InvalidJobId,
    Reason::StaleJobId,
    Reason::TooManyReservations,
    Reason::Unidentified,
];

#[test]
fn every_reason_has_its_status_and_problem_type() {
    let iana = "https://iana.org/assignments/http-problem-types#";
    for (reason, status, kind, title, waits) in [
        (Reason::RateLimited, 429, format!("{iana}quota-exceeded"), "Quota Exceeded", true),
        (Reason::Capacity, 503, format!("{iana}temporary-reduced-capacity"), "Temporary Reduced Capacity", true),
        (Reason::CircuitOpen, 503, format!("{iana}temporary-reduced-capacity"), "Temporary Reduced Capacity", true),
        (Reason::Unavailable, 503, format!("{iana}temporary-reduced-capacity"), "Temporary Reduced Capacity", true),
        (Reason::Indeterminate, 503, format!("{iana}temporary-reduced-capacity"), "Temporary Reduced Capacity", true),
        (Reason::Rejected, 500, "about:blank".into(), "Internal Server Error", false),
        (Reason::UnknownUnit, 500, "about:blank".into(), "Internal Server Error", false),
        (Reason::TooLarge, 413, "about:blank".into(), "Content Too Large", false),
        (Reason::JobRunning, 409, "about:blank".into(), "Conflict", true),
        (Reason::DuplicateJob, 409, "about:blank".into(), "Conflict", false),
        (Reason::JobOutcomeUnknown, 409, "about:blank".into(), "Conflict", true),
        (Reason::JobConflict, 422, "about:blank".into(), "Unprocessable Content", false),
        (Reason::InvalidJobId, 400, "about:blank".into(), "Bad Request", false),
        (Reason::StaleJobId, 400, "about:blank".into(), "Bad Request", false),
        (Reason::TooManyReservations, 429, "about:blank".into(), "Too Many Requests", true),
        (Reason::Unidentified, 403, "about:blank".into(), "Forbidden", false),
    ] {
        let refusal = Refusal::new(reason, name("default")).with_limit(100, 99).with_retry_after(seconds(5));
        let answer = refusal::problem(&refusal);
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(text(answer.headers(), "content-type"), "application/problem+json");
        assert_eq!(text(answer.headers(), "cache-control"), "no-store");
        assert_eq!(text(answer.headers(), "retry-after"), if waits { "5" } else { "" });
        assert_eq!(answer.headers().contains_key("retry-after"), waits);
        assert_eq!(body["type"], json!(kind));
        assert_eq!(body["title"], json!(title));
        assert_eq!(body["status"], json!(status));
        let has_code = matches!(reason, Reason::DuplicateJob | Reason::JobOutcomeUnknown);
        assert_eq!(body.get("code"), has_code.then(|| json!(reason.as_str())).as_ref());
        assert_eq!(body["violated-policies"], json!(["default"]));
        assert_eq!(body.get("retry_after_seconds"), waits.then(|| json!(5)).as_ref());
        assert_eq!(body["detail"].as_str().unwrap().contains("Retry in 5 seconds."), waits);
        assert_eq!(refusal::text(&refusal).status(), status);
        assert_eq!(refusal::status(&refusal), status);
    }
}

#[test]
fn retry_after_is_rounded_up_and_never_zero() {
    for (wait, said) in [
        (Duration::ZERO, "1"),
        (Duration::from_nanos(1), "1"),
        (seconds(1), "1"),
        (Duration::from_nanos(1_000_000_001), "2"),
        (Duration::from_millis(1_900), "2"),
        (Duration::from_millis(99_001), "100"),
        (Duration::MAX, "18446744073709551615"),
    ] {
        let refusal = Refusal::new(Reason::RateLimited, name("default")).with_retry_after(wait);
        let answer = refusal::problem(&refusal);
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(text(answer.headers(), "retry-after"), said);
        assert_eq!(body["retry_after_seconds"].to_string(), said);
    }
}

#[test]
fn job_of_unknown_outcome_may_be_under_way_if_it_has_a_wait() {
    let unknown = Refusal::new(Reason::JobOutcomeUnknown, PolicyName::try_new("jobs").unwrap());
    let text = |refusal: &Refusal| String::from_utf8(refusal::text(refusal).into_body().to_vec()).unwrap();
    let before = "The same job was charged before, and its outcome is unknown. It";
    assert_eq!(text(&unknown), format!("{before} is not run again.\n"));
    let running = unknown.with_retry_after(Duration::from_secs(1));
    assert_eq!(text(&running), format!("{before} may be under way, and is not begun again. Retry in 1 second.\n"));
}

#[test]
fn wait_in_words_is_rounded_up_to_a_unit_for_people() {
    for (wait, words) in [
        (1, "1 second"),
        (2, "2 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (121, "3 minutes"),
        (7_199, "120 minutes"),
        (7_200, "2 hours"),
        (61_200, "17 hours"),
        (61_201, "18 hours"),
        (172_800, "2 days"),
        (2_678_400, "31 days"),
    ] {
        let refusal = Refusal::new(Reason::RateLimited, name("default")).with_retry_after(seconds(wait));
        let answer = refusal::text(&refusal).into_body();
        assert_eq!(answer, format!("The limit is used up. Retry in {words}.\n"));
    }
}

#[test]
fn refusal_is_an_error_and_its_reason_is_displayed() {
    let refusal = Refusal::new(Reason::CircuitOpen, name("upstream"));
    let error: Box<dyn std::error::Error + Send + Sync> = refusal.clone().into();
    assert_eq!(error.to_string(), r#"policy "upstream": circuit open"#);
    assert_eq!(refusal.reason().to_string(), "circuit_open");
}

#[test]
fn debug_of_a_refusal_omits_its_header_fields() {
    let fields = Fields::new(Dialect::Draft11, &name("api"), 100, seconds(60), None);
    let refusal = Refusal::new(Reason::RateLimited, name("api")).with_limit(100, 99).with_fields(fields.into());
    let expected = r#"Refusal { reason: RateLimited, policy: "api", limit: 100, current: 99, retry_after: None, .. }"#;
    assert_eq!(format!("{refusal:?}"), expected);
}

#[test]
fn permanent_refusal_has_no_retry_after() {
    let answer = refusal::problem(&Refusal::new(Reason::RateLimited, name("default")));
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    assert!(!answer.headers().contains_key("retry-after"));
    assert!(body.get("retry_after_seconds").is_none());
}

#[test]
fn shared_capacity_is_not_disclosed() {
    for reason in [Reason::Capacity, Reason::CircuitOpen, Reason::Unavailable, Reason::Indeterminate] {
        let refusal = Refusal::new(reason, name("global")).with_limit(987_654, 123_456);
        for answer in [refusal::problem(&refusal), refusal::text(&refusal)] {
            let body = String::from_utf8(answer.into_body().to_vec()).unwrap();
            assert!(!body.contains("987654") && !body.contains("123456"), "{body}");
        }
    }
}

#[test]
fn policy_name_rejects_line_breaks() {
    for text in ["a\r\nset-cookie: b", "a\nb", "a\rb", "a\0b", "a\u{85}b"] {
        assert!(PolicyName::try_new(text).is_err(), "{text:?}");
    }
    let unit = "requests\r\nset-cookie: b";
    for dialect in [Dialect::Draft11, Dialect::None] {
        let hostile = std::panic::catch_unwind(|| Fields::new(dialect, &name("a"), 1, seconds(1), Some(unit)));
        let reason = hostile.unwrap_err().downcast::<String>().unwrap();
        assert!(
            reason.starts_with("unit must be 1 to 64 visible ASCII characters or spaces, got \"requests"),
            "{reason}"
        );
    }
}

proptest! {
    #[test]
    fn every_problem_document_is_json(
        policy in "[ -~]{1,64}|[\"\\\\]{1,64}",
        reason in prop::sample::select(&REASONS[..]),
        limit: u64,
        wait: Option<Duration>,
    ) {
        let mut refusal = Refusal::new(reason, name(&policy)).with_limit(limit, limit);
        if let Some(wait) = wait {
            refusal = refusal.with_retry_after(wait);
        }
        let answer = refusal::problem(&refusal);
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        prop_assert_eq!(&body["violated-policies"], &json!([policy]));
        prop_assert_eq!(&body["status"], &json!(answer.status().as_u16()));
        prop_assert_eq!(body.get("retry_after_seconds").cloned(), refusal.retry_after_seconds().map(|n| json!(n)));
        let detail = body["detail"].as_str().unwrap();
        prop_assert_eq!(refusal::text(&refusal).into_body(), format!("{detail}\n"));
    }
}

#[tokio::test]
async fn refused_response_is_complete() {
    let policy = Fixed::refuses(Dialect::Draft11, "default", Duration::from_millis(4_100));
    let service = ServiceBuilder::new().layer(GateLayer::new(policy)).service(handler(&[]));
    let answer = collected(service.oneshot(Request::default()).await.unwrap()).await;
    assert_eq!(answer.status(), 429);
    assert_eq!(text(answer.headers(), "content-type"), "application/problem+json");
    assert_eq!(text(answer.headers(), "cache-control"), "no-store");
    assert_eq!(text(answer.headers(), "retry-after"), "5");
    assert_eq!(text(answer.headers(), "ratelimit-policy"), r#""default";q=100;w=60"#);
    assert_eq!(text(answer.headers(), "ratelimit"), r#""default";r=0;t=5"#);
    assert_eq!(answer.headers().len(), 5);
    assert!(answer.extensions().get::<Refusal>().is_some());
}

async fn refused_with(custom: fn(&Refusal) -> Response<&'static str>) -> (HeaderMap, Response<bytes::Bytes>) {
    let policy = Fixed::refuses(Dialect::Draft11, "default", Duration::from_millis(4_100));
    let service = ServiceBuilder::new().layer(GateLayer::new(policy).refuse_with(custom)).service(handler(&[]));
    let answer = collected(service.oneshot(Request::default()).await.unwrap()).await;
    (answer.headers().clone(), answer)
}

#[tokio::test]
async fn custom_answer_gets_missing_fields() {
    let (headers, answer) = refused_with(|_| Response::builder().status(420).body("enhance your calm").unwrap()).await;
    assert_eq!(answer.status(), 420);
    assert_eq!(answer.body(), "enhance your calm");
    assert_eq!(text(&headers, "retry-after"), "5");
    assert_eq!(text(&headers, "cache-control"), "no-store");
    assert_eq!(text(&headers, "ratelimit"), r#""default";r=0;t=5"#);
    assert!(answer.extensions().get::<Refusal>().is_some());
}

#[tokio::test]
async fn custom_answer_keeps_its_own_retry_after() {
    let (headers, _) = refused_with(|_| {
        let answer = Response::builder().header("retry-after", "60").header("cache-control", "private, no-store");
        answer.header("ratelimit", "\"own\";r=0").body("").unwrap()
    })
    .await;
    assert_eq!(text(&headers, "retry-after"), "60");
    assert_eq!(text(&headers, "cache-control"), "no-store");
    assert_eq!(text(&headers, "ratelimit"), r#""own";r=0, "default";r=0;t=5"#);
}

#[tokio::test]
async fn text_and_problem_are_usable_as_answers() {
    let layer = || GateLayer::new(Fixed::refuses(Dialect::None, "default", seconds(2)));
    for (layer, kind, body) in [
        (
            layer().refuse_with(refusal::text),
            "text/plain; charset=utf-8",
            "The limit of 100 is used up. Retry in 2 seconds.\n",
        ),
        (layer().refuse_with(refusal::problem), "application/problem+json", "{"),
    ] {
        let service = ServiceBuilder::new().layer(layer).service(handler(&[]));
        let answer = collected(service.oneshot(Request::default()).await.unwrap()).await;
        assert_eq!(text(answer.headers(), "content-type"), kind);
        assert!(answer.body().starts_with(body.as_bytes()));
        assert_eq!(answer.headers().len(), 3);
    }
}

mod no_store {
    use http::{Method, Version};

    use super::*;

    /// Returns the response to a request that is refused for this reason, with a wait of 5 s.
    async fn refused(
        reason: Reason,
        custom: Option<fn(&Refusal) -> Response<&'static str>>,
        request: Request<http_body_util::Full<bytes::Bytes>>,
    ) -> Response<bytes::Bytes> {
        let refusal = Refusal::new(reason, name("default")).with_limit(100, 100).with_retry_after(seconds(5));
        let policy = Fixed::admits(Dialect::Draft11, "default", 0, seconds(5)).with_refusal(refusal);
        let layer = match custom {
            Some(custom) => GateLayer::new(policy).refuse_with(custom),
            None => GateLayer::new(policy),
        };
        collected(ServiceBuilder::new().layer(layer).service(handler(&[])).oneshot(request).await.unwrap()).await
    }

    #[tokio::test]
    async fn every_refusal_is_complete_and_not_cached() {
        let custom: fn(&Refusal) -> Response<&'static str> = |_| Response::builder().status(420).body("calm").unwrap();
        for reason in REASONS {
            for (custom, version, content_type) in [
                (None, Version::HTTP_11, "text/plain"),
                (Some(custom), Version::HTTP_11, "text/plain"),
                (None, Version::HTTP_2, "application/grpc"),
                (None, Version::HTTP_11, "application/grpc-web"),
            ] {
                let request = Request::post("/").version(version).header("content-type", content_type);
                let answer = refused(reason, custom, request.body(Default::default()).unwrap()).await;
                let refusal = answer.extensions().get::<Refusal>().unwrap();
                let wait = refusal.retry_after().map_or("", |_| "5");
                assert_eq!(text(answer.headers(), "cache-control"), "no-store", "{reason:?} {content_type}");
                assert_eq!(text(answer.headers(), "retry-after"), wait, "{reason:?} {content_type}");
                assert_eq!(text(answer.headers(), "ratelimit-policy"), r#""default";q=100;w=60"#);
                assert!(text(answer.headers(), "ratelimit").starts_with(r#""default";r=0"#));
            }
        }
    }

    #[tokio::test]
    async fn get_with_grpc_content_type_is_refused_with_429() {
        for method in [Method::GET, Method::HEAD] {
            for version in [Version::HTTP_11, Version::HTTP_2] {
                let request = Request::builder().method(method.clone()).uri("/app.js").version(version);
                let request = request.header("content-type", "application/grpc").body(Default::default()).unwrap();
                let answer = refused(Reason::RateLimited, None, request).await;
                assert_eq!(answer.status(), 429);
                assert_eq!(text(answer.headers(), "content-type"), "application/problem+json");
                assert_eq!(text(answer.headers(), "cache-control"), "no-store");
            }
        }
    }

    #[tokio::test]
    async fn custom_answer_that_allows_storing_is_overruled() {
        for custom in [
            (|_: &Refusal| Response::builder().header("cache-control", "max-age=60").body("").unwrap())
                as fn(&Refusal) -> Response<&'static str>,
            |_| Response::builder().header("cache-control", "private").body("").unwrap(),
            |_| Response::builder().header("cache-control", "public=\"no-store\"").body("").unwrap(),
            |_| Response::builder().header("cache-control", "must-understand, no-store").body("").unwrap(),
            |_| Response::builder().header("cache-control", "private, no-store").body("").unwrap(),
            |_| {
                let answer = Response::builder().header("cache-control", "max-age=60");
                answer.header("cache-control", "private").body("").unwrap()
            },
        ] {
            let answer = refused(Reason::RateLimited, Some(custom), Request::default()).await;
            assert_eq!(text(answer.headers(), "cache-control"), "no-store");
        }
    }

    #[tokio::test]
    async fn custom_answer_has_no_targeted_cache_control() {
        let custom = |_: &Refusal| {
            let answer = Response::builder().header("cdn-cache-control", "max-age=60");
            answer.header("surrogate-control", "max-age=60").body("").unwrap()
        };
        let answer = refused(Reason::RateLimited, Some(custom), Request::default()).await;
        assert_eq!(text(answer.headers(), "cache-control"), "no-store");
        assert_eq!(text(answer.headers(), "cdn-cache-control"), "");
        assert_eq!(text(answer.headers(), "surrogate-control"), "");
    }
}
