//! Items of structured fields: a string with parameters (RFC 9651, section 3.3).

use bytes::Bytes;

use super::buffer::Buffer;
use crate::policy_name::PolicyName;

/// Largest integer of a structured field: 15 digits (RFC 9651, section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Returns the closest value that a structured field can hold.
pub(super) const fn clamp(value: u64) -> u64 {
    if value < MAX_INTEGER { value } else { MAX_INTEGER }
}

/// Items under construction, separated by `, `.
///
/// The only writer of integers into structured fields: a larger one than fits is clamped, because parsers reject the
/// whole field otherwise.
pub(super) struct Items<const N: usize>(Buffer<N>);

impl<const N: usize> Items<N> {
    pub(super) const fn new() -> Self {
        Self(Buffer::new())
    }

    /// Begins the next item, named after `policy`.
    pub(super) fn item(&mut self, policy: &PolicyName) -> &mut Self {
        if !self.0.as_bytes().is_empty() {
            self.0.push(", ");
        }
        self.0.push(policy.quoted());
        self
    }

    /// Continues an item whose beginning was written earlier.
    pub(super) fn resume(&mut self, item: &[u8]) -> &mut Self {
        self.0.push(item);
        self
    }

    /// Adds an integer parameter; `key` is written with its separators, as in `;q=`.
    #[inline]
    pub(super) fn integer(&mut self, key: &'static str, value: u64) -> &mut Self {
        self.0.push(key).number(clamp(value));
        self
    }

    /// Adds a string parameter; `key` is written with its separators, as in `;qu=`.
    pub(super) fn string(&mut self, key: &'static str, value: &PolicyName) -> &mut Self {
        self.0.push(key).push(value.quoted());
        self
    }

    /// Returns the text of all items and leaves none.
    pub(super) fn take(&mut self) -> Bytes {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_clamped_to_fifteen_digits() {
        for (value, written) in [
            (0, "0"),
            (999_999_999_999_998, "999999999999998"),
            (999_999_999_999_999, "999999999999999"),
            (1_000_000_000_000_000, "999999999999999"),
            (u64::MAX, "999999999999999"),
        ] {
            assert_eq!(Items::<64>::new().item(&PolicyName::try_new("a").unwrap()).integer(";q=", value).take(), {
                format!("\"a\";q={written}")
            });
        }
    }
}
