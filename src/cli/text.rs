//! Words and numbers as a person reads them: sizes, counts, times, and text that came from outside.

use chrono::{DateTime, SecondsFormat, Utc};
use std::time::Duration;

/// Makes text from outside safe for a terminal: whatever could move the cursor, hide or reorder text is written as an escape.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Whether a terminal may do something else with a character than to show it.
pub(super) fn is_unsafe(c: char) -> bool {
    let steers_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let ends_line = matches!(c, '\u{2028}' | '\u{2029}');
    let is_invisible = matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || steers_direction || ends_line || is_invisible
}

/// A number of bytes: `512 B`, `1.5 KiB`, `2.0 GiB`.
pub(super) fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // Half a tenth below the next unit is already shown as that unit.
        if amount < 1023.95 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    format!("{amount:.1} {unit}")
}

/// A number with its thousands apart: `1,250,000`.
pub(super) fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3 + 1);
    if number < 0 {
        grouped.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A length of time: `350ms`, `12.3s`, `4m 10s`, `2h 5m`, `3d 4h`.
pub(super) fn duration(length: Duration) -> String {
    let secs = length.as_secs();
    if secs == 0 {
        return format!("{}ms", length.as_millis());
    }
    if secs < 60 {
        let tenths = length.subsec_millis() / 100;
        return if tenths == 0 { format!("{secs}s") } else { format!("{secs}.{tenths}s") };
    }
    let (days, hours, minutes, seconds) = (secs / 86400, secs / 3600 % 24, secs / 60 % 60, secs % 60);
    let (large, small) = if days > 0 {
        (format!("{days}d"), (hours, "h"))
    } else if hours > 0 {
        (format!("{hours}h"), (minutes, "m"))
    } else {
        (format!("{minutes}m"), (seconds, "s"))
    };
    if small.0 == 0 { large } else { format!("{large} {}{}", small.0, small.1) }
}

/// An instant on the wire, where it is one that can be shown.
pub(super) fn instant(stamp: Option<&prost_types::Timestamp>) -> Option<DateTime<Utc>> {
    let stamp = stamp?;
    DateTime::from_timestamp(stamp.seconds, u32::try_from(stamp.nanos).ok()?)
}

/// An instant as the wire takes it.
pub(super) fn stamp(instant: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: instant.timestamp(), nanos: instant.timestamp_subsec_nanos().cast_signed() }
}

/// An instant to the second, in UTC; a dash when there is none.
pub(super) fn time(instant: Option<DateTime<Utc>>) -> String {
    instant.map_or_else(|| "-".to_owned(), |instant| instant.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// How far an instant lies from `now`, in its largest unit: `4m ago`, `in 29d`; `now` within a second.
pub(super) fn distance(instant: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let length = rough((now - instant).abs().to_std().unwrap_or_default());
    if length == "0s" {
        "now".to_owned()
    } else if instant > now {
        format!("in {length}")
    } else {
        format!("{length} ago")
    }
}

/// An instant and how far it lies from `now`; a dash when there is none.
pub(super) fn time_and_distance(instant: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    instant.map_or_else(|| "-".to_owned(), |instant| format!("{} ({})", time(Some(instant)), distance(instant, now)))
}

/// The time since an instant, in its largest unit; a dash when there is none.
pub(super) fn age(instant: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    instant.map_or_else(|| "-".to_owned(), |instant| rough((now - instant).to_std().unwrap_or_default()))
}

/// The time between two instants; a dash when one is missing.
pub(super) fn span(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => (to - from).to_std().map_or_else(|_| "-".to_owned(), duration),
        _ => "-".to_owned(),
    }
}

/// Text from outside, or a dash when there is none.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { escape(text) }
}

/// Labels as `key=value` with commas, or a dash when there are none.
pub(super) fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<_> = labels.into_iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    if pairs.is_empty() { "-".to_owned() } else { pairs.join(", ") }
}

fn rough(length: Duration) -> String {
    match length.as_secs() {
        secs @ 0..60 => format!("{secs}s"),
        secs @ 60..3600 => format!("{}m", secs / 60),
        secs @ 3600..172_800 => format!("{}h", secs / 3600),
        secs => format!("{}d", secs / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        for (text, safe) in [
            ("plain é 鍵 🗝", "plain é 鍵 🗝"),
            ("\x1b[2J", "\\u{1b}[2J"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}gpj", "\\u{202e}gpj"),
            ("\u{feff}x", "\\u{feff}x"),
            ("\x7f\0", "\\u{7f}\\u{0}"),
        ] {
            assert_eq!(escape(text), safe);
        }
    }

    #[test]
    fn sizes() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (12_582_912, "12.0 MiB"),
            (2_254_857_831, "2.1 GiB"),
            (i64::MAX, "8192.0 PiB"),
            (-1, "-1 B"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn counts() {
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_250_000, "1,250,000"), (-1000, "-1,000")] {
            assert_eq!(count(number), shown);
        }
        assert_eq!(count(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn lengths_of_time() {
        for (millis, shown) in [
            (0, "0ms"),
            (350, "350ms"),
            (5000, "5s"),
            (12_345, "12.3s"),
            (60_000, "1m"),
            (250_000, "4m 10s"),
            (7_500_000, "2h 5m"),
            (86_400_000, "1d"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), shown);
        }
    }

    #[test]
    fn instants() {
        let now: DateTime<Utc> = "2030-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(time(Some(now)), "2030-01-02T03:04:05Z");
        assert_eq!(time(None), "-");
        assert_eq!(instant(Some(&stamp(now))), Some(now));
        assert_eq!(instant(Some(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })), None);
        for (secs, shown) in [(0, "now"), (90, "in 1m"), (-90, "1m ago"), (-7200, "2h ago"), (2_505_600, "in 29d")] {
            assert_eq!(distance(now + chrono::Duration::seconds(secs), now), shown);
        }
        assert_eq!(age(Some(now), now - chrono::Duration::seconds(5)), "0s");
    }
}
