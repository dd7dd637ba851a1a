//! Text on its way onto the wire.

use bytes::Bytes;

/// Text that is put together on the stack and leaves in one allocation; past `N` bytes it moves to the heap.
pub(super) struct Buffer<const N: usize> {
    near: [u8; N],
    len: usize,
    far: Vec<u8>,
}

impl<const N: usize> Buffer<N> {
    pub(super) const fn new() -> Self {
        Self { near: [0; N], len: 0, far: Vec::new() }
    }

    pub(super) fn push(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        let end = self.len + text.len();
        if let Some(room) = self.near.get_mut(self.len..end) {
            room.copy_from_slice(text);
        } else {
            if self.len <= N {
                self.far.reserve_exact(end.max(2 * N));
                self.far.extend_from_slice(&self.near[..self.len]);
            }
            self.far.extend_from_slice(text);
        }
        self.len = end;
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.push(itoa::Buffer::new().format(number))
    }

    /// The inside of a JSON string (RFC 8259, 7).
    pub(super) fn json(&mut self, text: &str) -> &mut Self {
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            if !matches!(byte, b'"' | b'\\' | ..=0x1f) {
                continue;
            }
            self.push(&text[plain..at]);
            plain = at + 1;
            match byte {
                b'"' | b'\\' => self.push([b'\\', byte]),
                _ => self
                    .push(b"\\u00")
                    .push([b"01"[usize::from(byte >> 4)], b"0123456789abcdef"[usize::from(byte & 15)]]),
            };
        }
        self.push(&text[plain..])
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.near.get(..self.len).unwrap_or(&self.far)
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self.near.get(..self.len) {
            Some(text) => Bytes::copy_from_slice(text),
            None => self.far.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_at_every_length(parts in prop::collection::vec("[ -~]{0,12}", 0..8)) {
            let mut buffer = Buffer::<16>::new();
            for part in &parts {
                buffer.push(part);
            }
            let whole = parts.concat();
            prop_assert_eq!(buffer.as_bytes(), whole.as_bytes());
            prop_assert_eq!(buffer.into_bytes(), whole);
        }

        #[test]
        fn any_text_is_a_json_string(text: String) {
            let mut buffer = Buffer::<16>::new();
            buffer.push("\"").json(&text).push("\"");
            prop_assert_eq!(serde_json::from_slice::<String>(buffer.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn control_characters_are_spelled_out() {
        let mut buffer = Buffer::<64>::new();
        buffer.json("a\r\n\u{1f}\0\"\\z");
        assert_eq!(buffer.as_bytes(), br#"a\u000d\u000a\u001f\u0000\"\\z"#);
    }
}
