//! The dump that a server loads at its start, as it is written: whole and durable under its name, or not there.

use super::Error;
use std::path::{Path, PathBuf};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

/// Its name.
pub(super) const DUMP: &str = "dump.rdb";

/// Its name while it is written.
const PART: &str = "dump.rdb.part";

/// A dump that is being written.
#[derive(Debug)]
pub struct DumpFile {
    file: File,
    folder: PathBuf,
}

impl DumpFile {
    pub(super) async fn create(folder: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join(PART)).await;
        Ok(Self { file: file.map_err(|fault| Error::file(PART, fault))?, folder: folder.to_owned() })
    }

    /// Adds bytes.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).await.map_err(|fault| Error::file(PART, fault))
    }

    /// Gives it its name. It is durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub async fn finish(mut self) -> Result<(), Error> {
        let failed = |fault| Error::file(DUMP, fault);
        self.file.flush().await.map_err(failed)?;
        self.file.sync_all().await.map_err(failed)?;
        tokio::fs::rename(self.folder.join(PART), self.folder.join(DUMP)).await.map_err(failed)?;
        let folder = File::open(&self.folder).await.map_err(failed)?;
        folder.sync_all().await.map_err(failed)
    }
}
