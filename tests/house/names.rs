//! Holds names to their rules: one type for one name, and tests whose names fit on a line.

use std::{collections::BTreeMap, fs};

use crate::files::{files, relative};

/// Longest name of a function, in characters; names of tests are the longest.
const LONGEST: usize = 60;

/// Returns the name that `line` declares after one of the keywords, as an item that may be public.
fn declared<'a>(line: &'a str, keywords: &[&str]) -> Option<&'a str> {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || ["in", "const", "async", "unsafe"].contains(word) || word.ends_with(')')
    });
    let keyword = words.next()?;
    let name = words.next().filter(|_| keywords.contains(&keyword))?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

/// Returns the types that a source declares outside any block, with the numbers of their lines.
fn types(source: &str) -> Vec<(usize, &str)> {
    let top = (1..).zip(source.lines()).filter(|(_, line)| !line.starts_with([' ', '/', '#']));
    top.filter_map(|(number, line)| Some((number, declared(line, &["struct", "enum", "trait", "type", "union"])?)))
        .collect()
}

#[test]
fn no_type_name_is_declared_twice() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for file in files("src", &["rs"]) {
        let path = relative(&file);
        let is_test = path.split('/').any(|part| part == "tests" || part == "tests.rs");
        let source = fs::read_to_string(&file).unwrap();
        for (line, name) in types(&source).into_iter().filter(|_| !is_test) {
            places.entry(name.to_owned()).or_default().push(format!("{path}:{line}"));
        }
    }
    let twice: Vec<_> = places.into_iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "{} names are declared more than once: {twice:#?}", twice.len());
}

#[test]
fn function_names_fit() {
    let mut breaches = Vec::new();
    for file in ["src", "tests", "examples", "benches"].iter().flat_map(|folder| files(folder, &["rs"])) {
        let (path, source) = (relative(&file), fs::read_to_string(&file).unwrap());
        let names = (1..).zip(source.lines()).filter_map(|(number, line)| Some((number, declared(line, &["fn"])?)));
        breaches.extend(
            names.filter(|(_, name)| name.len() > LONGEST).map(|(number, name)| format!("{path}:{number}: {name}")),
        );
    }
    assert!(
        breaches.is_empty(),
        "{} names of more than {LONGEST} characters:\n{}",
        breaches.len(),
        breaches.join("\n")
    );
}

/// Returns the functions with a section on panics whose panic would not name the place of their caller.
fn own_panics(source: &str) -> Vec<&str> {
    let sections = source.split("/// # Panics").skip(1);
    let heads = sections.filter_map(|section| {
        let mut tracked = false;
        section.lines().find_map(|line| {
            tracked |= line.contains("#[track_caller]");
            Some((tracked, declared(line, &["fn"])?))
        })
    });
    heads.filter(|(tracked, _)| !tracked).map(|(_, name)| name).collect()
}

#[test]
fn functions_that_panic_track_their_caller() {
    let sources = files("src", &["rs"]).into_iter().map(|file| (relative(&file), fs::read_to_string(&file).unwrap()));
    let breaches: Vec<_> = sources
        .flat_map(|(path, source)| own_panics(&source).iter().map(|name| format!("{path}: {name}")).collect::<Vec<_>>())
        .collect();
    assert!(breaches.is_empty(), "no #[track_caller] on {breaches:#?}");
    let source =
        "/// # Panics\n/// Yes.\n#[track_caller]\npub fn a() {}\n/// # Panics\n/// If b.\npub const fn b() {}\n";
    assert_eq!(own_panics(source), ["b"]);
}

#[test]
fn declarations_are_recognized() {
    let source = "pub(crate) struct One<'a>(&'a ());\nenum Two {}\n    type Inner = ();\n// struct Three;\nfn f() {}\n";
    assert_eq!(types(source), [(1, "One"), (2, "Two")]);
    assert_eq!(declared("    pub(super) async fn long_name<T>(of: T) {", &["fn"]), Some("long_name"));
}
