//! The body of a refusal, in one word.

use bytes::Bytes;

use crate::sync::Pool;

/// Body of a refusal until it is read.
///
/// One word, because the body of every response of a gate has room for it: with more, a response of axum is no longer moved
/// by registers. The boxes are reused, so that the word costs no allocation.
#[derive(Debug, Default)]
pub struct OwnText(Option<Box<Bytes>>);

thread_local!(static SPARE: Pool<Bytes> = const { Pool::new() });

impl OwnText {
    pub(crate) fn new(text: Bytes) -> Self {
        let mut boxed = Pool::take(&SPARE);
        *boxed = text;
        Self(Some(boxed))
    }

    /// Returns the bytes that are not read.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |text| text.len())
    }

    /// Reads the whole; empty if it was read.
    pub(crate) fn take(&mut self) -> Bytes {
        let Some(mut boxed) = self.0.take() else { return Bytes::new() };
        let text = std::mem::take(&mut *boxed);
        Pool::keep(&SPARE, boxed, |_| {});
        text
    }
}

impl Drop for OwnText {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            drop(self.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_once() {
        let mut text = OwnText::new(Bytes::from_static(b"refused"));
        assert_eq!(text.len(), 7);
        assert_eq!(text.take(), "refused");
        assert_eq!((text.len(), text.take().len()), (0, 0));
        assert_eq!(OwnText::default().take(), "");
    }

    #[test]
    fn box_of_a_dropped_text_is_reused_blank() {
        let boxed = |text: &OwnText| text.0.as_deref().map(std::ptr::from_ref);
        let first = OwnText::new(Bytes::from_static(b"first"));
        let place = boxed(&first);
        drop(first);
        let second = OwnText::new(Bytes::from_static(b"second"));
        assert_eq!(boxed(&second), place);
        assert_eq!(second.len(), 6);
    }

    #[test]
    fn text_takes_one_word() {
        assert_eq!(size_of::<OwnText>(), size_of::<usize>());
    }
}
