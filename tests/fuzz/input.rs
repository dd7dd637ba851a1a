//! Reads values from the bytes of an input.

/// The rest of an input. Values after its end are 0 or empty.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// Returns the next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// Returns the next number: a byte chooses an extreme, or up to eight bytes that follow.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            0xff => u64::MAX,
            0xfe => i64::MAX.cast_unsigned(),
            0xfd => (1 << 53) - 1,
            length => (0..length % 9).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    /// Returns the bytes up to the next newline.
    pub(crate) fn line(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        line
    }

    /// Returns the next line as text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.line()).into_owned()
    }
}
