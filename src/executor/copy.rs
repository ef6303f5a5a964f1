//! Copying a backup to an independent one, told top to bottom: PREFLIGHT, SNAPSHOT, SEAL, PUBLISH.
//!
//! The copy is made like any backup: its own draft, its own folder for each attempt, its own manifest, published by the same
//! rule. Only its bytes come from storage. The source is read and stays as it is; it is not deleted meanwhile.

use super::attempt::{Context, End};
use super::stored::{self, Stored, stored_bytes};
use super::{backup, fault};
use crate::artifacts::Folder;
use crate::artifacts::manifest::{Manifest, Segment, ShardManifest};
use crate::backup::BackupId;
use crate::operation::{ShardProgress, Step};
use crate::snapshot::Meter;
use crate::telemetry::crash_point;
use chrono::Utc;
use std::sync::Arc;

pub(super) async fn run(context: &Context, source: BackupId) -> End {
    match attempt(context, source).await {
        Ok(end) | Err(end) => end,
    }
}

async fn attempt(context: &Context, source: BackupId) -> Result<End, End> {
    let folder = Folder::of_backup(&context.operation.folder_id, &context.operation.cluster_id, context.backup_id()?);
    if context.operation.step() == Some(Step::Publish) {
        return backup::publish(context, &folder).await;
    }
    let attempt = folder.attempt(context.epoch().0);

    let source = stored::read(context, source).await?;
    backup::check_room(context, &attempt, source.row.stored_bytes)?;
    backup::mark(context, &attempt).await?;
    crash_point("copy.preflight");

    context.step(Step::Snapshot, None).await?;
    let mut shards = Vec::with_capacity(source.manifest.shards.len());
    for shard in &source.manifest.shards {
        shards.push(copy(context, &source, shard, &attempt).await?);
    }
    crash_point("copy.stored");

    context.step(Step::Seal, None).await?;
    for shard in &shards {
        backup::seal(context, &attempt, shard).await?;
    }
    let bytes = backup::encode(&manifest(context, source, shards).await?)?;
    backup::decide(context, bytes).await?;
    crash_point("copy.decided");
    backup::publish(context, &folder).await
}

/// Copies the segments and the side state of a shard; what is known of its content stays, when it was stored is new.
async fn copy(context: &Context, source: &Stored, shard: &ShardManifest, attempt: &Folder) -> Result<ShardManifest, End> {
    let meter = Arc::new(Meter::default());
    meter.expect_bytes(stored_bytes(shard));
    context.track(ShardProgress { shard_name: shard.name.clone(), ..ShardProgress::default() }, Arc::clone(&meter));
    let upload_started_at = Utc::now();
    for segment in &shard.segments {
        let copied = context.inner.storage.copy_segment(&source.folder, attempt, segment, |bytes| meter.count(bytes, bytes)).await;
        copied.map_err(|error| fault::stored(&context.operation, &error))?;
    }
    if let Some(side) = &shard.side {
        let file = Segment { file: side.file.clone(), stored_bytes: side.stored_bytes, sha256: side.sha256.clone() };
        let copied = context.inner.storage.copy_segment(&source.folder, attempt, &file, |_| {}).await;
        copied.map_err(|error| fault::stored(&context.operation, &error))?;
    }
    // A proof that came after the manifest is one of the same bytes.
    let proved = source.row.shards.iter().find(|row| row.name == shard.name).map_or(shard.level, |row| row.level.max(shard.level));
    Ok(ShardManifest { level: proved, upload_started_at, upload_ended_at: Utc::now(), ..shard.clone() })
}

/// The manifest of the copy: the source's but for whose it is.
async fn manifest(context: &Context, source: Stored, shards: Vec<ShardManifest>) -> Result<Manifest, End> {
    let draft = context.inner.store.backup(context.backup_id()?).await?;
    Ok(Manifest {
        written_by: format!("redkeep {}", env!("CARGO_PKG_VERSION")),
        backup_id: draft.id.to_string(),
        operation_id: context.id().to_string(),
        epoch: context.epoch().0,
        folder_id: draft.folder_id,
        cluster_id: draft.cluster_id,
        name: draft.name,
        labels: draft.labels,
        created_at: draft.created_at,
        expires_at: draft.expires_at,
        shards,
        // Whoever cleared it has judged the same bytes.
        suspicion: source.row.suspicion,
        origin: Some(draft.origin),
        planned_at: draft.planned_at,
        policy_id: draft.policy_id,
        source: draft.source,
        ..source.manifest
    })
}
