//! Holds the edges between the top-level modules of `src`: only those in [`ALLOWED`], no cycle, no root import.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// For each module, the modules that it may import. Nothing may import `ledger`, `conformance`,
/// `config`, `into_response` or `telemetry`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("head", &[]),
    ("circuit_state", &[]),
    ("policy_name", &["error"]),
    ("cost", &["error"]),
    ("kind", &["error", "policy_name"]),
    ("classify", &["head"]),
    ("time", &["error"]),
    ("backoff", &["time"]),
    ("sync", &["time"]),
    ("identity", &["error", "head"]),
    ("refusal", &["error", "head", "kind", "policy_name", "sync"]),
    ("gate", &["circuit_state", "error", "head", "identity", "policy_name", "refusal", "time"]),
    ("gates", &["error", "gate", "head", "identity", "refusal"]),
    ("token_bucket", &["cost", "error", "gate", "head", "identity", "policy_name", "refusal", "sync", "time"]),
    (
        "circuit_breaker",
        &[
            "backoff",
            "circuit_state",
            "classify",
            "error",
            "gate",
            "head",
            "identity",
            "policy_name",
            "refusal",
            "sync",
            "time",
        ],
    ),
    ("quota", &["cost", "error", "gate", "head", "identity", "kind", "policy_name", "refusal", "sync", "time"]),
    ("ledger", &["error", "gate", "identity", "kind", "policy_name", "quota", "refusal", "time"]),
    ("key_value", &["error", "identity", "sync", "time"]),
    ("idempotency", &["error", "head", "identity", "key_value", "policy_name", "refusal", "sync", "time"]),
    ("conformance", &["error", "gate", "head", "identity", "key_value", "kind", "quota", "refusal", "time"]),
    ("config", &["circuit_breaker", "error", "kind", "quota", "time", "token_bucket"]),
    ("into_response", &["circuit_breaker", "quota", "refusal", "time"]),
    ("telemetry", &["circuit_state", "gate", "policy_name", "refusal", "time"]),
];

/// An import of one module by another, and where it stands.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    at: String,
}

/// Returns the sources below a folder, each with its path from there.
fn sources(root: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                found.push((entry.strip_prefix(root).unwrap().to_path_buf(), text));
            }
        }
    }
    found.sort();
    found
}

/// Returns the top-level module of a file; `None` for the crate root.
fn module(file: &Path) -> Option<String> {
    let first = Path::new(file.components().next()?.as_os_str()).file_stem()?.to_str()?;
    (first != "lib").then(|| first.to_owned())
}

/// Returns a source with comments and string literals blanked, line by line. Doc links and examples are not imports.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Returns what follows each `crate::` in a source: one name, or all names of a group.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(heads(group).into_iter().map(|head| (line, head)));
        } else {
            found.push((line, name(rest)));
        }
    }
    found
}

fn name(text: &str) -> String {
    text.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// Returns the first name of each member of a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(name(&group[begin..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(name(&group[begin..at]));
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|head| !head.is_empty());
    found
}

/// Returns every edge between two modules, and every import that names no module.
fn edges(sources: &[(PathBuf, String)]) -> (Vec<Edge>, Vec<String>) {
    let modules: BTreeSet<_> = sources.iter().filter_map(|(file, _)| module(file)).collect();
    let (mut edges, mut root_imports) = (Vec::new(), Vec::new());
    for (file, text) in sources {
        let Some(from) = module(file) else { continue };
        for (line, to) in crate_paths(&code(text)) {
            let at = format!("src/{}:{line}", file.display());
            if !modules.contains(&to) {
                root_imports.push(format!("{at}: crate::{to}"));
            } else if to != from {
                edges.push(Edge { from: from.clone(), to, at });
            }
        }
    }
    (edges, root_imports)
}

/// Returns the breaches of a table of allowed edges.
fn breaches(edges: &[Edge], allowed: &[(&str, &[&str])]) -> Vec<String> {
    let allowed: BTreeMap<_, _> = allowed.iter().copied().collect();
    let is_allowed = |edge: &Edge| allowed.get(&*edge.from).is_some_and(|to| to.contains(&&*edge.to));
    let breach = |edge: &Edge| format!("{}: {} may not import {}", edge.at, edge.from, edge.to);
    edges.iter().filter(|edge| !is_allowed(edge)).map(breach).collect()
}

