//! The form of one stored value: a format version, a checksum, a body.
//!
//! ```text
//! version (1) | CRC-32C over version and body (4, little endian) | body
//! ```
//!
//! In version 1 the body is the row, in version 2 the row under zstd. A row that is too long for one value even so is cut into
//! pieces, which are values of their own; in version 3 the body tells how many pieces there are and the sum that each of them
//! names, so that pieces of two writes are never taken for one row.
//!
//! Owns that form and the limits on its length. Knows nothing of keys or of what a row means: the caller names the kind of
//! the row, and a fault names it again.

use super::Error;
use crc_fast::{CrcAlgorithm, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;

/// Longest value, in bytes, with everything that surrounds its body.
pub(super) const VALUE_BYTES: usize = 64 << 10;

/// Longest row as it is stored, over all its pieces, in bytes.
pub(super) const LONG_BYTES: usize = 1 << 20;

/// Longest row before compression, in bytes.
pub(super) const ROW_BYTES: usize = 8 << 20;

/// Most bytes of a row in one of its pieces.
pub(super) const PIECE_BYTES: usize = 60 << 10;

/// Rows that are longer are compressed, in bytes: a shorter one is quicker to write as it is.
const PLAIN_BYTES: usize = 16 << 10;

/// Level of the compression: the writer waits for it.
const ZSTD_LEVEL: i32 = 3;

/// The form of a row as it is. Every form ever written is read forever.
const VERSION: u8 = 1;

/// The form of a row under zstd.
const COMPRESSED: u8 = 2;

/// The form of what stands for a row in pieces.
const CUT: u8 = 3;

/// Version and checksum.
const HEAD_BYTES: usize = 5;

/// Wraps a body of bytes.
///
/// # Errors
///
/// [`Error::Invalid`] when the value would be longer than [`VALUE_BYTES`].
pub(super) fn seal(kind: &str, body: &[u8]) -> Result<Vec<u8>, Error> {
    within(kind, wrap(VERSION, body), VALUE_BYTES)
}

fn wrap(version: u8, body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD_BYTES + body.len());
    value.push(version);
    value.extend_from_slice(&checksum(version, body).to_le_bytes());
    value.extend_from_slice(body);
    value
}

fn within(kind: &str, value: Vec<u8>, limit: usize) -> Result<Vec<u8>, Error> {
    if value.len() > limit {
        return Err(Error::Invalid(format!("the row of kind `{kind}` takes {} bytes, the limit is {limit} bytes", value.len())));
    }
    Ok(value)
}

/// Checks a value and gives its body.
///
/// # Errors
///
/// [`Error::Damaged`] when the value is cut, its version is not known or its checksum does not hold.
pub(super) fn unseal<'a>(kind: &str, value: &'a [u8]) -> Result<&'a [u8], Error> {
    match open(kind, value)? {
        (VERSION, body) => Ok(body),
        (version, _) => Err(damaged(kind, format_args!("its format version {version} is not known"))),
    }
}

/// Checks a value and gives its version and its body.
fn open<'a>(kind: &str, value: &'a [u8]) -> Result<(u8, &'a [u8]), Error> {
    let Some((head, body)) = value.split_first_chunk::<HEAD_BYTES>() else {
        return Err(damaged(kind, format_args!("it has {} bytes, fewer than its head", value.len())));
    };
    let [version, sum @ ..] = *head;
    if ![VERSION, COMPRESSED, CUT].contains(&version) {
        return Err(damaged(kind, format_args!("its format version {version} is not known")));
    }
    if u32::from_le_bytes(sum) != checksum(version, body) {
        return Err(damaged(kind, format_args!("its checksum does not hold")));
    }
    Ok((version, body))
}

/// The value of a row, under zstd where it is long. It may be too long for one value: [`cut`] makes pieces of it then.
///
/// # Errors
///
/// [`Error::Invalid`] when the row is longer than [`ROW_BYTES`], or its value than [`LONG_BYTES`].
pub(super) fn encode<T: Serialize>(kind: &str, row: &T) -> Result<Vec<u8>, Error> {
    let body = serde_json::to_vec(row).map_err(|error| Error::Invalid(format!("a row of kind `{kind}` cannot be written: {error}")))?;
    if body.len() <= PLAIN_BYTES {
        return seal(kind, &body);
    }
    let body = within(kind, body, ROW_BYTES)?;
    let body = zstd::bulk::compress(&body, ZSTD_LEVEL).map_err(|error| Error::Invalid(format!("a row of kind `{kind}` cannot be compressed: {error}")))?;
    within(kind, wrap(COMPRESSED, &body), LONG_BYTES)
}

