//! The few bytes of the protocol buffer encoding that error details need.

/// A message under construction; fields that hold their default are left out, as proto3 wants it.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// An integer that is never negative.
    pub(super) fn integer(&mut self, field: u8, value: u64) -> &mut Self {
        if value > 0 {
            self.0.push(field << 3);
            self.varint(value);
        }
        self
    }

    /// Text.
    pub(super) fn text(&mut self, field: u8, text: &str) -> &mut Self {
        if text.is_empty() { self } else { self.nested(field, |message| message.0.extend_from_slice(text.as_bytes())) }
    }

    /// A message in a message; it is there even if it is empty.
    pub(super) fn nested(&mut self, field: u8, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.0.push(field << 3 | 2);
        let start = self.0.len();
        fill(self);
        let end = self.0.len();
        self.varint((end - start) as u64);
        // The length goes before what it measures, but is known only after it.
        let written = self.0.len() - end;
        self.0[start..].rotate_right(written);
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Seven bits a byte, the lowest first.
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_guide() {
        let mut message = Message::default();
        message.integer(1, 150).text(2, "testing").integer(4, 0).text(5, "").nested(3, |inner| {
            inner.integer(1, 150);
        });
        assert_eq!(message.as_bytes(), b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01");
    }

    #[test]
    fn a_length_of_two_bytes_pushes_its_message_back() {
        let mut message = Message::default();
        message.nested(1, |inner| {
            inner.text(1, &"x".repeat(200));
        });
        assert_eq!(message.as_bytes()[..6], *b"\x0a\xcb\x01\x0a\xc8\x01");
        assert_eq!(message.as_bytes().len(), 206);
    }

    #[test]
    fn the_largest_integer_takes_ten_bytes() {
        let mut message = Message::default();
        message.integer(1, u64::MAX);
        assert_eq!(message.as_bytes(), b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }
}
