//! What of a finished backup can be downloaded, and its bytes. No operation: nothing changes.

use super::Executor;
use super::stored;
use crate::artifacts::manifest::{MANIFEST, Manifest};
use crate::artifacts::{Error as Fault, Folder};
use crate::backup::Backup;
use aws_lc_rs::digest;
use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for storage before a caller is told that it does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a file of a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Storage does not answer, or not now.
    #[error("the artifact storage cannot be read at the moment: {0}")]
    Away(String),
    /// It is not what was stored there.
    #[error("the artifact storage does not have the backup as it was stored: {0}")]
    Damaged(String),
}

impl From<Fault> for Unreadable {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Missing(_) | Fault::Corrupt { .. } | Fault::Exists(_) => Self::Damaged(fault.to_string()),
            Fault::Full | Fault::Denied(_) | Fault::Unavailable { .. } | Fault::Stalled | Fault::Locked(_) => Self::Away(fault.to_string()),
        }
    }
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The shard that it is of; empty for what is of all.
    pub shard: String,
    /// Its name.
    pub name: String,
    /// Bytes as stored.
    pub bytes: u64,
    /// SHA-256 of the stored bytes, in hexadecimal.
    pub sha256: String,
}

/// The files of a backup, where they lie.
#[derive(Clone, Debug)]
pub struct Files {
    folder: Folder,
    files: Vec<File>,
}

impl Files {
    /// Each shard's segments in order, its side state where there is one, and last the manifest.
    pub fn all(&self) -> &[File] {
        &self.files
    }

    /// The file of this name.
    pub fn get(&self, name: &str) -> Option<&File> {
        self.files.iter().find(|file| file.name == name)
    }
}

fn listed(manifest: &Manifest) -> Vec<File> {
    let mut files = Vec::new();
    for shard in &manifest.shards {
        let mut add = |name: &str, bytes, sha256: &str| files.push(File { shard: shard.name.clone(), name: name.to_owned(), bytes, sha256: sha256.to_owned() });
        shard.segments.iter().for_each(|segment| add(&segment.file, segment.stored_bytes, &segment.sha256));
        if let Some(side) = &shard.side {
            add(&side.file, side.stored_bytes, &side.sha256);
        }
    }
    files
}

impl Executor {
    /// The files of an available backup, by its manifest; `None` when the backup has none.
    ///
    /// # Errors
    ///
    /// [`Unreadable`]; storage is given 15 s to answer.
    pub async fn files(&self, backup: &Backup) -> Result<Option<Files>, Unreadable> {
        let Some(epoch) = backup.epoch.filter(|_| backup.is_available()) else { return Ok(None) };
        let folder = Folder::of_backup(&backup.folder_id, &backup.cluster_id, backup.id).attempt(epoch);
        let bytes = within(self.0.storage.read(&folder, MANIFEST)).await?;
        let manifest = stored::manifest(backup, &bytes).map_err(|what| Unreadable::Damaged(what.to_owned()))?;
        let mut files = listed(&manifest);
        let sha256: String = digest::digest(&digest::SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        files.push(File { shard: String::new(), name: MANIFEST.to_owned(), bytes: bytes.len() as u64, sha256 });
        Ok(Some(Files { folder, files }))
    }

    /// A link that the store signs by itself; `None` where it signs none.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Away`], also when the credentials are of a kind that cannot sign.
    pub async fn signed_url(&self, files: &Files, name: &str, life: Duration) -> Result<Option<String>, Unreadable> {
        within(self.0.storage.signed_url(&files.folder, name, life)).await
    }

    /// Bytes of a file; a range is at most as long as a part of an upload.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub async fn read_file(&self, files: &Files, name: &str, range: Range<u64>) -> Result<Bytes, Unreadable> {
        let length = range.end.saturating_sub(range.start);
        let bytes = within(self.0.storage.read_range(&files.folder, name, range)).await?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(Unreadable::Damaged(format!("{name} is shorter than the manifest says"))) }
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Unreadable> {
    match timeout(ANSWER_TIMEOUT, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Unreadable::Away(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}
