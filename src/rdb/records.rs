//! Following the records: which byte is what, in pieces of any size.
//!
//! The reader works in steps. A step takes one field from the front of the bytes at hand, or as much of a body as is
//! there, or asks for more. What is too short for a step, which is never more than a head, is carried over to the next
//! piece; bodies are counted, never held.

use super::body::{Body, Coding, KEY_BYTES, Progress, Scratch, TEXT_BYTES};
use super::entries::{Entry, NAME_BYTES, Notes};
use super::layout::{self, DEPTH, First, Part, Prefix, Record};
use super::length::{self, HEAD_BYTES, Head};
use super::lzf::Lzf;
use super::packed::{HEADER_BYTES, Packed};
use super::seal::CHECKSUM_BYTES;
use super::tally::{Field, Tally};
use super::{Dialect, Error, Opaque, Options, Type, Version, What};

/// Room for the start of a field that is not all there; more than the longest field that is read in one step.
pub(super) const CARRY_BYTES: usize = 32;
const _: () = assert!(HEAD_BYTES < CARRY_BYTES && HEADER_BYTES < CARRY_BYTES);

/// How much a step has taken; `None` when it needs more bytes than it was given.
type Step = Result<Option<usize>, Error>;

/// Where in the dump the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Records,
    Checksum,
    Ended,
    Opaque(Opaque),
}

/// A row of parts that is being read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    parts: &'static [Part],
    /// The part to read next.
    next: usize,
    /// How often the row is still to be read, this time included.
    rounds: u64,
}

/// What a string that is held whole is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    AuxName,
    AuxValue,
    Key,
}

/// What prefixes say of the next key.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    /// In milliseconds since 1970.
    expires_at: Option<i64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
}

/// The reader.
#[derive(Debug)]
pub(super) struct Records {
    stage: Stage,
    version: Version,
    /// Where in the dump the next step begins.
    offset: u64,
    carry: [u8; CARRY_BYTES],
    carried: usize,
    frames: [Frame; DEPTH],
    depth: usize,
    body: Body,
    /// Where the head of the body stands; its faults are told by this, however the body was cut.
    body_offset: u64,
    /// The record that is being read, and where it stands.
    record: Record,
    record_offset: u64,
    /// Where its key's first prefix, or its type byte, stands.
    started: Option<u64>,
    type_byte: u8,
    /// The prefixes read for the next key, a bit each.
    prefixes: u8,
    /// Lengths to hand over, and how many there are.
    kept: [u64; 3],
    kept_len: usize,
    scratch: Scratch,
    /// What the string in the scratch is.
    held: Held,
    field: Option<Field>,
    tally: Tally,
    said: Said,
    /// For a reader of entries.
    notes: Option<Box<Notes>>,
    /// Longest name of a key that is looked at as a whole, in bytes.
    key_bytes: u64,
    /// Size of the dump without its checksum, once known.
    covered: Option<u64>,
    stored: Option<u64>,
}

impl Records {
    pub(super) fn new(options: Options) -> Self {
        Self {
            stage: Stage::Header,
            version: Version { dialect: Dialect::Redis, number: 0 },
            offset: 0,
            carry: [0; CARRY_BYTES],
            carried: 0,
            frames: [Frame { parts: &[], next: 0, rounds: 0 }; DEPTH],
            depth: 0,
            body: Body::None,
            body_offset: 0,
            record: Record::Aux,
            record_offset: 0,
            started: None,
            type_byte: 0,
            prefixes: 0,
            kept: [0; 3],
            kept_len: 0,
            scratch: Scratch::new(),
            held: Held::AuxName,
            field: None,
            tally: Tally::new(options),
            said: Said::default(),
            notes: None,
            key_bytes: KEY_BYTES,
            covered: None,
            stored: None,
        }
    }

    /// A reader that notes down where entries begin and end.
    pub(super) fn noting() -> Self {
        Self { notes: Some(Box::default()), key_bytes: NAME_BYTES, ..Self::new(Options::default()) }
    }

    /// What was noted down.
    pub(super) fn notes(&mut self) -> Option<&mut Notes> {
        self.notes.as_deref_mut()
    }

    /// What the header says; `None` before it was read.
    pub(super) fn version(&self) -> Option<Version> {
        (self.stage != Stage::Header).then_some(self.version)
    }

    pub(super) fn ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    pub(super) fn opaque(&self) -> Option<&Opaque> {
        match &self.stage {
            Stage::Opaque(reason) => Some(reason),
            Stage::Header | Stage::Records | Stage::Checksum | Stage::Ended => None,
        }
    }

