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
