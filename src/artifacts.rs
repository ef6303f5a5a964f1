//! Where artifacts lie: their keys, the upload in parts, the manifest and the facts.
//!
//! Owns the layout below the storage root, and alone names the object-store crate. Owns the buckets, too, to which dumps may be
//! exported. Knows nothing of Redis, nor of who decides what is written.
//!
//! A root is a folder of this machine or a prefix in the bucket of a store; nobody outside needs to know which. A tenant's
//! folder may have a root of its own.
//!
//! ```text
//! <root>/<folder>/<cluster>/<backup>/<epoch>/<shard>-<segment>.rdb[.zst][.age]
//! <root>/<folder>/<cluster>/<backup>/<epoch>/<shard>-side.json[.age]   what a dump does not hold
//! <root>/<folder>/<cluster>/<backup>/<epoch>/<file>.upload       the id of an upload that goes on; not where the root is a folder
//! <root>/<folder>/<cluster>/<backup>/<epoch>/attempt.json       the attempt's marker, before its first byte
//! <root>/<folder>/<cluster>/<backup>/<epoch>/manifest.json      created once, never changed
//! <root>/<folder>/<cluster>/<backup>/facts/<revision>.json      name, labels, expiry, holds, tombstone; highest revision wins
//! ```

pub mod bucket;
mod decode;
mod dump;
pub mod encryption;
mod error;
mod files;
pub mod manifest;
pub mod place;
mod remote;
mod root;
mod transfer;

pub use dump::Dump;
pub use encryption::{Encryption, Identity, Recipient, Sealed};
pub use error::{Error, NO_KEY};
pub use place::Place;
pub use root::Upload;
pub use transfer::{Content, Move, Written};

use crate::backup::BackupId;
use crate::cluster::{ClusterId, FolderId};
use bucket::Bucket;
use bytes::Bytes;
use root::Root;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Length of a part of an upload, in bytes; the last part of a segment is shorter.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

/// Longest wait for storage to take one part, in seconds.
pub const PART_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for a finished upload to be made durable, or for a small object.
pub const SEAL_TIMEOUT: Duration = Duration::from_secs(600);

/// Length of a segment as stored, in bytes, after which the next one begins.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// Longest small object that is read back, in bytes.
const SMALL_BYTES: u64 = 4 * 1024 * 1024;

/// Most folders that may have a root of their own.
pub const FOLDER_ROOTS: usize = 1000;

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
    /// Where everything lies that has no other place.
    pub root: Place,
    /// Where the backups of some folders, the tenants, lie instead.
    pub folders: BTreeMap<FolderId, Place>,
    /// How artifacts are compressed.
    pub compression: Compression,
    /// Length of a segment as stored, in bytes; a segment ends at the first part at or after it.
    pub segment_bytes: u64,
}

/// The storage of all artifacts.
#[derive(Clone)]
pub struct Storage {
    root: Root,
    folders: Arc<BTreeMap<FolderId, Root>>,
    compression: Compression,
    segment_bytes: u64,
    encryption: Encryption,
    buckets: Arc<[Bucket]>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("root", &self.root).field("compression", &self.compression).finish_non_exhaustive()
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

