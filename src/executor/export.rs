//! Exporting a backup's dumps to a bucket, told top to bottom: PREFLIGHT, SNAPSHOT, SEAL, PUBLISH.
//!
//! All objects are written where nobody looks, then the decision to publish is recorded with a list of them, and from then on
//! nobody cancels: whoever holds the operation gives each object its key, and again if need be. So there are all objects or
//! none. Nothing is replaced: a key that is taken ends the export, unless the object there has the same bytes.

use super::attempt::{Context, End};
use super::backup::{ROOM_BYTES, encode, hex_sha256, internal};
use super::fault;
use super::stored::{self, Stored, stored_bytes};
use crate::artifacts::bucket::{Bucket, Key};
use crate::artifacts::manifest::{Segment, ShardManifest};
use crate::artifacts::{self, Compression, Content, Move};
use crate::failure::{Failure, Reason};
use crate::operation::{Epoch, ExportObject, ExportResult, ExportTarget, Fault, OperationId, Outcome, Policy, Publication, Response, ShardProgress, Step};
use crate::snapshot::Meter;
use crate::store::Completion;
use crate::telemetry::crash_point;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is to be published: recorded with the decision.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    objects: Vec<Planned>,
}

/// An object that was staged, under its number in the plan.
#[derive(Debug, Serialize, Deserialize)]
struct Planned {
    key: String,
    bytes: u64,
    sha256: String,
}

/// Where an attempt stages its objects.
pub(super) fn staging(id: OperationId, epoch: Epoch) -> String {
    format!("{id}-{epoch}")
}

pub(super) async fn run(context: &Context, target: &ExportTarget) -> End {
    match attempt(context, target).await {
        Ok(end) | Err(end) => end,
    }
}

async fn attempt(context: &Context, target: &ExportTarget) -> Result<End, End> {
    if context.operation.step() == Some(Step::Publish) {
        return publish(context, target).await;
    }
    let source = stored::read(context, context.backup_id()?).await?;
    let objects = preflight(context, target, &source).await?;
    crash_point("export.preflight");

    context.step(Step::Snapshot, None).await?;
    let mut plan = Plan { objects: Vec::with_capacity(objects.len()) };
    let mut meters = Meters::default();
    for (number, object) in objects.iter().enumerate() {
        let meter = meters.of(context, target, &source, &object.shard_name);
        plan.objects.push(stage(context, target, &source, number, object, meter).await?);
    }
    crash_point("export.stored");

    context.step(Step::Seal, None).await?;
    let bucket = bucket(context, target)?;
    for (object, planned) in objects.iter().zip(&plan.objects) {
        // Looked at again before anything is published, as others may write to the bucket.
        look(context, bucket, &key(&object.key)?, planned.bytes).await?;
    }
    let bytes = encode(&plan)?;
    let publication = Publication { epoch: context.epoch(), since: Utc::now(), manifest_sha256: hex_sha256(&bytes) };
    // The record keeps how far it came, also when all of it took less than a heartbeat.
    context.record_progress().await?;
    context.step(Step::Publish, Some((publication, bytes))).await?;
    crash_point("export.decided");
    publish(context, target).await
}

/// Finds out, before anything is written, whether the bucket can take the objects; gives them with their keys.
async fn preflight(context: &Context, target: &ExportTarget, source: &Stored) -> Result<Vec<ExportObject>, End> {
    let bucket = bucket(context, target)?;
    let objects = target.objects(&source.row);
    let mut bytes = 0;
    for object in &objects {
        let length = match (shard(source, &object.shard_name)?, object.segment) {
            (shard, None) => shard.size_bytes,
            (shard, Some(index)) => segment(shard, index)?.stored_bytes,
        };
        look(context, bucket, &key(&object.key)?, length).await?;
        bytes += length;
    }
    if let Some(free) = bucket.free_bytes().await
        && free < ROOM_BYTES + bytes
    {
        tracing::warn!(operation.id = %context.id(), bucket = %bucket.name(), free_bytes = free, "the bucket has too little room for an export");
        return Err(fault::bucket(&context.operation, &target.bucket, &artifacts::Error::Full));
    }
    Ok(objects)
}

/// The bucket, if it still is one and takes backups of the folder: the configuration may have changed since the acceptance.
fn bucket<'a>(context: &'a Context, target: &ExportTarget) -> Result<&'a Bucket, End> {
    let refused = |what: &str| End::Failed(Failure::new(Reason::StorageDenied, format!("bucket {} {what}", target.bucket)));
    let bucket = context.inner.storage.bucket(&target.bucket).ok_or_else(|| refused("is not configured any more"))?;
    if bucket.takes(&context.operation.folder_id) { Ok(bucket) } else { Err(refused("does not take backups of this folder any more")) }
}

/// Refuses a key under which something lies that cannot be the same object.
async fn look(context: &Context, bucket: &Bucket, key: &Key, bytes: u64) -> Result<(), End> {
    let present = bucket.length(key).await.map_err(|error| fault::bucket(&context.operation, bucket.name().as_str(), &error))?;
    match present {
        Some(length) if length != bytes => Err(taken(context, bucket, key)),
        Some(_) | None => Ok(()),
    }
}

fn taken(context: &Context, bucket: &Bucket, key: &Key) -> End {
    fault::bucket(&context.operation, bucket.name().as_str(), &artifacts::Error::Exists(key.to_string()))
}

