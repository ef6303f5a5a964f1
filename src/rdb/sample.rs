//! A sample of a dump's keys, each with what a server that has loaded it must say of it, and how many keys may have expired when
//! it is asked.
//!
//! Every key has the same chance, whatever the number of keys: after the first ones are taken, the next that takes the place of
//! another is drawn in advance, so keys that are not taken cost a comparison. Of a value only the beginning is looked at.

use super::entries::{Entries, Entry, Event};
use super::length::{self, Head};
use super::lzf;
use super::packed::{HEADER_BYTES, Packed};
use super::{Dialect, Error, Type};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt;

/// Longest name of a key that is taken, in bytes. It bounds what a sample takes of memory.
const NAME_BYTES: usize = 1024;

/// Longest beginning of a value that is looked at, in bytes.
const VALUE_BYTES: usize = 16 * 1024;

/// What to sample.
#[derive(Clone, Copy, Debug)]
pub struct SampleOptions {
    /// Most keys.
    pub keys: usize,
    /// What the choice depends on.
    pub seed: u64,
    /// Keys that expire up to here are expired, in milliseconds since 1970.
    pub expired_at: i64,
    /// Keys that expire up to here may be, in milliseconds since 1970.
    pub expiring_at: i64,
}

/// How many elements a value has, or bytes a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many.
    Exactly(u64),
    /// So many at most: some may expire by themselves.
    AtMost(u64),
    /// The record does not tell without being unfolded.
    Unknown,
}

/// One key.
#[derive(Clone, PartialEq, Eq)]
pub struct SampledKey {
    /// Number of its database.
    pub database: u32,
    /// Its name.
    pub name: Vec<u8>,
    /// Type of its value.
    pub kind: Type,
    /// When it expires, in milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Length of its value.
    pub length: Length,
}

/// Names stay where they are.
impl fmt::Debug for SampledKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, kind, expires_at, length, .. } = self;
        f.debug_struct("SampledKey")
            .field("database", database)
            .field("kind", kind)
            .field("expires_at", expires_at)
            .field("length", length)
            .finish_non_exhaustive()
    }
}

/// Keys of one type in one database that are there only for a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passing {
    /// Those that are expired.
    pub expired: u64,
    /// Those that may be.
    pub expiring: u64,
}

/// What was sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The keys, in no order.
    pub keys: Vec<SampledKey>,
    /// Those that are there only for a time, by database and type.
    pub passing: BTreeMap<(u32, Type), Passing>,
    /// Whether every key of the dump was looked at.
    pub is_whole: bool,
}

/// A reading of one dump that keeps some of its keys.
pub struct Sampler {
    entries: Entries,
    choice: Choice,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampler")
    }
}

/// The key whose value is being read.
struct Open {
    entry: Entry,
    value: Vec<u8>,
}

struct Choice {
    options: SampleOptions,
    random: StdRng,
    dialect: Dialect,
    seen: u64,
    /// The key that takes the place of another next, by its number.
    next: u64,
    weight: f64,
    open: Option<Open>,
    spare: Vec<u8>,
    sample: Sample,
}

impl Sampler {
    /// Begins at the first byte of a dump.
    pub fn new(options: SampleOptions) -> Self {
        let choice = Choice {
            options,
            random: StdRng::seed_from_u64(options.seed),
            dialect: Dialect::Redis,
            seen: 0,
            next: 0,
            weight: 1.0,
            open: None,
            spare: Vec::new(),
            sample: Sample::default(),
        };
        Self { entries: Entries::new(), choice }
    }

    /// Takes the next piece, of any size.
    ///
    /// # Errors
    ///
    /// As [`Entries::feed`]; nothing is to be fed after it, and what was sampled stays.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Error> {
        if let Some((dialect, _)) = self.entries.version() {
            self.choice.dialect = dialect;
        }
        let choice = &mut self.choice;
        self.entries.feed(piece, |event| choice.take(event))
    }

    /// Ends the reading.
    pub fn finish(self) -> Sample {
        Sample { is_whole: self.entries.ended(), ..self.choice.sample }
    }
}

