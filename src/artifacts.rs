//! Where artifacts lie: their keys, the upload in parts, the manifest and the facts.
//!
//! Owns the layout below the storage root, and alone names the object-store crate. Owns the buckets, too, to which dumps may be
//! exported. Knows nothing of Redis, nor of who decides what is written.
//!
//! ```text
//! <root>/<folder>/<cluster>/<backup>/<epoch>/<shard>-<segment>.rdb[.zst][.age]
//! <root>/<folder>/<cluster>/<backup>/<epoch>/<shard>-side.json[.age]   what a dump does not hold
//! <root>/<folder>/<cluster>/<backup>/<epoch>/attempt.json       the attempt's marker, before its first byte
//! <root>/<folder>/<cluster>/<backup>/<epoch>/manifest.json      created once, never changed
//! <root>/<folder>/<cluster>/<backup>/facts/<revision>.json      name, labels, expiry, holds, tombstone; highest revision wins
//! ```

pub mod bucket;
pub mod encryption;
pub mod manifest;
mod transfer;

pub use encryption::{Encryption, Identity, Recipient, Sealed};
pub use transfer::{Content, Move, Written};

use crate::backup::BackupId;
use crate::cluster::{ClusterId, FolderId};
use bucket::Bucket;
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Length of a part of an upload, in bytes; the last part of a segment is shorter.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

/// Longest wait for storage to take one part, in seconds.
pub const PART_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for a finished upload to be made durable, or for a small object.
pub const SEAL_TIMEOUT: Duration = Duration::from_secs(600);

/// Bytes of an upload that may wait in the memory of the system before the disk is told to begin with them.
const UNWRITTEN_BYTES: u64 = 64 * 1024 * 1024;

/// Length of a segment as stored, in bytes, after which the next one begins.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// Longest small object that is read back, in bytes.
const SMALL_BYTES: u64 = 4 * 1024 * 1024;

/// How artifacts are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Zstandard at a level from 1 to 19.
    Zstd(i32),
}

/// The text names no compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be \"none\" or \"zstd:N\" with N from 1 to 19")]
pub struct BadCompression;

impl FromStr for Compression {
    type Err = BadCompression;
    fn from_str(text: &str) -> Result<Self, BadCompression> {
        match text {
            "none" => Ok(Self::None),
            _ => {
                let level = text.strip_prefix("zstd:").and_then(|level| level.parse().ok()).filter(|level| (1..=19).contains(level));
                level.map(Self::Zstd).ok_or(BadCompression)
            }
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// How storage is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder that everything lies in.
    pub root: PathBuf,
    /// How artifacts are compressed.
    pub compression: Compression,
    /// Length of a segment as stored, in bytes; a segment ends at the first part at or after it.
    pub segment_bytes: u64,
}

/// What storage did not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is full.
    #[error("the artifact storage is full")]
    Full,
    /// It may not be written.
    #[error("the artifact storage cannot be written: {0}")]
    Denied(&'static str),
    /// It failed or cannot be reached.
    #[error("the artifact storage failed: {what}")]
    Unavailable {
        /// The kind of failure.
        what: String,
        /// The failure itself, for the log.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It did not take a part in time.
    #[error("the artifact storage took no data for {} s", PART_TIMEOUT.as_secs())]
    Stalled,
    /// There is nothing under the key.
    #[error("the artifact storage does not have {0}")]
    Missing(String),
    /// The key is taken by something else.
    #[error("the artifact storage already has another {0}")]
    Exists(String),
    /// What is under the key is not what was stored there.
    #[error("the artifact storage does not have {name} as it was stored: {what}")]
    Corrupt {
        /// Name of the object.
        name: String,
        /// What differs.
        what: String,
    },
    /// It is encrypted, and there is no key that opens it.
    #[error("{0} is encrypted, and {NO_KEY}")]
    Locked(String),
}

/// What is missing when something encrypted cannot be read back.
pub const NO_KEY: &str =
    "no key of artifacts.age_identity_file opens it; set that to the file of a secret key, or take it as it is stored and decrypt it elsewhere";

impl Error {
    fn unavailable(what: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), source: None }
    }

    /// What a failure of the file system means.
    pub fn from_io(fault: io::Error) -> Self {
        match fault.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::PermissionDenied => Self::Denied("permission denied"),
            io::ErrorKind::ReadOnlyFilesystem => Self::Denied("the file system is read-only"),
            io::ErrorKind::NotADirectory => Self::Denied("a part of its path is not a folder"),
            io::ErrorKind::InvalidFilename => Self::Denied("a part of its path is too long"),
            kind => Self::Unavailable { what: kind.to_string(), source: Some(fault.into()) },
        }
    }
}

