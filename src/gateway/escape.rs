//! Percent escapes of paths and queries, strictly: what cannot be read is refused, never repaired.

/// What a plus sign means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plus {
    /// Itself, as in a path.
    Plus,
    /// A space, as HTML clients write it in a query.
    Space,
}

/// Which escapes stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// None.
    Nothing,
    /// Those of reserved characters, in a value of many segments.
    Reserved,
}

/// Characters whose escapes stay in a value of many segments.
const RESERVED: &[u8] = b"!#$&'()*+,/:;=?@[]";

/// Decodes once.
///
/// # Errors
///
/// In words, for a broken escape, for bytes that are not UTF-8, and for NUL.
pub(super) fn decode(text: &str, plus: Plus, keep: Keep) -> Result<String, &'static str> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (escape, after) = rest.split_at_checked(2).ok_or("has a broken percent escape")?;
                let byte = digit(escape[0]).zip(digit(escape[1])).map(|(high, low)| high * 16 + low).ok_or("has a broken percent escape")?;
                match keep {
                    Keep::Reserved if RESERVED.contains(&byte) => decoded.extend([b'%', escape[0], escape[1]]),
                    Keep::Reserved | Keep::Nothing => decoded.push(byte),
                }
                rest = after;
            }
            b'+' if plus == Plus::Space => decoded.push(b' '),
            other => decoded.push(other),
        }
    }
    if decoded.contains(&0) {
        return Err("must not hold a NUL character");
    }
    String::from_utf8(decoded).map_err(|_| "is not UTF-8")
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        let table = [
            ("", Ok("")),
            ("abc", Ok("abc")),
            ("a%3Ab%3ac", Ok("a:b:c")),
            ("a%2Fb", Ok("a/b")),
            ("a%252Fb", Ok("a%2Fb")),
            ("%D1%8F", Ok("я")),
            ("я", Ok("я")),
            ("%F0%9F%98%80", Ok("😀")),
            ("%20%22%25", Ok(" \"%")),
            ("%", Err("has a broken percent escape")),
            ("a%4", Err("has a broken percent escape")),
            ("%zz", Err("has a broken percent escape")),
            ("%4é", Err("has a broken percent escape")),
            ("%+1", Err("has a broken percent escape")),
            ("%ff", Err("is not UTF-8")),
            ("%C3%28", Err("is not UTF-8")),
            ("%ED%A0%80", Err("is not UTF-8")),
            ("a%00b", Err("must not hold a NUL character")),
        ];
        for (text, expected) in table {
            assert_eq!(decode(text, Plus::Plus, Keep::Nothing), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn plus_is_a_space_in_a_query_only() {
        assert_eq!(decode("a+b%2Bc", Plus::Plus, Keep::Nothing).unwrap(), "a+b+c");
        assert_eq!(decode("a+b%2Bc", Plus::Space, Keep::Nothing).unwrap(), "a b+c");
    }

    #[test]
    fn reserved_escapes_stay_in_many_segments() {
        assert_eq!(decode("a%2Fb/c%3a%41%20", Plus::Plus, Keep::Reserved).unwrap(), "a%2Fb/c%3aA ");
        for byte in RESERVED {
            let escape = format!("%{byte:02X}");
            assert_eq!(decode(&escape, Plus::Plus, Keep::Reserved).unwrap(), escape);
        }
    }
}
