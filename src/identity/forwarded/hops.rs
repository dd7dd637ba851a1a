//! Addresses in all lines of a forwarding field, from the right.

use std::{iter::Rev, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::ValueIter};

use super::element;

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
}

/// The addresses in a field from the right, up to the first element that cannot be read.
pub(super) struct Hops<'a> {
    lines: Rev<ValueIter<'a, HeaderValue>>,
    line: Option<&'a [u8]>,
    form: Form,
}

impl<'a> Hops<'a> {
    pub(super) fn of(name: &HeaderName, form: Form, headers: &'a HeaderMap) -> Self {
        let lines = headers.get_all(name).iter().rev();
        Self { lines, line: None, form }
    }
}

impl Iterator for Hops<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.line.take() {
            Some(line) => line,
            None => self.lines.next()?.as_bytes(),
        };
        let (before, last) = cut(line, self.form)?;
        self.line = before;
        match self.form {
            Form::Addresses => element::node(last.trim_ascii()),
            Form::Pairs => element::forwarded_for(last),
            Form::Single if self.lines.next().is_some() => None,
            Form::Single => element::node(last.trim_ascii()),
        }
    }
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
            b',' if !quoted && form != Form::Single => return Some((Some(&line[..at]), &line[at + 1..])),
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
}
