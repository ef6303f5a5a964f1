//! Buckets: where dumps may be exported to, by the names that callers use.
//!
//! Owns the keys of a bucket, and how an object gets there: whole or not at all, durable, never in the place of another, never
//! outside of the root. Knows nothing of backups: what an object holds is its writer's business.
//!
//! A bucket is a folder of this machine, or a prefix in the bucket of a store. Either way an object is first written below
//! `.redkeep`, where no key leads, and gets its key when it is published.

mod folder;
mod objects;

use super::place::Place;
use super::root::Root;
use super::{Error, Storage};
use crate::cluster::{BucketName, FolderId, Timestamp};
use bytes::Bytes;
use folder::{FolderBucket, StagedFile};
use objects::{ObjectBucket, StagedObject};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Most buckets of a configuration.
pub const BUCKETS: usize = 100;

/// Folder of what is being written, directly below the root. No key leads there.
const STAGING: &str = ".redkeep";

/// Longest range of an object that is read at once, in bytes.
pub const READ_BYTES: usize = 1024 * 1024;

/// How a bucket is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The name that callers use.
    pub name: BucketName,
    /// Where its objects lie.
    pub root: Place,
    /// Folders, the tenants, whose backups may be exported to it.
    pub folders: Vec<FolderId>,
}

/// Why a bucket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("bucket {name} cannot be used: {what}")]
pub struct Unusable {
    /// The bucket.
    pub name: BucketName,
    /// Why.
    pub what: String,
}

/// Where an object lies in a bucket: names with `/` between them, each a folder but for the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<String>);

impl Key {
    /// Longest key, in bytes.
    pub const BYTES: usize = 1024;

    /// The folders that lead to it, and its own name.
    fn parts(&self) -> (&[String], &str) {
        // A key has at least one name.
        self.0.split_last().map_or((&[], ""), |(name, folders)| (folders, name))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// The text cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Longer than [`Key::BYTES`].
    #[error("must have at most {} bytes", Key::BYTES)]
    Long,
    /// A name in it is empty: there is a slash at an end, or one behind another, or nothing at all.
    #[error("must not have an empty part; it has no slash at its ends and none behind another")]
    Empty,
    /// A name in it is one that leads elsewhere, or is ours.
    #[error("must not have a part that is `.`, `..` or `{STAGING}`")]
    Reserved,
    /// A character that no name may have.
    #[error("must not have a backslash or a control character")]
    Character,
}

impl FromStr for Key {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        if text.len() > Self::BYTES {
            return Err(BadKey::Long);
        }
        if text.contains(|c: char| c == '\\' || c.is_control()) {
            return Err(BadKey::Character);
        }
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        for part in &parts {
            match part.as_str() {
                "" => return Err(BadKey::Empty),
                "." | ".." | STAGING => return Err(BadKey::Reserved),
                _ => {}
            }
        }
        Ok(Self(parts))
    }
}

/// A bucket that can be written.
#[derive(Clone, Debug)]
pub struct Bucket {
    name: BucketName,
    folders: Vec<FolderId>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Folder(FolderBucket),
    Objects(ObjectBucket),
}

