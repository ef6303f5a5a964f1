//! A file that is read again when it changes. A new content that cannot be used changes nothing but the log.
//!
//! Owns when a file counts as changed, and what its mode may be. Knows nothing of what is in it.

use arc_swap::ArcSwap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A file changed so lately may change again within one tick of its clock, so it is read once more.
const SETTLED: Duration = Duration::from_secs(2);

/// Bits of a mode by which others than the owner could write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Reads a content: the value, or what is wrong with it, in one line without anything secret.
type Parse<T> = fn(&str) -> Result<T, String>;

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What the last look found.
#[derive(Debug)]
struct Seen {
    /// The content that was read; `None` when it has to be read again in any case.
    stamp: Option<Stamp>,
    /// What was wrong, and is in the log already.
    fault: Option<String>,
}

/// A file, its latest usable content as a value, and the way to read it again.
pub(super) struct Watched<T> {
    path: PathBuf,
    most_bytes: u64,
    parse: Parse<T>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the file for the first time. Nothing is watched before [`Watched::watch`].
    ///
    /// # Errors
    ///
    /// What is wrong with the file, in words that follow its name.
    pub(super) fn open(path: &Path, most_bytes: u64, parse: Parse<T>) -> Result<Arc<Self>, String> {
        let (text, stamp) = read_stamped(path, most_bytes)?;
        let current = ArcSwap::from_pointee(parse(&text)?);
        let seen = Mutex::new(Seen { stamp, fault: None });
        Ok(Arc::new(Self { path: path.to_owned(), most_bytes, parse, current, seen }))
    }

    /// Looks at the file every second from now on, until the value is dropped. Must be called inside the runtime.
    pub(super) fn watch(self: &Arc<Self>) {
        let watched: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let Some(watched) = watched.upgrade() else { return };
                // A file system may be slow to answer; a look that fails is followed by the next.
                let _ = tokio::task::spawn_blocking(move || watched.look()).await;
            }
        });
    }

    /// The latest usable content.
    pub(super) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the file again if it has changed.
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if stamp.is_some() && stamp == seen.stamp {
            return;
        }
        let outcome = read_stamped(&self.path, self.most_bytes).and_then(|(text, stamp)| {
            // A content that cannot be used is not read over and over.
            seen.stamp = stamp;
            (self.parse)(&text)
        });
        match outcome {
            Ok(value) => {
                self.current.store(Arc::new(value));
                if seen.fault.take().is_some() {
                    tracing::info!(file = %self.path.display(), "the file can be used again");
                }
            }
            Err(fault) => {
                if seen.fault.as_ref() != Some(&fault) {
                    tracing::error!(file = %self.path.display(), "the file {fault}; what it said before goes on counting");
                    seen.fault = Some(fault);
                }
            }
        }
    }
}

/// Reads a file that only its owner can write.
///
/// # Errors
///
/// What is wrong with the file, in words that follow its name.
pub(super) fn read(path: &Path, most_bytes: u64) -> Result<String, String> {
    read_stamped(path, most_bytes).map(|(text, _)| text)
}

/// As [`read`]. The stamp is absent when it could come to stand for another content, too.
fn read_stamped(path: &Path, most_bytes: u64) -> Result<(String, Option<Stamp>), String> {
    let cannot = |fault: std::io::Error| format!("cannot be read: {}", fault.kind());
    // Asked before it is opened: the opening of a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is no file".to_owned());
    }
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(format!("has the mode {:o}, so others than its owner can change it; run chmod go-w on it", metadata.mode() & 0o7777));
    }
    let mut text = String::new();
    file.take(most_bytes + 1).read_to_string(&mut text).map_err(|fault| match fault.kind() {
        std::io::ErrorKind::InvalidData => "is no UTF-8 text".to_owned(),
        _ => cannot(fault),
    })?;
    if text.len() as u64 > most_bytes {
        return Err(format!("has more than {most_bytes} bytes"));
    }
    let settled = metadata.modified().is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > SETTLED));
    Ok((text, settled.then(|| Stamp::of(&metadata))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn number(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_| "has no number in line 1".to_owned())
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        write(&path, "1", 0o600);
        let watched = Watched::open(&path, 100, number).unwrap();
        assert_eq!(*watched.current(), 1);
        for (text, mode, expected) in [("2", 0o644, 2), ("two", 0o600, 2), ("3", 0o600, 3), ("4", 0o620, 3), (&"5".repeat(101), 0o600, 3), ("6", 0o600, 6)] {
            write(&path, text, mode);
            watched.look();
            assert_eq!(*watched.current(), expected, "{text}");
        }
        fs::remove_file(&path).unwrap();
        watched.look();
        assert_eq!(*watched.current(), 6);
        // Another file of the same length, in its place.
        write(&folder.path().join("new"), "7", 0o600);
        fs::rename(folder.path().join("new"), &path).unwrap();
        watched.look();
        assert_eq!((*watched.current(), watched.seen.lock().unwrap().fault.clone()), (7, None));
    }

    #[test]
    fn what_others_can_change_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        for (mode, fault) in [(0o600, None), (0o644, None), (0o660, Some("mode 660")), (0o602, Some("mode 602"))] {
            write(&path, "1", mode);
            let told = Watched::open(&path, 100, number).err();
            assert_eq!(told.is_some(), fault.is_some(), "{mode:o}");
            assert!(told.unwrap_or_default().contains(fault.unwrap_or_default()), "{mode:o}");
        }
        for (path, fault) in [(folder.path(), "is no file"), (&folder.path().join("nothing"), "cannot be read: entity not found")] {
            assert_eq!(Watched::open(path, 100, number).err().as_deref(), Some(fault));
        }
    }
}
