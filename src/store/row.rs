//! The form of one stored value: a format version, a checksum, a body.
//!
//! ```text
//! version (1) | CRC-32C over version and body (4, little endian) | body
//! ```
//!
//! Owns that form and the limit on its length. Knows nothing of keys or of what a row means: the caller names the kind of
//! the row, and a fault names it again.

use super::Error;
use crc_fast::{CrcAlgorithm, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest value, in bytes, with everything that surrounds its body.
pub(super) const VALUE_BYTES: usize = 64 << 10;

/// The form that is written. Every form ever written is read forever.
const VERSION: u8 = 1;

/// Version and checksum.
const HEAD_BYTES: usize = 5;

/// Wraps a body of bytes.
///
/// # Errors
///
/// [`Error::Invalid`] when the value would be longer than [`VALUE_BYTES`].
pub(super) fn seal(kind: &str, body: &[u8]) -> Result<Vec<u8>, Error> {
    let length = HEAD_BYTES + body.len();
    if length > VALUE_BYTES {
        return Err(Error::Invalid(format!("the row of kind `{kind}` takes {length} bytes, the limit is {VALUE_BYTES} bytes")));
    }
    let mut value = Vec::with_capacity(length);
    value.push(VERSION);
    value.extend_from_slice(&checksum(VERSION, body).to_le_bytes());
    value.extend_from_slice(body);
    Ok(value)
}

/// Checks a value and gives its body.
///
/// # Errors
///
/// [`Error::Damaged`] when the value is cut, its version is not known or its checksum does not hold.
pub(super) fn unseal<'a>(kind: &str, value: &'a [u8]) -> Result<&'a [u8], Error> {
    let Some((head, body)) = value.split_first_chunk::<HEAD_BYTES>() else {
        return Err(damaged(kind, format_args!("it has {} bytes, fewer than its head", value.len())));
    };
    let [version, sum @ ..] = *head;
    if version != VERSION {
        return Err(damaged(kind, format_args!("its format version {version} is not known")));
    }
    if u32::from_le_bytes(sum) != checksum(version, body) {
        return Err(damaged(kind, format_args!("its checksum does not hold")));
    }
    Ok(body)
}

/// The value of a row.
///
/// # Errors
///
/// [`Error::Invalid`] when the value would be longer than [`VALUE_BYTES`].
pub(super) fn encode<T: Serialize>(kind: &str, row: &T) -> Result<Vec<u8>, Error> {
    let body = serde_json::to_vec(row).map_err(|error| Error::Invalid(format!("a row of kind `{kind}` cannot be written: {error}")))?;
    seal(kind, &body)
}

/// The row in a value.
///
/// # Errors
///
/// [`Error::Damaged`] when the value does not hold together or does not hold such a row.
pub(super) fn decode<T: DeserializeOwned>(kind: &str, value: &[u8]) -> Result<T, Error> {
    let body = unseal(kind, value)?;
    serde_json::from_slice(body).map_err(|error| damaged(kind, format_args!("its body is no such row: {error}")))
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
}
