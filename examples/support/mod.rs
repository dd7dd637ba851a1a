//! Start and end of every example: its help, variables, first line, readable errors and shutdown.

use std::{error::Error, fmt, future::Future, pin::Pin, time::Duration};

use tokio::{net::TcpListener, sync::oneshot};

/// Longest time for running requests after a stop signal.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

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

/// Reads the arguments, which may be one `option`. Returns true if it was given. `--help` prints the head comment of
/// `source` and ends the program.
pub(crate) fn start(source: &str, option: Option<&str>) -> Result<bool, ExampleError> {
    let arguments: Vec<_> = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{}", head_comment(source));
        std::process::exit(0);
    }
    match arguments.iter().find(|argument| Some(argument.as_str()) != option) {
        None => Ok(!arguments.is_empty()),
        Some(other) => {
            let known = option.map_or_else(|| "--help".into(), |option| format!("{option} and --help"));
            Err(format!("the arguments may be {known}, got {other:?}").into())
        }
    }
}

/// Returns the module documentation of a source, without its marks and code fences.
fn head_comment(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).filter(|line| !line.starts_with("```"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Returns a variable of the environment, `None` if it is not set. An empty one is an error.
pub(crate) fn variable(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Err(format!("{name} must not be empty: set it, or leave it out")),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(text)) => Err(format!("{name} must be UTF-8, got {text:?}")),
    }
}

/// Listens on `PORT` of 127.0.0.1, or on `port`. A program calls it before it makes any file.
pub(crate) async fn bind(port: u16) -> Result<TcpListener, ExampleError> {
    let port = match variable("PORT")? {
        Some(text) => text.parse().map_err(|_| format!("PORT must be from 0 to 65535, got {text:?}"))?,
        None => port,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    Ok(listener.map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; choose another with PORT=..."))?)
}

/// Signal to stop, as servers take it.
pub(crate) type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a server until `stop` completes. Then it must accept nothing new and finish its requests; after [`GRACE`] those
/// that still run are dropped.
pub(crate) async fn run<S, E>(stop: Stop, server: impl FnOnce(Stop) -> S) -> Result<(), E>
where
    S: Future<Output = Result<(), E>>,
{
    let (stopping, stopped) = oneshot::channel();
    let server = server(Box::pin(async move {
        stop.await;
        let _ = stopping.send(());
    }));
    let too_long = async {
        let _ = stopped.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => served,
        () = too_long => {
            eprintln!("dropped requests that still ran {} s after the stop signal", GRACE.as_secs());
            Ok(())
        }
    }
}

/// Returns a future that completes on Ctrl-C or on the signal of a supervisor. From this call on they no longer end the
/// process, so that it comes before the program says that it listens.
pub(crate) fn stop_signal() -> Result<Stop, ExampleError> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Box::pin(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }))
    }
    #[cfg(not(unix))]
    Ok(Box::pin(async { drop(tokio::signal::ctrl_c().await) }))
}
