//! Any bytes walked: no panic, nothing allocated beyond a limit, and the same outcome however they are cut.
//!
//! ```text
//! one byte of switches | one byte, the number of cuts | the cuts, a byte each | the dump
//! ```

#![no_main]

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use redkeep::rdb::{Error, Summary, Walker};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What one walk may allocate beside what it is fed, in bytes. The counts of databases are the most of it: there may be 65,536.
const WALK_BYTES: usize = 64 * 1024 * 1024;

/// The checksum at the end is made right, so that what is behind that check is reached.
const SEALED: u8 = 1;

fuzz_target!(|input: &[u8]| {
    let [switches, cuts, rest @ ..] = input else { return };
    let Some((cuts, dump)) = rest.split_at_checked(usize::from(*cuts)) else { return };
    let mut dump = dump.to_vec();
    if switches & SEALED != 0 && !seal(&mut dump) {
        return;
    }
    let before = ALLOCATOR.allocated();
    ALLOCATOR.set_limit(before + WALK_BYTES).expect("the limit is above what is allocated");
    let whole = walk([&dump[..]]);
    let cut = walk(Pieces { rest: &dump, cuts, next: 0 });
    ALLOCATOR.set_limit(usize::MAX).expect("there is no higher limit");
    assert_eq!(whole, cut);
    if let Ok(summary) = &whole {
        assert!(summary.bytes <= dump.len() as u64);
        let keys: u64 = summary.databases.iter().map(|database| database.keys).sum();
        // A key takes two bytes at least.
        assert!(keys <= summary.bytes / 2);
    }
});

/// Puts the checksum of all before over the last eight bytes; false where there are not so many.
fn seal(dump: &mut [u8]) -> bool {
    let Some(body) = dump.len().checked_sub(8) else { return false };
    let mut crc = 0_u64;
    for byte in &dump[..body] {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x95ac_9329_ac4b_c9b5 };
        }
    }
    dump[body..].copy_from_slice(&crc.to_le_bytes());
    true
}

fn walk<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Summary, Error> {
    let mut walker = Walker::new();
    for piece in pieces {
        match walker.feed(piece) {
            Ok(taken) if taken < piece.len() => break,
            Ok(_) => {}
            // Once the end was reached inside a piece no more is fed; between two pieces it is told by this.
            Err(Error::TrailingBytes { .. }) => break,
            Err(error) => {
                assert_eq!(walker.feed(b"x"), Err(error.clone()), "an error stays");
                assert_eq!(walker.finish().as_ref().err(), Some(&error), "an error stays");
                return Err(error);
            }
        }
    }
    walker.finish()
}

/// The dump in pieces of the lengths that the cuts say, over and over.
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
