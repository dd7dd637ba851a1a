//! Finds examples in the documentation whose assertions never run.

use std::fs;

use crate::files::{files, relative};

/// Returns the line of each example in a source that asserts something and is only compiled: it is marked `no_run`, or
/// its lines are the body of a function that nothing calls.
fn never_run(source: &str) -> Vec<usize> {
    let (mut found, mut block) = (Vec::new(), None);
    for (at, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let Some(text) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim) else {
            block = None;
            continue;
        };
        match (&mut block, text.strip_prefix("```")) {
            (None, Some(marks)) => block = Some((at + 1, marks.contains("no_run"), false)),
            (Some((begin, true, true)), Some(_)) => {
                found.push(*begin);
                block = None;
            }
            (Some(_), Some(_)) => block = None,
            (Some((_, compiled, asserts)), None) => {
                *compiled |= text.starts_with("# fn ") || text.starts_with("# async fn ");
                *asserts |= text.contains("assert!(") || text.contains("assert_eq!(");
            }
            (None, None) => {}
        }
    }
    found
}

#[test]
fn examples_that_assert_are_run() {
    let sources = files("src", &["rs"]);
    let all = sources.iter().flat_map(|path| {
        let source = fs::read_to_string(path).unwrap();
        never_run(&source).into_iter().map(|line| format!("{}:{line}", relative(path))).collect::<Vec<_>>()
    });
    assert_eq!(all.collect::<Vec<_>>(), Vec::<String>::new(), "run the example, or assert nothing in it");
}

#[test]
fn examples_that_are_only_compiled_are_found() {
    let compiled = "/// ```no_run\n/// assert!(true);\n/// ```\n";
    let uncalled = "    /// ```\n    /// # fn example() {\n    /// assert_eq!(1, 1);\n    /// # }\n    /// ```\n";
    let runs = "/// ```\n/// assert!(true);\n/// ```\n";
    let silent = "/// ```no_run\n/// println!();\n/// ```\n";
    assert_eq!(never_run(&[runs, compiled, silent, uncalled].concat()), [4, 10]);
}
