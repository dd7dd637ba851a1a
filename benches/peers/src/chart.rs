//! The chart of the README: each bar is our cost as a multiple of a peer's.

use std::fmt::Write;

use crate::report::{Line, Report};

/// A row of the report, its label, and the peer's name.
type Bar = (&'static str, &'static str, &'static str);

const REQUESTS: &[Bar] = &[
    ("admitted request, overhead", "admitted request", "tower_governor"),
    ("admitted request, overhead, 1 M clients", "... of a million clients", "tower_governor"),
    (
        "admitted request, overhead, with RateLimit fields against tower_governor, its headers",
        "... with rate limit headers",
        "tower_governor",
    ),
    ("admitted request, overhead, with RateLimit fields against axum_gcra", "", "axum_gcra"),
    ("refused request, overhead, against axum_gcra", "refused request", "axum_gcra"),
    ("refused request, overhead, against tower_governor", "", "tower_governor"),
    (
        "breaker closed, overhead, tollgate, last 100 against tower-resilience, last 100",
        "closed breaker, last 100 calls",
        "tower-resilience",
    ),
    ("breaker closed, overhead, tollgate, last 100 against recloser, last 100", "", "recloser"),
    ("breaker closed, overhead, tollgate, last 10 s against failsafe, last 10 s", "... last 10 seconds", "failsafe"),
    (
        "bucket and breaker, overhead, tollgate, nested",
        "bucket and breaker, nested",
        "tower_governor, tower-resilience",
    ),
    ("bucket and breaker, overhead, tollgate, one gate", "... in one gate", "tower_governor, tower-resilience"),
];

const DECISIONS: &[Bar] = &[
    ("keyed decision, text key, 10k keys", "10,000 keys", "governor"),
    ("keyed decision, 1 M keys, one at a time", "a million keys", "governor"),
    ("keyed decision, one hot key, 2 threads", "one key, two threads", "governor"),
];

const CHARGES: &[Bar] = &[
    ("PostgreSQL, spread accounts, 1 callers", "PostgreSQL, 1 caller", ""),
    ("PostgreSQL, spread accounts, 32 callers", "PostgreSQL, 32 callers", ""),
    ("PostgreSQL, spread accounts, 256 callers", "PostgreSQL, 256 callers", ""),
    ("PostgreSQL, one hot account, 32 callers", "PostgreSQL, 32 callers, one account", ""),
    ("PostgreSQL, one hot account, 256 callers", "PostgreSQL, 256 callers, one account", ""),
    ("SQLite, synchronous FULL, 1 callers", "SQLite, 1 caller", ""),
    ("SQLite, synchronous FULL, 32 callers", "SQLite, 32 callers", ""),
    ("SQLite, synchronous FULL, 256 callers", "SQLite, 256 callers", ""),
];

const PANELS: &[(&str, &[Bar])] = &[
    ("Time that a layer adds to a request, against another crate", REQUESTS),
    ("Time of a decision for a text key, without a request", DECISIONS),
    ("Durable charges, against one transaction for each", CHARGES),
];

/// Places of the columns, in pixels: labels, peers, bars, and the right ends of ratios and figures.
const LABELS: f64 = 14.0;
const PEERS: f64 = 218.0;
const BARS: f64 = 418.0;
const RATIOS: f64 = 702.0;
const FIGURES: f64 = 846.0;
const WIDTH: f64 = 860.0;
/// Length of a bar of the peer's cost.
const UNIT: f64 = 110.0;
/// Greatest multiple that is drawn to scale.
const MOST: f64 = 2.0;
const HIGH: f64 = 21.0;

/// Own colours on light and on dark pages. The first of each is readable on both, for viewers that know no preference.
const STYLE: &str = "\
    .text { fill: #777; } .faint { fill: #777; } .less { fill: #2a9d74; } .more { fill: #c9701a; } \
    .line { stroke: #777; }\n\
    @media (prefers-color-scheme: light) { .text { fill: #1f2328; } .faint { fill: #59636e; } \
    .less { fill: #1a7f5a; } .more { fill: #bc4c00; } .line { stroke: #59636e; } }\n\
    @media (prefers-color-scheme: dark) { .text { fill: #f0f6fc; } .faint { fill: #9198a1; } \
    .less { fill: #3fb68b; } .more { fill: #f0883e; } .line { stroke: #9198a1; } }";

/// Draws the rows of the report that the chart has. Rows that were not measured are left out.
pub fn draw(report: &Report) -> String {
    let mut drawing = Drawing { body: String::new(), y: 26.0, words: Vec::new() };
    drawing.text(
        LABELS,
        16.0,
        "text",
        "start",
        "tollgate's cost as a multiple of the other's: a shorter bar is better",
    );
    drawing.y += 8.0;
    for (title, bars) in PANELS {
        let lines = bars.iter().filter_map(|bar| {
            let line = report.lines.iter().find(|line| line.row == bar.0);
            if line.is_none_or(|line| !times(line).is_finite()) {
                eprintln!("chart: the run has no figure of \"{}\"", bar.0);
            }
            line.filter(|line| times(line).is_finite()).map(|line| (bar, line))
        });
        drawing.panel(title, &lines.collect::<Vec<_>>());
    }
    drawing.y += 32.0;
    drawing.text(LABELS, 11.0, "faint", "start", &report.machine);
    drawing.y += 16.0;
    let how =
        "Medians of rounds in turn, in one process, with cargo's default release profile. Dashed: the other's cost.";
    drawing.text(LABELS, 11.0, "faint", "start", how);
    let (height, words) = (drawing.y + 12.0, escaped(&drawing.words.join("; ")));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-labelledby=\"title desc\" font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', \
         sans-serif\">\n<title id=\"title\">Cost of tollgate beside other crates</title>\n\
         <desc id=\"desc\">{words}.</desc>\n<style>\n{STYLE}\n</style>\n{}</svg>\n",
        drawing.body
    )
}

