//! What follows what: the bytes behind each opcode and each value type, as tables.
//!
//! A layout is a row of [`Part`]s. Rows nest only through [`Part::Each`], [`Part::Items`] and [`Part::Node`], at most
//! [`DEPTH`] deep, so a reader needs a stack of that many entries and nothing that grows with the data.

use super::packed::Packed;
use super::{Dialect, Type, Version};
use Part::{AuxName, AuxValue, Each, Items, Kept, Key, Length, ModuleId, Node, Packed as Blob, Raw, ShortDouble, Sized, Text, UnsignedMark};

/// Deepest nesting of layouts: a stream, its groups, their consumers, their pending ids.
pub(super) const DEPTH: usize = 4;

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A length that nobody needs.
    Length,
    /// A length that is handed over when the record ends.
    Kept,
    /// A length that must be 2: the module value that follows is an unsigned integer.
    UnsignedMark,
    /// A module's name and version, as a length.
    ModuleId,
    /// The name of a key.
    Key,
    /// A string of any size.
    Text,
    /// A string that must unfold to exactly that many bytes.
    Sized(u64),
    /// A string that holds a packed collection.
    Packed(Packed),
    /// That many bytes as they are.
    Raw(u8),
    /// When the next key expires, in seconds since 1970.
    ExpirySeconds,
    /// When the next key expires, in milliseconds since 1970.
    ExpiryMillis,
    /// Seconds since the next key was used.
    Idle,
    /// How often the next key is used.
    Frequency,
    /// A double as text behind one byte of length, three values of which mean no text at all.
    ShortDouble,
    /// A node of a quicklist: a length that says what it holds, and that.
    Node,
    /// A module's values, each behind a length that says what it is, up to a zero.
    Items,
    /// A length, then that many times the row.
    Each(&'static [Part]),
    /// The name of an AUX field.
    AuxName,
    /// The value of an AUX field.
    AuxValue,
}

/// What a record is, once it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// A key and its value.
    Key(Type),
    /// Something said about the next key.
    Prefix(Prefix),
    /// A named value about the dump; the only record that may stand between a prefix and its key.
    Aux,
    /// The database of the keys that follow.
    SelectDb,
    /// How many keys the database has.
    ResizeDb,
    /// How many keys a slot has.
    SlotInfo,
    /// Slots that were on their way in.
    SlotImport,
    /// A library of functions.
    Function,
    /// A module's value that belongs to no key.
    ModuleAux,
}

/// Something said about the next key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    /// When the key expires.
    Expiry,
    /// How often it was used.
    Frequency,
    /// How long it was not used.
    Idle,
}

/// What the first byte of a record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// A record of this layout.
    Record(Record, &'static [Part]),
    /// The end of the dump.
    End,
    /// Commands in the middle of the data.
    Commands,
    /// A layout that was withdrawn before it was released, and that no released server reads.
    Withdrawn,
    /// An opcode that is not known here.
    UnknownOpcode,
    /// A value type that is not known here.
    UnknownType,
}

/// Bytes from here up are opcodes; value types grow from zero and have not come near.
const FIRST_OPCODE: u8 = 240;

/// The version of Redis dumps that brought functions.
const FUNCTIONS: u16 = 10;

/// The version of Redis dumps that brought expiring fields of hashes, and numbers by slot.
const FIELD_EXPIRY: u16 = 12;

