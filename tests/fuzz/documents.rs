//! Refusals on the wire: problem documents, their fields, and gRPC details.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{Request, Response, Version};
use serde_json::Value;
use tollgate::{
    Admit, Client, Dialect, GateLayer, MaybeFuture, PolicyName, Reason, Refusal, RequestHead,
    refusal::{self, Fields, Reset},
};
use tonic_types::StatusExt;
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    engine::{Fuzz, fuzz, summary},
    input::Input,
};

const REFUSALS: Fuzz = Fuzz {
    corpus: &[
        b"default\n\x00\x01\x64\x01\x64\x01\x05\x00",
        b"a\"b\\c\n\x01\xff\xff\xff\x03",
        b"per client\n\x05\x00\x00\x00\x02",
        b"</script>\n\x02\xfd\xfe\x02\x01\x02\x01",
        b"%41 {}\n\x09\x01\x01\x01\x01\x08\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
    words: &[b"\"", b"\\", b"\n", b"\xff", b"\xfe", b"\xfd", b"\x00", b"\x01", b"\x08", b"{", b"}", b"%", b" ", b"~"],
};

/// Refuses every request.
struct Refuses(Refusal);

impl Admit for Refuses {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
        MaybeFuture::Ready(Err(self.0.clone()))
    }
}

fn refusal(input: &mut Input<'_>) -> Option<Refusal> {
    let name = PolicyName::try_new(&input.text()).ok()?;
    let reasons = [
        Reason::RateLimited,
        Reason::TooLarge,
        Reason::Capacity,
        Reason::CircuitOpen,
        Reason::Unidentified,
        Reason::JobRunning,
        Reason::JobOutcomeUnknown,
        Reason::JobConflict,
        Reason::InvalidJobId,
        Reason::Unavailable,
        Reason::Indeterminate,
    ];
    let reason = reasons[usize::from(input.byte()) % reasons.len()];
    let mut refusal = Refusal::new(reason, name.clone()).with_limit(input.number(), input.number());
    let (seconds, nanos) = (input.number(), u32::from(input.byte()) * 3_921_568);
    let wait = Duration::new(seconds, nanos);
    if seconds != 0 || nanos != 0 {
        refusal = refusal.with_retry_after(wait);
    }
    let dialect = match input.byte() % 3 {
        0 => return Some(refusal),
        1 => Dialect::Draft11,
        _ => Dialect::XRateLimit { reset: Reset::Delta },
    };
    let fields = Fields::new(dialect, &name, input.number(), wait, None);
    Some(refusal.with_fields(Arc::new(fields)))
}

/// Answers a request with a refusal, over HTTP or gRPC.
fn answered(refused: &Refusal, grpc: bool) -> Response<()> {
    let inner = service_fn(|_: Request<()>| {
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(String::new())))
    });
    let service = GateLayer::new(Refuses(refused.clone())).layer(inner);
    let mut request = Request::post("/a").version(Version::HTTP_2);
    if grpc {
        request = request.header("content-type", "application/grpc").header("te", "trailers");
    }
    let response = service.oneshot(request.body(()).expect("a request")).now_or_never().expect("decided at once");
    response.unwrap_or_else(|never| match never {}).map(drop)
}

/// Writes a refusal in each form and reads it with independent parsers.
fn document(bytes: &[u8]) -> u64 {
    let mut input = Input(bytes);
    let Some(refused) = refusal(&mut input) else { return summary("no policy name") };
    let answer = refusal::problem(&refused);
    let problem: Value = serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!(problem["status"], answer.status().as_u16());
    assert_eq!(problem["violated-policies"][0], refused.policy().as_str());
    assert_eq!(problem["retry_after_seconds"].is_u64(), refused.retry_after().is_some());
    let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().expect("digits").parse().expect("digits"));
    assert_eq!(wait, refused.retry_after_seconds());
    let text = refusal::text(&refused);
    assert!(text.body().is_ascii() && text.body().ends_with(b"\n"));

    let http = answered(&refused, false);
    assert_eq!(http.status(), answer.status());
    for line in http.headers().get_all("ratelimit") {
        sfv::Parser::new(line.as_bytes()).parse::<sfv::List>().unwrap_or_else(|error| panic!("{error}: {line:?}"));
    }
    let grpc = answered(&refused, true);
    let status = tonic::Status::from_header_map(grpc.headers()).expect("a status");
    assert!(grpc.status() == 200 && status.code() != tonic::Code::Ok);
    let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(told.is_some(), refused.retry_after().is_some(), "{told:?}");
    summary((refused.reason(), refused.limit().checked_ilog2(), wait.map(u64::checked_ilog2), answer.headers().len()))
}
fuzz!(problem_documents, 10_000, REFUSALS, document);
