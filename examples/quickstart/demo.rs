//! Real requests over a real socket, with a table of the responses.

use std::{error::Error, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

type Http = Client<HttpConnector, Empty<Bytes>>;

/// A client of the demonstration.
struct Visitor<'a> {
    http: &'a Http,
    address: SocketAddr,
    key: Option<&'a str>,
}

impl Visitor<'_> {
    async fn get(&self, path: &str) -> Result<Response<Bytes>, Box<dyn Error>> {
        let mut request = Request::get(format!("http://{}{path}", self.address));
        if let Some(key) = self.key {
            request = request.header("x-api-key", key);
        }
        let (head, body) = self.http.request(request.body(Empty::new())?).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    /// Sends a request and prints a row of the table.
    async fn row(&self, count: usize, path: &str, why: &str) -> Result<Response<Bytes>, Box<dyn Error>> {
        let mut answer = self.get(path).await?;
        for _ in 1..count {
            answer = self.get(path).await?;
        }
        let times = if count > 1 { format!("{count} x ") } else { String::new() };
        let asked = format!("{times}GET {path}");
        println!("  {:<8} {asked:<27} {:<24} {why}", self.key.unwrap_or("-"), answer.status().to_string());
        for name in ["ratelimit", "retry-after"] {
            for value in answer.headers().get_all(name) {
                println!("  {:<8} {:<27} {name}: {}", "", "", value.to_str()?);
            }
        }
        Ok(answer)
    }
}

fn heading(text: &str) {
    println!("\n{text}\n");
    println!("  {:<8} {:<27} {:<24} what happened", "client", "request", "answer");
    println!("  {:-<8} {:-<27} {:-<24} {:-<40}", "", "", "", "");
}

/// Waits for the time in `Retry-After`, as a well-behaved client does.
async fn wait(answer: &Response<Bytes>) -> Result<(), Box<dyn Error>> {
    let seconds: u64 = answer.headers()["retry-after"].to_str()?.parse()?;
    println!("  ... waits the {seconds} s that Retry-After asks for");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    Ok(())
}

/// Plays the demonstration.
pub(crate) async fn play(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let http = &Client::builder(TokioExecutor::new()).build_http();
    let visitor = |key| Visitor { http, address, key };
    let (alice, bob, stranger) = (visitor(Some("alice")), visitor(Some("bob")), visitor(None));

    heading("1. A token bucket: 5 requests a second for each client, 10 at once after a rest");
    println!("  (ratelimit: r = tokens left, t = seconds that they last, or until the next one)");
    alice.row(10, "/", "admitted: a full bucket holds 10").await?;
    let mut refused = alice.row(1, "/", "refused: the bucket is empty").await?;
    while refused.status() != StatusCode::TOO_MANY_REQUESTS {
        refused = alice.row(1, "/", "a slow machine: a token came back meanwhile").await?;
    }
    bob.row(1, "/", "admitted: bob has a bucket of his own").await?;
    stranger.row(1, "/", "admitted: without a key, the address is charged").await?;
    visitor(Some("guess-1")).row(1, "/", "admitted: an unknown key gains nothing, ...").await?;
    visitor(Some("guess-2")).row(1, "/", "... the same address is charged (see r=)").await?;
    wait(&refused).await?;
    alice.row(1, "/", "admitted again").await?;
    println!(
        "\n  What a refused client reads (application/problem+json):\n  {}",
        String::from_utf8_lossy(refused.body())
    );

    heading("2. A circuit breaker: opens after 3 failures in a row, tries again after some 2 s");
    stranger.row(1, "/flaky", "closed: the handler is fine").await?;
    stranger.row(3, "/flaky?status=503", "closed: the handler failed three times, ...").await?;
    let open = stranger.row(1, "/flaky", "open: refused at once, the handler is spared").await?;
    wait(&open).await?;
    stranger.row(1, "/flaky?status=503", "half-open: one probe passes and fails, ...").await?;
    let open = stranger.row(1, "/flaky", "open again, and for longer").await?;
    wait(&open).await?;
    stranger.row(1, "/flaky", "half-open: one probe passes and succeeds, ...").await?;
    stranger.row(1, "/flaky", "closed: requests pass").await?;
    Ok(())
}

/// Prints commands to try by hand.
pub(crate) fn invite(address: SocketAddr) {
    println!("\nTry it yourself (Ctrl-C ends the server):\n");
    println!("  curl -i http://{address}/                                  # admitted, with its fields");
    println!("  curl -i -H 'x-api-key: carol' http://{address}/            # carol's own bucket");
    println!(
        "  curl -s -o /dev/null -w '%{{http_code}} ' 'http://{address}/?[1-20]'; echo  # until the bucket is empty"
    );
    println!("  for i in $(seq 4); do curl -s -w ' %{{http_code}}\\n' 'http://{address}/flaky?status=503'; done");
    println!("  curl -i http://{address}/flaky                             # refused while the circuit is open");
}
