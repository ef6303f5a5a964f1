//! Changing a token file: one at a time, and whole or not at all.
//!
//! Comments and the order of lines stay as they are. A running service sees the new file within about a second.

use super::{Digest, Entry, FILE_BYTES, TOKENS, Tokens, generate, lines};
use crate::auth::watched::read;
use crate::auth::{Identity, Roles};
use crate::cluster::Timestamp;
use chrono::{SubsecRound, Utc};
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for another change of the same file to end.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// Time between two tries to be the one who changes the file.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Mode of a new file: only its owner reads and writes it.
const MODE: u32 = 0o600;

/// The first lines of a new file.
const HEAD: &str = "\
# Tokens of Redkeep, as SHA-256 digests; the tokens themselves are written down nowhere.
# Lines are made by `redkeep token create` and taken out by `redkeep token revoke`; the service reads the file again when it changes.
#
# digest subject roles created expires
";

/// Why a token file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be used as it is.
    #[error("the token file {0} {1}")]
    File(PathBuf, String),
    /// Something went on changing the file for too long.
    #[error("the token file {0} is being changed by another command; try again when it has ended")]
    Busy(PathBuf),
    /// The file cannot be written.
    #[error("the token file {0} cannot be written: {1}")]
    Write(PathBuf, ErrorKind),
    /// A token like the one named is not there.
    #[error("no token in {0} is meant by that; `redkeep token list` shows them")]
    NoSuchToken(PathBuf),
    /// The digits stand for several tokens.
    #[error("these digits stand for {0} tokens; give more of them")]
    Ambiguous(usize),
    /// There is no room for another one.
    #[error("the file holds {TOKENS} tokens already; revoke some that have expired")]
    Full,
    /// No random bytes.
    #[error("the machine gave no random bytes, so no token was made")]
    Random,
}

/// Which tokens to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of a subject.
    Subject(String),
    /// The one whose digest begins with these hexadecimal digits.
    Id(String),
}

/// Every token of a file, in its order.
///
/// # Errors
///
/// [`EditError::File`] when the file is not there or has a fault.
pub fn list(path: &Path) -> Result<Vec<Entry>, EditError> {
    Ok(load(path)?.1.entries)
}

/// Makes a token and adds it to a file, which is made if it is not there. Returns the token, which nobody can tell later, and
/// its entry. Durable on return.
///
/// # Errors
///
/// [`EditError`], by condition; the file is as it was.
///
/// # Cancel safety
///
/// If dropped, the file is as it was.
pub async fn create(path: &Path, subject: String, roles: Roles, expires_at: Option<Timestamp>) -> Result<(String, Entry), EditError> {
    let _lock = lock(path).await?;
    let (mut text, tokens) = match load(path) {
        Err(EditError::File(..)) if !path.exists() => (HEAD.to_owned(), Tokens::default()),
        loaded => loaded?,
    };
    if tokens.entries.len() >= TOKENS {
        return Err(EditError::Full);
    }
    let token = generate()?;
    let identity = Arc::new(Identity { subject, roles });
    // The file keeps whole seconds.
    let entry = Entry { digest: Digest::of(&token), identity, created_at: Utc::now().trunc_subsecs(0), expires_at: expires_at.map(|at| at.trunc_subsecs(0)) };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&entry.line());
    text.push('\n');
    replace(path, &text)?;
    Ok((token, entry))
}

/// Takes tokens out of a file. Returns their entries; they are refused as soon as the service has read the file again, within
/// about a second. Durable on return.
///
/// # Errors
///
/// [`EditError`], by condition; the file is as it was.
///
/// # Cancel safety
///
/// If dropped, the file is as it was.
pub async fn revoke(path: &Path, which: &Which) -> Result<Vec<Entry>, EditError> {
    let _lock = lock(path).await?;
    let (text, tokens) = load(path)?;
    let is_meant = |entry: &Entry| match which {
        Which::Subject(subject) => entry.identity.subject == *subject,
        Which::Id(digits) => entry.digest.hex().starts_with(&digits.to_ascii_lowercase()),
    };
    // Lines and entries stand in the same order.
    let numbers: Vec<usize> = lines(&text).zip(&tokens.entries).filter(|(_, entry)| is_meant(entry)).map(|((number, _), _)| number).collect();
    match (which, numbers.len()) {
        (_, 0) => return Err(EditError::NoSuchToken(path.to_owned())),
        (Which::Id(_), count @ 2..) => return Err(EditError::Ambiguous(count)),
        (Which::Id(_) | Which::Subject(_), _) => {}
    }
    let kept: String = (1..).zip(text.split_inclusive('\n')).filter(|(number, _)| !numbers.contains(number)).map(|(_, line)| line).collect();
    replace(path, &kept)?;
    Ok(tokens.entries.into_iter().filter(is_meant).collect())
}