/// Writes one object where nobody looks.
async fn stage(context: &Context, target: &ExportTarget, source: &Stored, number: usize, object: &ExportObject, meter: Arc<Meter>) -> Result<Planned, End> {
    let bucket = bucket(context, target)?;
    let shard = shard(source, &object.shard_name)?;
    let (segments, content) = match object.segment {
        Some(index) => (std::slice::from_ref(segment(shard, index)?), Content::Stored),
        None => match source.manifest.compression.parse() {
            Ok(Compression::None) => (shard.segments.as_slice(), Content::Plain(shard.size_bytes)),
            Ok(Compression::Zstd(_)) => (shard.segments.as_slice(), Content::Zstd(shard.size_bytes)),
            Err(_) => return Err(internal("the compression in the manifest is not known")),
        },
    };
    let of_bucket = |error: &artifacts::Error| fault::bucket(&context.operation, &target.bucket, error);
    let staged = bucket.stage(&staging(context.id(), context.epoch()), number).await.map_err(|error| of_bucket(&error))?;
    // Both are told in bytes of what is written, whose length is known.
    let moved = move |_read, written| meter.count(written, written);
    let written = context.inner.storage.export(&source.folder, segments, content, staged, moved).await.map_err(|fault| match fault {
        Move::Storage(error) => fault::stored(&context.operation, &error),
        Move::Bucket(error) => of_bucket(&error),
    })?;
    Ok(Planned { key: object.key.clone(), bytes: written.bytes, sha256: written.sha256 })
}

/// Gives each object its key and completes. From here on nobody cancels.
async fn publish(context: &Context, target: &ExportTarget) -> Result<End, End> {
    let operation = context.inner.store.get(context.id()).await?;
    let publication = operation.publication.ok_or_else(|| internal("there is no decision to publish"))?;
    let bytes = context.inner.store.manifest(context.id()).await?.ok_or_else(|| internal("the recorded plan is missing"))?;
    if hex_sha256(&bytes) != publication.manifest_sha256 {
        return Err(internal("the recorded plan is damaged"));
    }
    let plan: Plan = serde_json::from_slice(&bytes).map_err(|_| internal("the recorded plan cannot be read"))?;
    let staging = staging(context.id(), publication.epoch);
    // Whose backups the bucket takes was asked before the decision.
    let gone = || End::Failed(Failure::new(Reason::StorageDenied, format!("bucket {} is not configured any more", target.bucket)));
    let bucket = context.inner.storage.bucket(&target.bucket).ok_or_else(gone)?;
    let retried = |error: &artifacts::Error| match fault::bucket(&context.operation, &target.bucket, error) {
        // What is decided waits for a bucket that can be written again.
        End::Failed(failure) if failure.reason == Reason::StorageDenied => {
            End::Retry { fault: Fault::Storage, failure, wait: fault::backoff(&context.operation) }
        }
        end => end,
    };
    let mut outcome = Ok(());
    if (Utc::now() - publication.since).num_seconds() > Policy::PUBLISH_SECS {
        let why = operation.last_failure.map(|failure| format!("; the last try failed: {failure}")).unwrap_or_default();
        let message = format!("nothing could be published in bucket {} for {} h{why}", target.bucket, Policy::PUBLISH_SECS / 3600);
        outcome = Err(End::Failed(Failure::new(Reason::StorageUnavailable, message)));
    }
    for (number, planned) in plan.objects.iter().enumerate() {
        if outcome.is_err() {
            break;
        }
        let published = bucket.publish(&staging, number, &key(&planned.key)?, planned.bytes, &planned.sha256).await;
        outcome = published.map_err(|error| match error {
            artifacts::Error::Exists(_) => retried(&artifacts::Error::Exists(planned.key.clone())),
            error => retried(&error),
        });
        crash_point("export.published");
    }
    if let Err(end) = outcome {
        // An export that ends without success leaves nothing: what it published, and nothing else, goes again.
        if let End::Failed(_) = &end {
            for (number, planned) in plan.objects.iter().enumerate() {
                bucket.withdraw(&staging, number, &key(&planned.key)?).await.map_err(|error| retried(&error))?;
            }
        }
        return Err(end);
    }
    let result = ExportResult {
        bucket: target.bucket.clone(),
        bytes: plan.objects.iter().map(|object| object.bytes).sum(),
        keys: plan.objects.into_iter().map(|object| object.key).collect(),
    };
    Ok(End::Done(Box::new(Completion { outcome: Outcome::Succeeded(Response::Exported(result)), backup: None })))
}

/// One meter a shard: its segments may be several objects.
#[derive(Default)]
struct Meters(Vec<(String, Arc<Meter>)>);

impl Meters {
    fn of(&mut self, context: &Context, target: &ExportTarget, source: &Stored, shard_name: &str) -> Arc<Meter> {
        if let Some((_, meter)) = self.0.iter().find(|(name, _)| name == shard_name) {
            return Arc::clone(meter);
        }
        let meter = Arc::new(Meter::default());
        if let Ok(shard) = shard(source, shard_name) {
            meter.expect_bytes(if target.as_stored { stored_bytes(shard) } else { shard.size_bytes });
        }
        context.track(ShardProgress { shard_name: shard_name.to_owned(), ..ShardProgress::default() }, Arc::clone(&meter));
        self.0.push((shard_name.to_owned(), Arc::clone(&meter)));
        meter
    }
}

fn shard<'a>(source: &'a Stored, name: &str) -> Result<&'a ShardManifest, End> {
    source.manifest.shards.iter().find(|shard| shard.name == name).ok_or_else(|| internal("the manifest has no such shard"))
}

fn segment(shard: &ShardManifest, index: usize) -> Result<&Segment, End> {
    shard.segments.get(index).ok_or_else(|| internal("the manifest has no such segment"))
}

fn key(text: &str) -> Result<Key, End> {
    text.parse().map_err(|_| internal("an object of the export has a name that cannot be a key"))
}
