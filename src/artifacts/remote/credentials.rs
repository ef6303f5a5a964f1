//! Credentials that are made anew when their files change, and when a store says that they have had their time.
//!
//! The library knows where the environment and the machine keep credentials, and renews by itself what it fetched. What it
//! does not do is look again: at a file that somebody writes, or after a refusal. So its provider is built again then.

use async_trait::async_trait;
use object_store::CredentialProvider;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often files with credentials are looked at, at most.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Longest file with a credential, in bytes.
const FILE_BYTES: u64 = 64 * 1024;

/// What can be told of a file without reading it: another of it, other credentials.
type Stamp = Option<(i64, i64, u64, u64)>;

type Provider<C> = Arc<dyn CredentialProvider<Credential = C>>;

/// Makes the library's provider from what the files hold.
type Make<C> = Box<dyn Fn() -> object_store::Result<Provider<C>> + Send + Sync>;

/// Credentials of one kind.
pub(super) struct Renewed<C> {
    make: Make<C>,
    files: Vec<PathBuf>,
    state: Mutex<State<C>>,
}

struct State<C> {
    provider: Option<Provider<C>>,
    stamps: Vec<Stamp>,
    looked: Option<Instant>,
}

impl<C> fmt::Debug for Renewed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> Renewed<C> {
    pub(super) fn new(files: Vec<PathBuf>, make: impl Fn() -> object_store::Result<Provider<C>> + Send + Sync + 'static) -> Arc<Self> {
        let state = Mutex::new(State { provider: None, stamps: Vec::new(), looked: None });
        Arc::new(Self { make: Box::new(make), files, state })
    }

    /// Forgets what is kept, so that the next request asks anew.
    pub(super) fn renew(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).provider = None;
    }

    fn provider(&self) -> object_store::Result<Provider<C>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.looked.is_none_or(|looked| now - looked >= LOOK_PERIOD) {
            state.looked = Some(now);
            let stamps: Vec<Stamp> = self.files.iter().map(|file| stamp(file)).collect();
            if stamps != state.stamps {
                state.stamps = stamps;
                state.provider = None;
            }
        }
        match &state.provider {
            Some(provider) => Ok(Arc::clone(provider)),
            None => {
                let provider = (self.make)()?;
                state.provider = Some(Arc::clone(&provider));
                Ok(provider)
            }
        }
    }
}

#[async_trait]
impl<C: Send + Sync + fmt::Debug + 'static> CredentialProvider for Renewed<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        self.provider()?.get_credential().await
    }
}

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.len()))
}

/// A file with a credential that cannot be used. It names the file and nothing of its content.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub(super) struct BadFile {
    file: PathBuf,
    what: String,
}

impl From<BadFile> for object_store::Error {
    fn from(fault: BadFile) -> Self {
        Self::Generic { store: "credentials", source: Box::new(fault) }
    }
}

/// Reads a credential: the text of a file without the blanks around it.
pub(super) fn read(file: &Path) -> Result<String, BadFile> {
    read_or_none(file)?.ok_or_else(|| BadFile { file: file.to_owned(), what: "it is empty".to_owned() })
}

/// As [`read`]; `None` for an empty file.
pub(super) fn read_or_none(file: &Path) -> Result<Option<String>, BadFile> {
    let bad = |what: String| BadFile { file: file.to_owned(), what };
    let opened = std::fs::File::open(file).map_err(|fault| bad(fault.kind().to_string()))?;
    let mut text = String::new();
    opened.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(|fault| bad(fault.kind().to_string()))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(bad(format!("it has more than {FILE_BYTES} bytes")));
    }
    Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::StaticCredentialProvider;

    #[tokio::test]
    async fn credentials_are_read_again_when_they_change_or_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "one\n").unwrap();
        let path = file.clone();
        let renewed = Renewed::new(vec![file.clone()], move || Ok(Arc::new(StaticCredentialProvider::new(read(&path)?)) as Provider<String>));
        assert_eq!(*renewed.get_credential().await.unwrap(), "one");
        std::fs::write(&file, "two\n").unwrap();
        // Not looked at again so soon, unless it is asked for.
        assert_eq!(*renewed.get_credential().await.unwrap(), "one");
        renewed.renew();
        assert_eq!(*renewed.get_credential().await.unwrap(), "two");
        std::fs::write(&file, "three").unwrap();
        renewed.state.lock().unwrap().looked = None;
        assert_eq!(*renewed.get_credential().await.unwrap(), "three");
        std::fs::remove_file(&file).unwrap();
        renewed.renew();
        let fault = renewed.get_credential().await.unwrap_err();
        assert!(fault.to_string().contains("token: entity not found"), "{fault}");
    }
}
