//! Writes dumps byte by byte, so that a scripted server can send valid, cut and flipped ones.
//!
//! Written from the format's description and not from the product's walker: one must be able to prove the other wrong.

use super::data::{Noise, Torrent};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

/// Ends the records.
const END: u8 = 0xff;

/// Bytes of the checksum after the end mark.
pub const CHECKSUM_BYTES: usize = 8;

/// Bytes that [`Endless`] makes at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A dump as it goes over the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dump {
    /// The bytes, from the magic to the checksum.
    pub bytes: Bytes,
    /// Where records start, in rising order: the first is behind the header, the last but one is that of the end mark, the
    /// last is that of the checksum. A key's expiry is a record of its own.
    pub boundaries: Vec<usize>,
}

impl Dump {
    /// A small dump with a bit of everything: two databases, expiries, a function, every string encoding.
    pub fn sample() -> Self {
        let mut rdb = RdbBytes::new();
        rdb.aux("redis-ver", "7.0.15").aux("redis-bits", "64").aux("ctime", "1700000000").aux("used-mem", "1000000");
        rdb.function("#!lua name=sample\nredis.register_function('echo', function(keys, args) return args[1] end)");
        rdb.select(0).resizedb(7, 1);
        rdb.string("plain", "value").string("", "").string("12", "-7").integer("int8", -128).integer("int16", 32_767).integer("int32", 2_000_000_000);
        rdb.expires_at_ms(FAR_AT_MS).string("expiring", vec![b'x'; 300]);
        rdb.select(3).resizedb(2, 0).string("long", Noise::new(3).bytes(20_000)).list("list", &["a", "b", "c"]);
        rdb.finish()
    }

    /// The first `length` bytes.
    pub fn cut(&self, length: usize) -> Bytes {
        self.bytes.slice(..length)
    }

    /// With one bit of the byte at `offset` turned over.
    pub fn flipped(&self, offset: usize, bit: u8) -> Bytes {
        let mut bytes = self.bytes.to_vec();
        bytes[offset] ^= 1 << bit;
        bytes.into()
    }
}

/// An instant in the year 2100, in Unix milliseconds and not on a full second.
pub const FAR_AT_MS: u64 = 4_102_444_800_123;

/// Where the dump's checksum is.
pub fn crc64(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Redis);
    digest.update(bytes);
    digest.finalize()
}

/// A dump in the making.
#[derive(Clone, Debug)]
pub struct RdbBytes {
    bytes: Vec<u8>,
    boundaries: Vec<usize>,
}

impl Default for RdbBytes {
    fn default() -> Self {
        Self::new()
    }
}

impl RdbBytes {
    /// Starts as Redis 7.0 does.
    pub fn new() -> Self {
        Self::with_header(b"REDIS0010")
    }

    /// Starts with these bytes in place of the magic and version.
    pub fn with_header(header: &[u8]) -> Self {
        Self { bytes: header.to_vec(), boundaries: Vec::new() }
    }

    /// Size so far, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an auxiliary field.
    pub fn aux(&mut self, name: &str, value: &str) -> &mut Self {
        self.record(0xfa).text(name.as_bytes()).text(value.as_bytes())
    }

    /// Adds the library `code` of functions.
    pub fn function(&mut self, code: &str) -> &mut Self {
        self.record(0xf5).text(code.as_bytes())
    }

    /// Goes to a database.
    pub fn select(&mut self, database: u64) -> &mut Self {
        self.record(0xfe).length(database)
    }

    /// Announces the numbers of keys and of expiring keys.
    pub fn resizedb(&mut self, keys: u64, expires: u64) -> &mut Self {
        self.record(0xfb).length(keys).length(expires)
    }

    /// Lets the next key expire, in Unix milliseconds.
    pub fn expires_at_ms(&mut self, at_ms: u64) -> &mut Self {
        self.record(0xfc).extend(&at_ms.to_le_bytes())
    }

    /// Adds a string as plain bytes.
    pub fn string(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.record(0).text(key.as_ref()).text(value.as_ref())
    }

    /// Adds a string in the smallest integer encoding.
    pub fn integer(&mut self, key: impl AsRef<[u8]>, value: i32) -> &mut Self {
        self.record(0).text(key.as_ref());
        if let Ok(value) = i8::try_from(value) {
            self.extend(&[0xc0]).extend(&value.to_le_bytes())
        } else if let Ok(value) = i16::try_from(value) {
            self.extend(&[0xc1]).extend(&value.to_le_bytes())
        } else {
            self.extend(&[0xc2]).extend(&value.to_le_bytes())
        }
    }

