//! The fields that every refusal carries, whatever its form.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, RETRY_AFTER},
};

use super::number::number;
use crate::refusal::Refusal;

// A constant, because a value that is made at run time is checked byte by byte.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Adds `Retry-After`, unless the answer has one, and `Cache-Control: no-store`, unless the answer's own forbids storing.
/// Idempotent.
///
/// A `Cache-Control` that allows storing is replaced: a cache would serve one client's refusal to the others, or to the
/// same client after its limit has recovered.
pub(super) fn complete(refusal: &Refusal, headers: &mut HeaderMap) {
    if let Some(seconds) = refusal.retry_after_field()
        && !headers.contains_key(RETRY_AFTER)
    {
        let _ = headers.try_insert(RETRY_AFTER, number(seconds));
    }
    if !forbids_storing(headers) {
        let _ = headers.try_insert(CACHE_CONTROL, NO_STORE);
    }
}

/// Removes the cache fields that shared caches obey instead of `Cache-Control` (RFC 9213, section 2.2; Edge Architecture
/// Specification), which [`complete`] relies on.
pub(super) fn remove_targeted_cache_control(headers: &mut HeaderMap) {
    headers.remove(CDN_CACHE_CONTROL);
    headers.remove(SURROGATE_CONTROL);
}

/// Returns whether `Cache-Control` forbids every cache to store the answer.
///
/// It has the directive `no-store`, and not `must-understand`, with which caches that know the status ignore `no-store`
/// (RFC 9111, section 5.2.2.3). A quoted argument may contain anything, so a field with one is not relied on.
fn forbids_storing(headers: &HeaderMap) -> bool {
    let mut no_store = false;
    for line in headers.get_all(CACHE_CONTROL) {
        if line.as_bytes().contains(&b'"') {
            return false;
        }
        for directive in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default();
            if name.trim_ascii().eq_ignore_ascii_case(b"must-understand") {
                return false;
            }
            no_store |= directive.eq_ignore_ascii_case(b"no-store");
        }
    }
    no_store
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbids(lines: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        forbids_storing(&headers)
    }

    #[test]
    fn only_the_directive_itself_forbids_storing() {
        for (line, forbidden) in [
            ("no-store", true),
            ("private, No-Store", true),
            ("max-age=0,no-store,private", true),
            ("", false),
            ("private", false),
            ("no-cache, max-age=60", false),
            ("x-no-store, no-stored", false),
            ("private=\"x, no-store, y\"", false),
        ] {
            assert_eq!(forbids(&[line]), forbidden, "{line}");
        }
    }

    #[test]
    fn must_understand_on_any_line_cancels_no_store() {
        for lines in [
            &["must-understand, no-store, max-age=60"][..],
            &["no-store,Must-Understand"],
            &["no-store", "must-understand"],
            &["no-store", "must-understand =1"],
            &["no-store", "private=\"x\", must-understand"],
        ] {
            assert!(!forbids(lines), "{lines:?}");
        }
        assert!(forbids(&["private", "no-store"]));
        assert!(!forbids(&[]));
    }
}