impl Choice {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Key(entry, _) => self.key(entry),
            Event::Function => self.open = None,
            Event::Bytes(bytes) => {
                if let Some(open) = &mut self.open {
                    let taken = bytes.len().min(VALUE_BYTES - open.value.len());
                    open.value.extend_from_slice(&bytes[..taken]);
                }
            }
            Event::End(_) => self.end(),
        }
    }

    fn key(&mut self, entry: Entry) {
        self.seen += 1;
        if let Some(at) = entry.expires_at
            && at <= self.options.expiring_at
        {
            let passing = self.sample.passing.entry((entry.database, entry.kind)).or_default();
            let count = if at <= self.options.expired_at { &mut passing.expired } else { &mut passing.expiring };
            *count += 1;
        }
        let limit = self.options.keys as u64;
        let is_taken = self.seen <= limit || (limit > 0 && self.seen == self.next);
        if self.seen == limit || (is_taken && self.seen > limit) {
            self.draw();
        }
        if is_taken && entry.name.len() <= NAME_BYTES {
            let mut value = std::mem::take(&mut self.spare);
            value.clear();
            self.open = Some(Open { entry, value });
        }
    }

    /// Draws which key is the next to take the place of another.
    fn draw(&mut self) {
        let limit = self.options.keys.max(1) as f64;
        // Never zero, whose logarithm is none.
        let mut chance = || self.random.random_range(f64::MIN_POSITIVE..1.0);
        self.weight *= (chance().ln() / limit).exp();
        let skipped = (chance().ln() / (1.0 - self.weight).ln()).floor();
        let skipped = if skipped.is_finite() && skipped >= 0.0 { skipped as u64 } else { u64::MAX };
        self.next = self.seen.saturating_add(skipped).saturating_add(1);
    }

    fn end(&mut self) {
        let Some(Open { entry, value }) = self.open.take() else { return };
        let length = Value { bytes: &value, at: 0 }.length(entry.type_byte, self.dialect).unwrap_or(Length::Unknown);
        self.spare = value;
        let Entry { database, name, kind, expires_at, .. } = entry;
        let key = SampledKey { database, name, kind, expires_at, length };
        if self.sample.keys.len() < self.options.keys {
            self.sample.keys.push(key);
        } else {
            let place = self.random.random_range(0..self.sample.keys.len());
            self.sample.keys[place] = key;
        }
    }
}

