//! Structured fields (RFC 9651): items with parameters, and lists to which several layers append items.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::buffer::Buffer;

/// Greatest length of a list that is preserved, in bytes.
const LONGEST: usize = 4096;

/// Appends `item` to the list in the field `name`, on one line. A malformed list is replaced.
#[inline]
pub(super) fn append(headers: &mut HeaderMap, name: impl Fn() -> HeaderName, item: HeaderValue) {
    if let Ok(true) = headers.try_append(name(), item) {
        merge(headers, name());
    }
}

/// Joins the lines of a field. If one is malformed, only the last line, which is ours, remains.
fn merge(headers: &mut HeaderMap, name: HeaderName) {
    let mut lines = headers.get_all(&name).iter();
    let Some(ours) = lines.next_back() else { return };
    let line = join(lines.map(HeaderValue::as_bytes), ours.as_bytes()).unwrap_or_else(|| ours.clone());
    let _ = headers.try_insert(name, line);
}

fn join<'a>(theirs: impl Iterator<Item = &'a [u8]>, ours: &[u8]) -> Option<HeaderValue> {
    let mut joined = Buffer::<256>::new();
    for line in theirs {
        if joined.as_bytes().len() + line.len() > LONGEST || !is_list(line) {
            return None;
        }
        joined.push(line.trim_ascii()).push(", ");
    }
    joined.push(ours);
    HeaderValue::from_bytes(joined.as_bytes()).ok()
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
