//! A bucket that is a folder of this machine.
//!
//! ```text
//! <root>/.redkeep/<staging>/<number>     an object while it is written; nobody else looks there
//! <root>/<key>                           the object, from its publication on: a second name for the same file
//! ```
//!
//! Its root may be a symbolic link, for it is the configuration's; nothing below it is followed: folders are opened one inside
//! the other, each by its own name, so that a link that somebody puts there leads nowhere. Files are made for the owner and
//! readable by the group, folders likewise: give the root's group to those who fetch exports.

use super::{Key, READ_BYTES, STAGING, Seen};
use crate::artifacts::transfer::hex;
use crate::artifacts::{Error, PART_TIMEOUT, SEAL_TIMEOUT};
use crate::cluster::Timestamp;
use aws_lc_rs::digest;
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// Bytes that are written before the disk must have them.
const UNSYNCED_BYTES: u64 = 32 * 1024 * 1024;

/// How often a folder is made anew that goes while something is put into it.
const FOLDER_TRIES: usize = 3;

const FOLDER_MODE: Mode = Mode::from_raw_mode(0o750);
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct FolderBucket {
    root: PathBuf,
}

impl FolderBucket {
    /// Opens a folder that meets none of `apart`, and makes it if it is not there.
    pub(super) fn open(root: PathBuf, apart: &[&Path]) -> Result<Self, String> {
        let io = |fault: io::Error| fault.kind().to_string();
        match std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE.as_raw_mode()).create(&root) {
            Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => return Err("its root is not a folder".to_owned()),
            made => made.map_err(io)?,
        }
        for other in apart {
            // By their real places, as either may be reached through a link.
            let (root, other) = (root.canonicalize().map_err(io)?, other.canonicalize().map_err(io)?);
            if root.starts_with(&other) || other.starts_with(&root) {
                return Err("its root lies inside of artifacts.url or around it; give it a folder of its own".to_owned());
            }
        }
        Ok(Self { root })
    }

    /// Bytes that can still be written, where the file system tells.
    pub(super) async fn free_bytes(&self) -> Option<u64> {
        let root = self.root.clone();
        let stat = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&root)).await.ok()?.ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Length of the object under a key, in bytes; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when something that is no object lies there, else [`Error`].
    pub(super) async fn length(&self, key: &Key) -> Result<Option<u64>, Error> {
        let (root, key) = (self.root.clone(), key.clone());
        blocking(SEAL_TIMEOUT, move || {
            let (folders, name) = key.parts();
            let Some(folder) = existing(walk(&root, folders, Absent::Refuse))? else { return Ok(None) };
            let Some(stat) = existing(rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(error))? else { return Ok(None) };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Ok(Some(u64::try_from(stat.st_size).unwrap_or(0))),
                _ => Err(Error::Exists(name.to_owned())),
            }
        })
        .await
    }

    /// Looks at the object under a key; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when something that is no object lies there, else [`Error`].
    pub(super) async fn look(&self, key: &Key) -> Result<Option<Seen>, Error> {
        let (root, key) = (self.root.clone(), key.clone());
        blocking(SEAL_TIMEOUT, move || Ok(existing(open_object(&root, &key))?.map(|(_, seen)| seen))).await
    }

    /// Reads a range of the object that was seen under a key: at most [`READ_BYTES`] from `from` on, and fewer only at its end.
    /// What was changed since it was seen is never read as if it were the same.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when there is none any more, [`Error::Corrupt`] when it is another than was seen, else [`Error`].
    pub(super) async fn read_range(&self, key: &Key, seen: &Seen, from: u64) -> Result<Bytes, Error> {
        let (root, key, seen) = (self.root.clone(), key.clone(), seen.clone());
        blocking(PART_TIMEOUT, move || {
            let changed = || Error::Corrupt { name: key.to_string(), what: "it changed while it was read".to_owned() };
            let (file, present) = open_object(&root, &key)?;
            if present != seen {
                return Err(changed());
            }
            let length = seen.bytes.saturating_sub(from).min(READ_BYTES as u64);
            let mut piece = vec![0; usize::try_from(length).unwrap_or(READ_BYTES)];
            file.read_exact_at(&mut piece, from).map_err(|fault| match fault.kind() {
                io::ErrorKind::UnexpectedEof => changed(),
                _ => Error::from_io(fault),
            })?;
            // Bytes that were written after the first look would be told by the second.
            if mark(&file)? != seen { Err(changed()) } else { Ok(Bytes::from(piece)) }
        })
        .await
    }

    /// Begins to write an object where nobody looks: number `number` of `staging`, which is a name that nothing else uses.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(super) async fn stage(&self, staging: &str, number: usize) -> Result<StagedFile, Error> {
        let (root, folders) = (self.root.clone(), [STAGING.to_owned(), staging.to_owned()]);
        blocking(SEAL_TIMEOUT, move || {
            let mut tries = 0;
            loop {
                tries += 1;
                // The folder of another that ends just now may take that of all with it.
                match walk(&root, &folders, Absent::Create) {
                    Err(Error::Missing(_)) if tries < FOLDER_TRIES => {}
                    folder => {
                        let folder = folder?;
                        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        let file = rustix::fs::openat(&folder, number.to_string(), flags, FILE_MODE).map_err(error)?;
                        return Ok(StagedFile { file: File::from(file), folder, unsynced_bytes: 0 });
                    }
                }
            }
        })
        .await
    }

    /// Publishes an object that was staged: the file gets the key as a second name. Durable on return.
    ///
    /// A key that is taken by an object of the same bytes is success, and that stays as it is; so doing it again is no harm,
    /// and a late worker's doing neither.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when something else lies there, [`Error::Missing`] when nothing was staged, else [`Error`].
    pub(super) async fn publish(&self, staging: &str, number: usize, key: &Key, bytes: u64, sha256: &str) -> Result<(), Error> {
        let (root, folders) = (self.root.clone(), [STAGING.to_owned(), staging.to_owned()]);
        let (key, sha256) = (key.clone(), sha256.to_owned());
        blocking(SEAL_TIMEOUT, move || {
            let (inside, name) = key.parts();
            let folder = walk(&root, inside, Absent::Create)?;
            let linked = match walk(&root, &folders, Absent::Refuse) {
                Ok(staged) => rustix::fs::linkat(&staged, number.to_string(), &folder, name, AtFlags::empty()).map_err(error),
                Err(fault) => Err(fault),
            };
            match linked {
                Ok(()) => {}
                // Published before, by an attempt that was cut off; what was staged may have gone since.
                Err(fault @ (Error::Exists(_) | Error::Missing(_))) => {
                    if !existing(holds(&folder, name, bytes, &sha256))?.unwrap_or(false) {
                        return Err(match fault {
                            Error::Exists(_) => Error::Exists(name.to_owned()),
                            fault => fault,
                        });
                    }
                }
                Err(fault) => return Err(fault),
            }
            rustix::fs::fsync(&folder).map_err(error)
        })
        .await
    }

    /// Takes a publication back: the key goes where it names the very file that was staged. Anything else under it stays.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(super) async fn withdraw(&self, staging: &str, number: usize, key: &Key) -> Result<(), Error> {
        let (root, folders, key) = (self.root.clone(), [STAGING.to_owned(), staging.to_owned()], key.clone());
        blocking(SEAL_TIMEOUT, move || {
            let (inside, name) = key.parts();
            let Some(staged) = existing(walk(&root, &folders, Absent::Refuse))? else { return Ok(()) };
            let Some(folder) = existing(walk(&root, inside, Absent::Refuse))? else { return Ok(()) };
            let look = |folder: &OwnedFd, name: &str| existing(rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(error));
            match (look(&staged, &number.to_string())?, look(&folder, name)?) {
                (Some(staged), Some(present)) if (staged.st_dev, staged.st_ino) == (present.st_dev, present.st_ino) => {
                    existing(rustix::fs::unlinkat(&folder, name, AtFlags::empty()).map_err(error))?;
                    rustix::fs::fsync(&folder).map_err(error)
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// Removes all that was staged under a name; tells how many files went. What is not there is success.
    ///
    /// # Errors
    ///
    /// [`Error`]; some files may be gone then.
    pub(super) async fn remove_staged(&self, staging: &str) -> Result<u64, Error> {
        let (root, staging) = (self.root.clone(), staging.to_owned());
        blocking(SEAL_TIMEOUT, move || {
            let Some(all) = existing(walk(&root, &[STAGING.to_owned()], Absent::Refuse))? else { return Ok(0) };
            let Some(folder) = existing(inside(&all, &staging))? else { return Ok(0) };
            let mut removed = 0;
            for entry in Dir::read_from(&folder).map_err(error)? {
                let entry = entry.map_err(error)?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    existing(rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty()).map_err(error))?;
                    removed += 1;
                }
            }
            existing(rustix::fs::unlinkat(&all, &*staging, AtFlags::REMOVEDIR).map_err(error))?;
            // The folder of all goes with the last; best effort, as another may be staged meanwhile.
            let _ = rustix::fs::open(&root, FOLDER_FLAGS, Mode::empty()).and_then(|root| rustix::fs::unlinkat(root, STAGING, AtFlags::REMOVEDIR));
            Ok(removed)
        })
        .await
    }
}

/// An object that is being written. It is nothing to anybody before it is published.
#[derive(Debug)]
pub(super) struct StagedFile {
    file: File,
    folder: OwnedFd,
    unsynced_bytes: u64,
}

impl StagedFile {
    /// Makes all that was written durable. It blocks.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::from_io)?;
        rustix::fs::fsync(&self.folder).map_err(error)
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.unsynced_bytes += count as u64;
        // The disk is kept at work, so that little is left to be written at the end.
        if self.unsynced_bytes >= UNSYNCED_BYTES {
            self.file.sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What to do where a folder is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// Make it, durably.
    Create,
    /// [`Error::Missing`].
    Refuse,
}

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the folder that lies at the end of `folders` below the root, each by its own name and no link.
fn walk(root: &Path, folders: &[String], absent: Absent) -> Result<OwnedFd, Error> {
    let mut folder = rustix::fs::openat(CWD, root, FOLDER_FLAGS, Mode::empty()).map_err(|errno| match error(errno) {
        Error::Missing(_) => Error::Denied("its root is gone"),
        fault => fault,
    })?;
    for name in folders {
        folder = match inside(&folder, name) {
            Err(Error::Missing(_)) if absent == Absent::Create => {
                match rustix::fs::mkdirat(&folder, name.as_str(), FOLDER_MODE) {
                    Ok(()) => rustix::fs::fsync(&folder).map_err(error)?,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(error(errno)),
                }
                inside(&folder, name)?
            }
            opened => opened?,
        };
    }
    Ok(folder)
}

fn inside(folder: &OwnedFd, name: &str) -> Result<OwnedFd, Error> {
    rustix::fs::openat(folder, name, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty()).map_err(error)
}

/// `None` for what is not there.
fn existing<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Missing(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Opens an object to read it. Anything but a file of its own is refused, and none is waited for.
fn open_object(root: &Path, key: &Key) -> Result<(File, Seen), Error> {
    let (folders, name) = key.parts();
    let folder = walk(root, folders, Absent::Refuse)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&folder, name, flags, Mode::empty()).map_err(error)?);
    if !file.metadata().map_err(Error::from_io)?.is_file() {
        return Err(Error::Exists(name.to_owned()));
    }
    let seen = mark(&file)?;
    Ok((file, seen))
}

fn mark(file: &File) -> Result<Seen, Error> {
    let stat = file.metadata().map_err(Error::from_io)?;
    // The time of the last change is there because whoever writes can set that of the last writing.
    let mark = format!("{}:{}:{}.{}:{}.{}", stat.dev(), stat.ino(), stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
    Ok(Seen { bytes: stat.len(), modified_at: stat.modified().ok().map(Timestamp::from), mark })
}

/// Whether a file holds exactly these bytes.
fn holds(folder: &OwnedFd, name: &str, bytes: u64, sha256: &str) -> Result<bool, Error> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(error)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || u64::try_from(stat.st_size) != Ok(bytes) {
        return Ok(false);
    }
    let file = rustix::fs::openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(error)?;
    let mut file = File::from(file).take(bytes);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; READ_BYTES];
    loop {
        match file.read(&mut piece).map_err(Error::from_io)? {
            0 => break,
            count => context.update(&piece[..count]),
        }
    }
    Ok(hex(context.finish().as_ref()) == sha256)
}

