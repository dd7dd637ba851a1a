//! A breaker around `reqwest`, whose responses of any status are `Ok`.

use super::*;
use axum::{Router, extract::Path, routing::get};
use tokio::net::TcpListener;
use tollgate::CallError;
use tower::ServiceBuilder;

/// Serves the status that the path asks for, and returns the address.
async fn upstream() -> String {
    let status = |Path(status): Path<u16>| async move { StatusCode::from_u16(status).unwrap() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/{status}", get(status));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Returns an address at which no server listens.
async fn dead() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap())
}

fn judge(result: &Result<reqwest::Response, reqwest::Error>) -> Verdict {
    match result {
        Ok(response) => Verdict::of_status(response.status()),
        Err(_) => Verdict::Failure,
    }
}

#[tokio::test]
async fn plain_call_is_judged_by_its_status() {
    let (url, client) = (upstream().await, client());
    for (path, opens) in [("502", true), ("408", true), ("404", false), ("429", false), ("200", false)] {
        let breaker = three().handle();
        for _ in 0..3 {
            let response = breaker.call_with(judge, client.get(format!("{url}/{path}")).send()).await.unwrap();
            assert_eq!(response.status().as_str(), path);
        }
        let next = breaker.call_with(judge, client.get(format!("{url}/200")).send()).await;
        assert_eq!(matches!(next, Err(CallError::Refused(_))), opens, "after {path}");
    }
}

#[tokio::test]
async fn plain_call_that_cannot_connect_fails() {
    let (url, client, breaker) = (dead().await, client(), three().handle());
    for _ in 0..3 {
        let error = breaker.call_with(judge, client.get(&url).send()).await.unwrap_err();
        assert!(matches!(error, CallError::Inner(error) if error.is_connect()));
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn service_of_a_client_has_a_circuit_per_host() {
    let layer = three().per_host();
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .map_request(|request: Request<reqwest::Body>| reqwest::Request::try_from(request).expect("an absolute URI"))
        .map_response(|response: reqwest::Response| Response::<reqwest::Body>::from(response))
        .service(client());
    let (url, dead) = (upstream().await, dead().await);
    let request = |url: String| Request::get(url).body(reqwest::Body::default()).unwrap();
    for _ in 0..3 {
        let response = service.clone().oneshot(request(format!("{url}/502"))).await.unwrap();
        assert_eq!(response.status(), 502);
        assert!(service.clone().oneshot(request(dead.clone())).await.unwrap_err().is_connect());
    }
    for host in [&url, &dead] {
        let response = service.clone().oneshot(request(format!("{host}/200"))).await.unwrap();
        assert_eq!(response.extensions().get::<Refusal>().unwrap().reason(), Reason::CircuitOpen);
        let key = CircuitBreakerLayer::host_key(host).unwrap();
        assert_eq!(layer.handle().key(key).unwrap().state(), CircuitState::Open);
    }
    let other = upstream().await;
    let body = service.oneshot(request(format!("{other}/200"))).await.unwrap().into_body();
    body.collect().await.unwrap();
}
