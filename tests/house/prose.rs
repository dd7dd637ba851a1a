//! Holds the prose of the repository to its rules: openers of comments, and actors.

use std::fs;

use crate::files::{files, relative};

/// Words that no doc comment begins with: such a clause names neither a thing nor an action.
const OPENERS: &[&str] = &[
    "What", "How", "Whose", "Who", "Whoever", "Where", "So many", "So much", "So long", "So often", "As many",
    "As much", "By what",
];

/// Words that hide which component acts.
const PRONOUNS: &[&str] = &[
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "whoever",
    "someone",
    "anyone",
    "everyone",
    "no one",
    "one another's",
];

/// Folders and files that are read.
const READ: &[&str] = &[
    "src",
    "tests",
    "examples",
    "benches",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];

/// Returns whether `text` begins with `words`, as whole words.
fn begins_with(text: &str, words: &str) -> bool {
    text.strip_prefix(words).is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '\''))
}

/// Returns whether `line` holds `words`, as whole words in any case.
fn holds(line: &str, words: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices(words).any(|(at, _)| {
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !letter(line[..at].chars().next_back()) && !letter(line[at + words.len()..].chars().next())
    })
}

/// Returns the text of a doc comment's or a comment's line.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    ["///", "//!", "//"].iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim_start)
}

/// Returns the lines of a file that break a rule, each with its number and the rule.
fn offenders(text: &str, is_rust: bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_comment = false;
    for (number, line) in (1..).zip(text.lines()) {
        let comment = comment(line).filter(|_| is_rust);
        if let (Some(text), false) = (comment, in_comment) {
            let opener = OPENERS.iter().find(|opener| begins_with(text, opener));
            found.extend(opener.map(|opener| (number, format!("a comment opens with {opener:?}"))));
        }
        in_comment = comment.is_some();
        let pronoun = PRONOUNS.iter().find(|pronoun| holds(line, pronoun));
        found.extend(pronoun.map(|pronoun| (number, format!("{pronoun:?} names no component"))));
    }
    found
}

#[test]
fn prose_keeps_its_rules() {
    let mut all = Vec::new();
    for file in READ.iter().flat_map(|folder| files(folder, &["rs", "md"])) {
        let path = relative(&file);
        if path == "tests/house/prose.rs" {
            continue; // names the words
        }
        let text = fs::read_to_string(&file).unwrap();
        let found = offenders(&text, path.ends_with(".rs"));
        all.extend(found.into_iter().map(|(line, rule)| format!("{path}:{line}: {rule}")));
    }
    assert!(all.is_empty(), "{} breaches of the prose rules:\n{}", all.len(), all.join("\n"));
}

#[test]
fn planted_breaches_are_found() {
    let [first, second] = [PRONOUNS[2], PRONOUNS[4]];
    let planted = format!(
        "//! What a module holds.\n\n/// Returns the rate.\n/// Where it is set.\nfn f() {{}}\n\
         // So many spins.\n// Then {first} may call.\n// And {second} waits.\n"
    );
    let lines: Vec<_> = offenders(&planted, true).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [1, 6, 7, 8], "lines 7 and 8 continue a comment and are found for their actors");
}

#[test]
fn words_that_only_contain_a_forbidden_one_pass() {
    let fine =
        "/// Whatever is read.\n\n/// However it ends.\n\n/// Returns where the window starts.\n\n// Nobodyish.\n";
    assert_eq!(offenders(fine, true), [], "whole words only");
}
