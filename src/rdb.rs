//! Walking a dump: every byte checksummed, every record followed, while it streams by.
//!
//! Owns the RDB format: its magic, its records, its checksum, and what can be counted on the way. Knows bytes only: not
//! where they come from, nor where they go. Nothing is held but a few kilobytes, whatever the size of the dump, and
//! nothing is allocated because the dump says so.
//!
//! ```text
//! magic and version | records ... | 0xff | CRC-64 of all before
//! ```
//!
//! A dump is followed record by record as long as all of it is known. At the first thing that is not, a version, an
//! opcode, a value type, the walk turns *opaque*: the rest is still checksummed, and the summary says what stopped it.
//!
//! Reading order: `summary` for what comes out, `layout` for the format as tables, `records` for the reader, then
//! `length`, `body`, `packed` and `lzf` for what is inside a field, `tally` for the counts, `slots` and `sketch` for what the
//! names of keys tell, `minimum` for who can load the dump, `seal` for the checksum; `entries` for who wants the values themselves,
//! `sample` for who wants a few of them.

mod body;
mod entries;
mod layout;
mod length;
mod lzf;
mod minimum;
mod packed;
mod records;
mod sample;
mod seal;
mod sketch;
mod slots;
mod summary;
mod tally;
#[cfg(test)]
mod tests;

pub use entries::{Entries, Entry, Event, FOOTER_BYTES, FUNCTION_MARK, Footer, NAME_BYTES};
pub use sample::{Length, Passing, Sample, SampleOptions, SampledKey, Sampler};
pub use sketch::SKETCH_LENGTH;
pub use slots::{SLOT_COUNT, SlotSet, slot_of};
pub use summary::{Aux, BigKey, Checksum, Database, Dialect, Minimum, Opaque, Slots, Summary, Type, TypeCount};

use records::Records;
use seal::Seal;

/// Most databases in one dump.
pub const DATABASE_LIMIT: usize = 65_536;

/// Size of the header in bytes.
const HEADER_BYTES: usize = 9;

/// Size of the end mark and the checksum in bytes.
const END_BYTES: u64 = 9;

/// What is wrong, in words.
type What = &'static str;

