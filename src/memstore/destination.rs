//! Where an export goes, by the rules of its two texts.
//!
//! ```text
//! destination  bucket/folder/.../folder   and a slash at the end, or none
//! name         the file's name
//! key          folder/.../folder/name     within both limits
//! ```

use super::answer::Refusal;
use crate::artifacts::bucket::Key;

/// Longest key, in characters.
const KEY_CHARS: usize = 198;

/// Longest key, in bytes. Behind it there is room for what tells the objects of several shards apart.
const KEY_BYTES: usize = 396;

/// Where an export goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// Name of the bucket.
    pub(super) bucket: String,
    /// Folders below the bucket, without a slash at either end; may be empty.
    pub(super) path: String,
    /// Name of the file.
    pub(super) name: String,
}

impl Destination {
    /// Reads the two texts.
    pub(super) fn new(destination: &str, name: &str) -> Result<Self, Refusal> {
        let refuse = |field, what: &str| Err(Refusal::Field { field, what: what.to_owned() });
        let whole = destination.strip_suffix('/').unwrap_or(destination);
        let (bucket, path) = whole.split_once('/').unwrap_or((whole, ""));
        if bucket.is_empty() {
            return refuse("destination", "must begin with the name of a bucket, as in bucket/folder");
        }
        let folders = whole.split('/').skip(1);
        if whole.split('/').any(|part| part.is_empty() || is_dots(part)) {
            return refuse("destination", "must have no empty parts and none that is `.` or `..`");
        }
        if !folders.flat_map(str::chars).all(is_legal) {
            return refuse("destination", "must have folders of letters, digits, `-`, `_` and `.`");
        }
        if name.is_empty() || is_dots(name) || !name.chars().all(is_legal) {
            return refuse("name", "must be a file name of letters, digits, `-`, `_` and `.`, and neither `.` nor `..`");
        }
        if whole.split('/').chain([name]).any(|part| part.parse::<Key>().is_err()) {
            return refuse("destination", "and the name must have no part that buckets keep for themselves");
        }
        let slash = usize::from(!path.is_empty());
        let chars = path.chars().count() + slash + name.chars().count();
        let bytes = path.len() + slash + name.len();
        if chars > KEY_CHARS || bytes > KEY_BYTES {
            let what = format!("makes a path of {chars} characters and {bytes} bytes with the folders; it must have at most {KEY_CHARS} and {KEY_BYTES}");
            return refuse("name", &what);
        }
        Ok(Self { bucket: bucket.to_owned(), path: path.to_owned(), name: name.to_owned() })
    }
}

fn is_dots(part: &str) -> bool {
    matches!(part, "." | "..")
}

/// Letters and digits of any script, and three signs.
fn is_legal(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_bucket_and_folders() {
        for (destination, bucket, path) in [
            ("reports", "reports", ""),
            ("reports/", "reports", ""),
            ("reports/a", "reports", "a"),
            ("reports/a/b/", "reports", "a/b"),
            ("reports/2024.03/an_n-n", "reports", "2024.03/an_n-n"),
            ("reports/백업", "reports", "백업"),
            ("reports/...", "reports", "..."),
            ("my bucket/a", "my bucket", "a"),
        ] {
            let expected = Destination { bucket: bucket.into(), path: path.into(), name: "dump.rdb".into() };
            assert_eq!(Destination::new(destination, "dump.rdb"), Ok(expected), "{destination}");
        }
    }

    #[test]
    fn what_is_no_destination_is_refused_by_its_field() {
        for destination in [
            "",
            "/",
            "//",
            "/reports",
            "/reports/a",
            "reports//",
            "reports//a",
            "reports/a//b",
            "reports/a//",
            "reports/.",
            "reports/..",
            "reports/../a",
            "reports/a/../b",
            "reports/./a",
            "..",
            ".",
            "reports/a b",
            "reports/a\\b",
            "reports/a:b",
            "reports/a*",
            "reports/a\n",
            "reports/a\0b",
            "reports/a%2e",
            "reports/a,b",
            "reports/.redkeep/a",
            "reports/\u{202e}a",
            "reports/a／b",
        ] {
            assert!(matches!(Destination::new(destination, "dump.rdb"), Err(Refusal::Field { field: "destination", .. })), "{destination:?}");
        }
        for name in ["", ".", "..", "a/b", "/a", "a\\b", "a b", "a\tb", "a\n", "a:b", "a+b", "a#b", "a?b", "a*", "a\"", "😀", "a\u{200b}b", "a・b"] {
            assert!(matches!(Destination::new("reports", name), Err(Refusal::Field { field: "name", .. })), "{name:?}");
        }
    }

    #[test]
    fn both_limits_of_the_path_hold_without_the_bucket() {
        let fits = |folders: &str, name: &str| Destination::new(&format!("{}/{folders}", "b".repeat(300)), name).is_ok();
        assert!(fits("", &"a".repeat(198)));
        assert!(!fits("", &"a".repeat(199)));
        assert!(fits("abc", &"a".repeat(194)), "with the slash 198");
        assert!(!fits("abc", &"a".repeat(195)));
        assert!(fits("", &"é".repeat(198)), "396 bytes");
        assert!(fits("", &"백".repeat(132)), "396 bytes");
        assert!(!fits("", &"백".repeat(133)), "399 bytes in 133 characters");
        assert!(!fits("", &format!("{}a", "é".repeat(198))));
        let refused = Destination::new("b", &"a".repeat(199)).unwrap_err();
        assert!(matches!(refused, Refusal::Field { field: "name", what } if what.contains("199 characters")));
    }
}
