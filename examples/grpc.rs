//! A tonic server behind the same layers as any web server, and a client that prints the results.
//!
//! ```text
//! cargo run --example grpc              # plays the demonstration, then serves on 127.0.0.1:50051
//! cargo run --example grpc -- --serve   # only serves
//! PORT=8080 cargo run --example grpc    # another port; 0 chooses a free one
//! ```
//!
//! On SIGTERM or Ctrl-C it accepts nothing new and finishes running calls, for at most 10 s.

#[path = "support/mod.rs"]
mod support;

use std::{error::Error, net::SocketAddr, time::Duration};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tollgate::{CircuitBreakerLayer, Gates, Rate, TokenBucketLayer, Trip};
use tonic::{
    Code, Request, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

/// A rate of 5 a second and a burst of 10 for each peer; a circuit that opens for about 2 s after three failures in a
/// row.
async fn serve(listener: TcpListener, stop: support::Stop) -> Result<(), tonic::transport::Error> {
    let limit = TokenBucketLayer::new(Rate::per_second(5).burst(10)).identify_by(tollgate::peer_ip!(tonic));
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(3)).recovery_timeout(Duration::from_secs(2));

    let (_reporter, health) = tonic_health::server::health_reporter();
    let flaky = InterceptedService::new(health, |request: Request<()>| match request.metadata().get("x-fail") {
        Some(_) => Err(Status::data_loss("the disk is gone")),
        None => Ok(request),
    });
    Server::builder()
        .layer(Gates::new((limit, breaker)))
        .add_service(flaky)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
        .await
}

/// Calls the server and prints a row of the table; returns the wait that the server asks for.
async fn row(client: &mut HealthClient<Channel>, fail: bool, why: &str) -> Option<Duration> {
    let mut request = Request::new(HealthCheckRequest { service: String::new() });
    if fail {
        request.metadata_mut().insert("x-fail", "yes".parse().expect("valid metadata"));
    }
    let call = if fail { "Check (x-fail)" } else { "Check" };
    let Err(status) = client.check(request).await else {
        println!("  {call:<15} {:<18} {why}", "OK");
        return None;
    };
    let code = match status.code() {
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        _ => "another error",
    };
    println!("  {call:<15} {code:<18} {why}");
    println!("  {:<15} message: {}", "", status.message());
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
    if let Some(wait) = wait {
        println!("  {:<15} RetryInfo: retry in {wait:?}", "");
    }
    wait
}

async fn play(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let channel = Endpoint::try_from(format!("http://{address}"))?.connect().await?;
    let client = &mut HealthClient::new(channel);

    println!("\n  {:<15} {:<18} what happened", "call", "status");
    println!("  {:-<15} {:-<18} {:-<50}", "", "", "");
    row(client, true, "the service fails once, ...").await;
    row(client, true, "... twice, ...").await;
    row(client, true, "... three times: the circuit opens").await;
    if let Some(wait) = row(client, false, "refused at once, the service is spared").await {
        tokio::time::sleep(wait).await;
    }
    row(client, false, "one probe passes and succeeds: the circuit closes").await;
    for _ in 0..20 {
        let request = HealthCheckRequest { service: String::new() };
        if client.check(request).await.is_err() {
            break;
        }
    }
    println!("  ... calls until the bucket is empty");
    if let Some(wait) = row(client, false, "refused: five a second, ten at once").await {
        tokio::time::sleep(wait).await;
    }
    row(client, false, "admitted after the wait that RetryInfo asks for").await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), support::ExampleError> {
    let serve_only = support::start(include_str!("grpc.rs"), Some("--serve"))?;
    let listener = support::bind(50051).await?;
    let address = listener.local_addr()?;
    let stop = support::stop_signal()?;
    println!("listening on http://{address}");
    let mut server = tokio::spawn(support::run(stop, |stop| serve(listener, stop)));
    if !serve_only {
        tokio::select! {
            played = play(address) => played?,
            served = &mut server => return Ok(served??), // stopped during the demonstration
        }
    }
    println!("\nServing the standard health service; Ctrl-C ends it.");
    Ok(server.await??)
}