fn error(errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::Missing("the file".to_owned()),
        Errno::EXIST => Error::Exists("the file".to_owned()),
        // So says the system of a link where a folder of its own was wanted.
        Errno::LOOP | Errno::NOTDIR => Error::Denied("a part of the path is a file or a symbolic link"),
        Errno::PERM | Errno::OPNOTSUPP => Error::Denied("the file system does not permit it, or has no hard links"),
        errno => Error::from_io(errno.into()),
    }
}

/// Runs what blocks, within `limit`.
async fn blocking<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match timeout(limit, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(Error::unavailable("the work was interrupted")),
        Err(_) => Err(Error::unavailable(format!("no answer within {} s", limit.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn bucket() -> (tempfile::TempDir, FolderBucket, PathBuf) {
        let around = tempfile::tempdir().unwrap();
        let (root, artifacts) = (around.path().join("exports"), around.path().join("artifacts"));
        std::fs::create_dir(&artifacts).unwrap();
        let bucket = FolderBucket::open(root.clone(), &[&artifacts]).unwrap();
        (around, bucket, root)
    }

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn sha256(bytes: &[u8]) -> String {
        hex(digest::digest(&digest::SHA256, bytes).as_ref())
    }

    async fn stage(bucket: &FolderBucket, staging: &str, number: usize, bytes: &[u8]) {
        let mut staged = bucket.stage(staging, number).await.unwrap();
        staged.write_all(bytes).unwrap();
        staged.finish().unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn an_object_is_whole_or_not_there() {
        let (_around, bucket, root) = bucket();
        let key = key("daily/a.rdb");
        stage(&bucket, "one-1", 0, b"dump").await;
        assert_eq!(bucket.length(&key).await.unwrap(), None);
        bucket.publish("one-1", 0, &key, 4, &sha256(b"dump")).await.unwrap();
        assert_eq!(bucket.length(&key).await.unwrap(), Some(4));
        // Again, by the same and by another that made the same, also when what was staged is gone.
        bucket.publish("one-1", 0, &key, 4, &sha256(b"dump")).await.unwrap();
        stage(&bucket, "two-1", 0, b"dump").await;
        bucket.publish("two-1", 0, &key, 4, &sha256(b"dump")).await.unwrap();
        assert_eq!(bucket.remove_staged("one-1").await.unwrap(), 1);
        bucket.publish("one-1", 0, &key, 4, &sha256(b"dump")).await.unwrap();
        assert_eq!(bucket.remove_staged("two-1").await.unwrap(), 1);
        assert_eq!(bucket.remove_staged("two-1").await.unwrap(), 0);
        assert_eq!((names(&root), names(&root.join("daily"))), (vec!["daily".to_owned()], vec!["a.rdb".to_owned()]));
        assert_eq!(std::fs::read(root.join("daily/a.rdb")).unwrap(), b"dump");
        let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        // Never more than this; the process may be told to give less.
        assert_eq!((mode("daily") & !0o750, mode("daily/a.rdb") & !0o640), (0, 0));
    }

    #[tokio::test]
    async fn an_object_is_read_as_it_was_seen_or_not_at_all() {
        let (_around, bucket, root) = bucket();
        let (object, path) = (key("dump.rdb"), root.join("dump.rdb"));
        assert_eq!(bucket.look(&object).await.unwrap(), None);
        let bytes: Vec<u8> = (0..READ_BYTES + 100).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let seen = bucket.look(&object).await.unwrap().unwrap();
        assert_eq!(seen.bytes, bytes.len() as u64);
        assert!(seen.modified_at.is_some());
        assert_eq!(bucket.read_range(&object, &seen, 0).await.unwrap(), bytes[..READ_BYTES]);
        assert_eq!(bucket.read_range(&object, &seen, READ_BYTES as u64).await.unwrap(), bytes[READ_BYTES..]);
        assert_eq!(bucket.read_range(&object, &seen, seen.bytes).await.unwrap(), b""[..]);
        let differs = async || matches!(bucket.read_range(&object, &seen, 0).await, Err(Error::Corrupt { name, .. }) if name == "dump.rdb");
        // Longer, then as long but another file, then gone.
        std::fs::write(&path, vec![1; bytes.len() + 1]).unwrap();
        assert!(differs().await);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        assert!(differs().await);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(bucket.read_range(&object, &seen, 0).await, Err(Error::Missing(_))));
        // What is no file of its own is not even waited for.
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(bucket.look(&object).await, Err(Error::Exists(_))));
        symlink("/etc/hostname", root.join("link")).unwrap();
        assert!(matches!(bucket.look(&key("link")).await, Err(Error::Denied(_))));
        rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, FILE_MODE, 0).unwrap();
        assert!(matches!(bucket.look(&key("pipe")).await, Err(Error::Exists(_))));
    }

    #[tokio::test]
    async fn nothing_is_replaced_and_only_what_is_ours_is_withdrawn() {
        let (_around, bucket, root) = bucket();
        let (mine, other) = (key("mine"), key("other"));
        std::fs::write(root.join("other"), b"else").unwrap();
        stage(&bucket, "one-1", 0, b"dump").await;
        let refused = bucket.publish("one-1", 0, &other, 4, &sha256(b"dump")).await;
        assert!(matches!(&refused, Err(Error::Exists(name)) if name == "other"), "{refused:?}");
        bucket.publish("one-1", 0, &mine, 4, &sha256(b"dump")).await.unwrap();
        bucket.withdraw("one-1", 0, &other).await.unwrap();
        bucket.withdraw("one-1", 0, &mine).await.unwrap();
        bucket.withdraw("one-1", 0, &mine).await.unwrap();
        bucket.remove_staged("one-1").await.unwrap();
        assert_eq!(names(&root), ["other"]);
        assert_eq!(std::fs::read(root.join("other")).unwrap(), b"else");
        // A late worker finds nothing to publish.
        assert!(matches!(bucket.publish("one-1", 0, &mine, 4, &sha256(b"dump")).await, Err(Error::Missing(_))));
        // What is no object is in the way, too.
        std::fs::create_dir(root.join("folder")).unwrap();
        assert!(matches!(bucket.length(&key("folder")).await, Err(Error::Exists(_))));
        assert!(matches!(bucket.length(&key("other/inside")).await, Err(Error::Denied(_))));
        assert!(matches!(bucket.length(&key(&"n".repeat(300))).await, Err(Error::Denied("a part of its path is too long"))));
    }

    #[tokio::test]
    async fn no_link_leads_out_of_the_root() {
        let (around, bucket, root) = bucket();
        let outside = around.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), b"dump").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink(outside.join("secret"), root.join("file")).unwrap();
        stage(&bucket, "one-1", 0, b"dump").await;
        for text in ["link/a", "link/deeper/a"] {
            assert!(matches!(bucket.length(&key(text)).await, Err(Error::Denied(_))), "{text}");
            assert!(matches!(bucket.publish("one-1", 0, &key(text), 4, &sha256(b"dump")).await, Err(Error::Denied(_))), "{text}");
        }
        // Not even to look whether the bytes are the same.
        assert!(matches!(bucket.publish("one-1", 0, &key("file"), 4, &sha256(b"dump")).await, Err(Error::Exists(_))));
        assert_eq!(names(&outside), ["secret"]);
        bucket.remove_staged("one-1").await.unwrap();
        // Nor is anything staged, or removed, behind one.
        symlink(&outside, root.join(STAGING)).unwrap();
        assert!(matches!(bucket.stage("one-1", 0).await, Err(Error::Denied(_))));
        assert!(matches!(bucket.remove_staged("one-1").await, Err(Error::Denied(_))));
        assert_eq!(std::fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
    }
}
