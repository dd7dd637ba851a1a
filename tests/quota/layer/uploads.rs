//! Request bytes: charged by their declared length, else counted as they are read.

use super::*;
use tollgate::{RequestBytesLayer, quota::CountedBody};

fn scene(direction: Direction) -> Scene {
    let bytes = Quota::bytes(100).per(Period::hour()).counting(direction).named("bytes");
    Scene::new(Plan::new("uploads").limit(bytes), |layer| layer)
}

fn upload(length: Option<u64>) -> Request<Body> {
    let mut request = by("alice", "/");
    if let Some(length) = length {
        request.headers_mut().insert("content-length", length.into());
    }
    let frames = ["0123456789"; 3].map(|text| Ok(Frame::data(Bytes::from(text))));
    request.map(|_| StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
}

/// Reads the whole request, or one frame of it, and answers five bytes.
async fn answer<B: http_body::Body<Data = Bytes>>(
    request: Request<B>,
    all: bool,
) -> Result<Response<Full<Bytes>>, &'static str> {
    let mut body = Box::pin(request.into_body());
    while body.frame().await.is_some() && all {}
    Ok(Response::new(Full::from("hello")))
}

#[tokio::test]
async fn declared_length_is_charged_at_admission() {
    let scene = scene(Direction::Request);
    let service = scene.layer.layer(service_fn(|request: Request<Body>| answer(request, true)));
    for (expected, used) in [(200, 30), (200, 60), (200, 90), (429, 90)] {
        assert_eq!(service.clone().oneshot(upload(Some(30))).await.unwrap().status(), expected);
        assert_eq!(scene.used("bytes").await, used);
    }
}

#[tokio::test]
async fn unknown_length_is_free_without_a_counting_layer() {
    let scene = scene(Direction::Request);
    let service = scene.layer.layer(service_fn(|request: Request<Body>| answer(request, true)));
    Answer::read(service.oneshot(upload(None)).await).await;
    assert_eq!(scene.used("bytes").await, 0);
}

#[tokio::test]
async fn unknown_length_is_counted_as_it_is_read() {
    for (direction, all, used) in [
        (Direction::Request, true, 30),
        (Direction::Request, false, 10),
        (Direction::Both, true, 35),
        (Direction::Response, true, 5),
    ] {
        let scene = scene(direction);
        let service = ServiceBuilder::new()
            .layer(RequestBytesLayer::new())
            .layer(scene.layer.clone())
            .service(service_fn(move |request: Request<CountedBody<Body>>| answer(request, all)));
        Answer::read(service.clone().oneshot(upload(None)).await).await;
        assert_eq!(scene.used("bytes").await, used, "{direction:?}, all: {all}");
        for _ in 0..20 {
            Answer::read(service.clone().oneshot(upload(None)).await).await;
        }
        assert!((100..135).contains(&scene.used("bytes").await), "then the next are refused");
    }
}

#[tokio::test]
async fn declared_length_is_not_counted_twice() {
    let scene = scene(Direction::Both);
    let service = ServiceBuilder::new()
        .layer(RequestBytesLayer::new())
        .layer(scene.layer.clone())
        .service(service_fn(|request: Request<CountedBody<Body>>| answer(request, true)));
    Answer::read(service.oneshot(upload(Some(30))).await).await;
    assert_eq!(scene.used("bytes").await, 35);
}

#[tokio::test]
async fn disconnect_during_upload_pays_for_the_bytes_read() {
    let scene = scene(Direction::Both);
    let hang = |request: Request<CountedBody<Body>>| async move {
        let mut body = Box::pin(request.into_body());
        body.frame().await;
        body.frame().await;
        std::future::pending::<Result<Response<Full<Bytes>>, &'static str>>().await
    };
    let service =
        ServiceBuilder::new().layer(RequestBytesLayer::new()).layer(scene.layer.clone()).service(service_fn(hang));
    let mut gone = Box::pin(service.oneshot(upload(None)));
    assert!(futures_util::poll!(&mut gone).is_pending());
    drop(gone);
    assert_eq!(scene.used("bytes").await, 20);
}

/// Declares 30 bytes, of which the service reads `read` before the response ends or the client leaves.
#[tokio::test]
async fn declared_bytes_that_were_not_read_are_returned() {
    for (share, hangs) in [(false, false), (true, false), (false, true), (true, true)] {
        for direction in [Direction::Request, Direction::Both] {
            let bytes = Quota::bytes(100).per(Period::hour()).counting(direction).named("bytes");
            let plan = hourly(9).limit(bytes);
            let scene = Scene::new(plan, |layer| if share { layer.share_with_handler() } else { layer });
            let mut used = 0;
            for read in [0, 10, 20, 30] {
                let handler = service_fn(move |request: Request<CountedBody<Body>>| async move {
                    let mut body = Box::pin(request.into_body());
                    for _ in 0..read / 10 {
                        body.frame().await.unwrap().unwrap();
                    }
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, &'static str>(Response::new(Full::<Bytes>::default()))
                });
                let service = ServiceBuilder::new().layer(RequestBytesLayer::new()).layer(scene.layer.clone());
                let mut asked = Box::pin(service.service(handler).oneshot(upload(Some(30))));
                assert_eq!(futures_util::poll!(&mut asked).is_pending(), hangs);
                if hangs {
                    assert_eq!(scene.reserved("bytes").await, 30, "while it is served");
                }
                drop(asked);
                used += read;
                assert_eq!((scene.used("bytes").await, scene.reserved("bytes").await), (used, 0), "read {read}");
            }
            assert_eq!(scene.used("requests_per_hour").await, 4);
        }
    }
}

#[tokio::test]
async fn recorded_bytes_replace_the_declared_length() {
    let bytes = Quota::bytes(100).per(Period::hour()).counting(Direction::Request).named("bytes");
    let scene = Scene::new(Plan::new("uploads").limit(bytes), QuotaLayer::share_with_handler);
    let handler = service_fn(|request: Request<CountedBody<Body>>| async move {
        request.extensions().get::<Charge>().unwrap().record("request_bytes", 7);
        answer(request, true).await
    });
    let service = ServiceBuilder::new().layer(RequestBytesLayer::new()).layer(scene.layer.clone()).service(handler);
    Answer::read(service.oneshot(upload(Some(30))).await).await;
    assert_eq!(scene.used("bytes").await, 7);
}

#[tokio::test]
async fn uncharged_upload_is_refunded() {
    let bytes = Quota::bytes(100).per(Period::hour()).named("bytes");
    for length in [None, Some(30)] {
        let scene = Scene::new(Plan::new("uploads").limit(bytes.clone()), |layer| layer.charge_when(|_| false));
        let service = ServiceBuilder::new()
            .layer(RequestBytesLayer::new())
            .layer(scene.layer.clone())
            .service(service_fn(|request: Request<CountedBody<Body>>| answer(request, true)));
        Answer::read(service.oneshot(upload(length)).await).await;
        assert_eq!(scene.used("bytes").await, 0);
    }
}
