//! Counts the lines of code in `src`, and holds files to a size at which one idea fits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::files::{files, relative, root};

/// Longest file, in lines of any kind.
const LONGEST: usize = 400;

/// Shortest file but `mod.rs` and crate roots, in lines of any kind.
const SHORTEST: usize = 40;

/// Returns whether attributes before an item make it part of tests only.
fn is_test(attribute: &str) -> bool {
    attribute.starts_with("#[cfg(")
        && !attribute.contains("not(")
        && !attribute.contains("any(")
        && ["test", "tollgate_loom", "doctest"]
            .iter()
            .any(|flag| attribute.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *flag))
}

/// Splits a source into lines of code outside tests, and the modules that it declares for tests only.
fn read(source: &str) -> (usize, Vec<String>) {
    let (mut code, mut modules) = (0, Vec::new());
    let mut lines = source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    while let Some(line) = lines.next() {
        if !is_test(line) {
            code += 1;
            continue;
        }
        // An item ends at its closing brace, or at a semicolon before any brace.
        let (mut depth, mut opened) = (0_i64, false);
        for line in lines.by_ref() {
            if line.starts_with("#[") && !opened {
                continue;
            }
            if let Some(name) =
                line.trim_start_matches("pub(crate) ").strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
            {
                modules.push(name.to_owned());
            }
            for c in line.chars() {
                depth += i64::from(c == '{') - i64::from(c == '}');
                opened |= c == '{';
            }
            if (opened && depth <= 0) || (!opened && line.ends_with([';', ','])) {
                break;
            }
        }
    }
    (code, modules)
}

/// Returns the file or folder of a module that a source declares.
fn place(source: &Path, module: &str) -> PathBuf {
    let folder = match source.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => source.parent().unwrap().to_path_buf(),
        _ => source.with_extension(""),
    };
    folder.join(module)
}

/// Returns the lines of code of each source file below `src`, without those that only tests compile.
fn code() -> BTreeMap<PathBuf, usize> {
    let sources: BTreeMap<_, _> = files("src", &["rs"])
        .into_iter()
        .map(|file| (file.clone(), read(&fs::read_to_string(file).unwrap())))
        .collect();
    let of_tests: BTreeSet<_> =
        sources.iter().flat_map(|(file, (_, modules))| modules.iter().map(|module| place(file, module))).collect();
    let is_test = |file: &Path| file.with_extension("").ancestors().any(|part| of_tests.contains(part));
    sources.into_iter().filter(|(file, _)| !is_test(file)).map(|(file, (code, _))| (file, code)).collect()
}

#[test]
fn files_hold_one_idea() {
    let mut breaches = Vec::new();
    for file in ["src", "tests", "examples", "benches"].iter().flat_map(|folder| files(folder, &["rs"])) {
        let (lines, path) = (fs::read_to_string(&file).unwrap().lines().count(), relative(&file));
        let may_be_short = ["mod.rs", "main.rs", "lib.rs"].iter().any(|name| file.ends_with(name));
        if lines > LONGEST || (lines < SHORTEST && !may_be_short && path.starts_with("src/")) {
            breaches.push(format!("{path}: {lines} lines"));
        }
    }
    assert!(
        breaches.is_empty(),
        "files of fewer than {SHORTEST} or more than {LONGEST} lines:\n{}",
        breaches.join("\n")
    );
}

/// Prints the table of `docs/performance.md`'s neighbour: `cargo test --test house lines_of_code -- --nocapture`.
#[test]
fn lines_of_code_are_counted() {
    let code = code();
    let mut modules = BTreeMap::<String, (usize, usize)>::new();
    for (file, lines) in &code {
        let path = file.strip_prefix(root().join("src")).unwrap();
        let module = path.iter().next().unwrap().to_string_lossy().into_owned();
        let (files, sum) = modules.entry(module).or_default();
        (*files, *sum) = (*files + 1, *sum + lines);
    }
    for (module, (files, lines)) in &modules {
        println!("{module:20} {files:4} files {lines:6} lines");
    }
    let total: usize = code.values().sum();
    println!("{:20} {:4} files {total:6} lines", "src", code.len());
    assert!(total > 0, "there is code");
}

#[test]
fn tests_docs_and_blanks_are_not_code() {
    let source = "//! Docs.\n\n/// More.\nfn code() {\n    // Comment.\n    one();\n}\n\n#[cfg(test)]\nmod tests;\n\n\
                  #[cfg(test)]\nmod inline {\n    fn f() {}\n}\n#[cfg(not(test))]\nfn also() {}\n";
    assert_eq!(read(source), (5, vec!["tests".to_owned()]));
}
