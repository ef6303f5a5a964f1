//! Taking a backup, told top to bottom: PREFLIGHT, SNAPSHOT, SEAL, PUBLISH.

use super::attempt::{Context, End};
use super::permit::Permit;
use super::shards::{self, Chosen};
use super::{coverage, fault, suspect, window};
use crate::artifacts::manifest::{FORMAT_VERSION, MANIFEST, MARKER, Manifest, Marker, ShardManifest};
use crate::artifacts::{self, Folder};
use crate::backup::{Backup, Checksum, Consistency, DatabaseCount, Labels, Shard, State, Suspicion};
use crate::cluster::{Health, View};
use crate::failure::{Failure, Reason};
use crate::fleet::Definition;
use crate::operation::{Door, Fault, Outcome, Policy, Publication, Response, Step};
use crate::rdb;
use crate::store::{Completion, MANIFEST_BYTES};
use crate::telemetry::crash_point;
use aws_lc_rs::digest;
use chrono::Utc;
use serde::Serialize;

/// Room that storage must have before a source is forked for it, in bytes.
pub(super) const ROOM_BYTES: u64 = 16 * 1024 * 1024;

/// A dump is hardly ever smaller than this part of the memory that it describes, so less room is too little.
const ROOM_PART: u64 = 20;

/// Most databases that a manifest describes; the counts of a dump with more cover these.
const MANIFEST_DATABASES: usize = 1024;

pub(super) async fn run(context: &Context) -> End {
    match attempt(context).await {
        Ok(end) | Err(end) => end,
    }
}

async fn attempt(context: &Context) -> Result<End, End> {
    let folder = Folder::of_backup(&context.operation.folder_id, &context.operation.cluster_id, context.backup_id()?);
    if context.operation.step() == Some(Step::Publish) {
        return publish(context, &folder).await;
    }
    let attempt = folder.attempt(context.epoch().0);

    let cluster = context
        .inner
        .fleet
        .get(&context.operation.cluster_id)
        .ok_or_else(|| End::Failed(Failure::new(Reason::Gone, format!("cluster {} is not known any more", context.operation.cluster_id))))?;
    window::check(context, &cluster)?;
    let (shards, permit) = preflight(context, &cluster, &attempt).await?;
    let sketch = suspect::key(context).await?;

    // The wait for the machine may have been long.
    window::check(context, &cluster)?;
    context.step(Step::Snapshot, None).await?;
    crash_point("snapshot");
    let slots = coverage::Before::of(&shards);
    let mut shards = shards::take(context, &cluster, &attempt, shards, permit, sketch).await?;
    coverage::look_again(context, &cluster, &slots, &mut shards).await?;

    context.step(Step::Seal, None).await?;
    crash_point("seal");
    for shard in &shards {
        seal(context, &attempt, shard).await?;
    }

    let suspicion = suspect::examine(context, &shards).await?;
    let manifest = manifest(context, shards, suspicion).await?;
    let bytes = encode(&manifest)?;
    decide(context, bytes).await?;
    crash_point("publish.decided");
    publish(context, &folder).await
}

/// Finds sources that may be used, and proves that storage can be written, before anything is forked.
async fn preflight(context: &Context, cluster: &Definition, attempt: &Folder) -> Result<(Vec<Chosen>, Permit), End> {
    context.wait_for("the servers to answer");
    let shards = shards::choose(context, cluster).await?;
    let used = shards.iter().fold(0_u64, |sum, shard| sum.saturating_add(shard.facts.used_memory_bytes));
    check_room(context, attempt, used / ROOM_PART)?;
    mark(context, attempt).await?;
    crash_point("preflight");
    shards::first_machine(context, cluster, shards).await
}

/// Refuses to begin what storage has too little room for, as far as it tells.
pub(super) fn check_room(context: &Context, attempt: &Folder, bytes: u64) -> Result<(), End> {
    match context.inner.storage.free_bytes(attempt) {
        Some(free) if free < ROOM_BYTES.saturating_add(bytes) => {
            tracing::warn!(operation.id = %context.id(), free_bytes = free, "the artifact storage has too little room");
            Err(fault::storage(&context.operation, &artifacts::Error::Full))
        }
        Some(_) | None => Ok(()),
    }
}

/// Records the decision to publish this manifest. From then on nobody cancels.
pub(super) async fn decide(context: &Context, bytes: Vec<u8>) -> Result<(), End> {
    let publication = Publication { epoch: context.epoch(), since: Utc::now(), manifest_sha256: hex_sha256(&bytes) };
    // The record keeps how far it came, also when all of it took less than a heartbeat.
    context.record_progress().await?;
    crash_point("publish.before");
    context.step(Step::Publish, Some((publication, bytes))).await?;
    Ok(())
}

