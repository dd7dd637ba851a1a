//! How every example begins: one option, one variable, one first line.

use std::error::Error;

use tokio::net::TcpListener;

/// Listens on `PORT` of 127.0.0.1, or on `port`, and says so. True with `--serve`: no demonstration is wanted.
pub(crate) async fn listen(port: u16) -> Result<(TcpListener, bool), Box<dyn Error>> {
    let serve_only = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--serve") => true,
        Some(other) => return Err(format!("the only option is --serve, got {other:?}").into()),
    };
    let port: u16 = match std::env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| format!("PORT must be from 0 to 65535, got {port:?}"))?,
        Err(_) => port,
    };
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; choose another with PORT=..."))?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok((listener, serve_only))
}
