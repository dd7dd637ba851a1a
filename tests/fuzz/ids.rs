//! Ids that clients send: those of jobs and of reservations.

use futures_util::FutureExt;
use http::{HeaderValue, Request};
use tollgate::{
    Client, FakeClock, JobIdSource, Period, Plan, Quota, QuotaLayer, Quotas, ReservationError, ReservationId,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::engine::{Fuzz, fuzz, summary};

fn layer() -> QuotaLayer {
    let plan = Plan::new("paid").limit(Quota::units("tokens", 1_000).per(Period::hour()));
    QuotaLayer::new(plan)
        .identify_by(|_: &tollgate::RequestHead<'_>, _: &tollgate::Digester| Some(Client::named("acme")))
}

const JOBS: Fuzz = Fuzz {
    corpus: &[
        b"order 17",
        b"\"order 17\"",
        b" \"\" ",
        b"\"",
        b"a\nb",
        b"\xc3\xa4",
        b"a\"b\"",
        b"0190a5b8-6f1e-7c3d-8a2b-000000000000",
    ],
    words: &[b"\"", b" ", b"\t", b"\n", b"\\", b"order", b"\xff", b"\x7f"],
};

/// Sends two requests with the same id. A valid id is served once and then refused; any other is refused both times.
fn job_id(bytes: &[u8]) -> u64 {
    let served = std::sync::atomic::AtomicU32::new(0);
    let inner = service_fn(|_: Request<()>| {
        served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::future::ready(Ok::<_, std::convert::Infallible>(http::Response::new(String::new())))
    });
    let clock = FakeClock::new();
    let layer = layer().clock(clock).job_ids(JobIdSource::header("x-job-id"));
    let service = layer.layer(inner);
    let send = || {
        let mut request = Request::builder().uri("/jobs");
        for line in bytes.split(|byte| *byte == b'\n') {
            request = request.header("x-job-id", HeaderValue::from_bytes(line).ok()?);
        }
        let response = service.clone().oneshot(request.body(()).ok()?).now_or_never().expect("memory decides at once");
        Some(response.expect("an answer").status().as_u16())
    };
    let (Some(first), Some(second)) = (send(), send()) else { return summary("no header value") };
    let times = served.load(std::sync::atomic::Ordering::Relaxed);
    assert!(matches!((first, second, times), (200, 409, 1) | (400, 400, 0)), "{first}, {second}, served {times} times");
    let text = String::from_utf8_lossy(bytes);
    let by_handle = layer.handle().check(&Client::named("acme"), ("tokens", 1)).now_or_never();
    assert!(by_handle.expect("memory decides at once").is_ok(), "{text:?} used up a limit");
    summary((first, bytes.len().min(300)))
}
fuzz!(job_ids, 5_000, JOBS, job_id);

const RESERVATIONS: Fuzz = Fuzz {
    corpus: &[
        b"m.1.2.3",
        b"l.0.0.0.YQ.YQ",
        b"1.2.3",
        b"m.ffffffffffffffffffffffffffffffff.0.0",
        b"l.018f.1.1782869400000000000.0.YWNtZQ.b3JkZXI",
    ],
    words: &[b".", b"l.", b"m.", b"YQ", b"==", b"-", b"_", b"0", b"ffffffffffffffff", b"\xff", b" "],
};

thread_local! {
    static QUOTAS: (Quotas, String) = {
        let quotas = layer().handle();
        let reserved = quotas.reserve(&Client::named("acme"), ("tokens", 7)).now_or_never();
        let id = reserved.expect("memory decides at once").expect("an admission").detach();
        (quotas, id.to_string())
    };
}

/// Parses an id, and tries to close what it names. An id that can be parsed is written as it is read, and a made-up one
/// closes nothing. `@` stands for the part of an id that was issued.
fn reservation_id(bytes: &[u8]) -> u64 {
    QUOTAS.with(|(quotas, issued)| {
        let text = String::from_utf8_lossy(bytes).replace('@', issued);
        let Ok(id) = text.parse::<ReservationId>() else { return summary("not an id") };
        let again: ReservationId = id.to_string().parse().expect("its own text");
        assert_eq!(again.to_string(), id.to_string());
        if id.to_string() == *issued {
            return summary("the one that was issued");
        }
        let closed = quotas.roll_back(&id).now_or_never().expect("memory decides at once");
        let reserved = quotas.usage(&Client::named("acme")).now_or_never().expect("memory answers").expect("usage");
        assert_eq!(reserved.limits[0].reserved, 7, "{text} closed a reservation that it does not name");
        summary((closed.is_ok(), closed == Err(ReservationError::Unknown), text.len().min(100)))
    })
}
fuzz!(reservation_ids, 20_000, RESERVATIONS, reservation_id);
