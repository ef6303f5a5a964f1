//! Where the dump ends inside the payload: the two framings, held against the walk.
//!
//! The mark of a diskless payload is random, but it may stand inside a value all the same. So a mark counts only where the
//! dump has come to its own end; in a dump whose structure is not followed, the last one counts: the one followed by nothing
//! but newlines.

use super::Error;
use crate::rdb;
use crate::redis::replication::{Framing, MARK_BYTES};
use memchr::memmem;

/// The payload of one transfer.
pub(super) struct Payload {
    walker: rdb::Walker,
    framing: State,
}

enum State {
    Length {
        total: u64,
        left: u64,
    },
    Mark {
        mark: [u8; MARK_BYTES],
        finder: Box<memmem::Finder<'static>>,
        /// The last bytes, fewer than a mark, which may be the beginning of one.
        carry: Vec<u8>,
    },
    /// A mark was found in an opaque dump; newlines may follow.
    Candidate {
        mark: [u8; MARK_BYTES],
        newlines: u64,
    },
    Done,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Yes.
    More,
    /// Perhaps: it is over if nothing but newlines follows.
    Perhaps,
    /// No.
    Done,
}

fn finder(mark: &[u8; MARK_BYTES]) -> Box<memmem::Finder<'static>> {
    Box::new(memmem::Finder::new(mark).into_owned())
}

impl Payload {
    pub(super) fn new(framing: &Framing, walk: rdb::Options) -> Self {
        let framing = match framing {
            Framing::Length(total) => State::Length { total: *total, left: *total },
            Framing::Mark(mark) => State::Mark { mark: *mark, finder: finder(mark), carry: Vec::new() },
        };
        Self { walker: rdb::Walker::with(walk), framing }
    }

    /// Bytes of the dump so far.
    pub(super) fn bytes(&self) -> u64 {
        self.walker.bytes()
    }

    /// Keys so far.
    pub(super) fn keys(&self) -> u64 {
        self.walker.keys()
    }

    /// Takes the next piece and hands what belongs to the dump to `sink`, in order.
    pub(super) fn push(&mut self, piece: &[u8], sink: &mut impl FnMut(&[u8]) -> Result<(), Error>) -> Result<Progress, Error> {
        match &mut self.framing {
            State::Done => Ok(Progress::Done),
            State::Length { left, .. } => {
                let count = usize::try_from(*left).map_or(piece.len(), |left| left.min(piece.len()));
                *left -= count as u64;
                let over = *left == 0;
                self.walk(&piece[..count], sink)?;
                if !over {
                    return Ok(Progress::More);
                }
                self.framing = State::Done;
                Ok(Progress::Done)
            }
            State::Mark { finder, carry, .. } => {
                let mut window = std::mem::take(carry);
                let held = window.len();
                let reach = piece.len().min(MARK_BYTES - 1);
                window.extend_from_slice(&piece[..reach]);
                if reach == MARK_BYTES - 1 && finder.find(&window).is_none() {
                    // No mark begins in what was held back, so the piece is searched where it lies.
                    self.walk(&window[..held], sink)?;
                    return self.search(piece, sink);
                }
                window.extend_from_slice(&piece[reach..]);
                self.search(&window, sink)
            }
            State::Candidate { mark, newlines } => {
                let blank = piece.iter().take_while(|byte| **byte == b'\n').count();
                if blank == piece.len() {
                    *newlines += blank as u64;
                    return Ok(Progress::Perhaps);
                }
                // It was data after all, and so were the newlines behind it.
                let (mark, newlines) = (*mark, *newlines);
                if newlines == 0 {
                    // The next one may begin inside it.
                    self.walk(&mark[..1], sink)?;
                    self.framing = State::Mark { mark, finder: finder(&mark), carry: mark[1..].to_vec() };
                    return self.push(piece, sink);
                }
                self.walk(&mark, sink)?;
                for _ in 0..newlines {
                    self.walk(b"\n", sink)?;
                }
                // A mark stands in a line, so it has no newline and none begins before them.
                self.framing = State::Mark { mark, finder: finder(&mark), carry: Vec::new() };
                self.search(piece, sink)
            }
        }
    }

    fn search(&mut self, window: &[u8], sink: &mut impl FnMut(&[u8]) -> Result<(), Error>) -> Result<Progress, Error> {
        let mut fed = 0;
        let mut from = 0;
        loop {
            let State::Mark { mark, finder, .. } = &self.framing else {
                return Ok(Progress::Done);
            };
            let mark = *mark;
            let Some(at) = finder.find(&window[from..]).map(|at| at + from) else {
                break;
            };
            self.walk(&window[fed..at], sink)?;
            fed = at;
            if self.walker.ended() {
                self.framing = State::Done;
                return Ok(Progress::Done);
            }
            let after = &window[at + MARK_BYTES..];
            if self.walker.opaque().is_some() && after.iter().all(|byte| *byte == b'\n') {
                self.framing = State::Candidate { mark, newlines: after.len() as u64 };
                return Ok(Progress::Perhaps);
            }
            // Data that looks like the mark. The next one may begin inside it.
            from = at + 1;
        }
        let keep = window.len().min(MARK_BYTES - 1);
        let sure = (window.len() - keep).max(fed);
        self.walk(&window[fed..sure], sink)?;
        if let State::Mark { carry, .. } = &mut self.framing {
            carry.extend_from_slice(&window[sure..]);
        }
        Ok(Progress::More)
    }

    fn walk(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let taken = self.walker.feed(bytes).map_err(Error::Corrupt)?;
        if taken < bytes.len() {
            return Err(Error::Corrupt(rdb::Error::TrailingBytes { offset: self.walker.bytes() }));
        }
        if bytes.is_empty() { Ok(()) } else { sink(bytes) }
    }