    /// Adds a list in its oldest form, one string after the other.
    pub fn list(&mut self, key: impl AsRef<[u8]>, items: &[&str]) -> &mut Self {
        self.record(1).text(key.as_ref()).length(items.len() as u64);
        for item in items {
            self.text(item.as_bytes());
        }
        self
    }

    /// Adds a key of the given type with the body as it stands.
    pub fn value(&mut self, kind: u8, key: impl AsRef<[u8]>, body: &[u8]) -> &mut Self {
        self.record(kind).text(key.as_ref()).extend(body)
    }

    /// Starts a record with `opcode`; what follows is the caller's.
    pub fn record(&mut self, opcode: u8) -> &mut Self {
        self.boundaries.push(self.bytes.len());
        self.extend(&[opcode])
    }

    /// Appends a length in its shortest form.
    pub fn length(&mut self, length: u64) -> &mut Self {
        match length {
            0..0x40 => self.extend(&[length as u8]),
            0x40..0x4000 => self.extend(&[0x40 | (length >> 8) as u8, length as u8]),
            0x4000..=0xffff_ffff => self.extend(&[0x80]).extend(&(length as u32).to_be_bytes()),
            _ => self.extend(&[0x81]).extend(&length.to_be_bytes()),
        }
    }

    /// Appends a string with its length.
    pub fn text(&mut self, text: &[u8]) -> &mut Self {
        self.length(text.len() as u64).extend(text)
    }

    /// Appends raw bytes.
    pub fn extend(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Ends the dump with the right checksum.
    pub fn finish(&mut self) -> Dump {
        self.record(END);
        let checksum = crc64(&self.bytes);
        self.sealed(checksum)
    }

    /// Ends the dump with this checksum; zero means that the writer made none.
    pub fn finish_with(&mut self, checksum: u64) -> Dump {
        self.record(END).sealed(checksum)
    }

    fn sealed(&mut self, checksum: u64) -> Dump {
        self.boundaries.push(self.bytes.len());
        self.extend(&checksum.to_le_bytes());
        Dump { bytes: std::mem::take(&mut self.bytes).into(), boundaries: std::mem::take(&mut self.boundaries) }
    }
}

/// A valid dump of any size, made piece by piece and never whole in memory.
///
/// It holds string keys of one size with values that do not compress. The same arguments give the same bytes.
pub struct Endless {
    digest: Digest,
    noise: Torrent,
    head: Bytes,
    size_bytes: u64,
    keys: u64,
    value_bytes: u64,
    next_key: u64,
    /// Bytes missing from the value under way.
    value_left: u64,
    ended: bool,
}

impl Endless {
    /// Plans a dump of at least `total_bytes`, by as many keys as that takes, with values of `value_bytes`.
    pub fn new(total_bytes: u64, value_bytes: u64) -> Self {
        let record_bytes = record_head(0, value_bytes).len() as u64 + value_bytes;
        let mut rdb = RdbBytes::new();
        rdb.aux("redis-ver", "7.0.15").select(0);
        let keys = total_bytes.saturating_sub(rdb.size_bytes() as u64).div_ceil(record_bytes);
        rdb.resizedb(keys, 0);
        let size_bytes = rdb.size_bytes() as u64 + keys * record_bytes + 1 + CHECKSUM_BYTES as u64;
        Self {
            digest: Digest::new(CrcAlgorithm::Crc64Redis),
            noise: Torrent::default(),
            head: rdb.bytes.into(),
            size_bytes,
            keys,
            value_bytes,
            next_key: 0,
            value_left: 0,
            ended: false,
        }
    }

    /// Number of keys.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Exact size of the whole dump, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Makes the next piece of some hundred kilobytes, `None` at the end.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut chunk = std::mem::take(&mut self.head).to_vec();
        chunk.reserve(CHUNK_BYTES);
        while chunk.len() < CHUNK_BYTES {
            if self.value_left > 0 {
                let piece = self.value_left.min(CHUNK_BYTES as u64);
                self.noise.extend(&mut chunk, piece as usize);
                self.value_left -= piece;
            } else if self.next_key < self.keys {
                chunk.extend_from_slice(&record_head(self.next_key, self.value_bytes));
                self.next_key += 1;
                self.value_left = self.value_bytes;
            } else {
                chunk.push(END);
                self.digest.update(&chunk);
                chunk.extend_from_slice(&self.digest.finalize().to_le_bytes());
                self.ended = true;
                return Some(chunk.into());
            }
        }
        self.digest.update(&chunk);
        Some(chunk.into())
    }
}

/// Everything of a record before the bytes of its value. The names have one length.
fn record_head(key: u64, value_bytes: u64) -> Vec<u8> {
    let mut rdb = RdbBytes::with_header(b"");
    rdb.record(0).text(format!("key:{key:016}").as_bytes()).length(value_bytes);
    rdb.bytes
}
