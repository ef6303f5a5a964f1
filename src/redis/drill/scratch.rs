//! A folder for one throw-away server: private, and gone with whoever made it.
//!
//! ```text
//! <root>/lock                  held while a folder is made or what the dead have left is swept
//! <root>/d<8 digits>/lock      held as long as the process that made the folder needs it
//! <root>/d<8 digits>/...       the dump, the server's socket and its log
//! ```
//!
//! Nothing is left when we end, however that happens. As long as the folder is needed a shell waits at the other end of a pipe;
//! when the pipe closes, by our word or because we were killed, it ends every process that works in the folder and removes the
//! folder. What this misses, because there is no shell or the machine went down, the next [`Scratch::create`] or [`sweep`]
//! finds: a folder whose lock nobody holds.
//!
//! Only processes whose working folder is ours are ever ended, and that is asked right before.

use crate::redis::machine;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest path of a root, in bytes: the path of a socket below it has to fit into the 107 bytes that a system allows.
pub const ROOT_BYTES: usize = 80;

/// Most folders that one sweep looks at.
const FOLDERS: usize = 1024;

/// How long a lock may still be held for a process that is gone: a program that was being started keeps a copy of the descriptor
/// until it runs.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// How long a process that was killed may take to be gone.
const END_WAIT: Duration = Duration::from_secs(2);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Name of a lock.
const LOCK: &str = "lock";

/// What the names of folders begin with.
const PREFIX: &str = "d";

/// Waits for the pipe to close, ends who works in the folder, and removes the folder.
const KEEPER: &str = r#"read -r _
for process in /proc/[0-9]*; do
  [ "$(readlink "$process/cwd" 2>/dev/null)" = "$1" ] && kill -9 "${process#/proc/}" 2>/dev/null
done
rm -rf -- "$1""#;

/// A folder for one purpose of this process. It goes when this value is dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    lock: File,
    keeper: Option<Child>,
}

impl Scratch {
    /// Makes a folder below `root`, which is made too, and sweeps what the dead have left there. It blocks.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn create(root: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let root = fs::canonicalize(root)?;
        if root.as_os_str().as_bytes().len() > ROOT_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, format!("its path has more than {ROOT_BYTES} bytes")));
        }
        let turn = lock_file(&root)?;
        turn.lock()?;
        sweep_locked(&root, Duration::ZERO);
        let folder = root.join(format!("{PREFIX}{:08x}", rand::random::<u32>()));
        DirBuilder::new().mode(0o700).create(&folder)?;
        let lock = lock_file(&folder)?;
        lock.try_lock().map_err(|fault| match fault {
            TryLockError::Error(fault) => fault,
            TryLockError::WouldBlock => io::ErrorKind::ResourceBusy.into(),
        })?;
        let _ = turn.unlock();
        let keeper = keep(&folder).inspect_err(|fault| tracing::warn!(error = %fault, "no shell can be started that ends a throw-away server with us"));
        Ok(Self { folder, lock, keeper: keeper.ok() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Makes a file in the folder, which only this user can read.
    ///
    /// # Errors
    ///
    /// As the making of any file.
    pub fn file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.folder.join(name))
    }

    /// Bytes that can still be written, where the file system tells.
    pub fn free_bytes(&self) -> Option<u64> {
        machine::free_bytes(&self.folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_processes(&self.folder);
        if let Err(fault) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(error = %fault, "the folder of a throw-away server could not be removed yet");
        }
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.kill());
            drop(keeper.wait());
        }
        let _ = self.lock.unlock();
    }
}

/// Ends what dead processes have left below `root`, and removes their folders. It blocks for seconds at most. Best effort: what
/// stays is found the next time.
pub fn sweep(root: &Path) {
    let Ok(root) = fs::canonicalize(root) else { return };
    let Ok(turn) = lock_file(&root) else { return };
    if turn.lock().is_ok() {
        sweep_locked(&root, LOCK_WAIT);
        let _ = turn.unlock();
    }
}