/// Looks up the first byte of a record.
///
/// Bytes that mean different things are told apart by family and version, and what came with a version of its own is not
/// believed under an older one. The types up to 21 have one meaning only; they are taken under any version, as every server
/// takes them, because some writers put newer types under an older version.
#[inline]
pub(super) fn first(version: Version, byte: u8) -> First {
    use First::{Commands, End, UnknownOpcode, UnknownType, Withdrawn};
    let (record, parts): (Record, &'static [Part]) = match (byte, version.dialect) {
        (255, _) => return End,
        (254, _) => (Record::SelectDb, &[Kept]),
        (253, _) => (Record::Prefix(Prefix::Expiry), &[Part::ExpirySeconds]),
        (252, _) => (Record::Prefix(Prefix::Expiry), &[Part::ExpiryMillis]),
        (251, _) => (Record::ResizeDb, &[Kept, Kept]),
        (250, _) => (Record::Aux, &[AuxName, AuxValue]),
        (249, _) => (Record::Prefix(Prefix::Frequency), &[Part::Frequency]),
        (248, _) => (Record::Prefix(Prefix::Idle), &[Part::Idle]),
        (247, _) => (Record::ModuleAux, &[ModuleId, UnsignedMark, Length, Items]),
        (246, _) => return Withdrawn,
        (245, Dialect::Redis) if version.number < FUNCTIONS => return UnknownOpcode,
        (245, _) => (Record::Function, &[Text]),
        (244, Dialect::Redis) if version.number < FIELD_EXPIRY => return UnknownOpcode,
        (244, _) => (Record::SlotInfo, &[Kept, Kept, Kept]),
        (243, Dialect::Valkey) => (Record::SlotImport, &[Sized(40), Each(&[Length, Length])]),
        (242, Dialect::Valkey) => return Commands,
        (FIRST_OPCODE.., _) => return UnknownOpcode,
        _ => match value(version, byte) {
            Some((kind, parts)) => (Record::Key(kind), parts),
            None => return UnknownType,
        },
    };
    First::Record(record, parts)
}

/// The layout of a key and a value of type `byte`.
fn value(version: Version, byte: u8) -> Option<(Type, &'static [Part])> {
    use Packed::{Intset, Listpack, Ziplist, Zipmap};
    Some(match (byte, version.dialect) {
        (0, _) => (Type::String, &[Key, Text]),
        (1, _) => (Type::List, &[Key, Each(&[Text])]),
        (2, _) => (Type::Set, &[Key, Each(&[Text])]),
        (3, _) => (Type::Zset, &[Key, Each(&[Text, ShortDouble])]),
        (4, _) => (Type::Hash, &[Key, Each(&[Text, Text])]),
        (5, _) => (Type::Zset, &[Key, Each(&[Text, Raw(8)])]),
        (7, _) => (Type::Module, &[Key, ModuleId, Items]),
        (9, _) => (Type::Hash, &[Key, Blob(Zipmap)]),
        (10, _) => (Type::List, &[Key, Blob(Ziplist)]),
        (11, _) => (Type::Set, &[Key, Blob(Intset)]),
        (12, _) => (Type::Zset, &[Key, Blob(Ziplist)]),
        (13, _) => (Type::Hash, &[Key, Blob(Ziplist)]),
        (14, _) => (Type::List, &[Key, Each(&[Blob(Ziplist)])]),
        (15, _) => (Type::Stream, STREAM_1),
        (16, _) => (Type::Hash, &[Key, Blob(Listpack)]),
        (17, _) => (Type::Zset, &[Key, Blob(Listpack)]),
        (18, _) => (Type::List, &[Key, Each(&[Node])]),
        (19, _) => (Type::Stream, STREAM_2),
        (20, _) => (Type::Set, &[Key, Blob(Listpack)]),
        (21, _) => (Type::Stream, STREAM_3),
        (22..=25, Dialect::Redis) if version.number < FIELD_EXPIRY => return None,
        // Release candidates of 7.4 wrote hashes with expiring fields without the leading minimum.
        (22, Dialect::Redis) => (Type::Hash, &[Key, Each(&[Length, Text, Text])]),
        (22, Dialect::Valkey) => (Type::Hash, &[Key, Each(&[Text, Text, Raw(8)])]),
        (23, Dialect::Redis) => (Type::Hash, &[Key, Blob(Listpack)]),
        (24, Dialect::Redis) => (Type::Hash, &[Key, Raw(8), Each(&[Length, Text, Text])]),
        (25, Dialect::Redis) => (Type::Hash, &[Key, Raw(8), Blob(Listpack)]),
        _ => return None,
    })
}

const NODES: Part = Each(&[Sized(16), Blob(Packed::Listpack)]);
/// Raw id, delivery time, delivery count.
const PENDING: Part = Each(&[Raw(24), Length]);
const OWNED: Part = Each(&[Raw(16)]);
const CONSUMERS_1: Part = Each(&[Text, Raw(8), OWNED]);
const CONSUMERS_3: Part = Each(&[Text, Raw(16), OWNED]);

/// Nodes, number of entries, last id; groups with name, last id, pending entries, consumers.
const STREAM_1: &[Part] = &[Key, NODES, Length, Length, Length, Each(&[Text, Length, Length, PENDING, CONSUMERS_1])];