/// Cuts a value that is longer than [`VALUE_BYTES`]: what stands for it, and its pieces.
///
/// # Errors
///
/// [`Error::Invalid`] when the value is longer than [`LONG_BYTES`].
pub(super) fn cut(kind: &str, value: &[u8]) -> Result<(Vec<u8>, Vec<Vec<u8>>), Error> {
    let count = u16::try_from(value.len().div_ceil(PIECE_BYTES)).ok().filter(|_| value.len() <= LONG_BYTES);
    let count = count.ok_or_else(|| Error::Invalid(format!("the row of kind `{kind}` takes {} bytes, the limit is {LONG_BYTES} bytes", value.len())))?;
    let sum = checksum(CUT, value).to_le_bytes();
    let pieces: Result<_, Error> = value.chunks(PIECE_BYTES).map(|bytes| seal(kind, &[&sum, bytes].concat())).collect();
    Ok((wrap(CUT, &[&count.to_le_bytes()[..], &sum[..]].concat()), pieces?))
}

/// The pieces that a value stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    /// How many there are.
    pub count: u16,
    /// The sum over all of them, which each names.
    sum: [u8; 4],
}

impl Pieces {
    /// The part of the row that a piece holds; `None` for a piece of another write.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when it does not hold together.
    pub(super) fn part<'a>(&self, kind: &str, piece: &'a [u8]) -> Result<Option<&'a [u8]>, Error> {
        Ok(unseal(kind, piece)?.strip_prefix(&self.sum))
    }

    /// Whether these bytes are what all pieces were made of.
    pub(super) fn are_whole(&self, value: &[u8]) -> bool {
        checksum(CUT, value).to_le_bytes() == self.sum
    }
}

/// The pieces that a value stands for; `None` when it holds the row itself.
///
/// # Errors
///
/// [`Error::Damaged`] when it does not hold together.
pub(super) fn pieces(kind: &str, value: &[u8]) -> Result<Option<Pieces>, Error> {
    if value.first() != Some(&CUT) {
        return Ok(None);
    }
    let (_, body) = open(kind, value)?;
    let told = body.split_first_chunk::<2>().and_then(|(count, sum)| Some((u16::from_le_bytes(*count), sum.try_into().ok()?)));
    let (count, sum) = told.ok_or_else(|| damaged(kind, format_args!("it tells of no pieces")))?;
    if usize::from(count) > LONG_BYTES.div_ceil(PIECE_BYTES) {
        return Err(damaged(kind, format_args!("it tells of {count} pieces, more than a row has")));
    }
    Ok(Some(Pieces { count, sum }))
}

/// The row in a value.
///
/// # Errors
///
/// [`Error::Damaged`] when the value does not hold together or does not hold such a row.
pub(super) fn decode<T: DeserializeOwned>(kind: &str, value: &[u8]) -> Result<T, Error> {
    let plain;
    let body = match open(kind, value)? {
        (COMPRESSED, body) => {
            plain = decompress(body).map_err(|what| damaged(kind, format_args!("{what}")))?;
            plain.as_slice()
        }
        (VERSION, body) => body,
        (version, _) => return Err(damaged(kind, format_args!("its format version {version} holds no row"))),
    };
    serde_json::from_slice(body).map_err(|error| damaged(kind, format_args!("its body is no such row: {error}")))
}

/// At most [`ROW_BYTES`], whatever the frame says of its length.
fn decompress(body: &[u8]) -> Result<Vec<u8>, String> {
    let bad = |error: std::io::Error| format!("it does not decompress: {error}");
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::with_buffer(body).map_err(bad)?.take(ROW_BYTES as u64 + 1).read_to_end(&mut plain).map_err(bad)?;
    if plain.len() > ROW_BYTES {
        return Err(format!("it has more than {ROW_BYTES} bytes"));
    }
    Ok(plain)
}

fn checksum(version: u8, body: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&[version]);
    digest.update(body);
    // The algorithm has 32 bits; the crate gives every sum as 64.
    digest.finalize() as u32
}

