//! Two tables: each goal and whether it is met, and each figure.

use std::{fs, process::Command};

use crate::race::Figure;

/// A goal.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most this many nanoseconds.
    Nanos(f64),
    /// At most this multiple of the peer's figure.
    AtMost(f64),
    /// The peer's figure divided by ours is at least this.
    TimesLess(f64),
    /// At least this multiple of the peer's figure.
    AtLeast(f64),
    /// At most this many bytes.
    Bytes(f64),
    /// At most this multiple of the peer's bytes.
    BytesAtMost(f64),
}

/// One row of the table of goals.
pub struct Line {
    row: String,
    ours: String,
    peer: String,
    ratio: String,
    goal: String,
    met: bool,
}

impl Line {
    /// A row of two figures.
    pub fn new(row: &str, ours: f64, peer: f64, goal: Goal) -> Self {
        let (ratio, text, met) = match goal {
            Goal::Nanos(most) => (ours / peer, format!("<= {most:.0} ns"), ours <= most),
            Goal::Bytes(most) => (ours / peer, format!("<= {most:.0} B"), ours <= most),
            Goal::AtMost(share) | Goal::BytesAtMost(share) => {
                (ours / peer, format!("<= {share}x"), ours <= share * peer)
            }
            Goal::AtLeast(share) => (ours / peer, format!(">= {share}x"), ours >= share * peer),
            Goal::TimesLess(times) => {
                (ours / peer, format!("{times}x less, <= {:.3}x", 1.0 / times), ours * times <= peer)
            }
        };
        let unit = match goal {
            Goal::Bytes(_) | Goal::BytesAtMost(_) => "B",
            Goal::AtLeast(_) => "/s",
            _ => "ns",
        };
        let figure =
            |value: f64| if value >= 1_000.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") };
        Self { row: row.into(), ours: figure(ours), peer: figure(peer), ratio: format!("{ratio:.3}x"), goal: text, met }
    }

    /// A row of the whole time of two contestants, of which ours must be `times` faster.
    pub fn times_faster(row: &str, ours: &Figure, peer: &Figure, times: f64) -> Self {
        Self::new(row, ours.nanos(), peer.nanos(), Goal::TimesLess(times))
    }

    /// Also requires that no operation allocates.
    pub fn no_allocation(self, allocations: f64) -> Self {
        self.allocations(allocations, 0.0)
    }

    /// Also limits the allocations of an operation.
    pub fn allocations(mut self, allocations: f64, most: f64) -> Self {
        self.met &= allocations <= most + 0.01; // a table that grows once in a while is no allocation each time
        self.ours += &format!(", {allocations:.1} allocs");
        self.goal += &format!(", <= {most:.0} allocs");
        self
    }
}

/// Prints rows as they are added, so that a long run shows its progress.
pub struct Report {
    lines: Vec<Line>,
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
        println!(
            "{model}, {cores} cores, {}, {}\n",
            says("date", &["-u", "+%F %H:%M UTC"]),
            says("rustc", &["--version"])
        );
        Self { lines: Vec::new(), figures: Vec::new() }
    }

    /// Adds a row to the table of goals.
    pub fn line(&mut self, line: Line) {
        eprintln!("{}: {} against {}", line.row, line.ours, line.peer);
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
    pub fn end(self) {
        println!("| row | ours | peer | ours / peer | goal | met |\n|---|---|---|---|---|---|");
        for Line { row, ours, peer, ratio, goal, met } in self.lines {
            println!("| {row} | {ours} | {peer} | {ratio} | {goal} | {} |", if met { "yes" } else { "**no**" });
        }
        println!("\n| row | contestant | ns | over bare | allocs |\n|---|---|---|---|---|");
        self.figures.iter().for_each(|figure| println!("{figure}"));
    }
}