/// Writes the marker of an attempt, which proves that storage can be written.
pub(super) async fn mark(context: &Context, attempt: &Folder) -> Result<(), End> {
    let marker = Marker {
        format_version: FORMAT_VERSION,
        backup_id: context.backup_id()?.to_string(),
        operation_id: context.id().to_string(),
        epoch: context.epoch().0,
        started_at: Utc::now(),
    };
    let bytes = serde_json::to_vec_pretty(&marker).map_err(|_| internal("the marker cannot be written as JSON"))?;
    context.inner.storage.create(attempt, MARKER, bytes).await.map_err(|error| fault::storage(&context.operation, &error))
}

/// Holds what storage has against what was sent.
pub(super) async fn seal(context: &Context, attempt: &Folder, shard: &ShardManifest) -> Result<(), End> {
    for segment in &shard.segments {
        let length = context.inner.storage.length(attempt, &segment.file).await.map_err(|error| fault::storage(&context.operation, &error))?;
        if length != segment.stored_bytes {
            let message = format!("{} has {length} bytes in storage and {} were sent", segment.file, segment.stored_bytes);
            return Err(End::Retry { fault: Fault::Storage, failure: Failure::new(Reason::StorageCorrupt, message), wait: fault::backoff(&context.operation) });
        }
    }
    Ok(())
}

pub(super) async fn manifest(context: &Context, mut shards: Vec<ShardManifest>, suspicion: Option<Suspicion>) -> Result<Manifest, End> {
    let draft = context.inner.store.backup(context.backup_id()?).await?;
    for shard in &mut shards {
        shard.walk.databases.truncate(MANIFEST_DATABASES);
    }
    shards.sort_by(|a, b| shards::order(&a.name).cmp(&shards::order(&b.name)));
    let instants = || shards.iter().map(|shard| shard.snapshot_at);
    let skew = instants().max().zip(instants().min()).map_or(0, |(last, first)| (last - first).num_milliseconds());
    Ok(Manifest {
        format_version: FORMAT_VERSION,
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
        // As they were stored, which may be otherwise than was set when the backup was accepted.
        compression: context.inner.storage.compression().to_string(),
        consistency: if shards.len() == 1 { Consistency::PointInTime } else { Consistency::PerShard },
        skew_millis: u64::try_from(skew).unwrap_or(0),
        shards,
        age_recipients: context.inner.storage.encryption().recipient_names(),
        suspicion,
        origin: Some(draft.origin),
        planned_at: draft.planned_at,
        policy_id: draft.policy_id,
        source: draft.source,
    })
}

/// What is recorded with the decision to publish, as JSON.
pub(super) fn encode(manifest: &impl Serialize) -> Result<Vec<u8>, End> {
    let bytes = serde_json::to_vec_pretty(manifest).map_err(|_| internal("the manifest cannot be written as JSON"))?;
    if bytes.len() > MANIFEST_BYTES {
        return Err(internal(&format!("the manifest has {} bytes, more than {MANIFEST_BYTES}", bytes.len())));
    }
    Ok(bytes)
}

/// Puts the recorded bytes and completes. From here on nobody cancels or takes another snapshot.
pub(super) async fn publish(context: &Context, folder: &Folder) -> Result<End, End> {
    let operation = context.inner.store.get(context.id()).await?;
    let Some(publication) = operation.publication else {
        return Err(internal("there is no decision to publish"));
    };
    let attempt = folder.attempt(publication.epoch.0);
    if (Utc::now() - publication.since).num_seconds() > Policy::PUBLISH_SECS {
        context.inner.storage.remove(&attempt, MANIFEST).await.map_err(|error| fault::publication(&context.operation, &error))?;
        let why = operation.last_failure.map(|failure| format!("; the last try failed: {failure}")).unwrap_or_default();
        let message = format!("the manifest could not be stored for {} h{why}", Policy::PUBLISH_SECS / 3600);
        return Ok(End::Failed(Failure::new(Reason::StorageUnavailable, message)));
    }
    let bytes = context.inner.store.manifest(context.id()).await?.ok_or_else(|| internal("the recorded manifest is missing"))?;
    if hex_sha256(&bytes) != publication.manifest_sha256 {
        return Err(internal("the recorded manifest is damaged"));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| internal("the recorded manifest cannot be read"))?;
    context.inner.storage.create(&attempt, MANIFEST, bytes).await.map_err(|error| fault::publication(&context.operation, &error))?;
    crash_point("publish.stored");
    context.remove_remains(&attempt).await;

    let mut draft = context.inner.store.backup(context.backup_id()?).await?;
    complete_source(context, &mut draft).await;
    let row = row(draft, &manifest);
    let response = match context.operation.door {
        Door::Redkeep | Door::MemStore => Response::Backup(Box::new(row.clone())),
        Door::Managed => {
            let view = context.inner.fleet.view(&context.operation.cluster_id).await;
            Response::Cluster(Box::new(view.unwrap_or_else(|| forgotten(&row))))
        }
    };
    Ok(End::Done(Box::new(Completion { outcome: Outcome::Succeeded(response), backup: Some(row) })))
}