    /// Ends the payload: `Done` was told, or the source closed the connection.
    pub(super) fn finish(self) -> Result<rdb::Summary, Error> {
        match &self.framing {
            State::Done | State::Candidate { .. } => self.walker.finish().map_err(Error::Corrupt),
            State::Length { total, left } => Err(Error::Cut { got: total - left, of: Some(*total) }),
            State::Mark { .. } => Err(Error::Cut { got: self.walker.bytes(), of: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: [u8; MARK_BYTES] = *b"0123456789abcdef0123456789abcdef01234567";

    fn run(framing: &Framing, wire: &[u8], piece: usize) -> Result<(Vec<u8>, rdb::Summary), Error> {
        let mut payload = Payload::new(framing, rdb::Options::default());
        let mut out = Vec::new();
        for part in wire.chunks(piece) {
            let progress = payload.push(part, &mut |bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            })?;
            if progress == Progress::Done {
                break;
            }
        }
        payload.finish().map(|summary| (out, summary))
    }

    /// A dump of version `version` with one key whose value is `value`.
    fn dump(version: &str, value: &[u8]) -> Vec<u8> {
        let mut bytes = format!("REDIS{version}").into_bytes();
        bytes.extend_from_slice(&[0xfe, 0, 0, 1, b'k', 0x80]);
        bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(value);
        bytes.push(0xff);
        bytes.extend_from_slice(&crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, &bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn both_framings_give_the_dump_and_nothing_else_at_any_cut() {
        let mut tricky = vec![b'x'; 100];
        tricky.extend_from_slice(&MARK);
        tricky.extend_from_slice(&MARK[..20]);
        // 0010 is followed, 0099 is opaque.
        for version in ["0010", "0099"] {
            for value in [&b"value"[..], &tricky] {
                let dump = dump(version, value);
                for newlines in [0, 3] {
                    let mut marked = dump.clone();
                    marked.extend_from_slice(&MARK);
                    marked.extend(std::iter::repeat_n(b'\n', newlines));
                    for piece in (1..90).chain([4096]) {
                        let (out, summary) = run(&Framing::Mark(MARK), &marked, piece).unwrap();
                        assert!(out == dump, "version {version}, pieces of {piece}");
                        assert_eq!(summary.opaque.is_some(), version == "0099");
                        let (out, _) = run(&Framing::Length(dump.len() as u64), &dump, piece).unwrap();
                        assert!(out == dump);
                    }
                }
            }
        }
    }

    #[test]
    fn a_cut_payload_is_a_failure_at_every_byte() {
        let dump = dump("0010", b"value");
        let mut marked = dump.clone();
        marked.extend_from_slice(&MARK);
        for end in 0..marked.len() {
            assert!(run(&Framing::Mark(MARK), &marked[..end], 7).is_err(), "{end}");
        }
        for end in 0..dump.len() {
            assert!(run(&Framing::Length(dump.len() as u64), &dump[..end], 7).is_err(), "{end}");
        }
    }

    #[test]
    fn a_length_that_lies_is_a_failure() {
        let dump = dump("0010", b"value");
        let mut longer = dump.clone();
        longer.extend_from_slice(b"junk");
        assert!(matches!(run(&Framing::Length(longer.len() as u64), &longer, 5), Err(Error::Corrupt(rdb::Error::TrailingBytes { .. }))));
        assert!(matches!(run(&Framing::Length(dump.len() as u64 - 1), &dump, 5), Err(Error::Corrupt(_))));
        assert!(matches!(run(&Framing::Length(0), &dump, 5), Err(Error::Corrupt(_))));
    }

    #[test]
    fn many_marks_in_an_opaque_dump_are_data() {
        let dump = dump("0099", &MARK.repeat(6000));
        let mut wire = dump.clone();
        wire.extend_from_slice(&MARK);
        for piece in [41, 256 * 1024, wire.len()] {
            let (out, _) = run(&Framing::Mark(MARK), &wire, piece).unwrap();
            assert!(out == dump, "pieces of {piece}");
        }
    }

    #[test]
    fn a_mark_that_begins_as_it_ends_is_found_at_any_cut() {
        // Goal: where the bytes were cut does not decide. Method: an opaque dump that ends like the mark begins.
        const ZEROS: [u8; MARK_BYTES] = [0; MARK_BYTES];
        for ending in 0..9 {
            let mut dump = b"REDIS0099\xfe\0\xff".to_vec();
            dump.extend_from_slice(&[b'x'; 50]);
            dump.push(0xff);
            dump.extend_from_slice(&[0; 8]);
            let mut wire = dump.clone();
            // Zeros in the checksum mean that there is none; what stands before the true mark then looks like its begin.
            wire.truncate(wire.len() - ending);
            wire.extend_from_slice(&ZEROS);
            let whole = run(&Framing::Mark(ZEROS), &wire, wire.len()).map(|(out, _)| out).map_err(|error| error.to_string());
            for piece in 1..wire.len() {
                let cut = run(&Framing::Mark(ZEROS), &wire, piece).map(|(out, _)| out).map_err(|error| error.to_string());
                assert_eq!(cut.is_ok(), whole.is_ok(), "{ending} bytes short, pieces of {piece}: {cut:?} but {whole:?}");
            }
            assert_eq!(whole.is_ok(), ending == 0);
        }
    }

    #[test]
    fn bytes_between_dump_and_mark_are_a_failure() {
        let mut wire = dump("0010", b"value");
        wire.extend_from_slice(b"junk");
        wire.extend_from_slice(&MARK);
        assert!(run(&Framing::Mark(MARK), &wire, 11).is_err());
    }
}
