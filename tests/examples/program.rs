//! Builds and runs an example.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Names of the examples that serve.
pub(crate) const SERVERS: [&str; 6] = ["quickstart", "grpc", "scan_api", "billing", "metrics", "webhook"];

/// Variables that an example reads.
const VARIABLES: [&str; 10] = [
    "PORT",
    "MAX_CONCURRENT",
    "DAILY_BYTES",
    "DB",
    "DATABASE_URL",
    "LIMIT",
    "ADMIN_TOKEN",
    "TOLLGATE_SECRET",
    "LEASE_MS",
    "AFTER_LEASE",
];

/// Returns the directory of the built examples. `cargo test --test examples` builds none, so that this asks cargo,
/// which has nothing to do after `cargo test --all-targets`.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--offline", "--quiet", "--examples", "--features", &features()]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        profile.join("examples")
    })
}

/// Returns the features of this build, so that cargo takes the crate as it is built already.
fn features() -> String {
    let all = [
        ("conformance", cfg!(feature = "conformance")),
        ("idempotency", cfg!(feature = "idempotency")),
        ("metrics", cfg!(feature = "metrics")),
        ("postgres", cfg!(feature = "postgres")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("tracing", cfg!(feature = "tracing")),
        ("zones", cfg!(feature = "zones")),
    ];
    all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

/// Returns the command of an example, with none of its variables but those given.
pub(crate) fn command(example: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(built().join(example));
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command.envs(variables.iter().copied());
    command
}

/// Runs an example that ends by itself.
pub(crate) fn run(example: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(example, variables).args(arguments).output().unwrap()
}

/// An example that serves, killed on drop.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    errors: Option<JoinHandle<String>>,
}

impl Server {
    /// Starts an example on a free port, and waits for its address.
    pub(crate) fn start(example: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = command(example, variables);
        command.env("PORT", "0").stdout(Stdio::piped()).stderr(Stdio::piped());
        if ["quickstart", "grpc"].contains(&example) {
            command.arg("--serve");
        }
        let mut process = command.spawn().unwrap();
        let mut errors = process.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("listening on http://").map(String::from)).unwrap();
        thread::spawn(move || lines.for_each(drop)); // a full pipe would block the server
        Self { process, address, errors: Some(errors) }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; returns its status and the text on stderr.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let status = self.process.wait().unwrap();
        (status, self.errors.take().unwrap().join().unwrap())
    }

    /// Sends a request and returns the status and the body; `None` if the connection ends before them, or nothing
    /// comes for 300 s.
    pub(crate) fn ask(address: &str, line: &str, headers: &str) -> Option<(u16, String)> {
        Self::send(address, line, headers, "")
    }

    /// Sends a request with a body, as [`ask`](Self::ask).
    pub(crate) fn send(address: &str, line: &str, headers: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(300))).ok()?;
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}");
        write!(stream, "{head}\r\n{body}").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
