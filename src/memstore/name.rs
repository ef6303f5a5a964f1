//! The rule for names that callers give to new backups.

use super::answer::Refusal;
use crate::backup::Name;
use std::ops::RangeInclusive;

/// Lengths of a name, in characters.
const CHARS: RangeInclusive<usize> = 4..=63;

/// Reads a name for a new backup: `[a-z](-?[a-z0-9])*` over all of it, 4 to 63 characters. Nothing is trimmed or folded.
pub(super) fn new(text: &str) -> Result<Name, Refusal> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = text.bytes().all(legal)
        && CHARS.contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && !text.contains("--");
    let name = if fits { text.parse().ok() } else { None };
    name.ok_or_else(|| Refusal::Field {
        field: "name",
        what: "must have 4 to 63 characters: lower-case English letters, digits and single dashes, the first a letter and the last no dash".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        // Goal: the rule holds to the letter. Method: names around each of its borders.
        let (long, longest, too_long) = ("a".repeat(63), format!("a{}", "-b".repeat(31)), "a".repeat(64));
        let valid = [
            "abcd",
            "a123",
            "a1-2",
            "a-b-c-d",
            "backup",
            "my-backup-1",
            "z999",
            "copy",
            "export",
            "null",
            "manual-0123456789abcdef",
            "n0-0",
            "a-1b",
            &long,
            &longest,
        ];
        for name in valid {
            assert!(new(name).is_ok(), "{name:?}");
        }
        assert_eq!(longest.len(), 63);
        let invalid = [
            "",
            "a",
            "ab",
            "abc",
            "n-0",
            &too_long,
            "Abcd",
            "abcD",
            "ABCD",
            "1abc",
            "9999",
            "-abc",
            "abc-",
            "ab--cd",
            "a---b",
            "----",
            "ab_cd",
            "ab.cd",
            "scheduled.backup.2024-03-13-00-00.KST",
            "ab cd",
            " abcd",
            "abcd ",
            "abcd\n",
            "abcd\r\n",
            "\nabcd",
            "ab\tcd",
            "abcd\0",
            "ab/cd",
            "ab\\cd",
            "../ab",
            "ab%41",
            "백업하나",
            "backup백",
            "ａｂｃｄ",
            "abc１",
            "abc٣",
            "àbcd",
            "abcé",
            "ab–cd",
            "ab\u{200b}cd",
            "ab\u{a0}cd",
            "ﬀabc",
            "abc²",
            "😀abc",
            "ab+cd",
            "ab:cd",
            "ab@cd",
            "\"abcd\"",
            "\u{feff}abcd",
        ];
        for name in invalid {
            let refused = new(name);
            assert!(matches!(refused, Err(Refusal::Field { field: "name", .. })), "{name:?}: {refused:?}");
        }
        assert!(valid.len() + invalid.len() > 40);
    }
}
