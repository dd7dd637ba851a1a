//! The fields that every refusal carries, whatever its form.

use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, RETRY_AFTER},
};

use super::number::number;
use crate::refusal::Refusal;

// A constant, because a value that is made at run time is checked byte by byte.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Adds `Retry-After`, unless the answer has one, and `Cache-Control: no-store`, unless the answer has one that forbids
/// storing. Idempotent.
///
/// A `Cache-Control` that allows storing is replaced: a cache would serve one client's refusal to the others, or to the
/// same client after its limit has recovered.
pub(super) fn complete(refusal: &Refusal, headers: &mut HeaderMap) {
    if let Some(seconds) = refusal.retry_after_field()
        && !headers.contains_key(RETRY_AFTER)
    {
        let _ = headers.try_insert(RETRY_AFTER, number(seconds));
    }
    if !headers.get_all(CACHE_CONTROL).iter().any(forbids_storing) {
        let _ = headers.try_insert(CACHE_CONTROL, NO_STORE);
    }
}

/// Returns whether a line of `Cache-Control` has the directive `no-store`. A quoted argument may contain anything, so a
/// line with one is not relied on.
fn forbids_storing(line: &HeaderValue) -> bool {
    let line = line.as_bytes();
    let no_store = |directive: &[u8]| directive.trim_ascii().eq_ignore_ascii_case(b"no-store");
    !line.contains(&b'"') && line.split(|byte| *byte == b',').any(no_store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_directive_itself_forbids_storing() {
        for (line, forbids) in [
            ("no-store", true),
            ("private, No-Store", true),
            ("max-age=0,no-store,private", true),
            ("", false),
            ("private", false),
            ("no-cache, max-age=60", false),
            ("x-no-store, no-stored", false),
            ("private=\"x, no-store, y\"", false),
        ] {
            assert_eq!(forbids_storing(&HeaderValue::from_str(line).unwrap()), forbids, "{line}");
        }
    }
}
