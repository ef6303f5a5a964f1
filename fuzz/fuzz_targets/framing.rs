//! Any payload in both framings: no panic, and the same outcome however it is cut; what passes is a sound dump.
//!
//! ```text
//! one byte of switches | one byte, the number of cuts | the cuts, a byte each | the payload
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use redkeep::rdb::{Summary, Walker};
use redkeep::redis::replication::{Framing, MARK_BYTES};
use redkeep::snapshot::Error;
use redkeep::snapshot::fuzzing::unframe;

/// Marks like those of servers, and some that begin as they end. None has a newline: a mark stands in a line.
const MARKS: [[u8; MARK_BYTES]; 4] = [
    *b"89abcdef01234567fedcba9876543210a1b2c3d4",
    *b"0123456789abcdef0123456789abcdef01234567",
    [b'a'; MARK_BYTES],
    *b"0000000000000000000000000000000000000001",
];

/// The payload is framed by its length, with what the upper bits of the switches say too much or too little.
const BY_LENGTH: u8 = 1;
/// The mark stands behind the payload.
const MARKED: u8 = 2;
/// Newlines stand behind that.
const NEWLINES: u8 = 4;

fuzz_target!(|input: &[u8]| {
    let [switches, cuts, rest @ ..] = input else { return };
    let Some((cuts, payload)) = rest.split_at_checked(usize::from(*cuts)) else { return };
    let mut wire = payload.to_vec();
    let mark = MARKS[usize::from(switches >> 6)];
    let framing = if switches & BY_LENGTH != 0 {
        let lie = u64::from(switches >> 3) & 7;
        Framing::Length((wire.len() as u64).saturating_add(lie).saturating_sub(3).max(1))
    } else {
        if switches & MARKED != 0 {
            wire.extend_from_slice(&mark);
        }
        if switches & NEWLINES != 0 {
            wire.extend_from_slice(&[b'\n'; 50][..usize::from(switches >> 3 & 7) * 7]);
        }
        Framing::Mark(mark)
    };
    let whole = unframe(&framing, [&wire[..]]);
    let cut = unframe(&framing, Pieces { rest: &wire, cuts, next: 0 });
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => {
            assert!(whole == cut, "cut otherwise, the dump is another");
            sound(whole, &wire);
        }
        (Err(whole), Err(cut)) => assert_eq!(kind(whole), kind(cut), "{whole} but {cut}"),
        (whole, cut) => panic!("{:?} but {:?}", told(whole), told(cut)),
    }
});

/// What passes is what came first on the wire, and walks alone as it did in its frame.
fn sound((dump, summary): &(Vec<u8>, Summary), wire: &[u8]) {
    assert!(wire.starts_with(dump));
    let mut walker = Walker::new();
    assert_eq!(walker.feed(dump), Ok(dump.len()));
    assert_eq!(walker.finish().as_ref(), Ok(summary));
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Cut { .. } => "cut",
        Error::Corrupt(_) => "corrupt",
        other => panic!("an error that framing does not have: {other}"),
    }
}

fn told(result: &Result<(Vec<u8>, Summary), Error>) -> Result<usize, String> {
    result.as_ref().map(|(dump, _)| dump.len()).map_err(ToString::to_string)
}

/// The wire in pieces of the lengths that the cuts say, over and over.
struct Pieces<'a> {
    rest: &'a [u8],
    cuts: &'a [u8],
    next: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let length = if self.cuts.is_empty() { 1 } else { usize::from(self.cuts[self.next % self.cuts.len()]) + 1 };
        self.next += 1;
        let (piece, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        Some(piece)
    }
}