/// The beginning of a value, as it is written.
struct Value<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Value<'_> {
    /// How many elements there are; `None` when what is there does not tell.
    fn length(mut self, type_byte: u8, dialect: Dialect) -> Option<Length> {
        use Packed::{Intset, Listpack, Ziplist, Zipmap};
        let exactly = |count: u64| Some(Length::Exactly(count));
        match (type_byte, dialect) {
            (0, _) => exactly(self.string()?),
            (1..=5, _) => exactly(self.number()?),
            (9, _) => exactly(self.packed(Zipmap)?),
            (10, _) => exactly(self.packed(Ziplist)?),
            (11, _) => exactly(self.packed(Intset)?),
            (12 | 13, _) => exactly(self.packed(Ziplist)? / 2),
            (14, _) => {
                let nodes = self.number()?;
                let mut count: u64 = 0;
                for _ in 0..nodes {
                    count = count.checked_add(self.packed(Ziplist)?)?;
                }
                exactly(count)
            }
            (16 | 17, _) => exactly(self.packed(Listpack)? / 2),
            (18, _) => {
                let nodes = self.number()?;
                let mut count: u64 = 0;
                for _ in 0..nodes {
                    let node = if self.number()? == 1 {
                        self.string()?;
                        1
                    } else {
                        self.packed(Listpack)?
                    };
                    count = count.checked_add(node)?;
                }
                exactly(count)
            }
            (20, _) => exactly(self.packed(Listpack)?),
            (15 | 19 | 21, _) => {
                let nodes = self.number()?;
                for _ in 0..nodes {
                    self.string()?;
                    self.string()?;
                }
                exactly(self.number()?)
            }
            (22, _) => Some(Length::AtMost(self.number()?)),
            (23, Dialect::Redis) => Some(Length::AtMost(self.packed(Listpack)? / 3)),
            (24, Dialect::Redis) => {
                self.at += 8;
                Some(Length::AtMost(self.number()?))
            }
            (25, Dialect::Redis) => {
                self.at += 8;
                Some(Length::AtMost(self.packed(Listpack)? / 3))
            }
            _ => None,
        }
    }

    fn rest(&self) -> Option<&[u8]> {
        self.bytes.get(self.at..)
    }

    fn number(&mut self) -> Option<u64> {
        let (number, took) = length::plain(self.rest()?).ok()??;
        self.at += took;
        Some(number)
    }

    /// Passes over so many bytes of a body; they need not be there when nothing follows that is looked at.
    fn pass(&mut self, bytes: u64) {
        self.at = usize::try_from(bytes).ok().and_then(|bytes| self.at.checked_add(bytes)).unwrap_or(usize::MAX);
    }

    /// Passes over a string, and tells its length.
    fn string(&mut self) -> Option<u64> {
        let (head, took) = length::head(self.rest()?).ok()??;
        self.at += took;
        match head {
            Head::Plain(bytes) => {
                self.pass(bytes);
                Some(bytes)
            }
            Head::Compressed { stored, declared } => {
                self.pass(stored);
                Some(declared)
            }
            Head::Integer(bytes) => {
                let stored = self.rest()?.get(..bytes)?;
                let number = match *stored {
                    [a] => i32::from(i8::from_le_bytes([a])),
                    [a, b] => i32::from(i16::from_le_bytes([a, b])),
                    [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
                    _ => return None,
                };
                self.pass(bytes as u64);
                Some(number.to_string().len() as u64)
            }
        }
    }

    /// Passes over a packed collection, and tells how many entries it has.
    fn packed(&mut self, packed: Packed) -> Option<u64> {
        let (head, took) = length::head(self.rest()?).ok()??;
        self.at += took;
        let rest = self.rest()?;
        let mut unfolded = [0; HEADER_BYTES];
        let (header, stored): (&[u8], u64) = match head {
            Head::Plain(bytes) => (rest, bytes),
            Head::Compressed { stored, .. } => {
                let block = usize::try_from(stored).ok().and_then(|stored| rest.get(..stored)).unwrap_or(rest);
                let length = lzf::beginning(block, &mut unfolded);
                (&unfolded[..length], stored)
            }
            Head::Integer(_) => return None,
        };
        let entries = packed.entries(header.get(..packed.header_bytes())?)?;
        self.pass(stored);
        Some(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: SampleOptions = SampleOptions { keys: 100, seed: 7, expired_at: 1_000, expiring_at: 2_000 };

    /// A dump of so many strings in database 3; every tenth has an expiry, of 500, 1,500 or 2,500 in turns.
    fn dump(keys: u32) -> Vec<u8> {
        let mut bytes = b"REDIS0009\xfe\x03".to_vec();
        for number in 0..keys {
            if number % 10 == 0 {
                bytes.push(252);
                bytes.extend_from_slice(&(500 + 1_000 * u64::from(number / 10 % 3)).to_le_bytes());
            }
            bytes.extend_from_slice(&[0, 4]);
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.extend_from_slice(b"\x05value");
        }
        bytes.extend_from_slice(&[255, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    fn sample(dump: &[u8], options: SampleOptions, piece: usize) -> Sample {
        let mut sampler = Sampler::new(options);
        dump.chunks(piece).for_each(|piece| sampler.feed(piece).unwrap());
        sampler.finish()
    }

    fn number(key: &SampledKey) -> u32 {
        u32::from_be_bytes(*key.name.first_chunk().unwrap())
    }

    #[test]
    fn every_key_has_the_same_chance() {
        // Goal: as many as asked for, no key twice, from everywhere, however it is cut. Method: 30 samples of 10,000 keys.
        let whole = dump(10_000);
        let mut tenths = [0; 10];
        for seed in 0..30 {
            let options = SampleOptions { seed, ..OPTIONS };
            let found = sample(&whole, options, 4096);
            let distinct: std::collections::BTreeSet<u32> = found.keys.iter().map(number).collect();
            assert_eq!((found.keys.len(), distinct.len(), found.is_whole), (100, 100, true));
            assert!(found.keys.iter().all(|key| key.database == 3 && key.kind == Type::String && key.length == Length::Exactly(5)));
            distinct.iter().for_each(|number| tenths[(number / 1_000) as usize] += 1);
            if seed == 0 {
                assert_eq!(sample(&whole, options, 1), found);
            }
        }
        // 300 are expected in each, with a deviation of 16.
        assert!(tenths.iter().all(|count| (220..380).contains(count)), "{tenths:?}");
    }

    #[test]
    fn few_keys_are_all_taken() {
        let found = sample(&dump(60), OPTIONS, 7);
        assert_eq!(found.keys.iter().map(number).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
        assert_eq!(found.keys[10].expires_at, Some(1_500));
        assert_eq!(found.passing, BTreeMap::from([((3, Type::String), Passing { expired: 2, expiring: 2 })]));
        let none = sample(&dump(60), SampleOptions { keys: 0, ..OPTIONS }, 7);
        assert!(none.keys.is_empty() && none.passing == found.passing);
        let dump = dump(60);
        assert!(!sample(&dump[..dump.len() - 20], OPTIONS, 7).is_whole);
        assert!(!format!("{:?}", found.keys[0]).contains("name"));
    }

    #[test]
    fn lengths_come_from_the_beginning_of_a_value() {
        let value = |type_byte, bytes: &[u8]| Value { bytes, at: 0 }.length(type_byte, Dialect::Redis);
        let listpack = |entries: u16| [&[13, 13, 0, 0, 0][..], &entries.to_le_bytes(), &[0; 7]].concat();
        let exactly = |count| Some(Length::Exactly(count));
        for (type_byte, bytes, expected) in [
            (0, b"\x05value".to_vec(), exactly(5)),
            (0, vec![0xc0, 0xf6], exactly(3)),
            (0, vec![0xc3, 5, 0x41, 0], exactly(256)),
            (1, vec![0x42, 0], exactly(512)),
            (4, vec![7], exactly(7)),
            (11, vec![0x0c, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 2, 0], exactly(2)),
            (16, listpack(4), exactly(2)),
            (17, listpack(u16::MAX), None),
            (20, listpack(3), exactly(3)),
            (18, [vec![2, 2], listpack(3), vec![1, 3, b'a', b'b', b'c']].concat(), exactly(4)),
            (18, [vec![2, 2], listpack(3)].concat(), None),
            (23, listpack(6), Some(Length::AtMost(2))),
            (25, [vec![0; 8], listpack(6)].concat(), Some(Length::AtMost(2))),
            (24, [vec![0; 8], vec![9]].concat(), Some(Length::AtMost(9))),
            (7, vec![1, 2, 3], None),
            (4, Vec::new(), None),
        ] {
            assert_eq!(value(type_byte, &bytes), expected, "{type_byte} {bytes:?}");
        }
        // Under LZF: four literal bytes, then a reference, then the rest.
        let compressed = [&[0xc3, 10, 13][..], &[6, 13, 0, 0, 0, 4, 0, 9, 0x60, 0, 9]].concat();
        assert_eq!(value(16, &compressed), exactly(2));
    }

    #[test]
    fn the_beginning_of_a_block_is_that_of_the_whole() {
        // Goal: a prefix is a prefix, whatever is missing. Method: a block with literals, a short and a long reference.
        let block = [3, b'a', b'b', b'c', b'd', 0x40, 3, 0xe0, 10, 0, 0, b'!'];
        let whole = lzf::unfold(&block, 4 + 4 + 19 + 1).unwrap();
        for wanted in 0..whole.len() {
            let mut output = vec![0; wanted];
            assert_eq!((lzf::beginning(&block, &mut output), &output[..]), (wanted, &whole[..wanted]));
        }
        let mut output = [0; 40];
        assert_eq!(lzf::beginning(&block[..6], &mut output), 4);
        assert_eq!(lzf::beginning(&[0x40, 9], &mut output), 0);
    }
}