impl Bucket {
    /// Opens a bucket that meets none of the storage's roots. A folder is made if it is not there.
    pub(super) fn open(options: Options, roots: &[&Root]) -> Result<Self, Unusable> {
        let Options { name, root, folders } = options;
        let way = match root {
            Place::Files(path) => {
                let apart: Vec<&Path> = roots.iter().filter_map(|root| root.folder()).collect();
                FolderBucket::open(path, &apart).map(Way::Folder)
            }
            Place::Objects(objects) => {
                let place = Place::Objects(objects.clone());
                if roots.iter().any(|root| root.place().meets(&place)) {
                    Err("its prefix lies inside of artifacts.url or around it; give it a prefix of its own".to_owned())
                } else {
                    ObjectBucket::open(*objects).map(Way::Objects)
                }
            }
        };
        match way {
            Ok(way) => Ok(Self { name, folders, way }),
            Err(what) => Err(Unusable { name, what }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &BucketName {
        &self.name
    }

    /// Whether backups of a folder may be exported to it.
    pub fn takes(&self, folder: &FolderId) -> bool {
        self.folders.contains(folder)
    }

    /// Asks whether it can be looked into, where that is asked over the network.
    pub(super) async fn probe(&self, limit: Duration) -> Result<(), Error> {
        match &self.way {
            Way::Folder(_) => Ok(()),
            Way::Objects(objects) => objects.probe(limit).await,
        }
    }

    /// Bytes that can still be written, where the bucket tells: a store never does.
    pub async fn free_bytes(&self) -> Option<u64> {
        match &self.way {
            Way::Folder(folder) => folder.free_bytes().await,
            Way::Objects(_) => None,
        }
    }

    /// Length of the object under a key, in bytes; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when something that is no object lies there, else [`Error`].
    pub async fn length(&self, key: &Key) -> Result<Option<u64>, Error> {
        match &self.way {
            Way::Folder(folder) => folder.length(key).await,
            Way::Objects(objects) => objects.length(key).await,
        }
    }

    /// Looks at the object under a key; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when something that is no object lies there, else [`Error`].
    pub async fn look(&self, key: &Key) -> Result<Option<Seen>, Error> {
        match &self.way {
            Way::Folder(folder) => folder.look(key).await,
            Way::Objects(objects) => objects.look(key).await,
        }
    }

    /// Reads a range of the object that was seen under a key: at most [`READ_BYTES`] from `from` on, and fewer only at its end.
    /// What was changed since it was seen is never read as if it were the same.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when there is none any more, [`Error::Corrupt`] when it is another than was seen, else [`Error`].
    pub async fn read_range(&self, key: &Key, seen: &Seen, from: u64) -> Result<Bytes, Error> {
        match &self.way {
            Way::Folder(folder) => folder.read_range(key, seen, from).await,
            Way::Objects(objects) => objects.read_range(key, seen, from).await,
        }
    }

    /// Begins to write an object where nobody looks: number `number` of `staging`, which is a name that nothing else uses.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn stage(&self, staging: &str, number: usize) -> Result<Staged, Error> {
        Ok(Staged(match &self.way {
            Way::Folder(folder) => Written::File(folder.stage(staging, number).await?),
            Way::Objects(objects) => Written::Object(Box::new(objects.stage(staging, number)?)),
        }))
    }

    /// Publishes an object that was staged: it gets the key. Durable on return.
    ///
    /// A key that is taken by an object of the same bytes is success, and that stays as it is; so doing it again is no harm,
    /// and a late worker's doing neither.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when something else lies there, [`Error::Missing`] when nothing was staged, else [`Error`].
    pub async fn publish(&self, staging: &str, number: usize, key: &Key, bytes: u64, sha256: &str) -> Result<(), Error> {
        match &self.way {
            Way::Folder(folder) => folder.publish(staging, number, key, bytes, sha256).await,
            Way::Objects(objects) => objects.publish(staging, number, key, bytes, sha256).await,
        }
    }

    /// Takes a publication back: the key goes where it names the very object that was staged. Anything else under it stays.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn withdraw(&self, staging: &str, number: usize, key: &Key) -> Result<(), Error> {
        match &self.way {
            Way::Folder(folder) => folder.withdraw(staging, number, key).await,
            Way::Objects(objects) => objects.withdraw(staging, number, key).await,
        }
    }

    /// Removes all that was staged under a name; tells how many objects went. What is not there is success.
    ///
    /// # Errors
    ///
    /// [`Error`]; some may be gone then.
    pub async fn remove_staged(&self, staging: &str) -> Result<u64, Error> {
        match &self.way {
            Way::Folder(folder) => folder.remove_staged(staging).await,
            Way::Objects(objects) => objects.remove_staged(staging).await,
        }
    }
}

/// An object of a bucket, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was last written, where the bucket tells.
    pub modified_at: Option<Timestamp>,
    /// What tells it from another under the same key: it is another text once the object is another.
    mark: String,
}