/// Returns our time as a multiple of the peer's.
fn times(line: &Line) -> f64 {
    let ratio = line.ratio();
    let times = if line.unit == "/s" { ratio.recip() } else { ratio };
    if times > 0.0 { times } else { f64::NAN }
}

struct Drawing {
    body: String,
    y: f64,
    /// Sentences for readers who do not see the picture.
    words: Vec<String>,
}

impl Drawing {
    fn panel(&mut self, title: &str, lines: &[(&Bar, &Line)]) {
        let Some((_, first)) = lines.first() else { return };
        self.y += 28.0;
        self.text(LABELS, 13.0, "text", "start", title);
        let unit = if first.unit == "/s" { "tollgate / other, charges per s" } else { "tollgate / other, ns" };
        self.text(FIGURES, 11.0, "faint", "end", unit);
        let top = self.y + 8.0;
        for ((_, label, peer), line) in lines {
            self.y += HIGH;
            let times = times(line);
            let (class, drawn) = (if times <= 1.0 { "less" } else { "more" }, times.min(MOST));
            let long = (drawn * UNIT).max(1.0);
            self.text(LABELS, 12.5, "text", "start", label);
            self.text(PEERS, 11.5, "faint", "start", peer);
            let top = self.y - 11.0;
            writeln!(
                self.body,
                "<path class=\"{class}\" d=\"M{BARS} {top:.1}h{long:.1}{}h-{long:.1}z\"/>",
                // A bar that is not drawn to scale ends in a point.
                if times > MOST { "l7 6.5l-7 6.5" } else { "v13" }
            )
            .expect("a string");
            let shown = if times < 0.1 { format!("{times:.3}×") } else { format!("{times:.2}×") };
            self.text(RATIOS, 12.0, "text", "end", &shown);
            let figures = format!("{} / {}", figure(line.ours), figure(line.peer));
            self.text(FIGURES, 11.5, "faint", "end", &figures);
            let peer = if peer.is_empty() { "one transaction each" } else { peer };
            self.words.push(format!("{}: {shown} of {peer}", line.row));
        }
        let (x, bottom) = (BARS + UNIT, self.y + 6.0);
        writeln!(
            self.body,
            "<path class=\"line\" fill=\"none\" stroke-dasharray=\"3 3\" d=\"M{x} {top:.1}V{bottom:.1}\"/>"
        )
        .expect("a string");
    }

    fn text(&mut self, x: f64, size: f64, class: &str, anchor: &str, text: &str) {
        let (y, text) = (self.y, escaped(text));
        writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text>"
        )
        .expect("a string");
    }
}

/// Returns a whole number with commas between thousands.
fn figure(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
