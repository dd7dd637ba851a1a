//! Formatting of texts and numbers for the wire.

use bytes::Bytes;
use http::HeaderValue;

/// Text under construction on the stack, which ends in one allocation. Beyond `N` bytes it moves to the heap.
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
            self.far.reserve_exact((self.len + text.len()).max(2 * N));
            self.far.extend_from_slice(&self.near[..self.len]);
        }
        self.far.extend_from_slice(text);
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.push(itoa::Buffer::new().format(number))
    }

    /// Adds a text as the inside of a JSON string (RFC 8259, section 7).
    pub(super) fn json(&mut self, text: &str) -> &mut Self {
        if text.bytes().all(is_plain) {
            return self.push(text);
        }
        for part in text.as_bytes().chunk_by(|a, b| is_plain(*a) && is_plain(*b)) {
            match *part {
                [byte @ (b'"' | b'\\')] => self.push([b'\\', byte]),
                [byte @ ..=0x1f] => {
                    let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
                    self.push(b"\\u00").push([hex(byte >> 4), hex(byte & 15)])
                }
                _ => self.push(part),
            };
        }
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.near.get(..self.len).unwrap_or(&self.far)
    }

    /// Returns the whole text and leaves the buffer unusable.
    pub(super) fn take(&mut self) -> Bytes {
        match self.near.get(..self.len) {
            Some(text) => Bytes::copy_from_slice(text),
            None => std::mem::take(&mut self.far).into(),
        }
    }
}

/// Returns whether a byte needs no escape in a JSON string.
const fn is_plain(byte: u8) -> bool {
    byte > 0x1f && byte != b'"' && byte != b'\\'
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
            prop_assert_eq!(buffer.take(), whole);
        }

        #[test]
        fn every_text_becomes_a_valid_json_string(text: String) {
            let mut buffer = Buffer::<16>::new();
            buffer.push("\"").json(&text).push("\"");
            prop_assert_eq!(serde_json::from_slice::<String>(buffer.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut buffer = Buffer::<64>::new();
        buffer.json("a\r\n\u{1f}\0\"\\z");
        assert_eq!(buffer.as_bytes(), br#"a\u000d\u000a\u001f\u0000\"\\z"#);
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
}
