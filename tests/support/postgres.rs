//! PostgreSQL servers of tests, each on a port and in a directory of its own.
#![allow(dead_code, reason = "its users need different parts")]

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio, id},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

/// A PostgreSQL server. It can be killed and restarted with the data that reached its disk.
///
/// A shell beside it waits for the end of this process, however that comes; then it stops the server and removes its
/// files.
#[derive(Debug)]
pub(crate) struct Postgres {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    guard: Mutex<Option<Child>>,
}

/// Starts the server and waits. At the end of input it stops the server and removes all files; on `stop` it only stops
/// the server; on `keep` it exits once the server has ended.
const GUARD: &str = r#"
"$1/postgres" -D "$2/data" -k "$2" -h 127.0.0.1 -p "$3" -c max_connections=200 -c shared_buffers=256MB \
    -c max_wal_size=2GB $4 >>"$2/log" 2>&1 &
server=$!
read -r word
if test "$word" = keep; then
    wait "$server" # it was killed
    exit 0
fi
kill -INT "$server"
wait "$server"
test "$word" = stop && exit 0
rm -rf "$2"
"#;

impl Postgres {
    /// Returns the one server of this process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(""))
    }

    /// Starts a server; `options` are for its command line, such as `-c fsync=off`.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    pub(crate) fn start(options: &str) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let programs = programs().expect(
            "PostgreSQL is not installed: `bash tests/run --install` does it, or on Debian `apt-get install postgresql`",
        );
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("tollgate-postgres-{}-{number}", id()));
        fs::create_dir(&directory).expect("a directory for the server");
        let directory = directory.canonicalize().expect("its name");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&directory));
        }
        let data = directory.join("data");
        run(unprivileged(programs.join("initdb")).args(["-D", text(&data), "-U", "postgres", "-A", "trust"]).args([
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]));
        let mut server = Self { programs, directory, port: 0, guard: Mutex::default() };
        loop {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
            server.port = free.expect("a port").port();
            if server.listens(options) {
                return server;
            }
            server.stop(); // another program has taken the port since
        }
    }

    /// Starts the server again and waits until it answers.
    ///
    /// # Panics
    /// If it does not answer within 300 s, or another program has taken its port.
    pub(crate) fn again(&self, options: &str) {
        assert!(self.listens(options), "another program has taken port {}", self.port);
    }

    /// Starts the server and waits until it answers; `false` if another program has its port.
    fn listens(&self, options: &str) -> bool {
        let log = || fs::read(self.directory.join("log")).unwrap_or_default();
        let before = log().len();
        let guard = unprivileged("sh".into())
            .args(["-c", GUARD, "sh", text(&self.programs), text(&self.directory), &self.port.to_string(), options])
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
        for _ in 0..3_000 {
            // Its socket, because another server may have the port.
            let mut asked = Command::new(self.programs.join("pg_isready"));
            asked.args(["-q", "-h", text(&self.directory), "-U", "postgres", "-p", &self.port.to_string()]);
            if asked.status().is_ok_and(|told| told.success()) {
                return true;
            }
            if String::from_utf8_lossy(&log()[before..]).contains("could not create any TCP/IP sockets") {
                return false;
            }
            sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start: {}", String::from_utf8_lossy(&log()));
    }

    /// Kills the server as a crash does: data that had not reached the disk is lost.
    pub(crate) fn kill(&self) {
        let pid = fs::read_to_string(self.directory.join("data/postmaster.pid")).expect("a server that runs");
        let pid = pid.lines().next().expect("its process").to_owned();
        // Stopped, it starts no further processes.
        run(Command::new("kill").args(["-STOP", &pid]));
        let children: Vec<_> = processes().into_iter().filter(|one| one.parent == pid).collect();
        if let Some(mut guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            run(Command::new("kill").args(["-9", &pid]));
            writeln!(guard.stdin.take().expect("its input"), "keep").expect("a shell that listens");
            guard.wait().expect("the shell ends");
        }
        let socket = format!(".s.PGSQL.{}", self.port);
        for left in ["data/postmaster.pid", &socket, &format!("{socket}.lock")] {
            let _ = fs::remove_file(self.directory.join(left));
        }
        // Its child processes end once they notice, and may write until then.
        while processes().iter().any(|one| children.iter().any(|child| child.id == one.id)) {
            sleep(Duration::from_millis(10));
        }
    }

    /// Stops the server as an administrator does; it can be started again.
    pub(crate) fn stop(&self) {
        if let Some(mut guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            writeln!(guard.stdin.take().expect("its input"), "stop").expect("a shell that listens");
            guard.wait().expect("the shell ends");
        }
    }

    /// Returns its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates a database and returns its URL.
    pub(crate) fn database(&self) -> String {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// Runs statements as the superuser.
    pub(crate) fn sql(&self, database: &str, statements: &str) {
        let mut psql = Command::new(self.programs.join("psql"));
        run(psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database), "-c", statements]));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// Returns the programs of the newest version that Debian installed, or of the one in `PATH`.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    found.sort();
    let in_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|directory| directory.join("initdb").exists())
    };
    found.pop().map(|(_, programs)| programs).or_else(in_path)
}

/// A process that has not ended.
struct Process {
    id: String,
    parent: String,
}

/// Returns all processes of this machine that have not ended.
fn processes() -> Vec<Process> {
    let told = Command::new("ps").args(["-A", "-o", "pid=", "-o", "ppid=", "-o", "stat="]).output().expect("ps");
    let lines = String::from_utf8_lossy(&told.stdout).into_owned();
    let process = |line: &str| {
        let [id, parent, state] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        (!state.starts_with('Z')).then(|| Process { id: id.into(), parent: parent.into() })
    };
    lines.lines().filter_map(process).collect()
}

fn is_root() -> bool {
    let told = Command::new("id").arg("-u").output().expect("id");
    told.stdout.starts_with(b"0\n")
}

/// Returns a command that does not run as root, which PostgreSQL refuses; its package creates a user for it.
fn unprivileged(program: PathBuf) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

fn run(command: &mut Command) {
    let told = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(told.status.success(), "{command:?}: {}", String::from_utf8_lossy(&told.stderr));
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
