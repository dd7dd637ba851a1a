//! Compares the public items with the list in `tests/house/public_api.txt`, so that no change to them is an accident.
//!
//! An item that is `pub` can be reached from outside, because the lint `unreachable_pub` forbids all others. The list
//! is made of tokens, so that it has the methods that macros write too, and each call of such a macro.

use std::{collections::BTreeSet, fmt::Write as _, fs, str::FromStr as _};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::files::{files, relative, root};

const LIST: &str = "tests/house/public_api.txt";

/// Words that begin an item with a body of items of its own.
const OPENS: [&str; 2] = ["impl", "mod"];

#[test]
fn public_items_are_those_of_the_list() {
    let now = all();
    let list = root().join(LIST);
    if std::env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&list, &now).unwrap();
    }
    let before = fs::read_to_string(&list).unwrap();
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), now.lines().collect());
    let gone = was.difference(&is).map(|line| format!("- {line}\n"));
    let changes: String = gone.chain(is.difference(&was).map(|line| format!("+ {line}\n"))).collect();
    assert!(
        changes.is_empty(),
        "the public items have changed:\n{changes}If that is meant, say so in CHANGELOG.md and run\n\
         UPDATE_PUBLIC_API=1 cargo test --test house public_items"
    );
}

#[test]
fn a_changed_signature_changes_the_list() {
    let list = |source: &str| {
        let mut lines = Vec::new();
        let tokens = TokenStream::from_str(source).unwrap();
        items(tokens.clone(), "m", &Known::of([&tokens].into_iter()), &mut lines);
        lines
    };
    let source = "/// Doc.\n pub struct Rate<'a>(&'a u64, pub u8); impl<'a> Rate<'a> { #[must_use] pub const fn per(self, n: u32) -> \
        Option<Self> { None } pub(crate) fn hidden() {} fn own() {} } impl Clone for Rate<'_> { fn clone(&self) -> Self {} } \
        #[cfg(test)] mod tests { pub fn of_a_test() {} } macro_rules! setters { () => { pub fn named(self) -> Self { self } } } \
        pub enum Level { Low, High { by: u8 } } pub trait Judge { fn judge(&self) -> u8 { 3 } } impl Clone for Hidden {}";
    let expected = [
        "m: pub struct Rate<'a>(pub u8);",
        "m: impl<'a> Rate<'a>: pub const fn per(self, n: u32) -> Option<Self>",
        "m: impl Clone for Rate<'_>",
        "m: macro setters: pub fn named(self) -> Self",
        "m: pub enum Level{Low, High{by: u8}}",
        "m: pub trait Judge{fn judge(&self) -> u8}",
    ];
    assert_eq!(list(source), expected);
    assert_ne!(list(&source.replace("n: u32", "n: u64")), expected);
    assert_ne!(list(&source.replace("Low,", "")), expected);
    assert_ne!(list(&source.replace("own()", "own(&self)").replace("judge(&self)", "judge(self)")), expected);
}

#[test]
fn macros_and_attributes_hide_no_change() {
    let source = "macro_rules! setters { ($Layer:ident) => { impl $Layer { pub fn named(self) -> Self { self } } } } \
        setters!(Rate, \"an example\"); #[derive(Clone, Copy)] #[must_use] #[non_exhaustive] pub struct Rate; \
        foreign! { pub struct Future<F> { #[pin] f: F, #[cfg(feature = \"x\")] pub g: u8 } } \
        impl Iterator for Rate { type Item = u8; const MOST: usize = { 3 }; fn next(&mut self) -> Option<u8> { None } } \
        #[macro_export] macro_rules! all { () => {} } #[cfg(feature = \"x\")] impl Rate { pub fn gated() {} }";
    let mut lines = Vec::new();
    let tokens = TokenStream::from_str(source).unwrap();
    items(tokens.clone(), "m", &Known::of([&tokens].into_iter()), &mut lines);
    let expected = [
        "m: macro setters: impl $ Layer: pub fn named(self) -> Self",
        "m: setters!(Rate);",
        "m: #[derive(Clone, Copy)] #[non_exhaustive] pub struct Rate;",
        "m: pub struct Future<F>{#[cfg(feature = \"x\")] pub g: u8}",
        "m: impl Iterator for Rate type Item = u8; const MOST: usize",
        "m: macro all",
        "m: #[cfg(feature = \"x\")] impl Rate: pub fn gated()",
    ];
    assert_eq!(lines, expected);
}

/// Returns a line for each public item of the crate, sorted.
fn all() -> String {
    let is_test = |path: &str| path.contains("/tests/") || path.ends_with("/tests.rs");
    let sources: Vec<_> = files("src", &["rs"])
        .iter()
        .map(|path| (relative(path), fs::read_to_string(path).unwrap()))
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (module(&path), TokenStream::from_str(&text).unwrap()))
        .collect();
    let mut lines = features();
    let known = Known::of(sources.iter().map(|(_, tokens)| tokens));
    for (module, tokens) in sources {
        items(tokens, &module, &known, &mut lines);
    }
    lines.sort();
    lines.dedup();
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    })
}

