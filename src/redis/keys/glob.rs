//! Patterns of names, as the command KEYS takes them.

/// Longest pattern, in bytes.
pub const PATTERN_BYTES: usize = 1024;

/// Whether a name fits a pattern: `*` stands for any bytes, `?` for one, `[a-c]` and `[^a-c]` for one of a set or of none of it,
/// and `\` takes the next byte as it is. A set that is not closed ends with the pattern.
///
/// No recursion, and no more steps than the lengths of both multiplied: after a mismatch only the last `*` takes more.
pub fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Behind the last `*`, and what of the name it does not take yet.
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, read));
            continue;
        }
        match step(&pattern[at..], name[read]) {
            Some(took) => {
                at += took;
                read += 1;
            }
            None => match &mut star {
                Some((behind, taken)) => {
                    *taken += 1;
                    (at, read) = (*behind, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Holds the first element of a pattern, which is no `*`, against a byte; how long the element is, if it fits.
fn step(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref set @ ..] => of_set(set, byte).map(|took| took + 1),
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [literal, ..] => (literal == byte).then_some(1),
    }
}

/// The same for a set, behind its opening bracket.
fn of_set(set: &[u8], byte: u8) -> Option<usize> {
    let is_not = set.first() == Some(&b'^');
    let mut at = usize::from(is_not);
    let mut is_in = false;
    loop {
        match set[at..] {
            // One that is not closed ends here.
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                is_in |= escaped == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                is_in |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                is_in |= one == byte;
                at += 1;
            }
        }
    }
    (is_in != is_not).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        // Goal: what KEYS finds is found, and nothing else. Method: a table.
        let table: [(&str, &[&str], &[&str]); 12] = [
            ("*", &["", "a", "a*b"], &[]),
            ("", &[""], &["a"]),
            ("h?llo", &["hello", "h?llo"], &["hllo", "heello"]),
            ("h*llo", &["hllo", "heeeello", "hllollo"], &["hell", "xhllo"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo", "hllo"]),
            ("h[^e]llo", &["hallo", "h^llo"], &["hello"]),
            ("h[a-b]llo", &["hallo", "hbllo"], &["hcllo", "h-llo"]),
            ("h[b-a]llo", &["hallo", "hbllo"], &["hcllo"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("a[\\]b]", &["a]", "ab"], &["a\\"]),
            ("a[bc", &["ab", "ac"], &["a", "ad", "abc"]),
            ("*a*b*", &["ab", "xaybz", "aab"], &["ba", "a", "b"]),
        ];
        for (pattern, good, bad) in table {
            for name in good {
                assert!(fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
            }
            for name in bad {
                assert!(!fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn a_hard_pattern_ends() {
        let (pattern, name) = ("a*".repeat(PATTERN_BYTES / 2), "a".repeat(64 * 1024));
        assert!(fits(pattern.as_bytes(), name.as_bytes()));
        assert!(!fits(format!("{pattern}b").as_bytes(), name.as_bytes()));
    }
}
