//! Addresses in all lines of a forwarding field, from the right, and the parts of one element.

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Greatest number of elements that are read, so that a client cannot make us read a long list.
pub(super) const MAX_HOPS: usize = 32;

/// Greatest length of an element in bytes, so that a client cannot make us search a long text for a comma.
const LONGEST: usize = 1_024;

/// Syntax of a forwarding field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Addresses between commas.
    Addresses,
    /// `for=` among other pairs, between commas.
    Pairs,
    /// One address on one line.
    Single,
    /// One address and a port on one line, also an IPv6 address without brackets.
    WithPort,
}

impl Form {
    const fn is_list(self) -> bool {
        matches!(self, Self::Addresses | Self::Pairs)
    }
}

/// Returns the addresses in a field from the right; `None` for an element that cannot be read.
///
/// Empty elements of a list are skipped (RFC 9110, section 5.6.1.2), but count towards the greatest number of elements.
pub(super) fn hops<'a>(
    name: &HeaderName,
    form: Form,
    headers: &'a HeaderMap,
) -> impl Iterator<Item = Option<IpAddr>> + 'a {
    let mut lines = headers.get_all(name).iter().rev().map(HeaderValue::as_bytes);
    let mut rest = None;
    let elements = iter::from_fn(move || {
        let line = rest.take().or_else(|| lines.next())?;
        let Some((before, last)) = cut(line, form) else { return Some(None) };
        rest = before;
        Some(if form.is_list() || lines.next().is_none() { Some(last.trim_ascii()) } else { None })
    });
    let elements = elements.take(MAX_HOPS).filter(move |element| !form.is_list() || *element != Some(b""));
    elements.map(move |element| match form {
        Form::Pairs => forwarded_for(element?),
        Form::Single | Form::Addresses => unquoted_node(element?),
        Form::WithPort => std::str::from_utf8(element?).ok()?.rsplit_once(':').and_then(|(ip, port)| {
            ip.trim_start_matches('[').trim_end_matches(']').parse().ok().filter(|_| is_port(port))
        }),
    })
}

/// Splits a line at its last comma into the rest, if there is a comma, and the last element. Returns `None` if that
/// element is too long.
///
/// Quoted strings are recognised from the right too. Text that a client writes to the left of a proxy's own element,
/// such as an unterminated quotation mark, cannot change how that element is read.
fn cut(line: &[u8], form: Form) -> Option<(Option<&[u8]>, &[u8])> {
    let floor = line.len().saturating_sub(LONGEST);
    let mut quoted = false;
    for at in (floor..line.len()).rev() {
        match line[at] {
            b',' if !quoted && form.is_list() => return Some((Some(&line[..at]), &line[at + 1..])),
            b'"' if form == Form::Pairs => quoted = !quoted || is_escaped(&line[floor..at]),
            _ => {}
        }
    }
    (floor == 0 && !quoted).then_some((None, line))
}

/// Returns whether the byte after `before` is escaped: it follows an odd number of backslashes.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Parses an IPv4 or IPv6 address with or without a port (RFC 7239, section 6). An IPv6 address may have no brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, after) = rest.split_once(']')?;
        let fine = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return v6(ip).filter(|_| fine);
    }
    text.parse().ok().or_else(|| v6(text)).or_else(|| {
        let (ip, port) = text.rsplit_once(':')?;
        ip.parse::<Ipv4Addr>().ok().filter(|_| is_port(port)).map(IpAddr::V4)
    })
}

/// Parses an IPv6 address with or without a zone (RFC 4007, section 11), which only the writer's machine understands.
fn v6(text: &str) -> Option<IpAddr> {
    let (ip, zone) = text.split_once('%').unwrap_or((text, "none"));
    ip.parse::<Ipv6Addr>().ok().filter(|_| !zone.is_empty()).map(IpAddr::V6)
}

/// Returns whether a text is a port: digits, or an obfuscated name.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// Returns the address in the one `for` among an element's pairs (RFC 7239, section 4).
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = element.trim_ascii();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b";") {
            rest = after.trim_ascii_start();
            continue;
        }
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let (value, after) = split_value(rest[equals + 1..].trim_ascii_start())?;
        if rest[..equals].trim_ascii().eq_ignore_ascii_case(b"for") && found.replace(unquoted_node(value)?).is_some() {
            return None;
        }
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b";") {
            return None;
        }
    }
    found
}