impl From<object_store::Error> for Error {
    fn from(fault: object_store::Error) -> Self {
        match &fault {
            object_store::Error::NotFound { path, .. } => return Self::Missing(file_name(path)),
            object_store::Error::AlreadyExists { path, .. } => return Self::Exists(file_name(path)),
            _ => {}
        }
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&fault);
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                return match Self::from_io(io::Error::from(io.kind())) {
                    Self::Unavailable { what, .. } => Self::Unavailable { what, source: Some(Box::new(fault)) },
                    told => told,
                };
            }
            source = inner.source();
        }
        Self::Unavailable { what: "it answered with an error".to_owned(), source: Some(Box::new(fault)) }
    }
}

/// The last part of a path: no more of it is shown.
fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The storage of all artifacts.
#[derive(Clone)]
pub struct Storage {
    objects: Arc<dyn ObjectStore>,
    options: Options,
    encryption: Encryption,
    buckets: Arc<[Bucket]>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("compression", &self.options.compression).finish_non_exhaustive()
    }
}

/// The folder of one backup, or of one attempt at it, below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(String);

impl Folder {
    /// The folder of a backup.
    pub fn of_backup(folder: &FolderId, cluster: &ClusterId, backup: BackupId) -> Self {
        Self(format!("{folder}/{cluster}/{backup}"))
    }

    /// The folder of one attempt at it.
    pub fn attempt(&self, epoch: u64) -> Self {
        Self(format!("{}/{epoch}", self.0))
    }

    /// A folder inside of it.
    pub fn inner(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// Its text form, with `/` between the parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn file(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.0))
    }
}

