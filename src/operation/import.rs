//! What an import reads.

use serde::{Deserialize, Serialize};

/// Where the dumps of an import lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportSource {
    /// Name of a configured bucket.
    pub bucket: String,
    /// Keys of the dumps, one a shard, in order: the first is `shard1`.
    pub keys: Vec<String>,
}

impl ImportSource {
    /// Most dumps of one import: the manifest and the record must hold what is told of each.
    pub const KEYS: usize = 250;

    /// Most bytes of all keys: they are a part of the operation's record.
    pub const KEYS_BYTES: usize = 32 * 1024;

    /// The name of the shard that is made of the key with this index.
    pub fn shard_name(index: usize) -> String {
        format!("shard{}", index.saturating_add(1))
    }
}