/// Splits a value, with its quotation marks if it has any, from the text behind it.
fn split_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(inner) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
        return text.split_at_checked(end).filter(|(plain, _)| !plain.contains(&b'"'));
    };
    let mut escaped = false;
    let end = inner.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    text.split_at_checked(end + 2)
}

/// Parses the address in a value, which may be a quoted string.
fn unquoted_node(value: &[u8]) -> Option<IpAddr> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return node(value.trim_ascii());
    };
    let mut plain = SmallVec::<[u8; 64]>::new(); // longer than any address with a port
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
    }
    node(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(line: &str, form: Form) -> Option<&str> {
        cut(line.as_bytes(), form).map(|(_, last)| std::str::from_utf8(last).unwrap())
    }

    #[test]
    fn last_element_begins_after_a_comma_outside_quotes() {
        assert_eq!(last("a, b", Form::Addresses), Some(" b"));
        assert_eq!(last("a", Form::Addresses), Some("a"));
        assert_eq!(last("a, \"b, c\"", Form::Addresses), Some(" c\""));
        assert_eq!(last("a, b", Form::Single), Some("a, b"));
        assert_eq!(last("a, x=\"b, c\"", Form::Pairs), Some(" x=\"b, c\""));
        assert_eq!(last(r#"a, x="b\", c""#, Form::Pairs), Some(r#" x="b\", c""#));
        assert_eq!(last(r#"a, x="b\\", c"#, Form::Pairs), Some(" c"));
    }

    #[test]
    fn open_quotation_mark_on_the_left_has_no_effect() {
        assert_eq!(last(r#"for="evil, for=198.51.100.7"#, Form::Pairs), Some(" for=198.51.100.7"));
        assert_eq!(last(r#"for="evil\, for="[2001:db8::7]""#, Form::Pairs), Some(r#" for="[2001:db8::7]""#));
        assert_eq!(last(r#"for=198.51.100.7""#, Form::Pairs), None);
    }

    #[test]
    fn element_above_the_longest_is_not_searched() {
        let long = format!("a,{}", "b".repeat(400_000));
        assert_eq!(last(&long, Form::Addresses), None);
        assert_eq!(last(&long, Form::Pairs), None);
        assert_eq!(last(&"b".repeat(LONGEST), Form::Addresses).map(str::len), Some(LONGEST));
        assert_eq!(last(&"b".repeat(LONGEST + 1), Form::Addresses), None);
    }

    fn shown(ip: Option<IpAddr>) -> String {
        ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string())
    }

    #[test]
    fn node_is_an_address_with_or_without_a_port() {
        for (text, ip) in [
            ("198.51.100.7", "198.51.100.7"),
            ("198.51.100.7:4711", "198.51.100.7"),
            ("198.51.100.7:_hidden", "198.51.100.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("198.51.100.7:", "-"),
            ("198.51.100.7:x", "-"),
            ("198.51.100.7:123456", "-"),
            ("198.51.100.007", "-"),
            ("[198.51.100.7]", "-"),
            ("[2001:db8::7", "-"),
            ("[2001:db8::7]4711", "-"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:4711", "fe80::1"),
            ("fe80::1%", "-"),
            ("unknown", "-"),
            ("_hidden", "-"),
            ("", "-"),
        ] {
            assert_eq!(shown(node(text.as_bytes())), ip, "{text}");
        }
    }

    #[test]
    fn element_has_exactly_one_readable_for() {
        for (element, ip) in [
            ("for=198.51.100.7", "198.51.100.7"),
            (" For = 198.51.100.7 ; proto=https ", "198.51.100.7"),
            ("proto=https;by=10.0.0.1;for=\"[2001:db8::7]:4711\";host=\"a;for=1.1.1.1\"", "2001:db8::7"),
            ("for=\"198.51.100.7:4711\"", "198.51.100.7"),
            ("for=\"\\[2001:db8::7\\]\"", "2001:db8::7"),
            (";;for=198.51.100.7;", "198.51.100.7"),
            ("for=198.51.100.7;for=1.1.1.1", "-"),
            ("for=unknown", "-"),
            ("for=_hidden;proto=http", "-"),
            ("for=\"198.51.100.7", "-"),
            ("for=\"198.51.100.7\"x", "-"),
            ("for=\"198.51.100.7\\", "-"),
            ("for", "-"),
            ("for=", "-"),
            ("by=198.51.100.7", "-"),
            ("198.51.100.7", "-"),
            ("", "-"),
        ] {
            assert_eq!(shown(forwarded_for(element.as_bytes())), ip, "{element}");
        }
    }
}