fn sweep_locked(root: &Path, wait: Duration) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten().take(FOLDERS) {
        let (folder, name) = (entry.path(), entry.file_name());
        let is_ours = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|rest| rest.len() == 8 && u32::from_str_radix(rest, 16).is_ok());
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) || is_held(&folder, wait) {
            continue;
        }
        end_processes(&folder);
        match fs::remove_dir_all(&folder) {
            Ok(()) => tracing::info!(folder = %name.display(), "what a process that ended before its time had left of a throw-away server was removed"),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => tracing::warn!(folder = %name.display(), error = %fault, "what is left of a throw-away server could not be removed"),
        }
    }
}

/// Whether the process that made a folder still needs it.
fn is_held(folder: &Path, wait: Duration) -> bool {
    let Ok(lock) = lock_file(folder) else { return false };
    let since = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if since.elapsed() < wait => std::thread::park_timeout(LOOK),
            Err(TryLockError::WouldBlock) => return true,
            Ok(()) | Err(TryLockError::Error(_)) => return false,
        }
    }
}

fn lock_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join(LOCK))
}

fn keep(folder: &Path) -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", KEEPER, "redkeep-drill"])
        .arg(folder)
        .current_dir("/")
        .env_clear()
        .env("PATH", super::PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What a terminal sends to all of a job is not for it: it has to outlive us.
        .process_group(0)
        .spawn()
}

/// Processes that work in a folder. Where the system does not tell there is none.
fn processes_in(folder: &Path) -> Vec<Pid> {
    let own = rustix::process::getpid();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let processes = entries.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    processes.filter(|pid| *pid != own && works_in(*pid, folder)).collect()
}

fn works_in(pid: Pid, folder: &Path) -> bool {
    fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).is_ok_and(|working| working == folder)
}

/// Ends every process that works in a folder, and waits until they are gone.
fn end_processes(folder: &Path) {
    let since = Instant::now();
    loop {
        let left = processes_in(folder);
        if left.is_empty() || since.elapsed() > END_WAIT {
            return;
        }
        for pid in left {
            if works_in(pid, folder) {
                // It may be gone by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::park_timeout(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Child {
        Command::new("sleep").arg("600").current_dir(folder).stdin(Stdio::null()).spawn().unwrap()
    }

    fn ends(child: &mut Child) -> bool {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(10) {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::park_timeout(LOOK);
        }
        false
    }

    #[test]
    fn nothing_is_left() {
        // Goal: folder and processes go with the value, and others stay. Method: a process in it and one beside it.
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(&root.path().join("inner")).unwrap();
        let folder = scratch.path().to_owned();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(scratch.file("a").unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(scratch.file("a").is_err() && scratch.free_bytes().is_some());
        let (mut inside, mut beside) = (sleeper(&folder), sleeper(root.path()));
        drop(scratch);
        assert!(ends(&mut inside) && !folder.exists());
        assert!(beside.try_wait().unwrap().is_none());
        beside.kill().unwrap();
        beside.wait().unwrap();
    }

    #[test]
    fn what_the_dead_have_left_is_swept_and_nothing_else() {
        // Goal: a folder without its owner goes with who works there; one with an owner, and what is not ours, stays.
        let root = tempfile::tempdir().unwrap();
        let held = Scratch::create(root.path()).unwrap();
        let left = fs::canonicalize(root.path()).unwrap().join("d0123abcd");
        let other = root.path().join("data");
        [&left, &other].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let mut stray = sleeper(&left);
        // Reaped at once, so that its end is seen.
        let waited = std::thread::spawn(move || ends(&mut stray));
        sweep(root.path());
        assert!(waited.join().unwrap() && !left.exists());
        assert!(held.path().exists() && other.exists());
        sweep(&root.path().join("nowhere"));
    }

    #[test]
    fn a_pipe_that_closes_ends_it_all() {
        // Goal: what happens when we are killed. Method: the pipe is closed, and nothing else.
        let root = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::create(root.path()).unwrap();
        let mut inside = sleeper(scratch.path());
        let mut keeper = scratch.keeper.take().unwrap();
        drop(keeper.stdin.take());
        assert!(ends(&mut inside) && ends(&mut keeper));
        assert!(!scratch.path().exists());
    }

    #[test]
    fn a_root_that_is_too_deep_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let fault = Scratch::create(&root.path().join("x".repeat(ROOT_BYTES))).unwrap_err();
        assert!(fault.to_string().contains("80 bytes"), "{fault}");
    }
}
