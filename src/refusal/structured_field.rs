//! Structured fields (RFC 9651): items with parameters, and lists to which several layers append items.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::buffer::Buffer;

/// Greatest length of a list that is preserved, in bytes.
const LONGEST: usize = 4096;

/// Greatest suffix of a repeated name, which is also the number of gates in a stack that are told apart.
const MOST_SUFFIX: u32 = u64::BITS;

/// Joins each field with its last line, which a gate has just appended, on one line. A malformed list is replaced.
///
/// Both fields of a gate name the same policies. If one of these names is present in either field, by a gate further in
/// or by the application, all names of the gate get the first free suffix from `-2` on: clients know policies by name.
#[inline(never)]
pub(super) fn merge(headers: &mut HeaderMap, fields: [Option<HeaderName>; 2]) {
    let merged = {
        let split = fields.each_ref().map(|field| Split::of(headers, field.as_ref()?));
        let ours = split.iter().flatten().next().map_or(&[][..], |split| split.ours);
        let taken = split.iter().flatten().fold(0, |taken, split| taken | split.taken(ours));
        let suffix = taken.trailing_ones().min(MOST_SUFFIX - 1) + 1;
        split.map(|split| split.filter(|split| suffix > 1 || split.present).and_then(|split| split.join(suffix)))
    };
    for (field, line) in fields.into_iter().zip(merged) {
        if let (Some(field), Some(line)) = (field, line) {
            let _ = headers.try_insert(field, line);
        }
    }
}

/// Lines of a field: those that were present, and that of the gate.
struct Split<'a> {
    /// The lines that were present, each with a separator after it; empty if one is malformed.
    theirs: Buffer<256>,
    /// Whether lines were present, malformed ones included.
    present: bool,
    ours: &'a [u8],
}

impl<'a> Split<'a> {
    fn of(headers: &'a HeaderMap, field: &HeaderName) -> Option<Self> {
        let mut lines = headers.get_all(field).iter().map(HeaderValue::as_bytes);
        let ours = lines.next_back()?;
        let mut split = Self { theirs: Buffer::new(), present: false, ours };
        for line in lines {
            split.present = true;
            if split.theirs.as_bytes().len() + line.len() > LONGEST || !is_list(line) {
                split.theirs = Buffer::new();
                break;
            }
            split.theirs.push(line.trim_ascii()).push(", ");
        }
        Some(split)
    }

    /// Returns the suffixes that the names in `ours` have here already: bit 0 for none, bit 1 for `-2`, and so on.
    fn taken(&self, ours: &[u8]) -> u64 {
        let mut taken = 0;
        for (theirs, _) in items(self.theirs.as_bytes()) {
            for (name, _) in items(ours) {
                taken |= theirs.strip_prefix(name).and_then(suffix_bit).unwrap_or(0);
            }
        }
        taken
    }

    fn join(mut self, suffix: u32) -> Option<HeaderValue> {
        let line = &mut self.theirs;
        if suffix == 1 {
            line.push(self.ours);
        } else {
            for (at, (name, parameters)) in items(self.ours).enumerate() {
                line.push(if at == 0 { "\"" } else { ", \"" }).push(name).push("-").number(suffix.into());
                line.push("\"").push(parameters);
            }
        }
        HeaderValue::from_bytes(line.as_bytes()).ok()
    }
}

/// Returns the bit of a suffix, of which `text` is the rest of a name.
fn suffix_bit(text: &[u8]) -> Option<u64> {
    let number = match text {
        [] => 1,
        [b'-', b'1'..=b'9', rest @ ..] if rest.len() < 2 => std::str::from_utf8(&text[1..]).ok()?.parse().ok()?,
        _ => return None,
    };
    ((1..=MOST_SUFFIX).contains(&number) && (number > 1 || text.is_empty())).then(|| 1 << (number - 1))
}

/// Returns the items of a well-formed list that are strings: the text between the quotes, and the parameters.
fn items(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = list;
    std::iter::from_fn(move || {
        loop {
            let start = rest.trim_ascii_start();
            let after = item(start)?;
            rest = after.trim_ascii_start().strip_prefix(b",").unwrap_or_default();
            if let [b'"', text @ ..] = start {
                let parameters = string(text)?;
                let name = &text[..text.len() - parameters.len() - 1];
                return Some((name, &parameters[..parameters.len() - after.len()]));
            }
        }
    })
}

