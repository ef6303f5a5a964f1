//! What a finished backup consists of, for work that reads it: its record and the manifest in storage, held against one another.

use super::attempt::{Context, End};
use super::backup::internal;
use super::fault;
use crate::artifacts::Folder;
use crate::artifacts::manifest::{FORMAT_VERSION, MANIFEST, Manifest, ShardManifest};
use crate::backup::{Backup, BackupId};
use crate::failure::{Failure, Reason};

/// A finished backup.
pub(super) struct Stored {
    pub(super) row: Backup,
    pub(super) manifest: Manifest,
    /// Where its segments lie.
    pub(super) folder: Folder,
}

/// Reads what there is of a backup, which the operation keeps from being deleted.
///
/// The record has the digests of the segments, too: a manifest that was changed in storage vouches for nothing.
pub(super) async fn read(context: &Context, id: BackupId) -> Result<Stored, End> {
    let row = context.inner.store.backup(id).await?;
    let epoch = row.epoch.ok_or_else(|| internal("the backup to be read has no files"))?;
    let folder = Folder::of_backup(&row.folder_id, &row.cluster_id, row.id).attempt(epoch);
    let bytes = context.inner.storage.read(&folder, MANIFEST).await.map_err(|error| fault::stored(&context.operation, &error))?;
    let manifest = manifest(&row, &bytes).map_err(corrupt)?;
    Ok(Stored { row, manifest, folder })
}

/// Reads the manifest of a backup, and holds it against its record.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn manifest(row: &Backup, bytes: &[u8]) -> Result<Manifest, &'static str> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|_| "its manifest cannot be read")?;
    if manifest.format_version != FORMAT_VERSION || manifest.backup_id != row.id.to_string() {
        return Err("its manifest is of another backup or format");
    }
    let described = manifest.shards.iter().map(|shard| (shard.name.as_str(), digests(shard), shard.size_bytes));
    if !described.eq(row.shards.iter().map(|shard| (shard.name.as_str(), shard.sha256.clone(), shard.size_bytes))) {
        return Err("its manifest does not fit the record of the backup");
    }
    Ok(manifest)
}

/// Bytes of a shard as stored.
pub(super) fn stored_bytes(shard: &ShardManifest) -> u64 {
    shard.segments.iter().map(|segment| segment.stored_bytes).sum()
}

fn digests(shard: &ShardManifest) -> String {
    shard.segments.iter().map(|segment| segment.sha256.as_str()).collect::<Vec<_>>().join(",")
}

fn corrupt(what: &str) -> End {
    End::Failed(Failure::new(Reason::StorageCorrupt, format!("the artifact storage does not have the backup as it was stored: {what}")))
}
