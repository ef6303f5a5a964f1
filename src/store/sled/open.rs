//! The folder of the store: who may open it, on what it may lie, and what must be on disk before anyone reads from it.

use super::rows::tree_error;
use crate::store::Error;
use ::sled::Db;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Our own lock: it is taken before anything in the folder is touched.
const LOCK_FILE: &str = "redkeep.lock";

/// Memory for pages that were read, in bytes.
const CACHE_BYTES: u64 = 16 << 20;

/// Size of a segment of the log, in bytes. It is fixed for the life of a store.
///
/// A leaf of the tree that is longer than a quarter of a segment would be put into a file of its own, which the crate
/// never syncs: a power cut could lose it, and what it held, without a word. A leaf has at most 20 rows (it is split above
/// 16, and takes in at most 3 of a neighbour), so with values of at most 64 KiB it stays below 2 MiB.
const SEGMENT_BYTES: usize = 8 << 20;

/// How long the files of a store that was closed a moment ago may still be held by threads and forked children of this process.
const RELEASE_WAIT: Duration = Duration::from_secs(5);

/// How long another may hold the folder's lock before it counts as held: a program that is being started by a process that was
/// killed with the store open keeps a copy of the lock's descriptor until it runs.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// Time between two tries within these waits.
const RELEASE_STEP: Duration = Duration::from_millis(5);

/// What to do when there is no store in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Begin a new one.
    Create,
    /// Refuse.
    Refuse,
}

/// An open store on disk. The fields are dropped in this order, so the lock goes last.
pub(super) struct Disk {
    /// The tree of all rows is its default one.
    pub db: Db,
    /// Our own descriptor of its log, for syncing.
    pub log: File,
    pub(super) _lock: Lock,
}

impl Disk {
    /// Opens the store in a folder. All that is read from it afterwards is durable.
    pub(super) fn open(path: &Path, absent: Absent) -> Result<Self, Error> {
        let made = match absent {
            Absent::Create => create_folders(path).map_err(|error| fault("creating the store folder", path, &error))?,
            Absent::Refuse if path.join("db").is_file() => Vec::new(),
            Absent::Refuse => return Err(Error::Unavailable(format!("there is no store in the folder {}", path.display()))),
        };
        let lock = Lock::take(path)?;
        check_file_system(path)?;
        remove_stale(path).map_err(|error| fault("removing stale files", path, &error))?;
        let db = open_tree(path)?;
        sync_files(path).map_err(|error| fault("syncing the files", path, &error))?;
        for folder in made {
            sync_folder(&folder).map_err(|error| fault("syncing the folder", &folder, &error))?;
        }
        let log = path.join("db");
        let log = OpenOptions::new().write(true).open(&log).map_err(|error| fault("opening the log", &log, &error))?;
        Ok(Self { db, log, _lock: lock })
    }
}

fn fault(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::Unavailable(format!("{doing} {} failed: {error}", path.display()))
}

/// Creates the folder, for this user alone, and tells which folders got a new entry by that.
fn create_folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let changed = path.ancestors().skip(1).map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    let mut parents = Vec::new();
    for parent in changed {
        parents.push(parent.to_owned());
        if parent.is_dir() {
            break;
        }
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    Ok(parents)
}

/// Our hold on the folder.
///
/// It is let go by word. A child process that was forked and has not yet become its program has a copy of every descriptor,
/// and would keep a lock that is merely closed.
pub(super) struct Lock(pub(super) File);

impl Lock {
    fn take(path: &Path) -> Result<Self, Error> {
        let name = path.join(LOCK_FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name).map_err(|error| fault("opening the lock file", &name, &error))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => std::thread::park_timeout(RELEASE_STEP),
                Err(TryLockError::WouldBlock) => return Err(Error::Unavailable(format!("another process holds the store folder {}", path.display()))),
                Err(TryLockError::Error(error)) => return Err(fault("locking", &name, &error)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Best effort: the lock goes with the last copy of its descriptor all the same.
        let _ = self.0.unlock();
    }
}

/// What a kind of file system is good for.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
enum Ground {
    Firm,
    /// Whether syncs and locks hold depends on what is behind it.
    Unknown(&'static str),
    /// Syncs and locks of a file system on the network cannot be relied on.
    Network(&'static str),
}

/// Source: `linux/magic.h` and `statfs(2)`.
#[cfg(target_os = "linux")]
fn ground(path: &Path) -> io::Result<Ground> {
    let magic = rustix::fs::statfs(path)?.f_type;
    // The type of the field differs between architectures; the numbers have 32 bits.
    Ok(match magic as u32 {
        0x6969 => Ground::Network("NFS"),
        0x517B => Ground::Network("SMB"),
        0xFE53_4D42 => Ground::Network("SMB2"),
        0xFF53_4D42 => Ground::Network("CIFS"),
        0x00C3_6400 => Ground::Network("Ceph"),
        0x5346_414F => Ground::Network("AFS"),
        0x7375_7245 => Ground::Network("Coda"),
        0x6573_5546 => Ground::Unknown("FUSE"),
        _ => Ground::Firm,
    })
}

#[cfg(not(target_os = "linux"))]
fn ground(_path: &Path) -> io::Result<Ground> {
    Ok(Ground::Firm)
}

fn check_file_system(path: &Path) -> Result<(), Error> {
    match ground(path).map_err(|error| fault("asking for the file system of", path, &error))? {
        Ground::Firm => Ok(()),
        Ground::Unknown(name) => {
            tracing::warn!(path = %path.display(), file_system = name, "whether the store survives a power cut depends on what is behind this file system");
            Ok(())
        }
        Ground::Network(name) => Err(Error::Unavailable(format!(
            "the store folder {} lies on a network file system ({name}), which cannot be relied on to keep what it acknowledged; use a local disk",
            path.display()
        ))),
    }
}

/// The folders that hold files of the crate. Others, such as `lost+found`, are none of our business.
fn folders(path: &Path) -> [PathBuf; 2] {
    [path.join("blobs"), path.to_owned()]
}

/// The plain files of a folder; none where it does not exist.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    files.push(entry.path());
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(files)
}

/// Removes snapshots that were being written when the process before ended: with one of them no open would succeed.
fn remove_stale(path: &Path) -> io::Result<()> {
    for folder in folders(path) {
        for file in files(&folder)? {
            if file.extension().is_some_and(|extension| extension == "generating") {
                tracing::warn!(path = %file.display(), "removing an unfinished snapshot that the process before left behind");
                fs::remove_file(&file)?;
            }
        }
    }
    Ok(())
}

fn open_tree(path: &Path) -> Result<Db, Error> {
    let config = ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES).segment_size(SEGMENT_BYTES);
    let start = Instant::now();
    loop {
        // The crate asserts much of what it reads.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| Error::Damaged("the files of the embedded store do not hold together: opening them panicked".to_owned()))?;
        match opened {
            Ok(db) => return Ok(db),
            // We hold the folder's lock, so it can only be threads or forked children of our own that have not let go of the log yet.
            Err(::sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") && start.elapsed() < RELEASE_WAIT => {
                std::thread::park_timeout(RELEASE_STEP);
            }
            Err(error) => return Err(tree_error(error)),
        }
    }
}

/// Syncs all that recovery may have written, so that nothing is told that a power cut could take back.
fn sync_files(path: &Path) -> io::Result<()> {
    for folder in folders(path) {
        for file in files(&folder)? {
            match File::open(&file) {
                Ok(file) => file.sync_all()?,
                // The crate removes what it does not need any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        sync_folder(&folder)?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
