//! Where an export goes, and what it wrote.
//!
//! Owns the names of the objects: they follow from the target and the backup alone, so that every attempt and every reader
//! of the record comes to the same ones. What a bucket is, and which names it can take, is `artifacts`' business.

use crate::backup::{Backup, Shard};
use serde::{Deserialize, Serialize};

/// Ends of a file name behind which no mark of a shard goes.
const SUFFIXES: [&str; 4] = [".rdb.zst.age", ".rdb.age", ".rdb.zst", ".rdb"];

/// Where an export goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportTarget {
    /// Name of a configured bucket.
    pub bucket: String,
    /// Folders below the bucket, without a slash at either end; may be empty.
    pub path: String,
    /// Name of the file. One that is not given is made from those of the backup and its shard, when the export is accepted.
    pub name: Option<String>,
    /// Whether segments are written as they are stored; else the dump of each shard is decoded to one plain RDB file.
    pub as_stored: bool,
}

/// One object that an export writes: a shard's dump, or a segment of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportObject {
    /// Its key in the bucket.
    pub(crate) key: String,
    /// Name of its shard.
    pub(crate) shard_name: String,
    /// Number of its segment, from 0; absent where it is the whole dump.
    pub(crate) segment: Option<usize>,
}

impl ExportTarget {
    /// The target with a name: one that was not given is `<backup>-<shard>.rdb`, with `.zst` behind it for compressed
    /// segments and `.age` for encrypted ones. So a backup that is renamed meanwhile changes nothing.
    pub(crate) fn named(self, backup: &Backup) -> Self {
        let name = self.name.unwrap_or_else(|| {
            let suffix = match (self.as_stored, backup.compression != "none", !backup.age_recipients.is_empty()) {
                (true, true, true) => ".rdb.zst.age",
                (true, false, true) => ".rdb.age",
                (true, true, false) => ".rdb.zst",
                (true, false, false) | (false, _, _) => ".rdb",
            };
            match backup.shards.as_slice() {
                [shard] => format!("{}-{}{suffix}", backup.name, shard.name),
                _ => format!("{}{suffix}", backup.name),
            }
        });
        Self { name: Some(name), ..self }
    }

    /// The objects to be written, in order of shard and segment.
    ///
    /// One object has exactly the name of the target. Of several each has a mark before the name's `.rdb` and what follows it, or at
    /// its end: `-<shard>` where there are several shards, `-<number>` where a shard has several segments.
    pub(crate) fn objects(&self, backup: &Backup) -> Vec<ExportObject> {
        let name = self.name.as_deref().unwrap_or_default();
        let suffix = SUFFIXES.into_iter().find(|suffix| name.len() > suffix.len() && name.ends_with(suffix)).unwrap_or_default();
        let stem = &name[..name.len() - suffix.len()];
        let folder = if self.path.is_empty() { String::new() } else { format!("{}/", self.path) };
        let mut objects = Vec::new();
        for shard in &backup.shards {
            let shard_mark = if backup.shards.len() > 1 { format!("-{}", shard.name) } else { String::new() };
            let object = |segment: Option<usize>, segment_mark: String| ExportObject {
                key: format!("{folder}{stem}{shard_mark}{segment_mark}{suffix}"),
                shard_name: shard.name.clone(),
                segment,
            };
            match (self.as_stored, segments(shard)) {
                (false, _) => objects.push(object(None, String::new())),
                (true, 1) => objects.push(object(Some(0), String::new())),
                (true, count) => objects.extend((0..count).map(|index| object(Some(index), format!("-{}", index + 1)))),
            }
        }
        objects
    }
}

/// How many segments a shard has.
fn segments(shard: &Shard) -> usize {
    shard.sha256.split(',').count()
}

/// What an export wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportResult {
    /// The bucket.
    pub bucket: String,
    /// Keys of the objects, in order of shard and segment.
    pub keys: Vec<String>,
    /// Bytes of all of them.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::tests::sample;

    fn keys(path: &str, name: Option<&str>, as_stored: bool, shards: &[(&str, usize)]) -> Vec<String> {
        let mut backup = sample();
        let shard = backup.shards[0].clone();
        backup.shards =
            shards.iter().map(|(name, segments)| Shard { name: (*name).into(), sha256: vec!["ab"; *segments].join(","), ..shard.clone() }).collect();
        let target = ExportTarget { bucket: "reports".into(), path: path.into(), name: name.map(str::to_owned), as_stored };
        let target = target.named(&backup);
        let before = target.objects(&backup);
        backup.name = "renamed".parse().unwrap();
        assert_eq!(target.objects(&backup), before);
        before.into_iter().map(|object| object.key).collect()
    }

    #[test]
    fn keys_follow_from_target_and_backup() {
        let one: &[(&str, usize)] = &[("shard1", 1)];
        let two: &[(&str, usize)] = &[("shard1", 1), ("shard2", 2)];
        for (path, name, as_stored, shards, expected) in [
            ("", None, false, one, vec!["nightly-shard1.rdb"]),
            ("a/b", None, true, one, vec!["a/b/nightly-shard1.rdb.zst"]),
            ("", None, false, two, vec!["nightly-shard1.rdb", "nightly-shard2.rdb"]),
            ("", None, true, two, vec!["nightly-shard1.rdb.zst", "nightly-shard2-1.rdb.zst", "nightly-shard2-2.rdb.zst"]),
            ("", None, true, &[("shard1", 2)], vec!["nightly-shard1-1.rdb.zst", "nightly-shard1-2.rdb.zst"]),
            ("x", Some("dump"), false, one, vec!["x/dump"]),
            ("x", Some("dump.rdb"), true, one, vec!["x/dump.rdb"]),
            ("x", Some("dump"), false, two, vec!["x/dump-shard1", "x/dump-shard2"]),
            ("x", Some("dump.rdb"), false, two, vec!["x/dump-shard1.rdb", "x/dump-shard2.rdb"]),
            ("x", Some(".rdb"), false, two, vec!["x/.rdb-shard1", "x/.rdb-shard2"]),
        ] {
            assert_eq!(keys(path, name, as_stored, shards), expected);
        }
    }
}
