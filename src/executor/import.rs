//! Making a backup of dumps that lie in a bucket, told top to bottom: PREFLIGHT, SNAPSHOT, SEAL, PUBLISH.
//!
//! The backup is made like any other: its own draft, its own folder for each attempt, its own manifest, published by the same
//! rule. Only its bytes come from a bucket, where they are read and stay as they are. A file that is no sound dump, or that
//! changes while it is read, ends the import: another attempt would find the same, or something that nobody asked for.

use super::attempt::{Context, End};
use super::{backup, fault};
use crate::artifacts::bucket::{Bucket, Key, Seen};
use crate::artifacts::manifest::ShardManifest;
use crate::artifacts::{self, Folder};
use crate::failure::{Failure, Reason};
use crate::operation::{Fault, ImportSource, ShardProgress, Step};
use crate::rdb;
use crate::snapshot::import::{self, Error};
use crate::snapshot::{self, Meter};
use crate::telemetry::crash_point;
use std::sync::Arc;

pub(super) async fn run(context: &Context, source: &ImportSource) -> End {
    match attempt(context, source).await {
        Ok(end) | Err(end) => end,
    }
}

async fn attempt(context: &Context, source: &ImportSource) -> Result<End, End> {
    let folder = Folder::of_backup(&context.operation.folder_id, &context.operation.cluster_id, context.backup_id()?);
    if context.operation.step() == Some(Step::Publish) {
        return backup::publish(context, &folder).await;
    }
    let attempt = folder.attempt(context.epoch().0);

    let bucket = bucket(context, source)?;
    let objects = preflight(context, bucket, source, &attempt).await?;
    crash_point("import.preflight");

    context.step(Step::Snapshot, None).await?;
    let mut shards = Vec::with_capacity(objects.len());
    for (index, (key, seen)) in objects.iter().enumerate() {
        shards.push(take(context, bucket, key, seen, index, &attempt).await?);
    }
    crash_point("import.stored");

    context.step(Step::Seal, None).await?;
    for shard in &shards {
        backup::seal(context, &attempt, shard).await?;
    }
    let bytes = backup::encode(&backup::manifest(context, shards, None).await?)?;
    backup::decide(context, bytes).await?;
    crash_point("import.decided");
    backup::publish(context, &folder).await
}

/// The bucket, if it still is one and is there for the folder: the configuration may have changed since the acceptance.
fn bucket<'a>(context: &'a Context, source: &ImportSource) -> Result<&'a Bucket, End> {
    let refused = |what: &str| End::Failed(Failure::new(Reason::StorageDenied, format!("bucket {} {what}", source.bucket)));
    let bucket = context.inner.storage.bucket(&source.bucket).ok_or_else(|| refused("is not configured any more"))?;
    if bucket.takes(&context.operation.folder_id) { Ok(bucket) } else { Err(refused("is not there for this folder any more")) }
}

/// Finds every object before any is read, and proves that storage can be written.
async fn preflight(context: &Context, bucket: &Bucket, source: &ImportSource, attempt: &Folder) -> Result<Vec<(Key, Seen)>, End> {
    let mut objects = Vec::with_capacity(source.keys.len());
    let mut bytes = 0_u64;
    for key in &source.keys {
        let key: Key = key.parse().map_err(|_| backup::internal("a key of the import is none"))?;
        let seen = bucket.look(&key).await.map_err(|error| unread(context, bucket, &key, &error))?;
        let seen = seen.ok_or_else(|| unread(context, bucket, &key, &artifacts::Error::Missing(key.to_string())))?;
        bytes = bytes.saturating_add(seen.bytes);
        objects.push((key, seen));
    }
    // Compressed anew it may take less, and a compressed one that is stored plain takes more: it is a first look.
    backup::check_room(context, attempt, bytes)?;
    backup::mark(context, attempt).await?;
    Ok(objects)
}

async fn take(context: &Context, bucket: &Bucket, key: &Key, seen: &Seen, index: usize, attempt: &Folder) -> Result<ShardManifest, End> {
    let meter = Arc::new(Meter::default());
    let request = import::Request { shard_name: ImportSource::shard_name(index), bucket, key, seen, folder: attempt };
    let shard = ShardProgress { shard_name: request.shard_name.clone(), host_name: request.origin(), ..ShardProgress::default() };
    context.track(shard, Arc::clone(&meter));
    let taken = import::take(&request, &context.inner.storage, &meter, &context.stop).await;
    taken.map_err(|error| match error {
        Error::Bucket(error) => unread(context, bucket, key, &error),
        Error::Undecodable(what) => unsound(bucket, key, &format!("it cannot be decompressed: {what}")),
        Error::Snapshot(snapshot::Error::Storage(error)) => fault::storage(&context.operation, &error),
        Error::Snapshot(snapshot::Error::Stopped) => End::Stopped,
        Error::Snapshot(snapshot::Error::Cut { .. }) => unsound(bucket, key, "the file ends before the dump does"),
        Error::Snapshot(snapshot::Error::Corrupt(error @ (rdb::Error::Envelope { .. } | rdb::Error::Commands { .. } | rdb::Error::Databases { .. }))) => {
            End::Failed(Failure::new(Reason::SourceVersion, format!("{key} in bucket {}: {error}", bucket.name())))
        }
        Error::Snapshot(snapshot::Error::Corrupt(error)) => unsound(bucket, key, &error.to_string()),
        Error::Snapshot(error) => {
            End::Retry { fault: Fault::Storage, failure: Failure::new(Reason::Internal, error.to_string()), wait: fault::backoff(&context.operation) }
        }
    })
}

/// What it means that a file is no sound dump: it does not become one.
fn unsound(bucket: &Bucket, key: &Key, what: &str) -> End {
    End::Failed(Failure::new(Reason::SnapshotCorrupt, format!("{key} in bucket {} is no sound dump: {what}", bucket.name())))
}

/// What it means that an object cannot be read.
fn unread(context: &Context, bucket: &Bucket, key: &Key, error: &artifacts::Error) -> End {
    let name = bucket.name();
    let failed = |reason, what: String| End::Failed(Failure::new(reason, what));
    match error {
        artifacts::Error::Missing(_) => failed(Reason::Gone, format!("bucket {name} has no object {key}")),
        artifacts::Error::Corrupt { .. } => {
            failed(Reason::SnapshotCut, format!("{key} in bucket {name} changed while it was read; import it again when nothing writes to it"))
        }
        artifacts::Error::Exists(_) => failed(Reason::StorageDenied, format!("{key} in bucket {name} is no file")),
        artifacts::Error::Denied(why) => failed(Reason::StorageDenied, format!("bucket {name} cannot be read: {why}")),
        artifacts::Error::Unavailable { .. } | artifacts::Error::Stalled | artifacts::Error::Full | artifacts::Error::Locked(_) => {
            fault::bucket(&context.operation, name.as_str(), error)
        }
    }
}
