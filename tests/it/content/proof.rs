//! What is asked of every backup, with tools that owe nothing to the service: `zstd`, `sha256sum`, `redis-check-rdb` and a server.

use crate::support::compare::{self, Census};
use crate::support::load;
use crate::support::server::RedisServer;
use crate::support::service::files_below;
use crc_fast::{CrcAlgorithm, Digest};
use redkeep::artifacts::manifest::{Manifest, Marker, Segment, ShardManifest};
use redkeep::pb::own;
use redkeep::rdb::{self, Checksum};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// A backup whose files, manifest and row agree.
pub struct Proof {
    /// The manifest's only shard.
    pub shard: ShardManifest,
    /// Its row over the wire.
    pub row: own::ShardArtifact,
    /// The decoded dump.
    pub rdb: PathBuf,
}

impl Proof {
    /// Decodes the artifact into `scratch`, and holds files, manifest, marker and row against one another.
    pub fn of(artifact_root: &Path, backup: &own::Backup, scratch: &Path) -> Self {
        let folder = artifact_root.join(&backup.path);
        let text = std::fs::read_to_string(folder.join("manifest.json")).expect("there is a manifest");
        let manifest: Manifest = serde_json::from_str(&text).expect("the manifest can be read");
        let marker: Marker = serde_json::from_slice(&std::fs::read(folder.join("attempt.json")).expect("there is a marker")).expect("it can be read");
        assert_eq!((manifest.format_version, marker.format_version), (1, 1));
        assert!(text.contains("\"format_version\": 1"), "{text}");
        assert_eq!((&manifest.backup_id, &manifest.operation_id), (&backup.id, &backup.operation_id));
        assert_eq!((&marker.backup_id, &marker.operation_id, marker.epoch), (&backup.id, &backup.operation_id, manifest.epoch));
        assert!(backup.path.ends_with(&format!("{}/{}", backup.id, manifest.epoch)), "{}", backup.path);
        assert_eq!((manifest.name.to_string(), manifest.cluster_id.to_string()), (backup.name.clone(), backup.cluster_id.clone()));
        assert_eq!(manifest.compression, backup.compression);

        let [shard] = manifest.shards.try_into().unwrap_or_else(|shards| panic!("not one shard: {shards:#?}"));
        let [row] = backup.shards.clone().try_into().unwrap_or_else(|rows| panic!("not one shard: {rows:#?}"));
        let mut files: Vec<_> = shard.segments.iter().map(|segment| segment.file.clone()).chain(["attempt.json".into(), "manifest.json".into()]).collect();
        files.extend(shard.side.iter().map(|side| side.file.clone()));
        files.sort();
        assert_eq!(files_below(&folder), files);
        check_row(backup, &row, &shard);
        assert_eq!(row.sha256, shard.segments.iter().map(|segment| segment.sha256.clone()).collect::<Vec<_>>());

        let rdb = scratch.join(format!("{}.rdb", backup.id));
        decode(&folder, &shard.segments, &rdb);
        check_bytes(&rdb, &shard.walk);
        if shard.walk.opaque.is_none() {
            load::check_rdb(&rdb);
        }
        Self { shard, row, rdb }
    }

    /// Loads the dump into an empty server, which must equal `source`.
    pub async fn restores(&self, source: &RedisServer) {
        let restored = load::load_rdb(&self.rdb).await;
        compare::assert_same_content(source, &restored).await;
    }

    /// Fails unless the dump was walked and its counts are those of `source`.
    pub async fn counts(&self, source: &RedisServer) {
        assert_walked(&self.shard, &compare::census(source).await);
        let keyspace = compare::keyspace(&source.command(&["INFO", "keyspace"]).await.text());
        let found = self.shard.walk.databases.iter().map(|database| (database.index, (database.keys, database.expiring)));
        assert_eq!(found.collect::<std::collections::BTreeMap<_, _>>(), keyspace);
    }
}

/// Fails unless the dump was walked to its end and holds what the census says.
pub fn assert_walked(shard: &ShardManifest, census: &Census) {
    assert_eq!((shard.level, shard.walk.opaque), (redkeep::backup::Level::Walked, None));
    assert_ne!(shard.walk.counts_match, Some(false));
    assert_eq!(census_of(&shard.walk), *census);
}

/// The counts of a walk in the form of a census.
pub fn census_of(walk: &rdb::Summary) -> Census {
    let word = |kind: &rdb::Type| serde_json::to_value(kind).ok().and_then(|word| word.as_str().map(str::to_owned)).expect("a type has a word");
    let types = |database: &rdb::Database| database.types.iter().map(|(kind, count)| (word(kind), count.keys)).collect();
    walk.databases.iter().map(|database| (database.index, types(database))).collect()
}

