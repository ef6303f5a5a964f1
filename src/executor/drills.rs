//! Proofs by themselves: which backup is to be loaded next, looked at whenever work has ended and every minute besides.
//!
//! The operations are those that anybody could ask for, made by `redkeep`, with a key that names the backup: so each backup is
//! proved once by itself, whatever dies meanwhile and however many processes look. Of one cluster one is proved at a time; with
//! `newest` one that another has followed meanwhile is passed over.

use super::{Caller, Inner};
use crate::backup::{Backup, Level};
use crate::cluster::{ClusterId, FolderId};
use crate::operation::{Door, Spec};
use crate::store::{BackupFilter, Error, OperationFilter};
use aws_lc_rs::digest;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often is looked when nothing has ended.
const LOOK: Duration = Duration::from_secs(60);

/// Most backups of a cluster that one look takes in, and so the greatest N of one in N.
pub const LOOKS: usize = 100;

/// Operations of a cluster among which one that proves is looked for.
const OPERATIONS: usize = 100;

/// Who asks for them.
const SUBJECT: &str = "redkeep";

/// How backups are proved by loading.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// Where throw-away servers have their folders; made when it is needed. At most
    /// [`ROOT_BYTES`](crate::redis::drill::ROOT_BYTES) long.
    pub folder: PathBuf,
    /// Memory that a server may take, in bytes; half of what is free when absent.
    pub memory_limit: Option<u64>,
    /// Servers at once.
    pub at_once: usize,
    /// Longest time of one proof, over all its shards.
    pub timeout: Duration,
    /// Which backups are proved by themselves.
    pub after_backup: AfterBackup,
}

impl Default for DrillOptions {
    fn default() -> Self {
        Self {
            folder: std::env::temp_dir().join("redkeep-drill"),
            memory_limit: None,
            at_once: 1,
            timeout: Duration::from_secs(3600),
            after_backup: AfterBackup::Never,
        }
    }
}

/// Which backups are proved by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterBackup {
    /// None.
    Never,
    /// The newest of each cluster.
    Newest,
    /// One in so many of each cluster, from 1 to [`LOOKS`].
    OneIn(usize),
}

/// Looks until `stop` is cancelled.
pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    if inner.options.drill.after_backup == AfterBackup::Never {
        return;
    }
    loop {
        // Registered before the look, so that what ends after it wakes us.
        let ended = inner.drill_due.notified();
        for cluster in inner.fleet.all() {
            if stop.is_cancelled() {
                return;
            }
            if let Err(error) = look(&inner, &cluster.folder_id, &cluster.id).await {
                tracing::warn!(cluster.id = %cluster.id, %error, "it could not be told which backup is to be proved; it is looked again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = ended => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(inner: &Arc<Inner>, folder: &FolderId, cluster: &ClusterId) -> Result<(), Error> {
    let backups = inner.store.backups(&BackupFilter::ClusterAvailable(cluster.clone()), None, LOOKS).await?;
    let backups: Vec<Backup> = backups.into_iter().filter(|backup| backup.folder_id == *folder).collect();
    let Some(newest) = backups.first() else { return Ok(()) };
    let is_due = match inner.options.drill.after_backup {
        AfterBackup::Never => false,
        AfterBackup::Newest => true,
        AfterBackup::OneIn(n) => {
            let mut is_due = true;
            for before in backups.iter().skip(1).take(n.saturating_sub(1)) {
                is_due &= !is_loaded(before) && !was_asked(inner, before).await?;
            }
            is_due
        }
    };
    if !is_due || is_loaded(newest) || was_asked(inner, newest).await? || is_proving(inner, cluster).await? {
        return Ok(());
    }
    let executor = super::Executor(Arc::clone(inner));
    match executor.change_backup(newest.id, Door::Redkeep, Spec::VerifyBackup { level: Level::Loaded }, caller(newest)).await {
        Ok(operation) => {
            tracing::info!(operation.id = %operation.id, cluster.id = %cluster, backup.id = %newest.id, "a backup is to be proved by itself");
            Ok(())
        }
        // It is being deleted, or read by many, or the queue is full: another look follows.
        Err(Error::NoBackup | Error::NotAvailable(_) | Error::ReadersFull(_) | Error::QueueFull(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_loaded(backup: &Backup) -> bool {
    backup.level == Some(Level::Loaded)
}

/// Whether a proof of the backup was asked for by itself before. Known as long as the operation is.
async fn was_asked(inner: &Inner, backup: &Backup) -> Result<bool, Error> {
    match caller(backup).idempotency() {
        Some(key) => Ok(inner.store.known(&key).await?.is_some()),
        None => Ok(false),
    }
}

/// Whether a backup of the cluster is being proved.
async fn is_proving(inner: &Inner, cluster: &ClusterId) -> Result<bool, Error> {
    let operations = inner.store.list(&OperationFilter::Cluster(cluster.clone()), None, OPERATIONS).await?;
    Ok(operations.iter().any(|operation| matches!(operation.spec, Spec::VerifyBackup { .. }) && !operation.state.is_terminal()))
}

fn caller(backup: &Backup) -> Caller {
    let key = format!("drill-{}", backup.id);
    let mut request = [0; 32];
    request.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    Caller { subject: SUBJECT.to_owned(), key: Some((key, request)) }
}
