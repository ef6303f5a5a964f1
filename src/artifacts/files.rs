//! A root that is a folder of this machine.

use super::{Error, Folder, SEAL_TIMEOUT};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes of an upload that may wait in the memory of the system before the disk is told to begin with them.
const UNWRITTEN_BYTES: u64 = 64 * 1024 * 1024;

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Files {
    objects: Arc<LocalFileSystem>,
    root: PathBuf,
}

impl Files {
    /// Opens the folder, and makes it if it is not there.
    pub(super) fn open(root: PathBuf) -> Result<Self, Error> {
        // Whoever can read a dump has all of the data, so it is for this user alone.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(|fault| match fault.kind() {
            io::ErrorKind::AlreadyExists => Error::Denied("its root is not a folder"),
            _ => Error::from_io(fault),
        })?;
        let objects = Arc::new(LocalFileSystem::new_with_prefix(&root)?.with_fsync(true));
        Ok(Self { objects, root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes that can still be written, where the file system tells.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) async fn create(&self, path: &Key, bytes: &Bytes) -> Result<(), Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        within(self.objects.put_opts(path, PutPayload::from_bytes(bytes.clone()), options)).await.map(drop)
    }

    pub(super) async fn range(&self, path: &Key, range: Range<u64>) -> Result<Bytes, Error> {
        within(self.objects.get_range(path, range)).await
    }

    pub(super) async fn length(&self, path: &Key) -> Result<u64, Error> {
        Ok(within(self.objects.head(path)).await?.size)
    }

    /// Shows every object to `see`; remains of uploads and puts are none.
    pub(super) async fn each(&self, see: &mut (dyn FnMut(&str, u64) -> Result<(), Error> + Send)) -> Result<(), Error> {
        let mut listed = self.objects.list(None);
        while let Some(found) = within(listed.try_next()).await? {
            see(found.location.as_ref(), found.size)?;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, path: &Key) -> Result<(), Error> {
        match within(self.objects.delete(path)).await {
            Ok(()) | Err(Error::Missing(_)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Begins an upload.
    pub(super) async fn upload(&self, path: &Key) -> Result<FileUpload, Error> {
        let upload = within(self.objects.put_multipart(path)).await?;
        Ok(FileUpload { upload, early: Early::new(&self.root.join(path.as_ref())) })
    }

    /// Removes what interrupted uploads and puts left behind directly in the folder; nobody may be writing there.
    ///
    /// # Errors
    ///
    /// [`Error`]; some files may be gone then.
    pub(super) async fn remove_remains(&self, folder: &Folder) -> Result<(), Error> {
        let path = self.root.join(&folder.0);
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
    pub(super) async fn remove_all(&self, folder: &Folder) -> Result<u64, Error> {
        let root = self.root.clone();
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

/// Waits for the file system, and no longer than that.
async fn within<T>(call: impl Future<Output = object_store::Result<T>>) -> Result<T, Error> {
    match timeout(SEAL_TIMEOUT, call).await {
        Ok(result) => result.map_err(Error::from),
        Err(_) => Err(Error::unavailable(format!("no answer within {} s", SEAL_TIMEOUT.as_secs()))),
    }
}

/// An upload to a file that has another name until it is complete.
pub(super) struct FileUpload {
    upload: Box<dyn MultipartUpload>,
    early: Early,
}

impl FileUpload {
    /// Stores the next part.
    pub(super) async fn part(&mut self, bytes: &Bytes) -> Result<(), Error> {
        self.upload.put_part(PutPayload::from_bytes(bytes.clone())).await?;
        self.early.written(bytes.len() as u64);
        Ok(())
    }

    pub(super) async fn complete(&mut self) -> Result<(), Error> {
        within(self.upload.complete()).await.map(drop)
    }

    pub(super) async fn abort(mut self) -> Result<(), Error> {
        within(self.upload.abort()).await
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
