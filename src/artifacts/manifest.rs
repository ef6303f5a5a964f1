//! The manifest of a backup, and the facts that are added to it later: JSON documents of format version 1.
//!
//! Together with the artifacts beside it a manifest holds everything that is needed to check and restore the backup without
//! any service. Manifests of version 1 are read for ever.

use crate::backup::{Backup, Consistency, Hold, Impact, Labels, Level, Name, Origin, Proof, SlotRange, Source, Suspicion};
use crate::cluster::{ClusterId, FolderId, Role, Timestamp};
use crate::rdb;
use serde::{Deserialize, Serialize};

/// Name of the manifest's object.
pub const MANIFEST: &str = "manifest.json";

/// Name of the marker's object, written before anything else of an attempt.
pub const MARKER: &str = "attempt.json";

/// Folder of the facts, in the folder of the backup.
pub const FACTS: &str = "facts";

/// Version of the formats on this page.
pub const FORMAT_VERSION: u32 = 1;

/// One stored object: a piece of a shard's dump that can be decoded by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Name of the object, beside the manifest.
    pub file: String,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// SHA-256 of the stored bytes, in hexadecimal.
    pub sha256: String,
}

/// The dump of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardManifest {
    /// The shard.
    pub name: String,
    /// Its objects; decoded and joined in this order they are the RDB file.
    pub segments: Vec<Segment>,
    /// Bytes of the RDB file.
    pub size_bytes: u64,
    /// How far it is proved.
    pub level: Level,
    /// Host that it was taken from.
    pub source_host: String,
    /// What that host was.
    pub source_role: Role,
    /// `redis` or `valkey`.
    pub engine: String,
    /// Version of the source.
    pub engine_version: String,
    /// Run id of the source.
    pub run_id: String,
    /// Id of the source's history.
    pub replication_id: String,
    /// Offset in it at the snapshot.
    pub replication_offset: i64,
    /// Whether the source kept no output buffer for us.
    pub rdb_only: bool,
    /// Memory in use before the fork, in bytes.
    pub used_memory_bytes: u64,
    /// Length of the fork, in microseconds.
    pub fork_micros: Option<u64>,
    /// Memory copied on write, in bytes.
    pub copy_on_write_bytes: Option<u64>,
    /// When the synchronisation was asked for.
    pub snapshot_started_at: Timestamp,
    /// When the source told its position.
    pub snapshot_at: Timestamp,
    /// When the first byte arrived.
    pub upload_started_at: Timestamp,
    /// When storage had acknowledged all of it.
    pub upload_ended_at: Timestamp,
    /// What the walk found.
    pub walk: rdb::Summary,
    /// Id of the source's history before that one; empty where that was not kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub replication_id2: String,
    /// Keys that the source said it has, before the snapshot.
    #[serde(default)]
    pub source_keys: u64,
    /// Slots that the shard owned; empty outside of cluster mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotRange>,
    /// Slots that were on their way while the snapshots were taken, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<String>,
    /// What the snapshot cost its source.
    #[serde(default)]
    pub impact: Impact,
    /// The side state, if it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<SideFile>,
}

/// The stored side state of a shard: what a dump does not hold. JSON, under age where the artifacts are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFile {
    /// Name of the object, beside the manifest.
    pub file: String,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// SHA-256 of the stored bytes, in hexadecimal.
    pub sha256: String,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format_version: u32,
    /// Version of the program that wrote it.
    pub written_by: String,
    /// The backup.
    pub backup_id: String,
    /// The operation that made it.
    pub operation_id: String,
    /// The attempt whose files these are.
    pub epoch: u64,
    /// The folder.
    pub folder_id: FolderId,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Its name at that time.
    pub name: Name,
    /// Its labels at that time.
    pub labels: Labels,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it may be removed by itself.
    pub expires_at: Option<Timestamp>,
    /// `zstd:N` or `none`.
    pub compression: String,
    /// How its shards stand to one another.
    pub consistency: Consistency,
    /// Latest minus earliest snapshot, in milliseconds.
    pub skew_millis: u64,
    /// Its shards, in order of name.
    pub shards: Vec<ShardManifest>,
    /// Recipients that the artifacts are encrypted to with age; none means that they are not encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub age_recipients: Vec<String>,
    /// Why the source looked wrong; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<Suspicion>,
    /// Who asked for it; absent in manifests of versions that did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The instant for which a schedule had planned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_at: Option<Timestamp>,
    /// The retention policy by which it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
    /// What was known of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// The marker of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Version of this format.
    pub format_version: u32,
    /// The backup.
    pub backup_id: String,
    /// The operation.
    pub operation_id: String,
    /// The attempt.
    pub epoch: u64,
    /// When it began.
    pub started_at: Timestamp,
}

/// What was decided about a backup after its manifest was written. The file with the highest revision holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of this format.
    pub format_version: u32,
    /// The backup.
    pub backup_id: String,
    /// The revision, as in the file's name.
    pub revision: u64,
    /// The operation that decided it.
    pub operation_id: String,
    /// When.
    pub written_at: Timestamp,
    /// Name.
    pub name: Name,
    /// Labels.
    pub labels: Labels,
    /// When it may be removed by itself.
    pub expires_at: Option<Timestamp>,
    /// Whether that was changed by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expiry_by_hand: bool,
    /// Wishes that it stays.
    pub holds: Vec<Hold>,
    /// When its files go, if it was deleted.
    pub deleted_until: Option<Timestamp>,
    /// Why the source looked wrong, and who cleared it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<Suspicion>,
    /// What was proved, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Proof>,
    /// When its deletion was taken back, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undeleted_at: Option<Timestamp>,
}

impl Facts {
    /// The facts of a backup's row, as the next revision.
    pub fn of(backup: &Backup, operation_id: String, written_at: Timestamp) -> Self {
        let deleted_until = match &backup.state {
            crate::backup::State::Deleting { purge_at } => Some(*purge_at),
            crate::backup::State::Creating | crate::backup::State::Available | crate::backup::State::Error(_) => None,
        };
        Self {
            format_version: FORMAT_VERSION,
            backup_id: backup.id.to_string(),
            revision: backup.facts_revision + 1,
            operation_id,
            written_at,
            name: backup.name.clone(),
            labels: backup.labels.clone(),
            expires_at: backup.expires_at,
            expiry_by_hand: backup.expiry_by_hand,
            holds: backup.holds.clone(),
            deleted_until,
            suspicion: backup.suspicion.clone(),
            proofs: backup.proofs.clone(),
            undeleted_at: backup.undeleted_at,
        }
    }
}