/// Adds to the draft what was not known of its cluster when it was accepted. Best effort: nobody may answer.
async fn complete_source(context: &Context, draft: &mut Backup) {
    let Some(source) = draft.source.as_mut().filter(|source| source.flavor.memory_gib.is_none() || source.cluster_mode.is_none()) else { return };
    if let Some(view) = context.inner.fleet.view(&draft.cluster_id).await {
        source.learn(&view);
    }
}

/// The cluster of a backup when it is not known any more: what the backup itself tells of it.
fn forgotten(backup: &Backup) -> View {
    View {
        id: backup.cluster_id.clone(),
        folder_id: backup.folder_id.clone(),
        created_at: backup.created_at,
        name: backup.cluster_id.to_string(),
        description: String::new(),
        labels: Labels::new(),
        health: Health::Unknown,
        version: String::new(),
        engine: String::new(),
        hosts: Vec::new(),
        probed_at: None,
        tls_enabled: false,
        is_adopting: false,
        cluster_mode: false,
        backup_window_start: None,
        backup_retain_days: None,
        keeps_no_log: false,
    }
}

/// The row of a published backup: the draft with what the manifest says.
pub(super) fn row(draft: Backup, manifest: &Manifest) -> Backup {
    let shards: Vec<Shard> = manifest.shards.iter().map(shard).collect();
    Backup {
        state: State::Available,
        started_at: shards.iter().map(|shard| shard.snapshot_started_at).min(),
        completed_at: Some(Utc::now()),
        busy: None,
        epoch: Some(manifest.epoch),
        level: shards.iter().map(|shard| shard.level).min(),
        consistency: Some(manifest.consistency),
        skew_millis: manifest.skew_millis,
        size_bytes: shards.iter().map(|shard| shard.size_bytes).sum(),
        stored_bytes: shards.iter().map(|shard| shard.stored_bytes).sum(),
        shards,
        compression: manifest.compression.clone(),
        age_recipients: manifest.age_recipients.clone(),
        suspicion: manifest.suspicion.clone(),
        ..draft
    }
}

fn shard(manifest: &ShardManifest) -> Shard {
    let walk = &manifest.walk;
    let databases = walk.databases.iter().take(Shard::DATABASES).map(|database| DatabaseCount {
        index: u64::from(database.index),
        keys: database.keys,
        expiring: database.expiring,
        bytes: database.bytes,
    });
    Shard {
        name: manifest.name.clone(),
        source_host: manifest.source_host.clone(),
        source_role: manifest.source_role,
        engine: manifest.engine.clone(),
        engine_version: manifest.engine_version.clone(),
        rdb_version: walk.version,
        size_bytes: manifest.size_bytes,
        stored_bytes: manifest.segments.iter().map(|segment| segment.stored_bytes).sum(),
        sha256: manifest.segments.iter().map(|segment| segment.sha256.as_str()).collect::<Vec<_>>().join(","),
        checksum: match walk.checksum {
            rdb::Checksum::Verified => Checksum::Verified,
            rdb::Checksum::AbsentAtSource | rdb::Checksum::NotInFormat => Checksum::Absent,
        },
        level: manifest.level,
        opaque_reason: match (&walk.opaque, walk.counts_match) {
            (Some(opaque), _) => opaque.to_string(),
            (None, Some(false)) => "the counts of keys differ from the source's own".to_owned(),
            (None, Some(true) | None) => String::new(),
        },
        keys: walk.databases.iter().map(|database| database.keys).sum(),
        expiring: walk.databases.iter().map(|database| database.expiring).sum(),
        databases: databases.collect(),
        types: walk.keys_by_type(),
        functions: walk.functions,
        replication_id: manifest.replication_id.clone(),
        replication_offset: manifest.replication_offset,
        used_memory_bytes: manifest.used_memory_bytes,
        fork_micros: manifest.fork_micros,
        copy_on_write_bytes: manifest.copy_on_write_bytes,
        snapshot_started_at: manifest.snapshot_started_at,
        snapshot_at: manifest.snapshot_at,
        upload_started_at: manifest.upload_started_at,
        upload_ended_at: manifest.upload_ended_at,
        slots: manifest.slots.clone(),
        stray_keys: walk.stray_keys.unwrap_or(0),
        impact: manifest.impact.clone(),
        minimum: walk.minimum.clone(),
        side_state: manifest.side.is_some(),
        moves: manifest.moves.clone(),
    }
}

pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn internal(what: &str) -> End {
    End::Failed(Failure::new(Reason::Internal, what))
}
