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

    /// The inside of a JSON string (RFC 8259, 7).
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

    /// All of it; the buffer is spent.
    pub(super) fn take(&mut self) -> Bytes {
        match self.near.get(..self.len) {
            Some(text) => Bytes::copy_from_slice(text),
            None => std::mem::take(&mut self.far).into(),
        }
    }
}

/// Whether a byte stands for itself in a JSON string.
const fn is_plain(byte: u8) -> bool {
    byte > 0x1f && byte != b'"' && byte != b'\\'
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
            prop_assert_eq!(buffer.take(), whole);
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
