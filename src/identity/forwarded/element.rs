//! One element of a forwarding field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Parses an IPv4 or IPv6 address with or without a port (RFC 7239, section 6). An IPv6 address may have no brackets.
pub(super) fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, after) = rest.split_once(']')?;
        let fine = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return ip.parse::<Ipv6Addr>().ok().filter(|_| fine).map(IpAddr::V6);
    }
    text.parse().ok().or_else(|| {
        let (ip, port) = text.rsplit_once(':')?;
        ip.parse::<Ipv4Addr>().ok().filter(|_| is_port(port)).map(IpAddr::V4)
    })
}

/// Returns whether a text is a port: digits, or an obfuscated name.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// Returns the address in the one `for` among an element's pairs (RFC 7239, section 4).
pub(super) fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
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
    if !inner.contains(&b'\\') {
        return node(inner);
    }
    let mut plain = [0; 128]; // longer than any address with a port
    let mut length = 0;
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        *plain.get_mut(length)? = if *byte == b'\\' { *bytes.next()? } else { *byte };
        length += 1;
    }
    node(&plain[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("fe80::1%eth0", "-"),
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