/// Returns a line for each feature.
fn features() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table = manifest.split("\n[").find_map(|table| table.strip_prefix("features]")).unwrap_or_default();
    let names =
        table.lines().filter_map(|line| line.split_once(" = ")).filter(|(name, _)| !name.starts_with(['#', ' ']));
    names.map(|(name, _)| format!("feature: {name}")).collect()
}

fn module(path: &str) -> String {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.replace('/', "::").replace("lib", "tollgate")
}

/// Names that the crate declares.
#[derive(Default)]
struct Known {
    /// Public types and traits.
    types: BTreeSet<String>,
    /// Macros that write public items.
    macros: BTreeSet<String>,
}

impl Known {
    fn of<'a>(sources: impl Iterator<Item = &'a TokenStream>) -> Self {
        let sources: Vec<_> = sources.cloned().collect();
        let mut known = Self { types: sources.iter().flat_map(types).collect(), ..Self::default() };
        let mut lines = Vec::new();
        sources.into_iter().for_each(|tokens| items(tokens, "", &known, &mut lines));
        let name = |line: &String| Some(line.strip_prefix(": macro ")?.split_once(": ")?.0.to_owned());
        known.macros = lines.iter().filter_map(name).collect();
        known
    }
}

/// Returns the names of the types and traits that are public.
fn types(tokens: &TokenStream) -> BTreeSet<String> {
    let (mut names, mut before) = (BTreeSet::new(), [String::new(), String::new()]);
    for token in tokens.clone() {
        if let TokenTree::Group(group) = &token {
            names.extend(types(&group.stream()));
        }
        let text = token.to_string();
        if before[0] == "pub" && ["struct", "enum", "trait", "type", "union"].contains(&&*before[1]) {
            names.insert(text.clone());
        }
        before = [std::mem::take(&mut before[1]), text];
    }
    names
}

/// Appends the public items among these tokens. What only tests compile is left out, and so are attributes that change
/// nothing for users.
fn items(tokens: TokenStream, place: &str, known: &Known, lines: &mut Vec<String>) {
    let (mut item, mut attributes) = (Vec::<TokenTree>::new(), Vec::new());
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                while let Some(TokenTree::Punct(_)) = tokens.peek() {
                    tokens.next();
                }
                attributes.extend(tokens.next());
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => {
                item.push(token);
                end(&std::mem::take(&mut item), None, &std::mem::take(&mut attributes), place, known, lines);
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_use(&item) => {
                end(&std::mem::take(&mut item), Some(group), &std::mem::take(&mut attributes), place, known, lines);
            }
            _ => item.push(token),
        }
    }
}

fn is_use(item: &[TokenTree]) -> bool {
    item.iter().any(|token| matches!(token, TokenTree::Ident(ident) if ident == "use"))
}

/// Whether a user notices the attribute: derived traits, a feature, or that a match needs another arm.
fn is_shown(attribute: &TokenTree) -> bool {
    let text = attribute.to_string().replace(' ', "");
    ["[derive(", "[cfg(", "[cfg_attr(feature", "[non_exhaustive]", "[macro_export]"]
        .iter()
        .any(|shown| text.starts_with(shown))
}

/// Appends an item that ends with this body, or with a semicolon.
fn end(
    item: &[TokenTree],
    body: Option<&Group>,
    attributes: &[TokenTree],
    place: &str,
    known: &Known,
    lines: &mut Vec<String>,
) {
    if attributes.iter().any(|attribute| attribute.to_string().replace(' ', "") == "[cfg(test)]") {
        return;
    }
    let shown = attributes.iter().filter(|attribute| is_shown(attribute));
    let shown: String = shown.map(|attribute| format!("#{} ", text(attribute.clone().into()))).collect();
    let head = format!("{shown}{}", text(item.iter().cloned().collect()));
    let words: Vec<_> = item.iter().take(3).map(ToString::to_string).collect();
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let is_public = word(0) == "pub" && !matches!(item.get(1), Some(TokenTree::Group(_)));
    match body {
        Some(body) if word(0) == "macro_rules" => {
            let name = item.last().map(ToString::to_string).unwrap_or_default();
            if shown.contains("macro_export") {
                lines.push(format!("{place}: macro {name}"));
            }
            for token in body.stream() {
                if let TokenTree::Group(arm) = token {
                    items(arm.stream(), &format!("{place}: macro {name}"), known, lines);
                }
            }
        }
        _ if word(1) == "!" && known.macros.contains(word(0)) => {
            let given = item.iter().cloned().chain(body.cloned().map(TokenTree::from)).collect();
            lines.push(format!("{place}: {}", text(without_texts(without_bodies(given)))));
        }
        // Of another crate, such as `pin_project`: its items are those of the body.
        Some(body) if word(1) == "!" => items(body.stream(), place, known, lines),
        Some(body) if OPENS.contains(&word(0)) || (is_public && word(1) == "mod") => {
            let of = |name: &str| known.types.contains(name) || name == "$";
            let names = item.iter().filter(|token| of(&token.to_string())).count();
            if head.contains(" for ") && names > 0 {
                lines.push(format!("{place}: {head}{}", associated(body.stream())));
            } else {
                items(body.stream(), &format!("{place}: {head}"), known, lines);
            }
        }
        Some(body) if is_public && ["struct", "enum", "trait", "union"].contains(&word(1)) => {
            let shown = if word(1) == "struct" { public_fields(body.stream()) } else { without_bodies(body.stream()) };
            lines.push(format!("{place}: {head}{{{}}}", text(shown)));
        }
        None if is_public && word(1) == "struct" => {
            let fields = item.iter().map(|token| match token {
                TokenTree::Group(group) => regroup(group, public_fields(group.stream())),
                token => token.clone(),
            });
            lines.push(format!("{place}: {shown}{}", text(fields.collect())));
        }
        _ if is_public => lines.push(format!("{place}: {head}")),
        _ => {}
    }
}

