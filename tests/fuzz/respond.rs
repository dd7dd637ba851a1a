//! Fields that handlers and upstreams send: rate limit fields to which the gate appends its own, and `Retry-After`.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use tollgate::{CircuitBreakerLayer, CircuitState, Dialect, FakeClock, PolicyName, Rate, TokenBucketLayer, Trip};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    engine::{Fuzz, fuzz, summary},
    input::Input,
};

/// Sends a request through a layer to a handler that answers with these fields.
fn answer<L>(layer: &L, status: u16, fields: HeaderMap) -> Response<()>
where
    L: Layer<tower::util::BoxCloneService<Request<()>, Response<String>, Infallible>>,
    L::Service: tower::Service<Request<()>, Error = Infallible>,
    <L::Service as tower::Service<Request<()>>>::Response: IntoHead,
{
    let inner = service_fn(move |_: Request<()>| {
        let mut response = Response::new(String::new());
        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        response.headers_mut().extend(fields.clone());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let service = layer.layer(tower::util::BoxCloneService::new(inner));
    let request = Request::builder().extension(SocketAddr::from(([192, 0, 2, 1], 80))).body(()).expect("a request");
    let response = service.oneshot(request).now_or_never().expect("memory decides at once");
    response.unwrap_or_else(|never| match never {}).into_head()
}

/// A response of any body.
trait IntoHead {
    fn into_head(self) -> Response<()>;
}

impl<B> IntoHead for Response<B> {
    fn into_head(self) -> Response<()> {
        self.map(drop)
    }
}

/// Returns the lines of an input as values of one field; `None` if one is not a field value.
fn fields(name: &'static str, lines: &[u8]) -> Option<HeaderMap> {
    let lines = lines.split(|byte| *byte == b'\n').map(HeaderValue::from_bytes);
    lines.map(|value| Some((http::HeaderName::from_static(name), value.ok()?))).collect()
}

const LISTS: Fuzz = Fuzz {
    corpus: &[
        b"per client\n\"default\";r=1;t=60",
        b"a\"b\\c\n\"x\";q=100;w=60, \"y\";q=5;pk=:YQ==:",
        b"p\na;b=?1;c=-2.5\n\"z\"",
        b"p\nlimit=100, remaining=5",
        b"p\n",
    ],
    words: &[
        b"\"", b"\\", b";", b"=", b",", b", ", b"\n", b"?1", b":YQ==:", b";q=", b"*", b"-", b".", b" ", b"\t", b"\xff",
    ],
};

/// Passes a field through a layer whose policy is named by the first line. The result is a structured field for an
/// independent parser, and holds the handler's items if that parser can read them.
fn structured_fields(bytes: &[u8]) -> u64 {
    let mut input = Input(bytes);
    let name = input.text();
    if PolicyName::try_new(&name).is_err() {
        return summary("no policy name");
    }
    let Some(sent) = fields("ratelimit", input.0) else { return summary("no field value") };
    let layer = TokenBucketLayer::new(Rate::per_second(5)).named(&name).rate_limit_headers(Dialect::Draft11);
    let received = answer(&layer.clock(FakeClock::new()), 200, sent.clone());
    let parse = |fields: &HeaderMap| {
        // Without the space around a field value, which belongs to no value (RFC 9110, section 5.5).
        let lines: Vec<_> = fields.get_all("ratelimit").iter().map(|line| line.as_bytes().trim_ascii()).collect();
        sfv::Parser::new(&lines.join(&b", "[..])).parse::<sfv::List>().map(|list| list.len())
    };
    let theirs = parse(&sent);
    let all = parse(received.headers()).unwrap_or_else(|error| panic!("{error}: {:?}", received.headers()));
    assert!(all == 1 || theirs.as_ref().is_ok_and(|theirs| all == theirs + 1), "{theirs:?} items became {all}");
    summary((all.min(20), theirs.is_ok(), bytes.len() > 4_096))
}
fuzz!(rate_limit_fields, 20_000, LISTS, structured_fields);

const RETRY_AFTER: Fuzz = Fuzz {
    corpus: &[
        b"120",
        b"0",
        b"Wed, 21 Oct 2026 07:28:00 GMT\nWed, 21 Oct 2026 07:27:00 GMT",
        b"-1",
        b" 5 ",
        b"1.5",
        b"",
        b"Wednesday, 21-Oct-26 07:28:00 GMT\nSun Nov  6 08:49:37 1994",
        b"99999999999999999999999999999999",
    ],
    words: &[
        b"Wed, ",
        b"21 ",
        b"Oct ",
        b"2026 ",
        b"9999 ",
        b"0000 ",
        b"07:28:00",
        b" GMT",
        b"\n",
        b" ",
        b"-",
        b"+",
        b"23:59:60",
    ],
};

/// Answers with 503 and `Retry-After`, and with the second line as `Date`. The circuit opens, and for a bounded time.
fn retry_after(bytes: &[u8]) -> u64 {
    let mut input = Input(bytes);
    let (Ok(after), Ok(date)) = (HeaderValue::from_bytes(input.line()), HeaderValue::from_bytes(input.line())) else {
        return summary("no field value");
    };
    let clock = FakeClock::new();
    let layer = CircuitBreakerLayer::for_client(Duration::from_secs(10))
        .trip(Trip::consecutive(100))
        .honor_retry_after()
        .clock(clock.clone());
    let fields = [(http::header::RETRY_AFTER, after), (http::header::DATE, date)];
    let _ = answer(&layer, 503, fields.into_iter().collect());
    let state = layer.handle().state();
    let next = answer(&layer, 200, HeaderMap::new());
    assert_eq!(next.status() == 503, state == CircuitState::Open, "{next:?}");
    let wait =
        next.headers().get("retry-after").map(|wait| wait.to_str().expect("digits").parse::<u64>().expect("digits"));
    assert_eq!(wait.is_some(), state == CircuitState::Open);
    if let Some(wait) = wait {
        clock.advance(Duration::from_secs(wait));
        assert_eq!(answer(&layer, 200, HeaderMap::new()).status(), 200, "told to wait {wait} s");
    }
    summary((state == CircuitState::Open, wait.map(|wait| wait.checked_ilog2())))
}
fuzz!(retry_after_fields, 20_000, RETRY_AFTER, retry_after);
