//! Short work on a backup's record: changing it, deleting it, taking its deletion back.
//!
//! What is decided goes to storage too, as a facts file beside the artifacts, so that it outlives the store. A file is
//! created once; its bytes depend on the operation alone, so doing it again is no harm.

use super::attempt::{Context, End};
use super::{fault, stored};
use crate::artifacts::manifest::{FACTS, Facts};
use crate::artifacts::{self, Folder};
use crate::backup::{Backup, Cleared, Hold, State};
use crate::failure::{Failure, Reason};
use crate::operation::{BackupChanges, Outcome, Response};
use crate::store::Completion;
use crate::telemetry::crash_point;

/// Revisions that may be taken by operations that failed after they had written.
const REVISIONS: u64 = 64;

pub(super) async fn update(context: &Context, changes: &BackupChanges) -> End {
    match try_update(context, changes).await {
        Ok(end) | Err(end) => end,
    }
}

async fn try_update(context: &Context, changes: &BackupChanges) -> Result<End, End> {
    let mut backup = context.inner.store.backup(context.backup_id()?).await?;
    apply(&mut backup, changes, context);
    write_facts(context, &mut backup).await?;
    crash_point("update.stored");
    backup.busy = None;
    let response = Response::Backup(Box::new(backup.clone()));
    Ok(End::Done(Box::new(Completion { outcome: Outcome::Succeeded(response), backup: Some(backup) })))
}

fn apply(backup: &mut Backup, changes: &BackupChanges, context: &Context) {
    if let Some(name) = &changes.name {
        backup.name = name.clone();
    }
    if let Some(labels) = &changes.labels {
        backup.labels = labels.clone();
    }
    if let Some(expires_at) = changes.expires_at {
        backup.expires_at = expires_at.instant();
        backup.expiry_by_hand = true;
    }
    if changes.clear_suspect
        && let Some(suspicion) = backup.suspicion.as_mut().filter(|suspicion| suspicion.cleared.is_none())
    {
        suspicion.cleared = Some(Cleared { by: context.operation.created_by.clone(), at: context.operation.created_at });
    }
    if let Some(reasons) = &changes.holds {
        let standing = std::mem::take(&mut backup.holds);
        let hold = |reason: &String| {
            standing.iter().find(|hold| hold.reason == *reason).cloned().unwrap_or_else(|| Hold {
                reason: reason.clone(),
                created_by: context.operation.created_by.clone(),
                created_at: context.operation.created_at,
            })
        };
        backup.holds = reasons.iter().map(hold).collect();
    }
}

pub(super) async fn delete(context: &Context) -> End {
    match try_delete(context).await {
        Ok(end) | Err(end) => end,
    }
}

async fn try_delete(context: &Context) -> Result<End, End> {
    let mut backup = context.inner.store.backup(context.backup_id()?).await?;
    // A backup that never became available has no files to leave a word beside.
    if backup.epoch.is_some() {
        write_facts(context, &mut backup).await?;
    }
    crash_point("delete.stored");
    Ok(End::Done(Box::new(Completion { outcome: Outcome::Succeeded(Response::Empty), backup: None })))
}

pub(super) async fn undelete(context: &Context) -> End {
    match try_undelete(context).await {
        Ok(end) | Err(end) => end,
    }
}

async fn try_undelete(context: &Context) -> Result<End, End> {
    let mut backup = context.inner.store.backup(context.backup_id()?).await?;
    check_files(context, &backup).await?;
    backup.state = State::Available;
    backup.undeleted_at = Some(context.operation.created_at);
    write_facts(context, &mut backup).await?;
    crash_point("undelete.stored");
    backup.busy = None;
    let response = Response::Backup(Box::new(backup.clone()));
    Ok(End::Done(Box::new(Completion { outcome: Outcome::Succeeded(response), backup: Some(backup) })))
}

/// Holds what storage has against the record, by its lengths: what is called AVAILABLE is there. While the operation works on
/// the backup nobody removes its files.
async fn check_files(context: &Context, backup: &Backup) -> Result<(), End> {
    let stored = stored::read(context, backup.id).await?;
    for shard in &stored.manifest.shards {
        for (file, bytes) in
            shard.segments.iter().map(|segment| (&segment.file, segment.stored_bytes)).chain(shard.side.iter().map(|side| (&side.file, side.stored_bytes)))
        {
            let length = context.inner.storage.length(&stored.folder, file).await.map_err(|error| fault::stored(&context.operation, &error))?;
            if length != bytes {
                let message = format!("the backup cannot be brought back: {file} has {length} bytes in storage and {bytes} were stored");
                return Err(End::Failed(Failure::new(Reason::StorageCorrupt, message)));
            }
        }
    }
    Ok(())
}

/// Writes the facts as the next free revision, and notes it in the row.
pub(super) async fn write_facts(context: &Context, backup: &mut Backup) -> Result<(), End> {
    let folder = Folder::of_backup(&backup.folder_id, &backup.cluster_id, backup.id);
    for _ in 0..REVISIONS {
        let facts = Facts::of(backup, context.id().to_string(), context.operation.created_at);
        let bytes = serde_json::to_vec_pretty(&facts).map_err(|_| End::Failed(Failure::new(Reason::Internal, "the facts cannot be written as JSON")))?;
        let written = context.inner.storage.create(&folder, &format!("{FACTS}/{}.json", facts.revision), bytes).await;
        backup.facts_revision = facts.revision;
        match written {
            Ok(()) => {
                context.remove_remains(&folder.inner(FACTS)).await;
                return Ok(());
            }
            Err(artifacts::Error::Exists(_)) => {}
            Err(error) => return Err(fault::storage(&context.operation, &error)),
        }
    }
    Err(End::Failed(Failure::new(Reason::StorageCorrupt, format!("the next {REVISIONS} revisions of the backup's facts are taken"))))
}