/// Returns the associated types and constants of an implementation, which are as public as its trait.
fn associated(body: TokenStream) -> String {
    let (mut all, mut item) = (String::new(), Vec::new());
    for token in without_bodies(body) {
        let text_of = token.to_string();
        item.push(token);
        if text_of == ";" || text_of.starts_with('{') {
            let mut item = std::mem::take(&mut item);
            if item[0].to_string() == "const" && item.get(1).is_some_and(|next| next.to_string() != "fn") {
                item.truncate(item.iter().position(|token| token.to_string() == "=").unwrap_or(item.len()));
            } else if item[0].to_string() != "type" {
                continue;
            }
            let _ = write!(all, " {}", text(item.into_iter().collect()));
        }
    }
    all
}

/// Removes texts, such as those of examples.
fn without_texts(tokens: TokenStream) -> TokenStream {
    let kept = tokens.into_iter().filter(|token| !matches!(token, TokenTree::Literal(_)));
    kept.map(|token| match &token {
        TokenTree::Group(group) => regroup(group, without_texts(group.stream())),
        _ => token,
    })
    .collect()
}

/// Removes attributes, and the bodies of methods.
fn without_bodies(tokens: TokenStream) -> TokenStream {
    let (mut kept, mut in_method) = (Vec::new(), false);
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(attribute) = tokens.next().filter(is_shown) {
                    kept.extend([token, attribute]);
                }
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && in_method => in_method = false,
            TokenTree::Ident(ident) if ident == "fn" => {
                in_method = true;
                kept.push(token);
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => {
                in_method = false;
                kept.push(token);
            }
            TokenTree::Group(group) => kept.push(regroup(group, without_bodies(group.stream()))),
            _ => kept.push(token),
        }
    }
    kept.into_iter().collect()
}

fn regroup(group: &Group, tokens: TokenStream) -> TokenTree {
    Group::new(group.delimiter(), tokens).into()
}

/// Keeps the fields that are public.
fn public_fields(tokens: TokenStream) -> TokenStream {
    let (mut kept, mut field, mut depth) = (Vec::new(), Vec::<TokenTree>::new(), 0_i32);
    let mut close = |field: Vec<TokenTree>| {
        let is_mark = |token: &&TokenTree| {
            let text = token.to_string();
            text == "#" || text.starts_with('[')
        };
        let mut visible = field.iter().skip_while(is_mark);
        let is_public = visible.next().is_some_and(|first| first.to_string() == "pub")
            && !matches!(visible.next(), Some(TokenTree::Group(_)));
        if is_public {
            kept.extend(field);
        }
    };
    for token in without_bodies(tokens) {
        let mark = if let TokenTree::Punct(punct) = &token { punct.as_char() } else { ' ' };
        depth += i32::from(mark == '<') - i32::from(mark == '>');
        field.push(token);
        if mark == ',' && depth == 0 {
            close(std::mem::take(&mut field));
        }
    }
    close(field);
    kept.into_iter().collect()
}

/// Returns tokens as a person writes them, as far as that is simple.
fn text(tokens: TokenStream) -> String {
    let mut text = tokens.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for (from, to) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" ::", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" <", "<"),
        (" >", ">"),
        ("& ", "&"),
        (" ,", ","),
        (" ;", ";"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" [", "["),
        ("[ ", "["),
        (" ]", "]"),
        (" :", ":"),
        (" {", "{"),
        ("{ ", "{"),
        (" }", "}"),
        (" !", "!"),
        (" ?", "?"),
        ("? ", "?"),
        ("->", " -> "),
        ("  ", " "),
        (",}", "}"),
        (", }", "}"),
        (",>", ">"),
        (",)", ")"),
        ("pub(", "pub ("),
    ] {
        text = text.replace(from, to);
    }
    text
}