    /// Size of the dump without its checksum, once the end mark was read.
    pub(super) fn covered(&self) -> Option<u64> {
        self.covered
    }

    /// The checksum, once it was read.
    pub(super) fn stored(&self) -> Option<u64> {
        self.stored
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }

    /// Where the reader is, for a message about a stream that stops there.
    pub(super) fn place(&self) -> What {
        match self.stage {
            Stage::Header => "inside the header",
            Stage::Records if self.depth > 0 => "inside a record",
            Stage::Records if self.prefixes != 0 => "between a prefix and its key",
            Stage::Records => "between records",
            Stage::Checksum => "inside the checksum",
            Stage::Ended => "at the end",
            Stage::Opaque(_) => "before the end mark and the checksum",
        }
    }

    /// Takes the next piece; returns how much of it belongs to the dump.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<usize, Error> {
        let mut used = 0;
        if self.carried > 0 {
            let old = self.carried;
            let joined = old + piece.len().min(CARRY_BYTES - old);
            self.carry[old..joined].copy_from_slice(&piece[..joined - old]);
            let carry = self.carry;
            let took = self.run(&carry[..joined])?;
            if took == 0 {
                // Still too short for one step, so the whole piece has gone into the carry.
                self.carried = joined;
                return Ok(joined - old);
            }
            // The first step needed more than was carried, so it has used that up.
            self.carried = 0;
            used = took.saturating_sub(old);
        }
        used += self.run(&piece[used..])?;
        match self.stage {
            Stage::Ended => Ok(used),
            Stage::Opaque(_) => Ok(piece.len()),
            Stage::Header | Stage::Records | Stage::Checksum => {
                let rest = &piece[used..];
                self.carry[..rest.len()].copy_from_slice(rest);
                self.carried = rest.len();
                Ok(piece.len())
            }
        }
    }

    /// Steps along `input` as far as it goes; returns how much was taken.
    fn run(&mut self, input: &[u8]) -> Result<usize, Error> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let step = match self.stage {
                Stage::Records => match (&self.body, self.depth) {
                    (Body::None, 0) => self.first(rest)?,
                    (Body::None, _) => self.part(rest)?,
                    _ => self.body(rest)?,
                },
                Stage::Header => self.header(rest)?,
                Stage::Checksum => self.checksum(rest),
                Stage::Ended | Stage::Opaque(_) => None,
            };
            let Some(took) = step else {
                return Ok(at);
            };
            at += took;
            self.offset += took as u64;
        }
    }

    fn header(&mut self, input: &[u8]) -> Step {
        let Some(header) = input.first_chunk() else {
            return Ok(None);
        };
        self.version = Version::parse(header)?;
        self.stage = if self.version.walked() { Stage::Records } else { Stage::Opaque(Opaque::Version { version: self.version.number }) };
        Ok(Some(header.len()))
    }

    fn checksum(&mut self, input: &[u8]) -> Option<usize> {
        let bytes = input.first_chunk()?;
        self.stored = Some(u64::from_le_bytes(*bytes));
        self.stage = Stage::Ended;
        Some(CHECKSUM_BYTES)
    }

    /// Reads the first byte of a record.
    fn first(&mut self, input: &[u8]) -> Step {
        let Some(&byte) = input.first() else {
            return Ok(None);
        };
        let (record, parts) = match layout::first(self.version, byte) {
            First::Record(record, parts) => (record, parts),
            First::End => return self.end(),
            First::Commands => return Err(Error::Commands { offset: self.offset }),
            First::Withdrawn => return Err(self.malformed("functions in the form of a release candidate")),
            First::UnknownOpcode => return Ok(self.give_up(Opaque::Opcode { opcode: byte, offset: self.offset })),
            First::UnknownType => return Ok(self.give_up(Opaque::Type { type_byte: byte, offset: self.offset })),
        };
        match record {
            Record::Key(_) => {
                self.started.get_or_insert(self.offset);
                self.type_byte = byte;
            }
            Record::Prefix(prefix) => {
                let bit = 1 << prefix as u8;
                if self.prefixes & bit != 0 {
                    return Err(self.malformed("two prefixes of one kind before a key"));
                }
                self.prefixes |= bit;
                self.started.get_or_insert(self.offset);
            }
            // Some writers put AUX fields between a prefix and its key.
            Record::Aux => {}
            Record::Function => {
                self.check_no_prefix()?;
                if let Some(notes) = &mut self.notes {
                    notes.function(self.offset + 1);
                }
            }
            Record::SelectDb | Record::ResizeDb | Record::SlotInfo | Record::SlotImport | Record::ModuleAux => self.check_no_prefix()?,
        }
        self.tally.record(byte);
        self.record = record;
        self.record_offset = self.offset;
        self.kept_len = 0;
        self.push(parts, 1)?;
        Ok(Some(1))
    }

    fn end(&mut self) -> Step {
        self.check_no_prefix()?;
        self.covered = Some(self.offset + 1);
        self.stage = if self.version.sealed() { Stage::Checksum } else { Stage::Ended };
        Ok(Some(1))
    }

    /// Stops following the structure; the byte in question is left where it is.
    fn give_up(&mut self, reason: Opaque) -> Option<usize> {
        self.stage = Stage::Opaque(reason);
        None
    }

    fn check_no_prefix(&self) -> Result<(), Error> {
        if self.prefixes != 0 { Err(self.malformed("a prefix without a key after it")) } else { Ok(()) }
    }

    /// Reads the next part of the innermost row.
    fn part(&mut self, input: &[u8]) -> Step {
        let frame = &mut self.frames[self.depth - 1];
        let Some(&part) = frame.parts.get(frame.next) else {
            frame.rounds -= 1;
            frame.next = 0;
            if frame.rounds == 0 {
                self.depth -= 1;
                if self.depth == 0 {
                    self.finish_record()?;
                }
            }
            return Ok(Some(0));
        };
        let step = match part {
            Part::Length => self.length(input)?.map(|(_, took)| took),
            Part::Kept => self.length(input)?.map(|(value, took)| {
                if let Some(place) = self.kept.get_mut(self.kept_len) {
                    *place = value;
                    self.kept_len += 1;
                }
                took
            }),
            Part::UnsignedMark => match self.length(input)? {
                Some((2, took)) => Some(took),
                Some(_) => return Err(self.malformed("a module's moment that is not an unsigned integer")),
                None => None,
            },
            Part::ModuleId => self.length(input)?.map(|(id, took)| {
                self.tally.module(id);
                took
            }),
            Part::Text => self.text(input)?,
            Part::Sized(bytes) => self.sized(bytes, input)?,
            Part::Packed(packed) => self.packed(packed, input)?,
            Part::Raw(bytes) => Some(self.skip(u64::from(bytes), 0, input)),
            Part::ExpirySeconds => input.first_chunk().map(|bytes| {
                self.said.expires_at = Some(i64::from(i32::from_le_bytes(*bytes)) * 1000);
                bytes.len()
            }),
            Part::ExpiryMillis => input.first_chunk().map(|bytes| {
                self.said.expires_at = Some(i64::from_le_bytes(*bytes));
                bytes.len()
            }),
            Part::Idle => self.length(input)?.map(|(seconds, took)| {
                self.said.idle_seconds = Some(seconds);
                took
            }),
            Part::Frequency => input.first().map(|frequency| {
                self.said.frequency = Some(*frequency);
                1
            }),
            Part::ShortDouble => self.short_double(input)?,
            Part::Key if self.tally.names() || self.notes.is_some() => self.key(input)?,
            Part::Key => self.text(input)?,
            Part::AuxName => self.scratch(Held::AuxName, input)?,
            Part::AuxValue if self.field.is_some() => self.scratch(Held::AuxValue, input)?,
            Part::AuxValue => self.text(input)?,
            // These three go down a row, and must have left this one in order before.
            Part::Each(row) => return self.each(row, input),
            Part::Node => return self.node(input),
            Part::Items => return self.item(input),
        };
        if step.is_some() {
            self.advance();
        }
        Ok(step)
    }

    fn each(&mut self, row: &'static [Part], input: &[u8]) -> Step {
        let Some((rounds, took)) = self.length(input)? else {
            return Ok(None);
        };
        self.advance();
        if rounds > 0 {
            self.push(row, rounds)?;
        }
        Ok(Some(took))
    }

    fn node(&mut self, input: &[u8]) -> Step {
        let Some((container, took)) = self.length(input)? else {
            return Ok(None);
        };
        let Some(row) = layout::node(container) else {
            return Err(self.malformed("a list node in no known container"));
        };
        self.advance();
        self.push(row, 1)?;
        Ok(Some(took))
    }

    fn item(&mut self, input: &[u8]) -> Step {
        match self.length(input)? {
            None => Ok(None),
            Some((0, took)) => {
                self.advance();
                Ok(Some(took))
            }
            // The row stays at this part, to which it returns after each value.
            Some((mark, took)) => match layout::item(mark) {
                Some(row) => {
                    self.push(row, 1)?;
                    Ok(Some(took))
                }
                None => Err(self.malformed("a module's value of no known kind")),
            },
        }
    }

    fn advance(&mut self) {
        self.frames[self.depth - 1].next += 1;
    }

    fn push(&mut self, parts: &'static [Part], rounds: u64) -> Result<(), Error> {
        let Some(frame) = self.frames.get_mut(self.depth) else {
            return Err(self.malformed("records nested too deep"));
        };
        *frame = Frame { parts, next: 0, rounds };
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn length(&self, input: &[u8]) -> Result<Option<(u64, usize)>, Error> {
        length::plain(input).map_err(|what| self.malformed(what))
    }

    #[inline]
    fn head(&self, input: &[u8]) -> Result<Option<(Head, usize)>, Error> {
        length::head(input).map_err(|what| self.malformed(what))
    }

    #[inline]
    fn text(&mut self, input: &[u8]) -> Step {
        Ok(match self.head(input)? {
            Some((Head::Plain(bytes), took)) => Some(self.skip(bytes, took, input)),
            Some((Head::Integer(bytes), took)) => Some(self.skip(bytes as u64, took, input)),
            Some((Head::Compressed { stored, declared }, took)) => Some(self.compressed(stored, declared, took)?),
            None => None,
        })
    }

    fn sized(&mut self, bytes: u64, input: &[u8]) -> Step {
        match self.head(input)? {
            Some((Head::Plain(length), took)) if length == bytes => Ok(Some(self.skip(length, took, input))),
            Some((Head::Compressed { stored, declared }, took)) if declared == bytes => self.compressed(stored, declared, took).map(Some),
            Some(_) => Err(self.malformed("a string of the wrong size for its place")),
            None => Ok(None),
        }
    }

    fn packed(&mut self, packed: Packed, input: &[u8]) -> Step {
        match self.head(input)? {
            Some((Head::Plain(length), took)) => {
                packed.check_length(length).map_err(|what| self.malformed(what))?;
                Ok(Some(self.enter(Body::Packed(packed, length), took)))
            }
            // What is inside is not looked at, only that it unfolds.
            Some((Head::Compressed { stored, declared }, took)) => {
                packed.check_length(declared).map_err(|what| self.malformed(what))?;
                self.compressed(stored, declared, took).map(Some)
            }
            Some((Head::Integer(_), _)) => Err(self.malformed("an integer where a packed collection belongs")),
            None => Ok(None),
        }
    }

    fn short_double(&mut self, input: &[u8]) -> Step {
        match input.first() {
            None => Ok(None),
            Some(0) => Err(self.malformed("a double without digits")),
            Some(253..=255) => Ok(Some(1)),
            Some(&digits) => Ok(Some(self.skip(u64::from(digits), 1, input))),
        }
    }

    /// Reads the name of a key: from where it lies, if it lies there whole and as it is.
    #[inline]
    fn key(&mut self, input: &[u8]) -> Step {
        if let Some((Head::Plain(bytes), took)) = self.head(input)?
            && bytes <= self.key_bytes
            && let Some(name) = input[took..].get(..bytes as usize)
        {
            let took = took + name.len();
            if let Some(notes) = &mut self.notes {
                notes.key(entry(self.record, self.type_byte, self.said, name), self.offset + took as u64);
            } else {
                self.tally.name(Some(name), self.expires())?;
            }
            return Ok(Some(took));
        }
        self.scratch(Held::Key, input)
    }

    /// Reads the head of a string whose content matters, if it is not too long to matter.
    fn scratch(&mut self, held: Held, input: &[u8]) -> Step {
        let limit = match held {
            Held::AuxName | Held::AuxValue => TEXT_BYTES,
            Held::Key => self.key_bytes,
        };
        let fits = |bytes: u64| bytes <= limit;
        let (bytes, coding, took) = match self.head(input)? {
            Some((Head::Plain(bytes), took)) if fits(bytes) => (bytes, Coding::Plain, took),
            Some((Head::Integer(bytes), took)) => (bytes as u64, Coding::Integer, took),
            Some((Head::Compressed { stored, declared }, took)) if fits(stored) && fits(declared) => {
                // The sizes are judged as for any other block; the unfolding judges the rest.
                Lzf::new(stored, declared).map_err(|what| self.malformed(what))?;
                (stored, Coding::Compressed(declared as usize), took)
            }
            Some(_) => {
                match held {
                    Held::AuxName | Held::AuxValue => self.field = None,
                    Held::Key if self.notes.is_some() => return Err(Error::Name { offset: self.offset, limit }),
                    Held::Key => self.tally.name(None, self.expires())?,
                }
                return self.text(input);
            }
            None => return Ok(None),
        };
        if held == Held::AuxName {
            self.field = None;
        }
        self.held = held;
        self.scratch.begin(coding);
        Ok(Some(self.enter(Body::Scratch(bytes), took)))
    }

    /// Whether the key that is read has an expiry before it.
    fn expires(&self) -> bool {
        self.prefixes & (1 << Prefix::Expiry as u8) != 0
    }

    /// Passes over a head of `head` bytes and what is at hand of the `bytes` behind it.
    #[inline]
    fn skip(&mut self, bytes: u64, head: usize, input: &[u8]) -> usize {
        let at_hand = input.len() - head;
        match usize::try_from(bytes) {
            Ok(bytes) if bytes <= at_hand => head + bytes,
            _ => {
                self.body = Body::Skip(bytes - at_hand as u64);
                input.len()
            }
        }
    }

    fn compressed(&mut self, stored: u64, declared: u64, head: usize) -> Result<usize, Error> {
        let lzf = Lzf::new(stored, declared).map_err(|what| self.malformed(what))?;
        Ok(self.enter(Body::Compressed(lzf), head))
    }

    fn enter(&mut self, body: Body, head: usize) -> usize {
        self.body = body;
        self.body_offset = self.offset;
        head
    }

    /// Goes on with the body of a field.
    fn body(&mut self, input: &[u8]) -> Step {
        let offset = self.body_offset;
        let malformed = |what| Error::Malformed { offset, what };
        match self.body.feed(input, &mut self.scratch).map_err(malformed)? {
            Progress::Short => Ok(None),
            Progress::More(took) => Ok(Some(took)),
            Progress::Done(took) => {
                if let Body::Scratch(_) = std::mem::replace(&mut self.body, Body::None) {
                    self.read_scratch(took)?;
                }
                Ok(Some(took))
            }
        }
    }

    /// Hands on the string in the scratch, of which the last `took` bytes have just come.
    fn read_scratch(&mut self, took: usize) -> Result<(), Error> {
        let expires = self.expires();
        let text = self.scratch.text().map_err(|what| Error::Malformed { offset: self.body_offset, what })?;
        match self.held {
            Held::AuxName => self.field = Field::named(&text),
            Held::AuxValue => {
                if let Some(field) = self.field {
                    self.tally.aux(field, &text);
                }
            }
            Held::Key => match &mut self.notes {
                Some(notes) => notes.key(entry(self.record, self.type_byte, self.said, &text), self.offset + took as u64),
                None => self.tally.name(Some(&text), expires)?,
            },
        }
        Ok(())
    }

    fn finish_record(&mut self) -> Result<(), Error> {
        let [first, second, third] = self.kept;
        match self.record {
            Record::Key(kind) => {
                let expires = self.expires();
                let bytes = self.offset - self.started.take().unwrap_or(self.offset);
                self.prefixes = 0;
                self.said = Said::default();
                self.note_end();
                self.tally.key(kind, expires, bytes)
            }
            Record::SelectDb => match u32::try_from(first) {
                Ok(index) => {
                    if let Some(notes) = &mut self.notes {
                        notes.select(index);
                    }
                    self.tally.select(index)
                }
                Err(_) => Err(Error::Malformed { offset: self.record_offset, what: "a database number out of range" }),
            },
            Record::ResizeDb => self.tally.declare(first, second),
            Record::SlotInfo => {
                self.tally.slot(first, second, third);
                Ok(())
            }
            Record::Function => {
                self.note_end();
                self.tally.function();
                Ok(())
            }
            Record::Prefix(_) | Record::Aux | Record::SlotImport | Record::ModuleAux => Ok(()),
        }
    }

    fn note_end(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.end(self.offset);
        }
    }

    /// A fault in the field that the current step reads.
    fn malformed(&self, what: What) -> Error {
        Error::Malformed { offset: self.offset, what }
    }
}

/// The key that is read. Only records of keys have names; the database is put in by the notes.
fn entry(record: Record, type_byte: u8, said: Said, name: &[u8]) -> Entry {
    let kind = if let Record::Key(kind) = record { kind } else { Type::String };
    let Said { expires_at, idle_seconds, frequency } = said;
    Entry { database: 0, name: name.to_vec(), kind, type_byte, expires_at, idle_seconds, frequency }
}
