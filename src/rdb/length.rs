//! How a length and a string begin: the bytes in front of the data, and nothing of the data itself.

use super::What;

/// Longest head of a string, in bytes: the mark of a compressed one and its two 64-bit lengths.
pub(super) const HEAD_BYTES: usize = 1 + 9 + 9;

/// A value read from the front of some bytes and how many of them it took; `None` when more bytes are needed.
pub(super) type Read<T> = Result<Option<(T, usize)>, What>;

/// The first field of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// That many of something follow.
    Plain(u64),
    /// A string in a special encoding follows.
    Special(u8),
}

/// What a string's head says about the bytes behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// The string itself, of that many bytes.
    Plain(u64),
    /// A little-endian integer of that many bytes; the string is its decimal text.
    Integer(usize),
    /// An LZF block.
    Compressed {
        /// Bytes that follow.
        stored: u64,
        /// Bytes that the block must unfold to.
        declared: u64,
    },
}

/// Reads a length where a string's special encoding would be corruption.
#[inline]
pub(super) fn plain(input: &[u8]) -> Read<u64> {
    match length(input)? {
        Some((Length::Plain(value), took)) => Ok(Some((value, took))),
        Some((Length::Special(_), _)) => Err("a string encoding where a length belongs"),
        None => Ok(None),
    }
}

/// Reads the head of a string.
#[inline]
pub(super) fn head(input: &[u8]) -> Read<Head> {
    match length(input)? {
        Some((Length::Plain(bytes), took)) => Ok(Some((Head::Plain(bytes), took))),
        Some((Length::Special(encoding), took)) => special(encoding, took, input),
        None => Ok(None),
    }
}

#[inline]
fn length(input: &[u8]) -> Read<Length> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let low = first & 0x3f;
    Ok(match first >> 6 {
        0 => Some((Length::Plain(u64::from(low)), 1)),
        1 => input.get(1).map(|&next| (Length::Plain(u64::from(low) << 8 | u64::from(next)), 2)),
        2 => wide(first, input)?,
        _ => Some((Length::Special(low), 1)),
    })
}

/// The two wide forms. Very old readers masked the unused bits of the first byte; no writer has ever set them.
fn wide(first: u8, input: &[u8]) -> Read<Length> {
    let rest = &input[1..];
    match first {
        0x80 => Ok(rest.first_chunk().map(|bytes| (Length::Plain(u64::from(u32::from_be_bytes(*bytes))), 5))),
        0x81 => Ok(rest.first_chunk().map(|bytes| (Length::Plain(u64::from_be_bytes(*bytes)), 9))),
        _ => Err("a length in no known form"),
    }
}

fn special(encoding: u8, took: usize, input: &[u8]) -> Read<Head> {
    match encoding {
        0 => Ok(Some((Head::Integer(1), took))),
        1 => Ok(Some((Head::Integer(2), took))),
        2 => Ok(Some((Head::Integer(4), took))),
        3 => {
            let Some((stored, first)) = plain(&input[took..])? else {
                return Ok(None);
            };
            let Some((declared, second)) = plain(&input[took + first..])? else {
                return Ok(None);
            };
            Ok(Some((Head::Compressed { stored, declared }, took + first + second)))
        }
        _ => Err("a string in no known encoding"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        // Goal: each form is read whole, and every shorter piece of it asks for more. Method: a table of encodings.
        let table: &[(&[u8], u64)] = &[
            (&[0x00], 0),
            (&[0x3f], 63),
            (&[0x40, 0x40], 64),
            (&[0x7f, 0xff], 16_383),
            (&[0x80, 0, 0, 0x40, 0], 16_384),
            (&[0x80, 0xff, 0xff, 0xff, 0xff], u64::from(u32::MAX)),
            (&[0x81, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
            (&[0x81, 255, 255, 255, 255, 255, 255, 255, 255], u64::MAX),
        ];
        for (bytes, value) in table {
            assert_eq!(plain(bytes), Ok(Some((*value, bytes.len()))));
            for short in 0..bytes.len() {
                assert_eq!(plain(&bytes[..short]), Ok(None));
            }
        }
        for first in 0x82..=0xbf {
            assert!(plain(&[first; 9]).is_err(), "{first:#x}");
            assert!(head(&[first; 9]).is_err(), "{first:#x}");
        }
        for first in 0xc0..=0xff {
            assert!(plain(&[first; 9]).is_err(), "{first:#x}");
        }
    }

    #[test]
    fn heads() {
        // Goal: heads of strings, in whole and in part. Method: a table.
        let table: &[(&[u8], Head)] = &[
            (&[5], Head::Plain(5)),
            (&[0xc0], Head::Integer(1)),
            (&[0xc1], Head::Integer(2)),
            (&[0xc2], Head::Integer(4)),
            (&[0xc3, 9, 0x40, 100], Head::Compressed { stored: 9, declared: 100 }),
            (&[0xc3, 0x81, 0, 0, 0, 0, 0, 0, 0, 1, 0x81, 0, 0, 0, 0, 0, 0, 0, 2], Head::Compressed { stored: 1, declared: 2 }),
        ];
        for (bytes, expected) in table {
            assert!(bytes.len() <= HEAD_BYTES);
            assert_eq!(head(bytes), Ok(Some((*expected, bytes.len()))));
            for short in 0..bytes.len() {
                assert_eq!(head(&bytes[..short]), Ok(None));
            }
        }
        assert!(head(&[0xc4]).is_err());
        assert!(head(&[0xc3, 0xc0]).is_err());
        assert!(head(&[0xc3, 1, 0xc0]).is_err());
    }
}