    /// A folder of any name directly below the root; for reading what lies there without the records of a service. `None` for a
    /// name that is no name of a folder.
    pub fn named(name: &str) -> Option<Self> {
        let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/') && !name.chars().any(char::is_control);
        is_name.then(|| Self(name.to_owned()))
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

    /// The tenant whose backup it is of.
    fn tenant(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Storage {
    /// Opens the storage. A root that is a folder is made if it is not there; of a store nobody is asked anything yet.
    ///
    /// # Errors
    ///
    /// [`Error`] when a root cannot be made, or its client not be built.
    pub fn open(options: Options) -> Result<Self, Error> {
        let folders = options.folders.into_iter().map(|(folder, place)| Ok((folder, Root::open(place)?))).collect::<Result<_, Error>>()?;
        Ok(Self {
            root: Root::open(options.root)?,
            folders: Arc::new(folders),
            compression: options.compression,
            segment_bytes: options.segment_bytes,
            encryption: Encryption::default(),
            buckets: Arc::default(),
        })
    }

    /// Opens the buckets that dumps may be exported to, and makes the roots that are not there.
    ///
    /// # Errors
    ///
    /// [`bucket::Unusable`], which names the bucket: its root cannot be made or read, or meets one of the storage, where an
    /// export could lie among the files of backups.
    pub fn with_buckets(self, buckets: Vec<bucket::Options>) -> Result<Self, bucket::Unusable> {
        let roots: Vec<&Root> = self.roots().collect();
        let buckets = buckets.into_iter().map(|options| Bucket::open(options, &roots)).collect::<Result<_, _>>()?;
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
        self.compression
    }

    /// Length of a segment as stored, in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    fn roots(&self) -> impl Iterator<Item = &Root> {
        std::iter::once(&self.root).chain(self.folders.values())
    }

    fn root(&self, folder: &Folder) -> &Root {
        self.folders.iter().find(|(tenant, _)| tenant.as_str() == folder.tenant()).map_or(&self.root, |(_, root)| root)
    }

    /// Asks each root and each bucket that is reached over the network whether it can be looked into, for `limit` each; gives
    /// those that cannot, by what they are called.
    pub async fn unreachable(&self, limit: Duration) -> Vec<(String, Error)> {
        let mut faults = Vec::new();
        for root in self.roots() {
            if let Err(fault) = root.probe(limit).await {
                faults.push((root.to_string(), fault));
            }
        }
        for bucket in self.buckets.iter() {
            if let Err(fault) = bucket.probe(limit).await {
                faults.push((format!("bucket {}", bucket.name()), fault));
            }
        }
        faults
    }

    /// Bytes that can still be written to where a folder's backups lie, where that tells: a store never does.
    pub fn free_bytes(&self, folder: &Folder) -> Option<u64> {
        self.root(folder).free_bytes()
    }

    /// Writes a small object under a key that must be free. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when the key is taken by other bytes; equal bytes are success. Else [`Error`].
    pub async fn create(&self, folder: &Folder, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let bytes = Bytes::from(bytes);
        match self.root(folder).create(&folder.file(name), &bytes).await {
            Err(Error::Exists(shown)) => match self.read(folder, name).await {
                Ok(present) if present == bytes => Ok(()),
                Ok(_) => Err(Error::Exists(shown)),
                // Another was about to write there, and has not.
                Err(Error::Missing(_)) => Err(Error::unavailable("a key was taken and is free again")),
                Err(fault) => Err(fault),
            },
            created => created,
        }
    }

    /// Reads a small object.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], or [`Error`].
    pub async fn read(&self, folder: &Folder, name: &str) -> Result<Bytes, Error> {
        let (root, path) = (self.root(folder), folder.file(name));
        let length = root.length(&path).await?;
        if length > SMALL_BYTES {
            return Err(Error::unavailable(format!("{name} has {length} bytes, more than {SMALL_BYTES}")));
        }
        root.range(&path, 0..length).await
    }

    /// Reads a range of an object, which is at most as long as a part.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], or [`Error`].
    pub async fn read_range(&self, folder: &Folder, name: &str, range: std::ops::Range<u64>) -> Result<Bytes, Error> {
        if range.end.saturating_sub(range.start) > PART_BYTES as u64 {
            return Err(Error::unavailable(format!("a range of {name} is longer than {PART_BYTES} bytes")));
        }
        self.root(folder).range(&folder.file(name), range).await
    }

    /// Length of an object in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], or [`Error`].
    pub async fn length(&self, folder: &Folder, name: &str) -> Result<u64, Error> {
        self.root(folder).length(&folder.file(name)).await
    }

    /// Removes one object; one that is not there is success.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn remove(&self, folder: &Folder, name: &str) -> Result<(), Error> {
        self.root(folder).remove(&folder.file(name)).await
    }

    /// Begins the upload of an object in parts. Nothing is visible under the key before [`Upload::complete`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn upload(&self, folder: &Folder, name: &str) -> Result<Upload, Error> {
        self.root(folder).upload(&folder.file(name)).await
    }

    /// A link, signed by the store, with which whoever has it reads one object for a time, of at most seven days. `None` where
    /// the root is a folder of this machine, which signs nothing. The link is a secret.
    ///
    /// # Errors
    ///
    /// [`Error`], also when the credentials are of a kind that cannot sign. Whether the object is there is not asked.
    pub async fn signed_url(&self, folder: &Folder, name: &str, expires_in: Duration) -> Result<Option<String>, Error> {
        self.root(folder).signed_url(&folder.file(name), expires_in).await
    }

    /// Removes what interrupted uploads and puts left behind directly in the folder; nobody may be writing there.
    ///
    /// # Errors
    ///
    /// [`Error`]; some files may be gone then.
    pub async fn remove_remains(&self, folder: &Folder) -> Result<(), Error> {
        self.root(folder).remove_remains(folder).await
    }

    /// Removes everything in the folder, with the remains of interrupted uploads, which no listing shows; tells how many
    /// files went. A folder that is not there is success. Folders above that are empty then go too.
    ///
    /// # Errors
    ///
    /// [`Error`]; some files may be gone then.
    pub async fn remove_all(&self, folder: &Folder) -> Result<u64, Error> {
        self.root(folder).remove_all(folder).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, Storage, Folder) {
        let root = tempfile::tempdir().unwrap();
        let options = Options { root: root.path().to_owned().into(), folders: BTreeMap::new(), compression: Compression::None, segment_bytes: SEGMENT_BYTES };
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
