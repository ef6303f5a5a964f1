//! What a walk has found: the values that go into a manifest.

pub use crate::backup::Minimum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Which family of writers a dump says it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `REDIS` and four digits; Valkey writes this too, up to version 11.
    Redis,
    /// `VALKEY` and three digits.
    Valkey,
}

/// The type of a value, by the word that the `TYPE` command has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    Zset,
    /// A hash, with or without expiring fields.
    Hash,
    /// A stream.
    Stream,
    /// A value of a module's own type.
    Module,
}

impl Type {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 7] = [Self::String, Self::List, Self::Set, Self::Zset, Self::Hash, Self::Stream, Self::Module];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
        }
    }

    /// The type of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// How far the checksum vouches for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// The stored checksum is that of the bytes.
    Verified,
    /// The source was told not to compute one (`rdbchecksum no`) and stored zero.
    AbsentAtSource,
    /// Versions below 5 have none.
    NotInFormat,
}

/// Why the structure was not followed to the end. Offsets are of the first byte of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opaque {
    /// The version of the format is not one that is walked.
    Version {
        /// The version in the header.
        version: u16,
    },
    /// A record begins with an opcode that is not known in this version.
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where it stands.
        offset: u64,
    },
    /// A record begins with a value type that is not known in this version.
    Type {
        /// The type.
        type_byte: u8,
        /// Where it stands.
        offset: u64,
    },
}

impl Opaque {
    /// Where the bytes begin that are not followed.
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Version { .. } => super::HEADER_BYTES as u64,
            Self::Opcode { offset, .. } | Self::Type { offset, .. } => *offset,
        }
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { version } => write!(f, "version {version} of the format is not known"),
            Self::Opcode { opcode, offset } => write!(f, "opcode {opcode} at offset {offset} is not known"),
            Self::Type { type_byte, offset } => write!(f, "value type {type_byte} at offset {offset} is not known"),
        }
    }
}

/// A number of keys and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeCount {
    /// Keys.
    pub keys: u64,
    /// Those among them that expire.
    pub expiring: u64,
    /// Size in the dump, from the first prefix or the type byte of each to the end of its value.
    pub bytes: u64,
}

/// One database of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its number.
    pub index: u32,
    /// Keys found.
    pub keys: u64,
    /// Those among them that expire.
    pub expiring: u64,
    /// Size of its keys in the dump.
    pub bytes: u64,
    /// Keys that the source said it has, when it did.
    pub declared_keys: Option<u64>,
    /// Expiring keys that the source said it has, when it did.
    pub declared_expiring: Option<u64>,
    /// The same by type; types without keys are left out.
    pub types: BTreeMap<Type, TypeCount>,
}

/// What the source said of its hash slots, when it is a cluster's; summed over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Slots that were listed.
    pub slots: u64,
    /// Keys in them.
    pub keys: u64,
    /// Expiring keys in them.
    pub expiring: u64,
}

/// One of the biggest keys, without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BigKey {
    /// Number of its database.
    pub database: u32,
    /// Type of its value.
    pub kind: Type,
    /// Size in the dump.
    pub bytes: u64,
}

/// What the source said about itself, as written.
///
/// A value is absent when the source did not write it, and when it is longer than 128 bytes or not printable ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aux {
    /// Version of a Redis server.
    pub redis_ver: Option<String>,
    /// Version of a Valkey server.
    pub valkey_ver: Option<String>,
    /// Width of its pointers.
    pub redis_bits: Option<String>,
    /// Start of the dump, in seconds since 1970.
    pub ctime: Option<String>,
    /// Memory in use, in bytes.
    pub used_mem: Option<String>,
    /// Replication id.
    pub repl_id: Option<String>,
    /// Replication offset.
    pub repl_offset: Option<String>,
    /// Whether the dump is the head of an append-only file; `aof-preamble` in old servers.
    pub aof_base: Option<String>,
}

/// The result of a walk that has reached a sound end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Family of the writer.
    pub dialect: Dialect,
    /// Version of the format.
    pub version: u16,
    /// Size of the whole dump with its checksum.
    pub bytes: u64,
    /// How far the checksum vouches for it.
    pub checksum: Checksum,
    /// CRC-64 of the dump up to and with its end mark, as computed here.
    pub crc64: u64,
    /// Why the structure was not followed to the end; then all counts cover only what came before.
    pub opaque: Option<Opaque>,
    /// Databases by rising number.
    pub databases: Vec<Database>,
    /// Libraries of functions.
    pub functions: u64,
    /// Names of modules that own values in the dump, in the order of their appearance; the first 64.
    pub modules: Vec<String>,
    /// The 16 biggest keys, falling.
    pub biggest: Vec<BigKey>,
    /// What the source said about itself.
    pub aux: Aux,
    /// What the source said of its slots, when it did.
    pub slots: Option<Slots>,
    /// What is needed to load the dump; absent when the structure was not followed to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Minimum>,
    /// Keys outside of the slots that were given; absent when none were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray_keys: Option<u64>,
    /// Keys whose slot or hash is not known, because their names are longer than 64 KiB; 0 when neither was asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unplaced_keys: u64,
    /// The 1,024 smallest hashes of key names, ascending; empty when they were not asked for. Not stored with a summary.
    #[serde(skip)]
    pub sketch: Vec<u64>,
    /// Whether every number that the source declared, by database and over all slots, is the number found; `None` when
    /// nothing was declared or the structure was not followed to the end. A mismatch is a warning: some writers do
    /// not take their numbers at the moment of the fork.
    pub counts_match: Option<bool>,
    /// Where the numbers differ, in words for a person; absent when they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Summary {
    /// Keys of each type that has any, by the server's word, over all databases.
    pub fn keys_by_type(&self) -> BTreeMap<String, u64> {
        let mut keys = BTreeMap::new();
        for (kind, count) in self.databases.iter().flat_map(|database| &database.types) {
            *keys.entry(kind.as_str().to_owned()).or_default() += count.keys;
        }
        keys
    }
}
