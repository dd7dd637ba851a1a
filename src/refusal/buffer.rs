//! Formatting of texts and numbers for the wire.

use http::HeaderValue;

use crate::policy_name::PolicyName;

/// Text under construction on the stack. Beyond `N` bytes it moves to the heap.
pub(super) struct Buffer<const N: usize> {
    near: [u8; N],
    len: usize,
    far: Vec<u8>,
}

impl<const N: usize> Buffer<N> {
    pub(super) const fn new() -> Self {
        Self { near: [0; N], len: 0, far: Vec::new() }
    }

    #[inline]
    pub(super) fn push(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        let end = self.len + text.len();
        match self.near.get_mut(self.len..end) {
            Some(room) => room.copy_from_slice(text),
            None => self.spill(text),
        }
        self.len = end;
        self
    }

    #[cold]
    fn spill(&mut self, text: &[u8]) {
        if self.len <= N {
            self.far.extend_from_slice(&self.near[..self.len]);
        }
        self.far.extend_from_slice(text);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.near.get(..self.len).unwrap_or(&self.far)
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.push(itoa::Buffer::new().format(number))
    }

    /// Adds a name as the inside of a string of JSON or of a structured field. Names are visible ASCII, of which both
    /// escape only `"` and `\` (RFC 8259, section 7; RFC 9651, section 3.3.3).
    pub(super) fn escaped(&mut self, name: &str) -> &mut Self {
        for part in name.as_bytes().split_inclusive(|byte| matches!(byte, b'"' | b'\\')) {
            match part {
                [plain @ .., escaped @ (b'"' | b'\\')] => self.push(plain).push([b'\\', *escaped]),
                plain => self.push(plain),
            };
        }
        self
    }

    /// Begins the next item of a list of a structured field, named after a policy.
    pub(super) fn item(&mut self, name: &PolicyName) -> &mut Self {
        self.push(if self.len == 0 { "\"" } else { ", \"" }).escaped(name.as_str()).push("\"")
    }

    /// Adds an integer parameter of a structured field; `key` is written with its separators, as in `;q=`.
    ///
    /// Every integer of a structured field is written here. A larger one than fits is clamped, because parsers reject
    /// the whole field otherwise.
    #[inline]
    pub(super) fn integer(&mut self, key: &'static str, value: u64) -> &mut Self {
        self.push(key).number(clamp(value))
    }
}

/// Returns the closest integer that a structured field can hold: it has 15 digits (RFC 9651, section 3.3.1).
pub(super) fn clamp(value: u64) -> u64 {
    value.min(999_999_999_999_999)
}

/// Formats a decimal header value; below 100 without an allocation.
pub(super) fn number(number: u64) -> HeaderValue {
    match usize::try_from(number) {
        Ok(small @ 0..=9) => HeaderValue::from_static(&PAIRS[2 * small + 1..2 * small + 2]),
        Ok(small @ 10..=99) => HeaderValue::from_static(&PAIRS[2 * small..2 * small + 2]),
        _ => HeaderValue::from_str(itoa::Buffer::new().format(number)).unwrap_or(HeaderValue::from_static("0")),
    }
}

/// Parses a header value of digits only.
pub(super) fn parse_number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// The numbers from 00 to 99.
static PAIRS: &str = "\
    0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
    5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_is_the_sum_of_its_parts_at_every_length(parts in prop::collection::vec("[ -~]{0,12}", 0..8)) {
            let mut buffer = Buffer::<16>::new();
            for part in &parts {
                buffer.push(part);
            }
            let whole = parts.concat();
            prop_assert_eq!(buffer.as_bytes(), whole.as_bytes());
        }

        #[test]
        fn every_name_becomes_a_valid_string(name in "[ -~]{1,64}|[\"\\\\]{1,64}") {
            let mut buffer = Buffer::<16>::new();
            buffer.push("\"").escaped(&name).push("\"");
            prop_assert_eq!(serde_json::from_slice::<String>(buffer.as_bytes()).unwrap(), name.as_str());
            let item: sfv::Item = sfv::Parser::new(buffer.as_bytes()).parse().unwrap();
            prop_assert_eq!(item.bare_item.as_string().unwrap().as_str(), name);
        }
    }

    #[test]
    fn every_number_survives_formatting_and_parsing() {
        for n in (0..=1_000).chain([u64::from(u32::MAX), u64::MAX]) {
            assert_eq!(number(n), n.to_string());
            assert_eq!(parse_number(&number(n)), Some(n));
        }
    }

    #[test]
    fn other_than_digits_is_no_number() {
        for text in ["", "+5", "-5", "5.0", " 5", "18446744073709551616", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(parse_number(&HeaderValue::from_str(text).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn integers_are_clamped_to_fifteen_digits() {
        for (value, written) in [
            (0, "0"),
            (999_999_999_999_998, "999999999999998"),
            (999_999_999_999_999, "999999999999999"),
            (1_000_000_000_000_000, "999999999999999"),
            (u64::MAX, "999999999999999"),
        ] {
            let mut buffer = Buffer::<64>::new();
            buffer.item(&PolicyName::try_new("a").unwrap()).integer(";q=", value);
            assert_eq!(buffer.as_bytes(), format!("\"a\";q={written}").as_bytes());
        }
    }
}