fn damaged(kind: &str, what: std::fmt::Arguments<'_>) -> Error {
    Error::Damaged(format!("kind `{kind}`: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back() {
        let value = encode("pair", &(7, "seven")).unwrap();
        assert_eq!(decode::<(u32, String)>("pair", &value), Ok((7, "seven".to_owned())));
        assert_eq!(unseal("bytes", &seal("bytes", b"").unwrap()), Ok(&b""[..]));
    }

    #[test]
    fn the_form_on_disk_stays() {
        // CRC-32C of the bytes 01 31 32 33, so that a change of form or algorithm is seen.
        assert_eq!(checksum(1, b"123"), !crc32c_by_the_book(&[1, b'1', b'2', b'3']));
        assert_eq!(seal("bytes", b"123").unwrap()[..1], [1]);
    }

    /// Bit by bit, with the reflected polynomial 0x82F63B78, before the last inversion.
    fn crc32c_by_the_book(bytes: &[u8]) -> u32 {
        bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82F6_3B78 } else { sum >> 1 }))
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_a_fault_that_names_the_kind() {
        let value = encode("operation", &vec!["a", "b"]).unwrap();
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Err(Error::Damaged(text)) = decode::<Vec<String>>("operation", &flipped) else { panic!("bit {bit} went unseen") };
            assert!(text.contains("operation"), "{text}");
        }
        for length in 0..value.len() {
            assert!(matches!(decode::<Vec<String>>("operation", &value[..length]), Err(Error::Damaged(_))), "length {length}");
        }
    }

    #[test]
    fn a_body_of_another_kind_is_a_fault() {
        let value = encode("text", &"text").unwrap();
        assert!(matches!(decode::<u64>("number", &value), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_value_ends_at_the_limit() {
        assert_eq!(seal("chunk", &vec![0; VALUE_BYTES - HEAD_BYTES]).unwrap().len(), VALUE_BYTES);
        assert!(matches!(seal("chunk", &vec![0; VALUE_BYTES - HEAD_BYTES + 1]), Err(Error::Invalid(_))));
    }

    /// Numbers that do not compress.
    fn noise(count: u64) -> Vec<u64> {
        (0..count).map(|number| u64::from(checksum(VERSION, &number.to_le_bytes())) << 32 | u64::from(checksum(COMPRESSED, &number.to_le_bytes()))).collect()
    }

    #[test]
    fn a_long_row_is_compressed_and_comes_back() {
        let row = vec!["the same words".to_owned(); 100_000];
        let value = encode("words", &row).unwrap();
        assert!(value[0] == COMPRESSED && value.len() < VALUE_BYTES, "{}", value.len());
        assert_eq!(decode::<Vec<String>>("words", &value), Ok(row));
        let mut flipped = value.clone();
        for at in (0..flipped.len()).step_by(7) {
            flipped[at] ^= 1;
            assert!(matches!(decode::<Vec<String>>("words", &flipped), Err(Error::Damaged(_))), "{at}");
            flipped[at] ^= 1;
        }
        assert!(matches!(unseal("words", &value), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_row_that_grows_beyond_the_limit_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![b' '; ROW_BYTES + 1], ZSTD_LEVEL).unwrap();
        let fault = decode::<Vec<u64>>("bomb", &wrap(COMPRESSED, &bomb)).unwrap_err();
        assert!(fault.to_string().contains("more than 8388608 bytes"), "{fault}");
        assert!(matches!(decode::<Vec<u64>>("cut", &wrap(COMPRESSED, &bomb[..9])), Err(Error::Damaged(_))));
        assert!(matches!(encode("long", &" ".repeat(ROW_BYTES)), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_row_in_pieces_is_put_together_from_its_own_only() {
        let row = noise(20_000);
        let value = encode("noise", &row).unwrap();
        assert!(value.len() > VALUE_BYTES);
        let (head, parts) = cut("noise", &value).unwrap();
        let told = pieces("noise", &head).unwrap().unwrap();
        assert_eq!((usize::from(told.count), head.len()), (parts.len(), HEAD_BYTES + 6));
        assert!(parts.iter().all(|part| part.len() <= VALUE_BYTES));
        let whole: Vec<u8> = parts.iter().flat_map(|part| told.part("noise", part).unwrap().unwrap().to_vec()).collect();
        assert!(told.are_whole(&whole) && !told.are_whole(&whole[1..]));
        assert_eq!(decode::<Vec<u64>>("noise", &whole), Ok(row));
        let (_, foreign) = cut("noise", &encode("noise", &noise(20_001)).unwrap()).unwrap();
        assert_eq!(told.part("noise", &foreign[0]), Ok(None));
        assert!(matches!(decode::<Vec<u64>>("noise", &head), Err(Error::Damaged(_))));
        assert_eq!(pieces("noise", &value), Ok(None));
    }
}
