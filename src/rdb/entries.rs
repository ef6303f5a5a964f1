//! What a dump holds, entry by entry, with the bytes of each value: for those who write it elsewhere.
//!
//! The walk tells where an entry begins and ends; the bytes between are handed on as they are, piece by piece, and none of
//! them is kept. They are what the command DUMP has of the value, but for its [footer](Footer).

use super::records::{CARRY_BYTES, Records};
use super::seal::Seal;
use super::{Dialect, Error, Opaque, Type};

/// Longest name of a key that is read, in bytes.
pub const NAME_BYTES: u64 = 1024 * 1024;

/// Length of a footer, in bytes: the version of the format and the checksum.
pub const FOOTER_BYTES: usize = 10;

/// What stands before a library of functions; with the library behind it, it is what FUNCTION DUMP has of it.
pub const FUNCTION_MARK: u8 = 245;

/// A key, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of its database.
    pub database: u32,
    /// Its name.
    pub name: Vec<u8>,
    /// Type of its value.
    pub kind: Type,
    /// How its value is written.
    pub type_byte: u8,
    /// When it expires, in milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Seconds since it was last used, where the source tells.
    pub idle_seconds: Option<u64>,
    /// How often it is used, where the source tells.
    pub frequency: Option<u8>,
}

/// What comes next in a dump.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A key; its value follows, and begins at the offset.
    Key(Entry, u64),
    /// A library of functions begins; its source follows, as a string of the format.
    Function,
    /// More of what began last. Never empty.
    Bytes(&'a [u8]),
    /// All of it was there; the offset is that of the first byte behind it.
    End(u64),
}

/// Where something begins or ends. Offsets are from the start of the dump.
#[derive(Debug)]
pub(super) enum Mark {
    Key(Entry, u64),
    Function(u64),
    End(u64),
}

/// What the reader of records notes down for [`Entries`].
#[derive(Debug, Default)]
pub(super) struct Notes {
    marks: Vec<Mark>,
    database: u32,
}

impl Notes {
    pub(super) fn select(&mut self, database: u32) {
        self.database = database;
    }

    pub(super) fn key(&mut self, entry: Entry, at: u64) {
        self.marks.push(Mark::Key(Entry { database: self.database, ..entry }, at));
    }

    pub(super) fn function(&mut self, at: u64) {
        self.marks.push(Mark::Function(at));
    }

    pub(super) fn end(&mut self, at: u64) {
        self.marks.push(Mark::End(at));
    }
}

/// A reading of one dump. Its checksum is not looked at: whoever hands on the bytes has walked them.
#[derive(Debug)]
pub struct Entries {
    records: Records,
    /// Bytes so far.
    bytes: u64,
    /// The last bytes so far: an entry may be known to have begun only after what follows.
    tail: [u8; CARRY_BYTES],
    tail_len: usize,
    /// Up to where the bytes of the open entry were handed on; absent between entries.
    open: Option<u64>,
}

impl Default for Entries {
    fn default() -> Self {
        Self::new()
    }
}

impl Entries {
    /// Begins at the first byte of a dump.
    pub fn new() -> Self {
        Self { records: Records::noting(), bytes: 0, tail: [0; CARRY_BYTES], tail_len: 0, open: None }
    }

    /// Takes the next piece, of any size, and hands on what it holds, in order.
    ///
    /// # Errors
    ///
    /// As soon as the bytes cannot be a sound dump; [`Error::Name`] for a name that is longer than [`NAME_BYTES`]. Nothing is
    /// to be fed after it.
    pub fn feed(&mut self, piece: &[u8], mut take: impl FnMut(Event<'_>)) -> Result<(), Error> {
        self.records.feed(piece)?;
        let start = self.bytes;
        let mut marks = self.records.notes().map(|notes| std::mem::take(&mut notes.marks)).unwrap_or_default();
        for mark in marks.drain(..) {
            match mark {
                Mark::Key(entry, at) => {
                    self.open = Some(at);
                    take(Event::Key(entry, at));
                }
                Mark::Function(at) => {
                    self.open = Some(at);
                    take(Event::Function);
                }
                Mark::End(at) => {
                    self.hand_on(start, piece, at, &mut take);
                    self.open = None;
                    take(Event::End(at));
                }
            }
        }
        if let Some(notes) = self.records.notes() {
            // Its room is used again.
            notes.marks = marks;
        }
        self.bytes += piece.len() as u64;
        self.hand_on(start, piece, self.bytes, &mut take);
        self.keep_tail(piece);
        Ok(())
    }

    /// Hands on the bytes of the open entry up to the offset `end`; the piece begins at `start`.
    fn hand_on(&mut self, start: u64, piece: &[u8], end: u64, take: &mut impl FnMut(Event<'_>)) {
        let Some(from) = self.open.as_mut() else { return };
        let tail = &self.tail[..self.tail_len];
        let tail_start = start - tail.len() as u64;
        // Both are within the tail and the piece: the records have been there.
        let place = |at: u64, start: u64, length: usize| usize::try_from(at.saturating_sub(start)).map_or(length, |at| at.min(length));
        let held = &tail[place(*from, tail_start, tail.len())..place(end, tail_start, tail.len())];
        let new = &piece[place(*from, start, piece.len())..place(end, start, piece.len())];
        *from = end;
        for bytes in [held, new].into_iter().filter(|bytes| !bytes.is_empty()) {
            take(Event::Bytes(bytes));
        }
    }

    fn keep_tail(&mut self, piece: &[u8]) {
        if let Some(last) = piece.last_chunk::<CARRY_BYTES>() {
            (self.tail, self.tail_len) = (*last, CARRY_BYTES);
            return;
        }
        let surplus = (self.tail_len + piece.len()).saturating_sub(CARRY_BYTES);
        self.tail.copy_within(surplus..self.tail_len, 0);
        let kept = self.tail_len - surplus;
        self.tail[kept..kept + piece.len()].copy_from_slice(piece);
        self.tail_len = kept + piece.len();
    }

    /// Family and version of the format; `None` before the header was read.
    pub fn version(&self) -> Option<(Dialect, u16)> {
        self.records.version().map(|version| (version.dialect, version.number))
    }

    /// True when the end of the dump was reached.
    pub fn ended(&self) -> bool {
        self.records.ended()
    }

    /// Why the structure is not followed any more: there will be no more entries.
    pub fn opaque(&self) -> Option<&Opaque> {
        self.records.opaque()
    }
}

/// The end of what the commands RESTORE and FUNCTION RESTORE take: the version of the format, and the checksum of all before.
#[derive(Debug)]
pub struct Footer(Seal);

impl Default for Footer {
    fn default() -> Self {
        Self::new()
    }
}

impl Footer {
    /// Begins before the type byte, or before the mark of a library.
    pub fn new() -> Self {
        Self(Seal::new())
    }

    /// Takes what stands before the footer, in order.
    pub fn cover(&mut self, bytes: &[u8]) {
        self.0.cover(bytes);
    }

    /// The footer for the version of the dump that the bytes are from.
    pub fn finish(mut self, version: u16) -> [u8; FOOTER_BYTES] {
        let [low, high] = version.to_le_bytes();
        self.0.cover(&[low, high]);
        let mut footer = [low, high, 0, 0, 0, 0, 0, 0, 0, 0];
        footer[2..].copy_from_slice(&self.0.crc64().to_le_bytes());
        footer
    }
}
