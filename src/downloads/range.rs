//! Which bytes of a file are asked for.

use axum::http::HeaderMap;
use axum::http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use std::ops::Range;

/// What a request asks for of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes of it, at least one.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Beyond,
    /// Nothing: the client has it already.
    Known,
}

/// What is asked for of a file with this length and entity tag.
///
/// One range of bytes is understood. Whatever else a client asks for gets the whole, which is always allowed.
///
/// Source: RFC 9110, sections 13 and 14.
pub(super) fn wanted(headers: &HeaderMap, length: u64, tag: &str) -> Wanted {
    if headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok()).any(|tags| names(tags, tag)) {
        return Wanted::Known;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    let range = match (ranges.next().and_then(|range| range.to_str().ok()), ranges.next()) {
        (Some(range), None) => range,
        _ => return Wanted::Whole,
    };
    // A part of what the client has is of no use to it when the rest has become another file.
    if headers.get(IF_RANGE).is_some_and(|known| known.as_bytes() != tag.as_bytes()) {
        return Wanted::Whole;
    }
    match parse(range) {
        None => Wanted::Whole,
        Some(Asked::From(first, last)) if first < length => Wanted::Part(first..last.map_or(length, |last| last.saturating_add(1).min(length))),
        Some(Asked::Last(count)) if count > 0 && length > 0 => Wanted::Part(length.saturating_sub(count)..length),
        Some(Asked::From(..) | Asked::Last(_)) => Wanted::Beyond,
    }
}

/// Whether a list of entity tags names this one.
fn names(list: &str, tag: &str) -> bool {
    list.split(',').map(|known| known.trim().trim_start_matches("W/")).any(|known| known == tag || known == "*")
}

enum Asked {
    /// From the first position to the last one, which is included, or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

fn parse(range: &str) -> Option<Asked> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    let number = |digits: &str| if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", count) => number(count).map(Asked::Last),
        (first, "") => number(first).map(|first| Asked::From(first, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Asked::From(first, Some(last)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn ask(pairs: &[(HeaderName, &str)], length: u64) -> Wanted {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect();
        wanted(&headers, length, "\"abc\"")
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("BYTES=2-5", Wanted::Part(2..6)),
            ("bytes=2-99999999999999999999", Wanted::Whole),
            ("bytes=2-18446744073709551615", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-300", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=99-100", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes", Wanted::Whole),
        ] {
            assert_eq!(ask(&[(RANGE, range)], 10), expected, "{range}");
        }
        assert_eq!(ask(&[(RANGE, "bytes=0-")], 0), Wanted::Beyond);
        assert_eq!(ask(&[(RANGE, "bytes=-1")], 0), Wanted::Beyond);
        assert_eq!(ask(&[], 10), Wanted::Whole);
        assert_eq!(ask(&[(RANGE, "bytes=0-1"), (IF_RANGE, "\"abc\"")], 10), Wanted::Part(0..2));
        assert_eq!(ask(&[(RANGE, "bytes=0-1"), (IF_RANGE, "\"abd\"")], 10), Wanted::Whole);
        assert_eq!(ask(&[(RANGE, "bytes=0-1"), (IF_NONE_MATCH, "\"x\", W/\"abc\"")], 10), Wanted::Known);
        assert_eq!(ask(&[(IF_NONE_MATCH, "\"x\"")], 10), Wanted::Whole);
    }
}
