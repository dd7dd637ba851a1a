//! The elements of all lines of a field, from the right.

use std::{iter::Rev, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::ValueIter};

use super::element;

/// How many elements are walked at most, so that nobody makes us walk his.
pub(super) const MAX_HOPS: usize = 32;

/// How many bytes an element may have, so that nobody makes us search his for a comma.
const LONGEST: usize = 1_024;

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Addresses between commas.
    Addresses,
    /// `for=` among other pairs, between commas.
    Pairs,
    /// One address on one line.
    Single,
}

/// The addresses in a field from the right; `None` stands for an element that cannot be read.
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

    fn single(&mut self) -> Option<Option<IpAddr>> {
        let line = self.lines.next()?;
        let alone = self.lines.next().is_none();
        let short = line.len() <= LONGEST;
        Some(if alone && short { element::node(line.as_bytes().trim_ascii()) } else { None })
    }
}

impl Iterator for Hops<'_> {
    type Item = Option<IpAddr>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.form == Form::Single {
            return self.single();
        }
        let line = match self.line.take() {
            Some(line) => line,
            None => self.lines.next()?.as_bytes(),
        };
        let Some((before, last)) = cut(line, self.form) else { return Some(None) };
        self.line = before;
        Some(match self.form {
            Form::Pairs => element::forwarded_for(last),
            Form::Addresses | Form::Single => element::node(last.trim_ascii()),
        })
    }
}

/// What is before the last comma, if there is one, and what is after it; nothing if that is too long.
///
/// Quoted strings are recognised from the right too: what a client writes to the left of a proxy's own element, such as
/// a quotation mark that never ends, cannot change how that element is read.
fn cut(line: &[u8], form: Form) -> Option<(Option<&[u8]>, &[u8])> {
    let floor = line.len().saturating_sub(LONGEST);
    let mut quoted = false;
    for at in (floor..line.len()).rev() {
        match line[at] {
            b',' if !quoted => return Some((Some(&line[..at]), &line[at + 1..])),
            b'"' if form == Form::Pairs => quoted = !quoted || is_escaped(&line[floor..at]),
            _ => {}
        }
    }
    (floor == 0 && !quoted).then_some((None, line))
}

/// Whether what comes after `before` is escaped: an odd number of backslashes stands there.
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
    fn the_last_element_ends_at_a_comma_outside_quotes() {
        assert_eq!(last("a, b", Form::Addresses), Some(" b"));
        assert_eq!(last("a", Form::Addresses), Some("a"));
        assert_eq!(last("a, \"b, c\"", Form::Addresses), Some(" c\""));
        assert_eq!(last("a, x=\"b, c\"", Form::Pairs), Some(" x=\"b, c\""));
        assert_eq!(last(r#"a, x="b\", c""#, Form::Pairs), Some(r#" x="b\", c""#));
        assert_eq!(last(r#"a, x="b\\", c"#, Form::Pairs), Some(" c"));
    }

    #[test]
    fn an_open_quotation_mark_on_the_left_swallows_nothing() {
        assert_eq!(last(r#"for="evil, for=198.51.100.7"#, Form::Pairs), Some(" for=198.51.100.7"));
        assert_eq!(last(r#"for="evil\, for="[2001:db8::7]""#, Form::Pairs), Some(r#" for="[2001:db8::7]""#));
        assert_eq!(last(r#"for=198.51.100.7""#, Form::Pairs), None);
    }

    #[test]
    fn an_element_without_end_is_not_searched_for_one() {
        let long = format!("a,{}", "b".repeat(400_000));
        assert_eq!(last(&long, Form::Addresses), None);
        assert_eq!(last(&long, Form::Pairs), None);
        assert_eq!(last(&"b".repeat(LONGEST), Form::Addresses).map(str::len), Some(LONGEST));
        assert_eq!(last(&"b".repeat(LONGEST + 1), Form::Addresses), None);
    }
}