fn load(path: &Path) -> Result<(String, Tokens), EditError> {
    let fault = |what| EditError::File(path.to_owned(), what);
    let text = read(path, FILE_BYTES).map_err(fault)?;
    let tokens = Tokens::read(&text).map_err(fault)?;
    Ok((text, tokens))
}

/// The folder of the file itself, links followed.
fn place(path: &Path) -> (PathBuf, PathBuf) {
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    (file, folder)
}

/// Keeps other changes out until the value is dropped. The folder is locked, because the file itself is replaced.
async fn lock(path: &Path) -> Result<File, EditError> {
    let folder = File::open(place(path).1).map_err(|fault| EditError::Write(path.to_owned(), fault.kind()))?;
    let begun_at = Instant::now();
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::Error(fault)) => return Err(EditError::Write(path.to_owned(), fault.kind())),
            Err(TryLockError::WouldBlock) if begun_at.elapsed() > LOCK_LIMIT => return Err(EditError::Busy(path.to_owned())),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
        }
    }
}

/// Puts a new content in the place of a file, whole or not at all. An old file's owner and mode stay.
fn replace(path: &Path, text: &str) -> Result<(), EditError> {
    if text.len() as u64 > FILE_BYTES {
        return Err(EditError::File(path.to_owned(), format!("would have more than {FILE_BYTES} bytes")));
    }
    let (file, folder) = place(path);
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let write = || -> std::io::Result<()> {
        // One that a killed command left behind; the lock says that no other command is at work.
        match std::fs::remove_file(&new) {
            Err(fault) if fault.kind() != ErrorKind::NotFound => return Err(fault),
            _ => {}
        }
        let mut to = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
        if let Ok(old) = std::fs::metadata(&file) {
            let mine = to.metadata()?;
            if (old.uid(), old.gid()) != (mine.uid(), mine.gid()) {
                // Else the service, which may run as another user, could not read it any more.
                fchown(&to, Some(old.uid()), Some(old.gid()))?;
            }
            to.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        }
        to.write_all(text.as_bytes())?;
        to.sync_all()?;
        std::fs::rename(&new, &file)?;
        File::open(&folder)?.sync_all()
    };
    write().map_err(|fault| {
        // Best effort: the next change removes it otherwise.
        let _ = std::fs::remove_file(&new);
        EditError::Write(path.to_owned(), fault.kind())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn roles() -> Roles {
        Roles::read([("shop", "editor")]).unwrap()
    }

    #[tokio::test]
    async fn tokens_come_and_go_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        assert!(matches!(list(&path), Err(EditError::File(..))));
        assert!(matches!(revoke(&path, &Which::Subject("alice".into())).await, Err(EditError::File(..))));
        let (token, first) = create(&path, "alice".into(), roles(), None).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "# a remark, and no line feed at the end").unwrap();
        let (_, second) = create(&path, "bob".into(), roles(), Some("2030-01-01T00:00:00.5Z".parse().unwrap())).await.unwrap();
        create(&path, "alice".into(), roles(), None).await.unwrap();

        let listed = list(&path).unwrap();
        assert_eq!((listed.len(), &listed[0], &listed[1]), (3, &first, &second));
        assert_eq!(first.digest, Digest::of(&token));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&token) && text.starts_with("# Tokens of Redkeep"), "{text}");

        assert!(matches!(revoke(&path, &Which::Id("00000000".into())).await, Err(EditError::NoSuchToken(_))));
        assert!(matches!(revoke(&path, &Which::Id(String::new())).await, Err(EditError::Ambiguous(3))));
        assert_eq!(revoke(&path, &Which::Id(second.id().to_ascii_uppercase())).await.unwrap(), [second]);
        assert_eq!(revoke(&path, &Which::Subject("alice".into())).await.unwrap().len(), 2);
        assert!(list(&path).unwrap().is_empty());
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("# a remark, and no line feed at the end\n"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[tokio::test]
    async fn many_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let mut made = tokio::task::JoinSet::new();
        for number in 0..20 {
            let path = path.clone();
            made.spawn(async move { create(&path, format!("subject{number}"), roles(), None).await.map(drop) });
        }
        made.join_all().await.into_iter().for_each(|outcome| outcome.unwrap());
        assert_eq!(list(&path).unwrap().len(), 20);
    }

    #[tokio::test]
    async fn links_modes_and_faults_are_respected() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("tokens"), folder.path().join("link"));
        std::os::unix::fs::symlink("tokens", &link).unwrap();
        create(&path, "alice".into(), roles(), None).await.unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        create(&link, "bob".into(), roles(), None).await.unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((list(&path).unwrap().len(), std::fs::metadata(&path).unwrap().mode() & 0o7777), (2, 0o640));

        std::fs::write(&path, "nonsense").unwrap();
        let fault = create(&path, "carol".into(), roles(), None).await.unwrap_err();
        assert!(fault.to_string().contains("line 1"), "{fault}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense");
        assert!(matches!(create(&folder.path().join("no/tokens"), "a".into(), roles(), None).await, Err(EditError::Write(_, ErrorKind::NotFound))));
    }
}
