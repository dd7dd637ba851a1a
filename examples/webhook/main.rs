//! Webhooks and payments that run once, however often they are sent.
//!
//! ```text
//! cargo run --example webhook --features idempotency,sqlite     # on 127.0.0.1:3000, all in memory
//! export TOLLGATE_SECRET=$(openssl rand -hex 16)                # the same for all processes of a database
//! DB=shop.db PORT=8080 cargo run --example webhook --features idempotency,sqlite
//! DATABASE_URL=postgres://shop@localhost/shop cargo run --example webhook --features idempotency,sqlite,postgres
//! ```
//!
//! `POST /payments` needs the header `x-api-key`, `alice-key` or `bob-key`, and `idempotency-key`. The payment is made, and
//! its answer stored. With `?ms=N` it takes N milliseconds more, with `?fail=1` it is not made and answers 500:
//!
//! | answer | when |
//! |---|---|
//! | 201 | the payment was made |
//! | 201 with `Idempotent-Replayed: true` | it was made before; it is not made again |
//! | 400 | the key is missing, twice there, or not 1 to 255 visible characters |
//! | 401 | the API key is missing or wrong |
//! | 409 with `Retry-After` | the same payment is being made |
//! | 409 with the code `operation_outcome_unknown` | the process died while it made the payment, unless `AFTER_LEASE=rerun` |
//! | 413 | the body is longer than 64 KiB |
//! | 422 | the key was used for another payment |
//! | 500 | the payment failed; the same key may be sent again |
//! | 503 | the database is unavailable: nothing was done |
//!
//! In a database the payment is written in a transaction that is committed together with its record: a process that is killed
//! leaves both or neither. `AFTER_LEASE=rerun` lets the next request make a payment whose process died, which is safe then.
//!
//! `POST /webhook` needs the header `webhook-id`, and processes each event once. A delivery that comes meanwhile waits for
//! the first. If the process dies in between, the next delivery processes the event again.
//!
//! `GET /stats` returns how many `webhooks` and `payments` were really carried out, as JSON, `GET /operations` the payments
//! with an unknown outcome. `LEASE_MS` is the time after which a process that does not renew counts as dead, 30,000 by
//! default.
//!
//! A real service checks the signature of a webhook before all else, and has its API keys elsewhere.

mod server;
mod shop;

use server::support;

#[tokio::main]
async fn main() -> Result<(), support::ExampleError> {
    support::start(include_str!("main.rs"), None)?;
    let settings = server::Settings::from_env()?;
    let listener = support::bind(3000).await?;
    let (shop, store) = shop::Shop::open(&settings).await?;
    let stop = support::stop_signal()?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("payments in {}", shop.place());
    Ok(server::serve(listener, shop, store, &settings, stop).await?)
}