/// Returns the modules of a cycle, if there is one.
fn cycle(edges: &[Edge]) -> Option<BTreeSet<String>> {
    let mut left: BTreeSet<_> = edges.iter().map(|edge| (edge.from.clone(), edge.to.clone())).collect();
    loop {
        let sources: BTreeSet<_> = left.iter().map(|(from, _)| from.clone()).collect();
        let targets: BTreeSet<_> = left.iter().map(|(_, to)| to.clone()).collect();
        let before = left.len();
        left.retain(|(from, to)| sources.contains(to) && targets.contains(from));
        if left.is_empty() {
            return None;
        }
        if left.len() == before {
            return Some(sources);
        }
    }
}

fn this_crate() -> Vec<(PathBuf, String)> {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn edges_between_modules_are_those_of_the_table() {
    let (edges, _) = edges(&this_crate());
    assert!(edges.len() > 100, "the test found {} edges", edges.len());
    let breaches = breaches(&edges, ALLOWED);
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn modules_form_no_cycle() {
    assert_eq!(cycle(&edges(&this_crate()).0), None);
}

#[test]
fn imports_name_the_defining_module() {
    let (_, root_imports) = edges(&this_crate());
    assert!(root_imports.is_empty(), "\n{}", root_imports.join("\n"));
}

#[test]
fn table_names_every_module_and_no_other() {
    let modules: BTreeSet<_> = this_crate().iter().filter_map(|(file, _)| module(file)).collect();
    let named: BTreeSet<_> = ALLOWED.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(modules, named);
    assert!(ALLOWED.iter().all(|(_, to)| {
        ["ledger", "conformance", "config", "into_response", "telemetry"].iter().all(|top| !to.contains(top))
    }));
}

/// A bare catch drops the payload of the panic, whose `Drop` may panic.
#[test]
fn panics_are_caught_in_one_place() {
    let bare = |(file, text): &(PathBuf, String)| {
        let is_test = file.components().any(|part| part.as_os_str() == "tests");
        let is_catch = !is_test && text.contains("catch_unwind");
        is_catch.then(|| file.display().to_string())
    };
    assert_eq!(this_crate().iter().filter_map(bare).collect::<Vec<_>>(), ["gate/panics.rs"]);
}

/// Each check finds a planted breach.
mod planted {
    use super::*;

    fn planted(files: &[(&str, &str)]) -> Vec<(PathBuf, String)> {
        files.iter().map(|(file, text)| (PathBuf::from(file), (*text).to_owned())).collect()
    }

    #[test]
    fn breach_of_the_table_is_found() {
        let sources = planted(&[("quota/mod.rs", "use crate::{\n    ledger::{Spool, Ledger},\n};"), ("ledger.rs", "")]);
        let (edges, _) = edges(&sources);
        assert_eq!(breaches(&edges, ALLOWED), ["src/quota/mod.rs:1: quota may not import ledger"]);
    }

    #[test]
    fn path_in_an_expression_is_an_edge() {
        let sources = planted(&[("gate/a.rs", "fn f() { let x: crate::quota::Plan = y; }"), ("quota.rs", "")]);
        assert_eq!(breaches(&edges(&sources).0, ALLOWED), ["src/gate/a.rs:1: gate may not import quota"]);
    }

    #[test]
    fn cycle_is_found() {
        let a = ("a.rs", "use crate::b::B;");
        let sources = planted(&[a, ("b.rs", "use crate::{c::{C, D}, d};"), ("c.rs", "use crate::a::A;"), ("d.rs", "")]);
        assert_eq!(cycle(&edges(&sources).0), Some(["a", "b", "c"].map(String::from).into()));
    }

    #[test]
    fn root_import_is_found_and_a_doc_link_is_not() {
        let text = "/// See [`X`](crate::X).\nuse crate::{Client, gate::Gate};";
        let (_, found) = edges(&planted(&[("quota/a.rs", text), ("gate.rs", "")]));
        assert_eq!(found, ["src/quota/a.rs:2: crate::Client"]);
    }
}
