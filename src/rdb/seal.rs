//! The checksum at the end, while it is not known yet where the end is.

use super::{Checksum, Error};
use crc_fast::{CrcAlgorithm, Digest};

/// Size of the stored checksum, in bytes.
pub(super) const CHECKSUM_BYTES: usize = 8;

/// Ends the records.
pub(super) const END_MARK: u8 = 0xff;

/// The running CRC-64 of a dump.
///
/// Where the structure is followed, the caller knows what is covered and uses [`Seal::cover`]. Where it is not, the
/// last bytes fed so far may turn out to be the checksum, so [`Seal::trail`] keeps that many back.
#[derive(Debug)]
pub(super) struct Seal {
    digest: Digest,
    /// Last byte that went into the digest.
    last: Option<u8>,
    back: [u8; CHECKSUM_BYTES],
    back_len: usize,
}

impl Seal {
    pub(super) fn new() -> Self {
        Self { digest: Digest::new(CrcAlgorithm::Crc64Redis), last: None, back: [0; CHECKSUM_BYTES], back_len: 0 }
    }

    /// Adds bytes that the checksum covers.
    pub(super) fn cover(&mut self, bytes: &[u8]) {
        if let Some(&last) = bytes.last() {
            self.digest.update(bytes);
            self.last = Some(last);
        }
    }

    /// Adds bytes of which the last [`CHECKSUM_BYTES`] may be the checksum.
    pub(super) fn trail(&mut self, bytes: &[u8]) {
        let free = CHECKSUM_BYTES - self.back_len;
        let surplus = bytes.len().saturating_sub(free);
        let back = self.back;
        let (old, kept) = back[..self.back_len].split_at(surplus.min(self.back_len));
        // What is pushed out goes first from what was kept back, then from the new bytes.
        let new = surplus - old.len();
        self.cover(old);
        self.cover(&bytes[..new]);
        let bytes = &bytes[new..];
        self.back[..kept.len()].copy_from_slice(kept);
        self.back[kept.len()..kept.len() + bytes.len()].copy_from_slice(bytes);
        self.back_len = kept.len() + bytes.len();
    }

    /// The checksum that was kept back, when the end mark stands before it.
    pub(super) fn kept_back(&self) -> Option<u64> {
        let whole = self.back_len == CHECKSUM_BYTES && self.marked();
        whole.then(|| u64::from_le_bytes(self.back))
    }

    /// True when the last byte covered is the end mark.
    pub(super) fn marked(&self) -> bool {
        self.last == Some(END_MARK)
    }

    /// The CRC-64 of everything covered so far.
    pub(super) fn crc64(&self) -> u64 {
        self.digest.finalize()
    }

    /// Compares the `stored` checksum, zero of which means that the source was told not to compute one.
    pub(super) fn verify(&self, stored: u64) -> Result<Checksum, Error> {
        let expected = self.crc64();
        match stored {
            0 => Ok(Checksum::AbsentAtSource),
            _ if stored == expected => Ok(Checksum::Verified),
            found => Err(Error::Checksum { expected, found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        // Goal: the polynomial and its conventions are the format's. Method: its two published vectors.
        let crc64 = |bytes: &[u8]| {
            let mut seal = Seal::new();
            seal.cover(bytes);
            seal.crc64()
        };
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(b"REDIS0009\xff"), 0x74ad_0ffb_bc7a_ac9a);
    }

    #[test]
    fn trailing() {
        // Goal: however the bytes are cut, the last eight are kept back. Method: every size of piece.
        let mut bytes = b"REDIS0099 and what follows\xff".to_vec();
        let mut seal = Seal::new();
        seal.cover(&bytes);
        let expected = seal.crc64();
        bytes.extend(expected.to_le_bytes());
        for covered in 0..20 {
            for size in 1..=bytes.len() {
                let mut seal = Seal::new();
                seal.cover(&bytes[..covered]);
                bytes[covered..].chunks(size).for_each(|piece| seal.trail(piece));
                assert_eq!(seal.kept_back(), Some(expected));
                assert_eq!(seal.verify(expected), Ok(Checksum::Verified));
                assert_eq!(seal.verify(0), Ok(Checksum::AbsentAtSource));
                assert_eq!(seal.verify(1), Err(Error::Checksum { expected, found: 1 }));
            }
        }
    }
}
