//! Removing files that belong to no backup: of attempts that were not published, and of backups that were deleted.
//!
//! Workers never delete; a late worker may still write. So the files of an attempt are looked for several times, and only
//! the attempts that the store says are doomed.

use super::{Inner, export};
use crate::artifacts::{self, Folder};
use crate::store::Doomed;
use crate::telemetry::crash_point;
use crate::telemetry::metrics::{COLLECTOR_FAILURES, FILES_DELETED};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often rubbish is looked for without being told.
const PERIOD: Duration = Duration::from_secs(5);

/// How often ended operations are looked over for their age.
const EXPIRE_PERIOD: Duration = Duration::from_secs(600);

/// Most attempts or backups removed in one round.
const BATCH: usize = 100;

pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let mut expire_at = Instant::now();
    loop {
        round(&inner).await;
        if Instant::now() >= expire_at {
            expire_at = Instant::now() + EXPIRE_PERIOD;
            match inner.store.expire(inner.options.retention).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "old operations were forgotten"),
                Err(fault) => tracing::error!(error = %fault, "old operations could not be forgotten"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = inner.rubbish.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Removes the files of an attempt; tells how many there were.
async fn remove(inner: &Inner, attempt: &Doomed) -> Result<u64, artifacts::Error> {
    match &attempt.bucket {
        // Never the folder of the backup, which is somebody else's: what an export wrote lies in its bucket.
        Some(name) => match inner.storage.bucket(name) {
            Some(bucket) => bucket.remove_staged(&export::staging(attempt.operation_id, attempt.epoch)).await,
            None => {
                tracing::warn!(operation.id = %attempt.operation_id, bucket = name, "the bucket of an export is not configured any more; what the export left there stays");
                Ok(0)
            }
        },
        None => {
            let folder = Folder::of_backup(&attempt.folder_id, &attempt.cluster_id, attempt.backup_id).attempt(attempt.epoch.0);
            inner.storage.remove_all(&folder).await
        }
    }
}

async fn round(inner: &Inner) {
    match inner.store.doomed(BATCH).await {
        Ok(doomed) => {
            for attempt in doomed {
                match remove(inner, &attempt).await {
                    Ok(files) => {
                        inner.metrics.counter(&FILES_DELETED, &["attempt"]).increment(files);
                        if files > 0 {
                            tracing::info!(operation.id = %attempt.operation_id, epoch = %attempt.epoch, files, "the files of an unpublished attempt were removed");
                        }
                        if let Err(fault) = inner.store.looked(attempt.operation_id, attempt.epoch, attempt.looks).await {
                            tracing::error!(error = %fault, "a removal could not be recorded");
                        }
                    }
                    Err(fault) => {
                        inner.count(&COLLECTOR_FAILURES, &[]);
                        tracing::warn!(operation.id = %attempt.operation_id, error = %fault, "the files of an attempt could not be removed");
                    }
                }
            }
        }
        Err(fault) => tracing::error!(error = %fault, "doomed attempts could not be listed"),
    }
    // What is gone cannot be brought back, so a clock that was set forward is not believed at once.
    if inner.steady.unsteady().is_some() {
        return;
    }
    match inner.store.purgeable(BATCH).await {
        Ok(backups) => {
            for backup in backups {
                // From here on its deletion is not taken back; one that was taken back since keeps its files.
                match inner.store.begin_purge(backup.id).await {
                    Ok(true) => crash_point("purge.claimed"),
                    Ok(false) => continue,
                    Err(fault) => {
                        tracing::error!(error = %fault, "a removal could not be recorded");
                        continue;
                    }
                }
                let folder = Folder::of_backup(&backup.folder_id, &backup.cluster_id, backup.id);
                match inner.storage.remove_all(&folder).await {
                    Ok(files) => {
                        inner.metrics.counter(&FILES_DELETED, &["backup"]).increment(files);
                        tracing::info!(backup.id = %backup.id, files, "the files of a deleted backup were removed");
                        crash_point("purge.removed");
                        if let Err(fault) = inner.store.purged(backup.id).await {
                            tracing::error!(error = %fault, "a removal could not be recorded");
                        }
                    }
                    Err(fault) => {
                        inner.count(&COLLECTOR_FAILURES, &[]);
                        tracing::warn!(backup.id = %backup.id, error = %fault, "the files of a deleted backup could not be removed");
                    }
                }
            }
        }
        Err(fault) => tracing::error!(error = %fault, "deleted backups could not be listed"),
    }
}