/// Adds the first id, the highest deleted id and the entries ever added; to a group, the entries it has read.
const STREAM_2: &[Part] =
    &[Key, NODES, Length, Length, Length, Length, Length, Length, Length, Length, Each(&[Text, Length, Length, Length, PENDING, CONSUMERS_1])];

/// Adds a consumer's last active time.
const STREAM_3: &[Part] =
    &[Key, NODES, Length, Length, Length, Length, Length, Length, Length, Length, Each(&[Text, Length, Length, Length, PENDING, CONSUMERS_3])];

/// What a node of a quicklist holds, by its container number.
pub(super) fn node(container: u64) -> Option<&'static [Part]> {
    match container {
        1 => Some(&[Text]),
        2 => Some(&[Blob(Packed::Listpack)]),
        _ => None,
    }
}

/// A module's value by its mark; the mark 0, which ends the values, is the reader's.
pub(super) fn item(mark: u64) -> Option<&'static [Part]> {
    match mark {
        1 | 2 => Some(&[Length]),
        3 => Some(&[Raw(4)]),
        4 => Some(&[Raw(8)]),
        5 => Some(&[Text]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(parts: &[Part]) -> usize {
        let inner = parts.iter().map(|part| match part {
            Each(row) => depth(row),
            Items | Node => 1,
            _ => 0,
        });
        1 + inner.max().unwrap_or(0)
    }

    const REDIS: Version = Version { dialect: Dialect::Redis, number: 12 };
    const VALKEY: Version = Version { dialect: Dialect::Valkey, number: 80 };

    fn rows() -> impl Iterator<Item = &'static [Part]> {
        [REDIS, VALKEY].into_iter().flat_map(|version| {
            (0..=255).filter_map(move |byte| match first(version, byte) {
                First::Record(_, parts) => Some(parts),
                _ => None,
            })
        })
    }

    #[test]
    fn nesting_is_bounded() {
        // Goal: the stack of the reader is deep enough for every layout. Method: measure them all.
        assert_eq!(rows().map(depth).max(), Some(DEPTH));
    }

    #[test]
    fn every_repeated_row_takes_bytes() {
        // Goal: a declared count cannot keep the reader busy without input. Method: no row is empty or of raw zero.
        fn check(parts: &[Part]) {
            assert!(!parts.is_empty());
            for part in parts {
                match part {
                    Each(row) => check(row),
                    Raw(bytes) => assert!(*bytes > 0),
                    _ => {}
                }
            }
        }
        rows().for_each(check);
    }

    #[test]
    fn collisions() {
        // Goal: bytes that mean two things go by the magic. Method: a table.
        for byte in [6, 8, 26, 33, 99, 239] {
            assert_eq!(first(REDIS, byte), First::UnknownType);
            assert_eq!(first(VALKEY, byte), First::UnknownType);
        }
        for byte in [23, 24, 25] {
            assert_eq!(first(VALKEY, byte), First::UnknownType);
            assert!(matches!(first(REDIS, byte), First::Record(Record::Key(Type::Hash), _)));
        }
        assert_ne!(first(REDIS, 22), first(VALKEY, 22));
        for byte in [240, 241, 242, 243] {
            assert_eq!(first(REDIS, byte), First::UnknownOpcode);
        }
        assert_eq!(first(VALKEY, 242), First::Commands);
        assert!(matches!(first(VALKEY, 243), First::Record(Record::SlotImport, _)));
    }

    #[test]
    fn versions() {
        // Goal: what came with a version is not believed under an older one, and what has one meaning is taken under any. Method:
        // each such byte under the version before and its own.
        let redis = |number| Version { dialect: Dialect::Redis, number };
        for (byte, since) in [(22, 12), (23, 12), (24, 12), (25, 12), (244, 12), (245, 10)] {
            for number in 1..=12 {
                let known = matches!(first(redis(number), byte), First::Record(..));
                assert_eq!(known, number >= since, "{byte} in version {number}");
            }
        }
        for byte in [244, 245] {
            assert!(matches!(first(VALKEY, byte), First::Record(..)));
        }
        for byte in (0..=21).filter(|byte| ![6, 8].contains(byte)) {
            assert_eq!(first(redis(5), byte), first(REDIS, byte));
        }
    }
}