/// An object that is being written. It is nothing to anybody before it is published. Writing blocks, and is for a thread of its
/// own.
#[derive(Debug)]
pub struct Staged(Written);

#[derive(Debug)]
enum Written {
    File(StagedFile),
    Object(Box<StagedObject>),
}

impl Staged {
    /// Makes all that was written durable. It blocks.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.0 {
            Written::File(file) => file.finish(),
            Written::Object(object) => object.finish(),
        }
    }

    /// Why nothing more could be written, where that is more than the error of the writing tells.
    pub(super) fn fault(&mut self) -> Option<Error> {
        match &mut self.0 {
            Written::File(_) => None,
            Written::Object(object) => object.fault(),
        }
    }

    /// Lets the store copy one object of the storage here by itself, where both are of one store; tells whether it did.
    pub(super) async fn copied(&self, storage: &Storage, folder: &super::Folder, file: &str, bytes: u64) -> Result<bool, Error> {
        match &self.0 {
            Written::File(_) => Ok(false),
            Written::Object(object) => object.copied(storage.root(folder), &folder.file(file), bytes).await,
        }
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Written::File(file) => file.write(bytes),
            Written::Object(object) => object.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn keys_lead_downwards_only() {
        for good in ["a", "a/b.rdb", "...", "a..b", "보고서/일일.rdb", "-", &"k".repeat(1024)] {
            assert_eq!(key(good).to_string(), good);
        }
        for (bad, why) in [
            ("", BadKey::Empty),
            ("/", BadKey::Empty),
            ("/a", BadKey::Empty),
            ("a/", BadKey::Empty),
            ("a//b", BadKey::Empty),
            (".", BadKey::Reserved),
            ("..", BadKey::Reserved),
            ("a/../b", BadKey::Reserved),
            ("a/.", BadKey::Reserved),
            (".redkeep/x", BadKey::Reserved),
            ("a/.redkeep", BadKey::Reserved),
            ("a\\b", BadKey::Character),
            ("a\0b", BadKey::Character),
            ("a\n", BadKey::Character),
            (&"k".repeat(1025), BadKey::Long),
        ] {
            assert_eq!(bad.parse::<Key>(), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_bucket_keeps_apart_from_artifacts() {
        let around = tempfile::tempdir().unwrap();
        let artifacts = around.path().join("artifacts");
        std::fs::create_dir(&artifacts).unwrap();
        let storage = Root::open(artifacts.clone().into()).unwrap();
        symlink(&artifacts, around.path().join("link")).unwrap();
        std::fs::write(around.path().join("file"), b"").unwrap();
        for (root, why) in [("link", "lies inside"), ("artifacts/x", "lies inside"), ("", "lies inside"), ("file", "is not a folder")] {
            let options = Options { name: "reports".parse().unwrap(), root: around.path().join(root).into(), folders: Vec::new() };
            let fault = Bucket::open(options, &[&storage]).unwrap_err().to_string();
            assert!(fault.starts_with("bucket reports cannot be used: ") && fault.contains(why), "{root}: {fault}");
        }
        let objects = |url: &str| Place::Objects(Box::new(crate::artifacts::place::Objects::parse(url).unwrap()));
        let storage = Root::open(objects("s3://company/redkeep")).unwrap();
        for (url, is_refused) in [("s3://company/redkeep/x", true), ("s3://company", true), ("s3://company/exports", false), ("gs://company", false)] {
            let options = Options { name: "reports".parse().unwrap(), root: objects(url), folders: Vec::new() };
            assert_eq!(Bucket::open(options, &[&storage]).is_err(), is_refused, "{url}");
        }
    }
}
