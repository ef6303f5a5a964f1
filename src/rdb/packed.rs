//! What a packed collection, stored as one string, says about itself in its first bytes.

use super::What;

/// Longest header, in bytes.
pub(super) const HEADER_BYTES: usize = 10;

/// Closes every packed form but the intset.
pub(super) const END_MARK: u8 = 0xff;

/// In a listpack or ziplist header: too many entries to count in 16 bits.
const UNCOUNTED: u16 = u16::MAX;

/// The packed forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    /// Total bytes, offset of the last entry, number of entries.
    Ziplist,
    /// Total bytes, number of entries.
    Listpack,
    /// Width of a member, number of members.
    Intset,
    /// Number of pairs, when below 254.
    Zipmap,
}

impl Packed {
    /// Size of the header in bytes.
    pub(super) fn header_bytes(self) -> usize {
        match self {
            Self::Ziplist => 10,
            Self::Listpack => 6,
            Self::Intset => 8,
            Self::Zipmap => 1,
        }
    }

    /// Number of its entries by its header: members, or names and values each for itself. `None` when there are too many to be
    /// counted there.
    pub(super) fn entries(self, header: &[u8]) -> Option<u64> {
        match self {
            Self::Ziplist => Some(half(header, 8)).filter(|entries| *entries != UNCOUNTED).map(u64::from),
            Self::Listpack => Some(half(header, 4)).filter(|entries| *entries != UNCOUNTED).map(u64::from),
            Self::Intset => Some(word(header, 4)),
            Self::Zipmap => header.first().filter(|pairs| **pairs < 254).map(|pairs| u64::from(*pairs)),
        }
    }

    /// True when the last byte is [`END_MARK`].
    pub(super) fn marked(self) -> bool {
        match self {
            Self::Ziplist | Self::Listpack | Self::Zipmap => true,
            Self::Intset => false,
        }
    }

    /// Refuses a string too short to be one of this form.
    pub(super) fn check_length(self, length: u64) -> Result<(), What> {
        if length < self.header_bytes() as u64 + u64::from(self.marked()) {
            return Err("a packed collection shorter than its own header");
        }
        Ok(())
    }

    /// Compares a header with the `length` of the string that it opens, which [`Self::check_length`] has passed.
    pub(super) fn check(self, header: &[u8], length: u64) -> Result<(), What> {
        match self {
            Self::Ziplist => {
                let (total, tail, entries) = (word(header, 0), word(header, 4), half(header, 8));
                if total != length {
                    return Err("a ziplist that disagrees with its length");
                }
                // The tail points at the last entry, or at the end mark when there is none.
                if tail < 10 || tail > length - 1 || (entries == 0) != (tail == length - 1) {
                    return Err("a ziplist whose tail is out of place");
                }
                check_entries(entries, length - 11)
            }
            Self::Listpack => {
                if word(header, 0) != length {
                    return Err("a listpack that disagrees with its length");
                }
                check_entries(half(header, 4), length - 7)
            }
            Self::Intset => {
                let (width, members) = (word(header, 0), word(header, 4));
                if !matches!(width, 2 | 4 | 8) {
                    return Err("an intset of unknown width");
                }
                if members * width + 8 != length {
                    return Err("an intset that disagrees with its length");
                }
                Ok(())
            }
            Self::Zipmap => Ok(()),
        }
    }
}

/// An entry of a ziplist or listpack takes two bytes at least.
fn check_entries(entries: u16, room: u64) -> Result<(), What> {
    if entries != UNCOUNTED && u64::from(entries) * 2 > room {
        return Err("a packed collection with more entries than room");
    }
    Ok(())
}

fn word(header: &[u8], at: usize) -> u64 {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
    u64::from(bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes)))
}

fn half(header: &[u8], at: usize) -> u16 {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        // Goal: true headers pass, each untrue field is found. Method: a table of headers and string lengths.
        let table: &[(Packed, &[u8], u64, bool)] = &[
            (Packed::Listpack, &[7, 0, 0, 0, 0, 0], 7, true),
            (Packed::Listpack, &[9, 0, 0, 0, 1, 0], 9, true),
            (Packed::Listpack, &[9, 0, 0, 0, 255, 255], 9, true),
            (Packed::Listpack, &[9, 0, 0, 0, 2, 0], 9, false),
            (Packed::Listpack, &[9, 0, 0, 0, 1, 0], 10, false),
            (Packed::Listpack, &[6, 0, 0, 0, 0, 0], 6, false),
            (Packed::Ziplist, &[11, 0, 0, 0, 10, 0, 0, 0, 0, 0], 11, true),
            (Packed::Ziplist, &[13, 0, 0, 0, 10, 0, 0, 0, 1, 0], 13, true),
            (Packed::Ziplist, &[13, 0, 0, 0, 12, 0, 0, 0, 1, 0], 13, false),
            (Packed::Ziplist, &[13, 0, 0, 0, 9, 0, 0, 0, 1, 0], 13, false),
            (Packed::Ziplist, &[13, 0, 0, 0, 99, 0, 0, 0, 1, 0], 13, false),
            (Packed::Ziplist, &[13, 0, 0, 0, 10, 0, 0, 0, 9, 0], 13, false),
            (Packed::Ziplist, &[14, 0, 0, 0, 10, 0, 0, 0, 1, 0], 13, false),
            (Packed::Ziplist, &[10, 0, 0, 0, 10, 0, 0, 0, 0, 0], 10, false),
            (Packed::Intset, &[2, 0, 0, 0, 3, 0, 0, 0], 14, true),
            (Packed::Intset, &[8, 0, 0, 0, 255, 255, 255, 255], 8 + 8 * 0xffff_ffff, true),
            (Packed::Intset, &[3, 0, 0, 0, 2, 0, 0, 0], 14, false),
            (Packed::Intset, &[2, 0, 0, 0, 2, 0, 0, 0], 14, false),
            (Packed::Intset, &[2, 0, 0, 0, 0, 0, 0, 0], 7, false),
            (Packed::Zipmap, &[0], 2, true),
            (Packed::Zipmap, &[0], 1, false),
        ];
        for (packed, header, length, good) in table {
            assert!(header.len() == packed.header_bytes() && header.len() <= HEADER_BYTES);
            let result = packed.check_length(*length).and_then(|()| packed.check(header, *length));
            assert_eq!(result.is_ok(), *good, "{packed:?} {header:?} {length}: {result:?}");
        }
    }
}
