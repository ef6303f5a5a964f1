//! Passing over the data behind a field's head, of which any part may still be to come.

use super::What;
use super::lzf::{self, Lzf};
use super::packed::{self, Packed};
use std::borrow::Cow;

/// Longest AUX name and value that is looked at as a whole, in bytes, stored and unfolded.
pub(super) const TEXT_BYTES: u64 = 256;

/// Longest name of a key that is looked at as a whole, in bytes, stored and unfolded.
pub(super) const KEY_BYTES: u64 = 64 * 1024;

/// What is still to come of a field.
#[derive(Debug)]
pub(super) enum Body {
    /// Nothing.
    None,
    /// That many bytes of no interest.
    Skip(u64),
    /// A packed collection of that length, from its header on.
    Packed(Packed, u64),
    /// That many bytes, then the end mark of a packed collection.
    Marked(u64),
    /// The rest of a compressed string.
    Compressed(Lzf),
    /// That many bytes for the scratch.
    Scratch(u64),
}

/// How far a piece has brought a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// That many bytes were taken, and more follow.
    More(usize),
    /// That many bytes were taken, and they were the last.
    Done(usize),
    /// Nothing can be made of so few bytes.
    Short,
}

impl Body {
    /// Takes what belongs to the body from the front of `input`.
    pub(super) fn feed(&mut self, input: &[u8], scratch: &mut Scratch) -> Result<Progress, What> {
        let progress = match self {
            Self::None => Progress::Done(0),
            Self::Skip(left) => {
                let took = take(left, input);
                if *left == 0 { Progress::Done(took) } else { Progress::More(took) }
            }
            Self::Packed(packed, length) => {
                let (packed, length) = (*packed, *length);
                let Some(header) = input.get(..packed.header_bytes()) else {
                    return Ok(Progress::Short);
                };
                packed.check(header, length)?;
                let left = length - header.len() as u64;
                *self = if packed.marked() { Self::Marked(left - 1) } else { Self::Skip(left) };
                return Ok(Progress::More(header.len()));
            }
            Self::Marked(0) => match input.first() {
                Some(&packed::END_MARK) => Progress::Done(1),
                Some(_) => return Err("a packed collection without its end mark"),
                None => Progress::Short,
            },
            Self::Marked(left) => Progress::More(take(left, input)),
            Self::Compressed(lzf) => {
                let took = lzf.feed(input)?;
                if lzf.done() { Progress::Done(took) } else { Progress::More(took) }
            }
            Self::Scratch(left) => {
                let took = take(left, input);
                scratch.fill(&input[..took]);
                if *left == 0 { Progress::Done(took) } else { Progress::More(took) }
            }
        };
        Ok(match progress {
            Progress::More(0) => Progress::Short,
            progress => progress,
        })
    }
}

/// Counts what is at hand of `left` bytes, and takes it off.
fn take(left: &mut u64, input: &[u8]) -> usize {
    let took = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= took as u64;
    took
}

/// How the string in the scratch is stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Coding {
    /// As it is.
    Plain,
    /// A little-endian integer, for its decimal text.
    Integer,
    /// An LZF block that unfolds to that many bytes.
    Compressed(usize),
}

/// The one string at a time that is held whole. Its memory grows with the bytes that have come, never with a declared length,
/// and the caller begins no string that is longer than one of the limits above.
#[derive(Debug)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    coding: Coding,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), coding: Coding::Plain }
    }

    /// Empties the scratch for the next string.
    pub(super) fn begin(&mut self, coding: Coding) {
        self.bytes.clear();
        self.coding = coding;
    }

    fn fill(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The string, once all of it is there.
    pub(super) fn text(&self) -> Result<Cow<'_, [u8]>, What> {
        let stored = &self.bytes[..];
        Ok(match self.coding {
            Coding::Plain => Cow::Borrowed(stored),
            Coding::Integer => Cow::Owned(integer(stored).to_string().into_bytes()),
            Coding::Compressed(declared) => Cow::Owned(lzf::unfold(stored, declared)?),
        })
    }
}

/// A little-endian integer of one, two or four bytes.
fn integer(bytes: &[u8]) -> i32 {
    match *bytes {
        [a] => i32::from(i8::from_le_bytes([a])),
        [a, b] => i32::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch() {
        // Goal: a string comes out as text, however it is stored and cut. Method: a table, byte by byte.
        let table: &[(&[u8], Coding, &[u8])] = &[
            (b"", Coding::Plain, b""),
            (b"text", Coding::Plain, b"text"),
            (&[0xff], Coding::Integer, b"-1"),
            (&[0, 0x80], Coding::Integer, b"-32768"),
            (&[0xff, 0xff, 0xff, 0x7f], Coding::Integer, b"2147483647"),
            (&[0, b'a', 0x40, 0], Coding::Compressed(5), b"aaaaa"),
        ];
        for (stored, coding, text) in table {
            let mut scratch = Scratch::new();
            scratch.begin(*coding);
            let mut body = Body::Scratch(stored.len() as u64);
            for (at, byte) in stored.iter().enumerate() {
                let expected = if at + 1 == stored.len() { Progress::Done(1) } else { Progress::More(1) };
                assert_eq!(body.feed(&[], &mut scratch), Ok(Progress::Short));
                assert_eq!(body.feed(&[*byte], &mut scratch), Ok(expected));
            }
            assert_eq!(body.feed(b"more", &mut scratch), Ok(Progress::Done(0)));
            assert_eq!(scratch.text().as_deref(), Ok(*text));
        }
    }

    #[test]
    fn packed_bodies() {
        // Goal: the header and the end mark are where the length says. Method: feed a listpack and an empty intset.
        let mut scratch = Scratch::new();
        let mut body = Body::Packed(Packed::Listpack, 9);
        assert_eq!(body.feed(&[9, 0, 0, 0, 1], &mut scratch), Ok(Progress::Short));
        assert_eq!(body.feed(&[9, 0, 0, 0, 1, 0, 5, 1, 0xff], &mut scratch), Ok(Progress::More(6)));
        assert_eq!(body.feed(&[5, 1, 0xff], &mut scratch), Ok(Progress::More(2)));
        assert_eq!(body.feed(&[], &mut scratch), Ok(Progress::Short));
        assert!(body.feed(&[0xfe], &mut scratch).is_err());
        assert_eq!(body.feed(&[0xff, 0], &mut scratch), Ok(Progress::Done(1)));

        let mut body = Body::Packed(Packed::Intset, 8);
        assert_eq!(body.feed(&[2, 0, 0, 0, 0, 0, 0, 0], &mut scratch), Ok(Progress::More(8)));
        assert_eq!(body.feed(&[], &mut scratch), Ok(Progress::Done(0)));
    }
}