/// Why bytes are not a sound dump. Offsets are from the start of the dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first bytes are those of something else.
    #[error("not an rdb: it begins with `{}`", .found.escape_ascii())]
    Magic {
        /// The first bytes.
        found: [u8; HEADER_BYTES],
    },
    /// The first bytes are those of Valkey's compressed envelope around a dump.
    #[error("a compressed envelope (codec {codec}) around the rdb is not supported: set `rdbcompression` to another value")]
    Envelope {
        /// Number of the codec: 1 for LZ4, 2 for Zstandard.
        codec: u8,
    },
    /// Commands stand between the records: the source did not fork, and the stream is not one moment's data.
    #[error("commands between the records at offset {offset}: let the source save by forking")]
    Commands {
        /// Where the first one stands.
        offset: u64,
    },
    /// The bytes break the format.
    #[error("malformed rdb at offset {offset}: {what}")]
    Malformed {
        /// Where the field at fault begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The keys are spread over more databases than [`DATABASE_LIMIT`].
    #[error("more than {limit} databases")]
    Databases {
        /// The limit.
        limit: usize,
    },
    /// The name of a key is longer than it may be for a reader of entries.
    #[error("the name of a key at offset {offset} has more than {limit} bytes")]
    Name {
        /// Where it stands.
        offset: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The bytes are not those that the source wrote.
    #[error("checksum mismatch: the bytes have {expected:#018x}, stored is {found:#018x}")]
    Checksum {
        /// CRC-64 of the bytes.
        expected: u64,
        /// The stored one.
        found: u64,
    },
    /// The bytes ended before the dump.
    #[error("rdb ended after {bytes} bytes, {place}")]
    Truncated {
        /// How many there were.
        bytes: u64,
        /// Where that is in the dump.
        place: &'static str,
    },
    /// Bytes were fed after the end had been reached.
    #[error("bytes after the end of the rdb at offset {offset}")]
    TrailingBytes {
        /// Size of the dump.
        offset: u64,
    },
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    dialect: Dialect,
    number: u16,
}

impl Version {
    fn parse(header: &[u8; HEADER_BYTES]) -> Result<Self, Error> {
        let (dialect, digits) = match header {
            [b'R', b'E', b'D', b'I', b'S', digits @ ..] => (Dialect::Redis, &digits[..]),
            [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => (Dialect::Valkey, &digits[..]),
            [b'V', b'C', b'S', _, codec, ..] => return Err(Error::Envelope { codec: *codec }),
            _ => return Err(Error::Magic { found: *header }),
        };
        let number = digits.iter().try_fold(0_u16, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0')));
        match number {
            None | Some(0) => Err(Error::Magic { found: *header }),
            Some(number) => Ok(Self { dialect, number }),
        }
    }

    /// True when `layout` knows the records of this version.
    fn walked(self) -> bool {
        match self.dialect {
            Dialect::Redis => (1..=12).contains(&self.number),
            Dialect::Valkey => (80..=81).contains(&self.number),
        }
    }

    /// True when a checksum follows the end mark.
    fn sealed(self) -> bool {
        self.number >= 5
    }
}

/// What a walk looks at beside the structure. By default nothing: then names of keys are passed over unread.
#[derive(Clone, Default)]
pub struct Options {
    /// Slots that the shard owns: each key is placed, and those outside are counted.
    pub slots: Option<SlotSet>,
    /// Key of the hash under which the [`SKETCH_LENGTH`] smallest names are kept. A secret: who has it can try names.
    pub sketch: Option<[u8; 16]>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("slots", &self.slots).field("sketch", &self.sketch.is_some()).finish()
    }
}

/// A walk along one dump.
///
/// Feed it the bytes in order, in pieces of any size; the outcome does not depend on where they were cut.
///
/// ```text
/// let mut walker = Walker::new();
/// while let Some(piece) = source.next()? {
///     let taken = walker.feed(&piece)?;   // less than all of it: the dump has ended inside
/// }
/// let summary = walker.finish()?;
/// ```
#[derive(Debug)]
pub struct Walker {
    records: Records,
    seal: Seal,
    bytes: u64,
    /// The first error, which every later call repeats.
    failed: Option<Error>,
}

impl Default for Walker {
    fn default() -> Self {
        Self::new()
    }
}

impl Walker {
    /// Begins at the first byte of a dump.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    /// Begins at the first byte of a dump, to look at more than its structure.
    pub fn with(options: Options) -> Self {
        Self { records: Records::new(options), seal: Seal::new(), bytes: 0, failed: None }
    }

    /// Takes the next piece, which may be empty; returns how many of its bytes belong to the dump.
    ///
    /// That is all of them, unless the dump ended inside the piece; whether more bytes are allowed there is for the
    /// caller to say. An opaque dump has no end of its own: it takes everything.
    ///
    /// # Errors
    ///
    /// As soon as the bytes cannot be a sound dump, all but [`Error::Checksum`] and [`Error::Truncated`], which
    /// [`Walker::finish`] tells. [`Error::TrailingBytes`] when the end had been reached before and the piece is not
    /// empty; this one can be ignored. After any other, every call gives the same error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.ended() {
            return Err(Error::TrailingBytes { offset: self.bytes });
        }
        let taken = self.records.feed(bytes).inspect_err(|error| self.failed = Some(error.clone()))?;
        // One call for the whole piece: the checksum is fastest on long runs.
        if self.records.opaque().is_some() && self.records.version().is_some_and(Version::sealed) {
            self.seal.trail(bytes);
        } else {
            let covered = self.records.covered().map_or(taken as u64, |covered| covered.saturating_sub(self.bytes));
            let covered = usize::try_from(covered).map_or(taken, |covered| covered.min(taken));
            self.seal.cover(&bytes[..covered]);
        }
        self.bytes += taken as u64;
        Ok(taken)
    }

    /// True when the end of the dump was reached. Never true of an opaque one.
    pub fn ended(&self) -> bool {
        self.records.ended()
    }

    /// Why the structure is not followed any more; `None` while it is.
    pub fn opaque(&self) -> Option<&Opaque> {
        self.records.opaque()
    }

    /// Keys so far.
    pub fn keys(&self) -> u64 {
        self.records.tally().keys()
    }

    /// Bytes of the dump so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the walk and tells what was found.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] when the dump has not ended; for an opaque one, when its last bytes are not an end mark and
    /// a checksum. [`Error::Checksum`] when the bytes are not those that the source wrote. Any error that
    /// [`Walker::feed`] gave before.
    pub fn finish(self) -> Result<Summary, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let truncated = Error::Truncated { bytes: self.bytes, place: self.records.place() };
        let Some(version) = self.records.version() else {
            return Err(truncated);
        };
        let opaque = self.records.opaque().copied();
        if opaque.is_none() && !self.records.ended() {
            return Err(truncated);
        }
        let checksum = if version.sealed() {
            let stored = match &opaque {
                // What stopped the walk is data, so the end lies behind it; else it would decide where the bytes were cut.
                Some(opaque) if self.bytes < opaque.offset().saturating_add(END_BYTES) => None,
                Some(_) => self.seal.kept_back(),
                None => self.records.stored(),
            };
            self.seal.verify(stored.ok_or(truncated)?)?
        } else if self.seal.marked() {
            Checksum::NotInFormat
        } else {
            return Err(truncated);
        };
        let crc64 = self.seal.crc64();
        let totals = self.records.into_tally().finish(opaque.is_none());
        let minimum = opaque.is_none().then(|| minimum::minimum(version, &totals.seen, &totals.databases, &totals.modules));
        Ok(Summary {
            dialect: version.dialect,
            version: version.number,
            bytes: self.bytes,
            checksum,
            crc64,
            opaque,
            databases: totals.databases,
            functions: totals.functions,
            modules: totals.modules,
            biggest: totals.biggest,
            aux: totals.aux,
            slots: totals.slots,
            minimum,
            stray_keys: totals.stray_keys,
            unplaced_keys: totals.unplaced_keys,
            sketch: totals.sketch,
            counts_match: totals.counts_match,
            mismatch: totals.mismatch,
        })
    }
}
