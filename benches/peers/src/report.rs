//! Two tables: each goal and whether it is met, and each figure.

use std::{fs, process::Command};

use crate::race::Figure;

/// A goal.
#[derive(Clone, Copy)]
pub enum Goal {
    /// A row that only informs.
    None,
    /// At most this multiple of the peer's figure.
    AtMost(f64),
    /// At least this multiple of the peer's figure, both per second.
    AtLeast(f64),
    /// At most this many bytes.
    Bytes(f64),
    /// At most this multiple of the peer's bytes.
    BytesAtMost(f64),
}

/// One row of the table of goals.
pub struct Line {
    pub row: String,
    pub ours: f64,
    /// NaN without a peer.
    pub peer: f64,
    pub unit: &'static str,
    allocations: String,
    goals: Vec<String>,
    met: bool,
}

impl Line {
    /// A row of two figures.
    pub fn new(row: &str, ours: f64, peer: f64, goal: Goal) -> Self {
        let (text, met) = match goal {
            Goal::None => (None, true),
            Goal::Bytes(most) => (Some(format!("<= {most:.0} B")), ours <= most),
            Goal::AtMost(share) | Goal::BytesAtMost(share) => (Some(format!("<= {share}x")), ours <= share * peer),
            Goal::AtLeast(share) => (Some(format!(">= {share}x")), ours >= share * peer),
        };
        let unit = match goal {
            Goal::Bytes(_) | Goal::BytesAtMost(_) => "B",
            Goal::AtLeast(_) => "/s",
            Goal::AtMost(_) | Goal::None => "ns",
        };
        let goals = text.into_iter().collect();
        Self { row: row.into(), ours, peer, unit, allocations: String::new(), goals, met }
    }

    /// A row without a peer.
    pub fn alone(row: &str, ours: f64) -> Self {
        Self::new(row, ours, f64::NAN, Goal::None)
    }

    /// Also requires at most this many nanoseconds.
    pub fn at_most(mut self, nanos: f64) -> Self {
        self.met &= self.ours <= nanos;
        self.goals.push(format!("<= {nanos:.0} ns"));
        self
    }

    /// Also requires that no operation allocates.
    pub fn no_allocation(self, allocations: f64) -> Self {
        self.allocations(allocations, 0.0)
    }

    /// Also limits the allocations of an operation.
    pub fn allocations(mut self, allocations: f64, most: f64) -> Self {
        self.met &= allocations <= most + 0.01; // a table that grows once in a while is no allocation each time
        self.allocations = format!(", {allocations:.1} allocs");
        self.goals.push(format!("<= {most:.0} allocs"));
        self
    }

    /// Returns our cost as a multiple of the peer's: of their times, or of their bytes. NaN without a peer.
    pub fn ratio(&self) -> f64 {
        self.ours / self.peer
    }

    fn figure(&self, value: f64) -> String {
        match value {
            value if value.is_nan() => "-".to_owned(),
            value if value >= 1_000.0 => format!("{value:.0} {}", self.unit),
            value => format!("{value:.1} {}", self.unit),
        }
    }
}

/// Prints rows as they are added, so that a long run shows its progress.
pub struct Report {
    /// Processor, date and compiler.
    pub machine: String,
    pub lines: Vec<Line>,
    figures: Vec<String>,
}

impl Report {
    /// Prints the machine and the time.
    pub fn begin() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("?", |(_, name)| name);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let says = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.map_or_else(|_| "?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let (date, rustc) = (says("date", &["-u", "+%F %H:%M UTC"]), says("rustc", &["--version"]));
        let machine = format!("{model}, {cores} cores, {date}, {rustc}");
        println!("{machine}\n");
        Self { machine, lines: Vec::new(), figures: Vec::new() }
    }

    /// Adds a row to the table of goals.
    pub fn line(&mut self, line: Line) {
        eprintln!("{}: {} against {}", line.row, line.figure(line.ours), line.figure(line.peer));
        self.lines.push(line);
    }

    /// Adds all figures of a row; with a bare one, also the difference of the others.
    pub fn figures(&mut self, row: &str, figures: &[Figure], bare: Option<&Figure>) {
        for figure in figures {
            let over = bare.map_or("".into(), |bare| format!("{:+.1}", figure.over(bare)));
            let nanos = figure.nanos();
            let allocations = bare.map_or(figure.allocations, |bare| figure.allocations_over(bare));
            let allocations = if allocations.is_nan() { String::new() } else { format!("{allocations:.1}") };
            self.figures.push(format!("| {row} | {} | {nanos:.1} | {over} | {allocations} |", figure.name));
        }
    }

    /// Adds a figure of another kind.
    pub fn note(&mut self, row: &str, name: &str, text: &str) {
        self.figures.push(format!("| {row} | {name} | {text} | | |"));
    }

    /// Prints both tables.
    pub fn end(&self) {
        println!("| row | ours | peer | ours / peer | goal | met |\n|---|---|---|---|---|---|");
        for line in &self.lines {
            let (ours, peer) = (line.figure(line.ours), line.figure(line.peer));
            let ratio = if line.peer.is_nan() { "-".to_owned() } else { format!("{:.3}x", line.ratio()) };
            let (goal, met) = match (line.goals.is_empty(), line.met) {
                (true, _) => ("-".to_owned(), "-"),
                (false, met) => (line.goals.join(", "), if met { "yes" } else { "**no**" }),
            };
            println!("| {} | {ours}{} | {peer} | {ratio} | {goal} | {met} |", line.row, line.allocations);
        }
        println!("\n| row | contestant | ns | over bare | allocs |\n|---|---|---|---|---|");
        self.figures.iter().for_each(|figure| println!("{figure}"));
    }
}