/// Returns whether `text` is a list of at least one item with parameters. Inner lists, dates and display strings, which
/// no rate limit field has, are not recognised.
fn is_list(text: &[u8]) -> bool {
    let mut rest = text;
    loop {
        rest = match item(rest.trim_ascii()).map(<[u8]>::trim_ascii) {
            Some([]) => return true,
            Some([b',', more @ ..]) => more,
            _ => return false,
        };
    }
}

/// Parses an item at the start of a text and returns the rest, as do the functions below for parts of an item.
fn item(text: &[u8]) -> Option<&[u8]> {
    let mut rest = bare_item(text)?;
    while let [b';', parameter @ ..] = rest {
        rest = key(skip(parameter, |byte| byte == b' '))?;
        if let [b'=', value @ ..] = rest {
            rest = bare_item(value)?;
        }
    }
    Some(rest)
}

fn bare_item(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', rest @ ..] => string(rest),
        [b'?', b'0' | b'1', rest @ ..] => Some(rest),
        [b':', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b':')?;
            STANDARD.decode(&rest[..end]).ok().map(|_| &rest[end + 1..])
        }
        [b'-', rest @ ..] => number(rest),
        [b'0'..=b'9', ..] => number(text),
        [b'a'..=b'z' | b'A'..=b'Z' | b'*', ..] => {
            Some(skip(text, |byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)))
        }
        _ => None,
    }
}

fn string(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'"' | b'\\', rest @ ..] => rest,
            [b'\\', ..] => return None,
            [b' '..=b'~', rest @ ..] => rest,
            _ => return None,
        }
    }
}

fn number(text: &[u8]) -> Option<&[u8]> {
    let rest = skip(text, |byte| byte.is_ascii_digit());
    let whole = text.len() - rest.len();
    match rest {
        [b'.', fraction @ ..] => {
            let rest = skip(fraction, |byte| byte.is_ascii_digit());
            let digits = fraction.len() - rest.len();
            ((1..=12).contains(&whole) && (1..=3).contains(&digits)).then_some(rest)
        }
        _ => (1..=15).contains(&whole).then_some(rest),
    }
}

fn key(text: &[u8]) -> Option<&[u8]> {
    matches!(text, [b'a'..=b'z' | b'*', ..])
        .then(|| skip(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)))
}

fn skip(text: &[u8], known: impl Fn(u8) -> bool) -> &[u8] {
    let end = text.iter().position(|byte| !known(*byte)).unwrap_or(text.len());
    &text[end..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::Parser;

    use super::*;

    fn independent(text: &[u8]) -> bool {
        Parser::new(text).parse::<sfv::List>().is_ok_and(|list| !list.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn recognised_list_is_one_for_an_independent_parser(parts in prop::collection::vec(prop::sample::select(vec![
            "\"", "\"a\"", "a", "A", "=", "=1", ";", ";a", ",", ", ", " ", "\t", "1", ".", "?1", ":YQ==:", ":YQ:", "-", "\\", "*",
        ]), 0..10)) {
            let text = parts.concat();
            prop_assert!(!is_list(text.as_bytes()) || independent(text.trim().as_bytes()), "{text:?}");
        }

        #[test]
        fn list_of_strings_is_recognised(items in prop::collection::vec(
            r#""([ !#-\[\]-~]|\\\\|\\")*"(; ?[a-z*][a-z0-9_.*-]{0,3}(=(-?[0-9]{1,15}|[0-9]{1,12}\.[0-9]{1,3}|[a-zA-Z*][!-+.-:A-Z^-~&&[^"'(),;<=>?@\[\]\\{}]]{0,5}|:YQ==:|\?1|"x"))?){0,3}"#, 1..4
        )) {
            let text = items.join(" ,  ");
            prop_assert!(independent(text.as_bytes()), "{text}");
            prop_assert!(is_list(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn malformed_list_is_not_recognised() {
        for text in [r#""a";q=1"#, "a;q=1;w=2, b", r#"  "a"  "#, "1, -2.5, ?0, :YQ==:, *", r#""a\"b\\c";pk=:YQ==:;x"#] {
            assert!(is_list(text.as_bytes()) && independent(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            " ",
            ",",
            "a,",
            ",a",
            "a,,b",
            "a b",
            r#""a"#,
            r#""a\b""#,
            "a;",
            "a;Q=1",
            "a;q=",
            "?2",
            ":a",
            ":a:",
            "-",
            "1.",
            "1.0000",
            "1234567890123456",
            "limit=100, remaining=5",
            "100;w=60;",
            "\u{fc}",
            "\"\u{fc}\"",
            "\"\t\"",
        ] {
            assert!(!is_list(text.as_bytes()) && !independent(text.as_bytes()), "{text}");
        }
    }
}