/// Fails unless length and digest of each segment in the folder are as stated, the digest by `sha256sum`; joins what they decode to.
pub fn decode(folder: &Path, segments: &[Segment], to: &Path) {
    assert!(!segments.is_empty());
    let files: Vec<PathBuf> = segments.iter().map(|segment| folder.join(&segment.file)).collect();
    for (file, segment) in files.iter().zip(segments) {
        assert_eq!(file.metadata().expect("the segment is there").len(), segment.stored_bytes);
        let output = Command::new("sha256sum").arg(file).output().expect("sha256sum runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).split(' ').next(), Some(&*segment.sha256));
    }
    let mut command = if files[0].extension().is_some_and(|extension| extension == "zst") {
        let mut zstd = Command::new("zstd");
        zstd.args(["-dcq", "--"]);
        zstd
    } else {
        Command::new("cat")
    };
    let status = command.args(&files).stdout(File::create(to).expect("the scratch folder can be written")).status().expect("the tool runs");
    assert!(status.success(), "{command:?}: {status}");
}

/// Fails unless length and CRC-64 of the dump are those that the walk tells, and the CRC-64 is the one it ends with.
fn check_bytes(rdb: &Path, walk: &rdb::Summary) {
    let mut file = File::open(rdb).expect("the dump is there");
    let length = file.metadata().expect("the dump is there").len();
    assert_eq!(length, walk.bytes);
    let (mut digest, mut left, mut piece) = (Digest::new(CrcAlgorithm::Crc64Redis), length - 8, vec![0; PIECE_BYTES]);
    while left > 0 {
        let count = left.min(PIECE_BYTES as u64) as usize;
        file.read_exact(&mut piece[..count]).expect("the dump can be read");
        digest.update(&piece[..count]);
        left -= count as u64;
    }
    assert_eq!(digest.finalize(), walk.crc64);
    let mut stored = [0; 8];
    file.read_exact(&mut stored).expect("the dump can be read");
    let expected = match walk.checksum {
        Checksum::Verified => walk.crc64,
        Checksum::AbsentAtSource => 0,
        Checksum::NotInFormat => panic!("every dump of today has a place for a checksum"),
    };
    assert_eq!(u64::from_le_bytes(stored), expected);
}

fn check_row(backup: &own::Backup, row: &own::ShardArtifact, shard: &ShardManifest) {
    let walk = &shard.walk;
    let stored: u64 = shard.segments.iter().map(|segment| segment.stored_bytes).sum();
    let sum = |count: fn(&rdb::Database) -> u64| walk.databases.iter().map(count).sum::<u64>();
    let number = |number: i64| u64::try_from(number).expect("a count is not negative");
    assert_eq!(backup.state(), own::backup::State::Available);
    assert_eq!(backup.consistency(), own::backup::Consistency::PointInTime);
    assert_eq!((number(backup.size_bytes), number(backup.stored_bytes)), (walk.bytes, stored));
    assert_eq!((number(row.size_bytes), number(row.stored_bytes)), (shard.size_bytes, stored));
    assert_eq!((number(row.keys), number(row.expiring_keys)), (sum(|database| database.keys), sum(|database| database.expiring)));
    assert_eq!((number(row.functions), row.rdb_version), (walk.functions, i32::from(walk.version)));
    assert_eq!(
        (backup.level(), row.level()),
        match shard.level {
            redkeep::backup::Level::Walked => (own::backup::Level::Walked, own::backup::Level::Walked),
            redkeep::backup::Level::Sealed => (own::backup::Level::Sealed, own::backup::Level::Sealed),
            other => panic!("{other:?}"),
        }
    );
    assert_eq!(
        row.checksum(),
        match walk.checksum {
            Checksum::Verified => own::shard_artifact::Checksum::Verified,
            Checksum::AbsentAtSource | Checksum::NotInFormat => own::shard_artifact::Checksum::Absent,
        }
    );
    assert_eq!(row.opaque_reason, walk.opaque.map(|opaque| opaque.to_string()).unwrap_or_default());
    assert_eq!((&row.source_host, &row.replication_id, row.replication_offset), (&shard.source_host, &shard.replication_id, shard.replication_offset));
    let databases = row.databases.iter().map(|count| (count.index as u32, number(count.keys), number(count.expiring_keys)));
    let walked = walk.databases.iter().map(|database| (database.index, database.keys, database.expiring));
    assert!(databases.eq(walked), "{row:#?}");
    let mut types = std::collections::BTreeMap::<String, u64>::new();
    for (kind, keys) in census_of(walk).into_values().flatten() {
        *types.entry(kind).or_default() += keys;
    }
    assert_eq!(row.types.iter().map(|(kind, keys)| (kind.clone(), number(*keys))).collect::<std::collections::BTreeMap<_, _>>(), types);
}
