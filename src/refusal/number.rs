//! Whole numbers as header values.

use http::HeaderValue;

/// `number` in decimal; below 100 nothing is allocated.
pub(super) fn number(number: u64) -> HeaderValue {
    match usize::try_from(number) {
        Ok(small @ 0..=9) => HeaderValue::from_static(&PAIRS[2 * small + 1..2 * small + 2]),
        Ok(small @ 10..=99) => HeaderValue::from_static(&PAIRS[2 * small..2 * small + 2]),
        _ => HeaderValue::from_str(itoa::Buffer::new().format(number)).unwrap_or(HeaderValue::from_static("0")),
    }
}

/// The number that a header value is, if it is nothing but digits.
pub(super) fn read(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// `000102` up to `99`.
static PAIRS: &str = match std::str::from_utf8(&DIGITS) {
    Ok(text) => text,
    Err(_) => panic!("digits are ASCII"),
};

const DIGITS: [u8; 200] = {
    let mut digits = [0; 200];
    let mut n = 0;
    while n < 100 {
        digits[2 * n] = b"0123456789"[n / 10];
        digits[2 * n + 1] = b"0123456789"[n % 10];
        n += 1;
    }
    digits
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_written_as_it_is() {
        for n in (0..=1_000).chain([u64::from(u32::MAX), u64::MAX]) {
            assert_eq!(number(n), n.to_string());
            assert_eq!(read(&number(n)), Some(n));
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "+5", "-5", "5.0", " 5", "18446744073709551616", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(read(&HeaderValue::from_str(text).unwrap()), None, "{text}");
        }
    }
}
