//! Start of every example: one option, one variable, one first line, and readable errors.

use std::{error::Error, fmt};

use tokio::net::TcpListener;

/// Error that ends an example, shown as its text: `main` prints an error's `Debug` form.
pub(crate) struct ExampleError(Box<dyn Error>);

impl<E: Into<Box<dyn Error>>> From<E> for ExampleError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for ExampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Listens on `PORT` of 127.0.0.1, or on `port`, and prints the address. Returns true with `--serve`, which skips the
/// demonstration.
pub(crate) async fn listen(port: u16) -> Result<(TcpListener, bool), ExampleError> {
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
