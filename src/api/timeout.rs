//! The time that a client gives a call, in the header `grpc-timeout`.
//!
//! Source: gRPC over HTTP/2, "Requests".

use axum::http::{HeaderMap, HeaderName};
use std::time::Duration;

/// The header.
pub const HEADER: HeaderName = HeaderName::from_static("grpc-timeout");

/// Most digits of its number.
const DIGITS: usize = 8;

/// The header has another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout must be 1 to 8 digits and one of H M S m u n")]
pub struct Malformed;

/// The time that these headers give; `None` when there is no limit.
///
/// # Errors
///
/// [`Malformed`].
pub fn of(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    headers.get(HEADER).map(|value| value.to_str().ok().and_then(read).ok_or(Malformed)).transpose()
}

fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=DIGITS).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_digits_and_a_unit() {
        for (text, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("100m", Some(Duration::from_millis(100))),
            ("007u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("123456789S", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            (" 1S", None),
            ("1\u{b5}", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(of(&HeaderMap::new()), Ok(None));
    }
}