impl Storage {
    /// Opens the storage, and makes its root if there is none.
    ///
    /// # Errors
    ///
    /// [`Error`] when the root cannot be made.
    pub fn open(options: Options) -> Result<Self, Error> {
        // Whoever can read a dump has all of the data, so it is for this user alone.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.root).map_err(|fault| match fault.kind() {
            io::ErrorKind::AlreadyExists => Error::Denied("its root is not a folder"),
            _ => Error::from_io(fault),
        })?;
        let objects = LocalFileSystem::new_with_prefix(&options.root)?.with_fsync(true);
        Ok(Self { objects: Arc::new(objects), options, encryption: Encryption::default(), buckets: Arc::default() })
    }

    /// Opens the buckets that dumps may be exported to, and makes the roots that are not there.
    ///
    /// # Errors
    ///
    /// [`bucket::Unusable`], which names the bucket: its root cannot be made or read, or meets that of the storage, where an
    /// export could lie among the files of backups.
    pub fn with_buckets(self, buckets: Vec<bucket::Options>) -> Result<Self, bucket::Unusable> {
        let buckets = buckets.into_iter().map(|options| Bucket::open(options, &self.options.root)).collect::<Result<_, _>>()?;
        Ok(Self { buckets, ..self })
    }

    /// The bucket of this name.
    pub fn bucket(&self, name: &str) -> Option<&Bucket> {
        self.buckets.iter().find(|bucket| bucket.name().as_str() == name)
    }

    /// Encrypts what is stored from now on, and reads back what is encrypted.
    pub fn with_encryption(self, encryption: Encryption) -> Self {
        Self { encryption, ..self }
    }

    /// To whom artifacts are encrypted, and with what they are read back.
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// How artifacts are compressed.
    pub fn compression(&self) -> Compression {
        self.options.compression
    }

    /// Length of a segment as stored, in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.options.segment_bytes
    }

    /// Bytes that can still be written, where the storage tells.
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.options.root).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Writes a small object under a key that must be free. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when the key is taken by other bytes; equal bytes are success. Else [`Error`].
    pub async fn create(&self, folder: &Folder, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let path = folder.file(name);
        let bytes = Bytes::from(bytes);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.objects.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options);
        match within(put).await {
            Ok(_) => Ok(()),
            Err(Error::Exists(shown)) => {
                let present = self.read(folder, name).await?;
                if present == bytes { Ok(()) } else { Err(Error::Exists(shown)) }
            }
            Err(fault) => Err(fault),
        }
    }

    /// Reads a small object.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], or [`Error`].
    pub async fn read(&self, folder: &Folder, name: &str) -> Result<Bytes, Error> {
        let path = folder.file(name);
        let length = within(self.objects.head(&path)).await?.size;
        if length > SMALL_BYTES {
            return Err(Error::unavailable(format!("{name} has {length} bytes, more than {SMALL_BYTES}")));
        }
        within(self.objects.get_range(&path, 0..length)).await
    }

    /// Length of an object in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], or [`Error`].
    pub async fn length(&self, folder: &Folder, name: &str) -> Result<u64, Error> {
        Ok(within(self.objects.head(&folder.file(name))).await?.size)
    }

    /// Removes one object; one that is not there is success.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn remove(&self, folder: &Folder, name: &str) -> Result<(), Error> {
        match within(self.objects.delete(&folder.file(name))).await {
            Ok(()) | Err(Error::Missing(_)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Begins the upload of an object in parts. Nothing is visible under the key before [`Upload::complete`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn upload(&self, folder: &Folder, name: &str) -> Result<Upload, Error> {
        let path = folder.file(name);
        let upload = within(self.objects.put_multipart(&path)).await?;
        Ok(Upload { upload, early: Early::new(&self.options.root.join(path.as_ref())) })
    }

    /// Removes what interrupted uploads and puts left behind directly in the folder; nobody may be writing there.
    ///
    /// # Errors
    ///
    /// [`Error`]; some files may be gone then.
    pub async fn remove_remains(&self, folder: &Folder) -> Result<(), Error> {
        let path = self.options.root.join(&folder.0);
        let removing = tokio::task::spawn_blocking(move || {
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                let name = entry.file_name();
                let staged = name.to_str().and_then(|name| name.rsplit_once('#')).is_some_and(|(_, digits)| digits.parse::<u32>().is_ok());
                if staged {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        });
        match removing.await {
            Ok(result) => result.map_err(Error::from_io),
            Err(_) => Err(Error::unavailable("the removal was interrupted")),
        }
    }

    /// Removes everything in the folder, with the remains of interrupted uploads, which no listing shows; tells how many
    /// files went. A folder that is not there is success. Folders above that are empty then go too.
    ///
    /// # Errors
    ///
    /// [`Error`]; some files may be gone then.
    pub async fn remove_all(&self, folder: &Folder) -> Result<u64, Error> {
        let root = self.options.root.clone();
        let path = root.join(&folder.0);
        let removing = tokio::task::spawn_blocking(move || {
            let removed = remove_tree(&path)?;
            let mut above = path.as_path();
            // Stops at the first folder that is in use.
            while let Some(parent) = above.parent()
                && parent != root
                && parent.starts_with(&root)
                && std::fs::remove_dir(parent).is_ok()
            {
                above = parent;
            }
            Ok(removed)
        });
        match removing.await {
            Ok(result) => result.map_err(Error::from_io),
            Err(_) => Err(Error::unavailable("the removal was interrupted")),
        }
    }
}

fn remove_tree(path: &std::path::Path) -> io::Result<u64> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(fault) => return Err(fault),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            removed += remove_tree(&entry.path())?;
        } else {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => removed += 1,
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(removed),
        Err(fault) if matches!(fault.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(removed),
        Err(fault) => Err(fault),
    }
}

async fn within<T>(call: impl Future<Output = object_store::Result<T>>) -> Result<T, Error> {
    match timeout(SEAL_TIMEOUT, call).await {
        Ok(result) => result.map_err(Error::from),
        Err(_) => Err(Error::unavailable(format!("no answer within {} s", SEAL_TIMEOUT.as_secs()))),
    }
}

/// An upload in parts.
pub struct Upload {
    upload: Box<dyn MultipartUpload>,
    early: Early,
}

impl Upload {
    /// Stores the next part, and gives its memory back for another.
    ///
    /// # Errors
    ///
    /// [`Error::Stalled`] after [`PART_TIMEOUT`], else [`Error`]; the upload must be aborted then.
    pub async fn part(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let bytes = Bytes::from(bytes);
        match timeout(PART_TIMEOUT, self.upload.put_part(PutPayload::from_bytes(bytes.clone()))).await {
            Ok(result) => result?,
            Err(_) => return Err(Error::Stalled),
        }
        self.early.written(bytes.len() as u64);
        Ok(bytes.into())
    }

    /// Makes the object visible. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error`]; the upload must be aborted then.
    pub async fn complete(&mut self) -> Result<(), Error> {
        within(self.upload.complete()).await.map(|_| ())
    }

    /// Gives the upload up. What cannot be removed now is left to the collector.
    pub async fn abort(mut self) {
        if let Err(fault) = within(self.upload.abort()).await {
            tracing::debug!(error = %fault, "an upload could not be aborted; the collector removes its remains");
        }
    }
}

/// Keeps the disk at work while an upload goes on, so that little is left to be written at its end.
///
/// Best effort: where the file being written is not found, the end takes longer. What fails here fails again when the upload
/// is completed, which syncs with a descriptor of its own.
struct Early {
    file: Option<Arc<File>>,
    unwritten_bytes: u64,
    writing: Option<JoinHandle<()>>,
}

impl Early {
    /// For the upload that will be visible at `path`; until then its file has another name.
    fn new(path: &std::path::Path) -> Self {
        let mut staged = path.as_os_str().to_owned();
        staged.push("#1");
        Self { file: File::open(staged).ok().map(Arc::new), unwritten_bytes: 0, writing: None }
    }

    fn written(&mut self, bytes: u64) {
        self.unwritten_bytes += bytes;
        let Some(file) = &self.file else { return };
        if self.unwritten_bytes < UNWRITTEN_BYTES || self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let file = Arc::clone(file);
        self.unwritten_bytes = 0;
        self.writing = Some(tokio::task::spawn_blocking(move || drop(file.sync_data())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, Storage, Folder) {
        let root = tempfile::tempdir().unwrap();
        let options = Options { root: root.path().to_owned(), compression: Compression::None, segment_bytes: SEGMENT_BYTES };
        let folder = Folder::of_backup(&"default".parse().unwrap(), &"main".parse().unwrap(), BackupId::new());
        (root, Storage::open(options).unwrap(), folder)
    }

    #[tokio::test]
    async fn a_key_is_created_once() {
        let (_root, storage, folder) = storage();
        storage.create(&folder, "manifest.json", b"{}".to_vec()).await.unwrap();
        storage.create(&folder, "manifest.json", b"{}".to_vec()).await.unwrap();
        assert!(matches!(storage.create(&folder, "manifest.json", b"[]".to_vec()).await, Err(Error::Exists(_))));
        assert_eq!(storage.read(&folder, "manifest.json").await.unwrap().as_ref(), b"{}");
        assert!(matches!(storage.read(&folder, "other").await, Err(Error::Missing(_))));
        storage.create(&folder, "facts/1.json", b"{}".to_vec()).await.unwrap();
        storage.create(&folder, "facts/1.json", b"{}".to_vec()).await.unwrap();
        assert!(matches!(storage.create(&folder, "facts/1.json", b"[]".to_vec()).await, Err(Error::Exists(_))));
    }

    #[tokio::test]
    async fn remains_of_an_upload_go_with_the_folder() {
        let (root, storage, folder) = storage();
        let attempt = folder.attempt(1);
        let mut upload = storage.upload(&attempt, "shard1-0.rdb").await.unwrap();
        upload.part(vec![1; 100]).await.unwrap();
        std::mem::forget(upload);
        assert!(root.path().join(attempt.as_str()).join("shard1-0.rdb#1").exists());
        assert_eq!(storage.remove_all(&attempt).await.unwrap(), 1);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(storage.remove_all(&attempt).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn remains_go_and_what_is_published_stays() {
        let (root, storage, folder) = storage();
        storage.create(&folder, "manifest.json", b"{}".to_vec()).await.unwrap();
        let path = root.path().join(folder.as_str());
        std::fs::write(path.join("manifest.json#1"), b"{").unwrap();
        std::fs::write(path.join("a#b"), b"").unwrap();
        storage.remove_remains(&folder).await.unwrap();
        let mut left: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a#b", "manifest.json"]);
    }

    #[tokio::test]
    async fn a_completed_upload_is_one_object() {
        let (_root, storage, folder) = storage();
        let mut upload = storage.upload(&folder, "a").await.unwrap();
        upload.part(vec![1; 5]).await.unwrap();
        upload.part(vec![2; 5]).await.unwrap();
        assert!(matches!(storage.length(&folder, "a").await, Err(Error::Missing(_))));
        upload.complete().await.unwrap();
        assert_eq!(storage.length(&folder, "a").await.unwrap(), 10);
        let mut upload = storage.upload(&folder, "b").await.unwrap();
        upload.part(vec![1; 5]).await.unwrap();
        upload.abort().await;
        assert_eq!(storage.remove_all(&folder).await.unwrap(), 1);
    }

    #[test]
    fn compressions_have_names() {
        assert_eq!("zstd:3".parse(), Ok(Compression::Zstd(3)));
        assert_eq!("none".parse(), Ok(Compression::None));
        for bad in ["", "zstd", "zstd:0", "zstd:20", "gzip", "zstd:x"] {
            assert_eq!(bad.parse::<Compression>(), Err(BadCompression), "{bad}");
        }
    }
}
